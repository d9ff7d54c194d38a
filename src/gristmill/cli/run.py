"""`gristmill run`: maps a pipeline that a module has, and prints what came of it."""

import json
import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np
import typer

from gristmill.cli.pipelines import PipelineCall
from gristmill.engine.mapped import MappedOutput
from gristmill.engine.notes import short_repr
from gristmill.errors import DigestError, GraphError, InputError, MapSpecError
from gristmill.result import MapResult

DONE, FAILED, USAGE = 0, 1, 2


def run(call: PipelineCall, options: Mapping[str, Any], *, as_json: bool) -> int:
    """Map the pipeline, print its outputs and what failed, and return the exit code."""
    try:
        result = call.pipeline.map(call.inputs, **call.options, on_error="continue", **options)
    except (InputError, GraphError, MapSpecError, DigestError) as error:
        typer.echo(f"Error: {error}", err=True)
        return USAGE
    typer.echo(json.dumps(_as_data(result), ensure_ascii=False) if as_json else _as_text(result))
    return FAILED if result.errors else DONE


def _as_text(result: MapResult) -> str:
    stats = result.stats
    lines = [f"{name}: {_shown(result, name)}" for name in result]
    failed = f", {stats.failed} failed, {stats.skipped} skipped" if result.errors else ""
    lines.append(f"run {result.run_id}: {stats.computed} computed, {stats.cached} cached{failed}")
    lines += [f"  {error!r}" for error in result.errors[:10]]
    return "\n".join(lines)


def _shown(result: MapResult, name: str) -> str:
    value = _value(result, name)
    if not isinstance(value, MappedOutput):
        return short_repr(value)
    axes = " × ".join(f"{axis}={n}" for axis, n in zip(value.axes, value.extents, strict=True))
    first = (
        f", like {short_repr(value.at(value.space, np.zeros(1, dtype=np.int64))[0])}"
        if value.space.size
        else ""
    )
    return f"{axes}{first}"


def _value(result: MapResult, name: str) -> Any:
    try:
        return result[name]
    except Exception as error:  # noqa: BLE001 - what it needs has failed, which is said below
        return traceback.format_exception_only(error)[0].strip()


def _as_data(result: MapResult) -> dict[str, Any]:
    stats = result.stats
    return {
        "run_id": result.run_id,
        "outputs": {name: _plain(_value(result, name)) for name in result},
        "stats": {
            name: getattr(stats, name) for name in ("computed", "cached", "failed", "skipped", "seconds")
        },
        "errors": [
            {"output": error.output_name, "index": list(error.index), "error": repr(error.error)}
            for error in result.errors
        ],
    }


def _plain(value: Any) -> Any:
    """A value as JSON can hold it; what it cannot is its short repr."""
    if isinstance(value, MappedOutput):
        return _plain(value.tolist())
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else short_repr(value)
