"""8 MB arrays from two warm workers, beside the same workers writing and hashing the same bytes by hand."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import functions
from benchmarks.case import Case, Job, Runner, SpeedOf
from benchmarks.systems import WORKERS

WARM_ELEMENTS = 2 * WORKERS
RAW = "tofile + xxh3"


def _check(found: Any, x: int) -> None:
    if not np.array_equal(found, functions.element(x)):
        raise AssertionError(f"element {x} is not what the function returned")


def _gristmill(job: Job) -> None:
    from gristmill import Engine, Pipeline, Store, node

    mapped = node(functions.element, output_name="y", mapspec="x[i] -> y[i]")
    with Store(job.directory / "store") as store:
        engine = Engine(map_executor="parallel", max_workers=WORKERS)
        pipeline = Pipeline([mapped], store=store, engine=engine)
        pipeline.map({"x": range(-WARM_ELEMENTS, 0)})
        with job.timer():
            result = pipeline.map({"x": range(job.items)})
        _check(result["y"][job.items - 1], job.items - 1)
        job.facts["piped B/item"] = result.stats.bytes_piped / job.items


def _pipefunc(job: Job) -> None:
    from pipefunc import PipeFunc, Pipeline

    executor = _warm_workers(job, _discard)
    pipeline = Pipeline([PipeFunc(functions.element, "y", mapspec="x[i] -> y[i]")])
    with job.timer():
        pipeline.map(
            {"x": range(job.items)},
            run_folder=job.directory / "run",
            storage="file_array",
            executor=executor,
            return_results=False,
            show_progress=False,
        )


def _joblib(job: Job) -> None:
    from joblib import Memory, Parallel, delayed

    cached = Memory(job.directory / "memory", verbose=0).cache(functions.element)
    with Parallel(n_jobs=WORKERS) as parallel:
        parallel(delayed(cached)(x) for x in range(-WARM_ELEMENTS, 0))
        with job.timer():
            values = parallel(delayed(cached)(x) for x in range(job.items))
    _check(values[-1], job.items - 1)


def _warm_workers(job: Job, task: Callable[[Path, int], object]) -> Any:
    from loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=WORKERS, timeout=300)
    list(executor.map(partial(task, job.directory), range(-WARM_ELEMENTS, 0)))
    return executor


def _bare(job: Job, task: Callable[[Path, int], object]) -> None:
    executor = _warm_workers(job, task)
    with job.timer():
        for _ in executor.map(partial(task, job.directory), range(job.items)):
            pass


def _write(directory: Path, x: int) -> None:
    functions.element(x).tofile(directory / f"{x}.bin")


def _hash_and_write(directory: Path, x: int) -> bytes:
    from xxhash import xxh3_128_digest

    values = functions.element(x)
    values.tofile(directory / f"{x}.bin")
    return xxh3_128_digest(values.data)


def _send(directory: Path, x: int) -> Any:  # noqa: ARG001  the other tasks need the directory
    return functions.element(x)


def _discard(directory: Path, x: int) -> None:  # noqa: ARG001  the other tasks need the directory
    functions.element(x)


CASES = (
    Case(
        name="arrays",
        title=f"8 MB of random float64 per item, {WORKERS} warm workers",
        items=64,
        quick_items=6,
        budget=SpeedOf(RAW, 0.9),
        runners=(
            Runner("gristmill", _gristmill, kind="ours"),
            Runner("pipefunc file_array", _pipefunc, needs=("pipefunc",), note="results not loaded"),
            Runner(
                "joblib.Parallel + Memory", _joblib, needs=("joblib",), note="results come back pickled, too"
            ),
            Runner(RAW, partial(_bare, task=_hash_and_write), kind="raw", note="bare loky workers"),
            Runner("tofile", partial(_bare, task=_write), kind="raw", note="bare loky workers"),
            Runner("pickled back", partial(_bare, task=_send), kind="raw", note="not persisted"),
            Runner("the function alone", partial(_bare, task=_discard), kind="raw", note="not persisted"),
        ),
    ),
)
