"""What commands are told on the command line: a pipeline by its name, and its inputs."""

import ast
import importlib
import json
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gristmill.errors import GristmillError
from gristmill.graph.wording import did_you_mean
from gristmill.pipeline import Pipeline

_NOT_THE_USERS = (__name__, "importlib", "_frozen_importlib")


class UsageError(GristmillError):
    """The command line does not say what it should."""


class PipelineCall:
    """A pipeline and what it is asked for, in the words of the command line.

    Parameters
    ----------
    name
        Module and name.
    inputs
        Words like ``x=[1, 2]``.
    map_over, product
        Inputs that the whole pipeline is mapped over, and whether along an axis each.
    outputs
        What is wanted; all leaves where it is empty.
    store
        Another store than the pipeline's own.

    Raises
    ------
    UsageError
        There is no such pipeline, or a word is of another form.
    """

    def __init__(
        self,
        name: str,
        inputs: Iterable[str],
        map_over: Iterable[str],
        outputs: Iterable[str],
        store: str | None,
        *,
        product: bool,
    ) -> None:
        pipeline = load_pipeline(name)
        self.pipeline = pipeline.with_(store=store) if store is not None else pipeline
        self.inputs = parse_inputs(inputs)
        self.options: dict[str, Any] = {
            "map_over": list(map_over) or None,
            "map_mode": "product" if product else "zip",
            "output_name": list(outputs) or None,
        }


def load_pipeline(name: str) -> Pipeline:
    """Return the pipeline that `name`, like ``jobs.daily:pipeline``, is the module and name of.

    Modules of the working directory are found.

    Raises
    ------
    UsageError
        There is no such module or no such pipeline in it, or the module cannot be imported.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise UsageError(f"expected MODULE:PIPELINE, like jobs:pipeline; found {name!r}")
    found = module = _imported(module_name)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UsageError(
                f"{module_name} has no {attribute!r}{did_you_mean(attribute, _pipelines(module))}"
            )
        found = getattr(found, part)
    if not isinstance(found, Pipeline):
        raise UsageError(f"{name} is a {type(found).__name__}, not a Pipeline")
    return found


def parse_inputs(given: Iterable[str]) -> dict[str, Any]:
    """Return inputs by name from words like ``x=[1, 2]``, with Python literals, or ``x=@file.json``.

    Raises
    ------
    UsageError
        A word is of another form, or a file cannot be read.

    Examples
    --------
    >>> parse_inputs(["x=[1, 2.5]", "name='a'"])
    {'x': [1, 2.5], 'name': 'a'}
    """
    inputs: dict[str, Any] = {}
    for word in given:
        name, sign, text = word.partition("=")
        name = name.strip()
        if not (name and sign):
            raise UsageError(f"--input {word!r}: expected NAME=VALUE, like x=[1,2,3] or x=@values.json")
        if name in inputs:
            raise UsageError(f"--input {name!r} is given twice")
        inputs[name] = _from_file(name, text[1:]) if text.startswith("@") else _literal(name, text)
    return inputs


def _imported(name: str) -> Any:
    here = os.getcwd()  # noqa: PTH109 - sys.path holds strings
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does; the console script's directory is there instead
    try:
        return importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - importing runs the user's code
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            where = f"here ({here}) or among what is installed"
            raise UsageError(f"there is no module {error.name!r} {where}") from None
        raise UsageError(f"{name} cannot be imported:\n{_users_part(error)}") from None


def _users_part(error: Exception) -> str:
    """The traceback, without our frames and those of the import system."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(_NOT_THE_USERS):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def _pipelines(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if isinstance(value, Pipeline)]


def _literal(name: str, text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        word = text.strip()
        quoted = f"""; for text, quote it: --input "{name}='{word}'\"""" if word.isidentifier() else ""
        raise UsageError(
            f"--input {name}={text}: this is no Python literal (a number, quoted text, a list, …){quoted}"
        ) from None


def _from_file(name: str, path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--input {name}: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--input {name}: {path} is not JSON: {error}") from None
