"""A product of two lists, every pair of scalars a call and a persisted result; what comes back is one dense array."""

from functools import partial
from math import isqrt
from typing import Any, Literal

from benchmarks.case import AtMost, Case, Job, Runner
from benchmarks.functions import multiply

MAPSPEC = "x[i], y[j] -> z[i, j]"


def _sides(items: int) -> dict[str, list[int]]:
    side = isqrt(items)
    return {"x": list(range(side)), "y": list(range(side))}


def _check(found: Any, items: int) -> None:
    side = isqrt(items)
    if found.shape != (side, side) or found[-1, -1] != (side - 1) ** 2:
        raise AssertionError(f"got {found!r} of a product of {side} by {side}")


def _with_gristmill(job: Job) -> None:
    import numpy as np

    from gristmill import Engine, Pipeline, Store, node

    nodes, engine = [node(multiply, output_name="z", mapspec=MAPSPEC)], Engine(map_executor="sequential")
    with Store.temporary() as elsewhere:  # what a first map imports and starts, everybody may have ready
        Pipeline(nodes, store=elsewhere, engine=engine).map(_sides(100))
    with Store(job.directory / "store") as store:
        pipeline = Pipeline(nodes, store=store, engine=engine)
        with job.timer():
            found = np.asarray(pipeline.map(_sides(job.items))["z"])
        _check(found, job.items)


def _with_pipefunc(job: Job, *, storage: Literal["file_array", "dict"], persisted: bool) -> None:
    import numpy as np
    from pipefunc import PipeFunc, Pipeline

    pipeline = Pipeline([PipeFunc(multiply, "z", mapspec=MAPSPEC)])

    def run(items: int, folder: str) -> Any:
        place = job.directory / folder if persisted else None
        found = pipeline.map(
            _sides(items), run_folder=place, storage=storage, parallel=False, show_progress=False
        )
        return np.asarray(found["z"].output)

    run(100, "warm")
    with job.timer():
        found = run(job.items, "run")
    _check(found, job.items)


CASES = (
    Case(
        name="product",
        title="a cold sequential product of two lists of ints",
        items=1_000_000,
        quick_items=2_500,
        budget=AtMost(5.0),
        runners=(
            Runner("gristmill", _with_gristmill, kind="ours"),
            Runner(
                "pipefunc file_array",
                partial(_with_pipefunc, storage="file_array", persisted=True),
                needs=("pipefunc",),
                share=0.04,
            ),
            Runner(
                "pipefunc dict, in memory",
                partial(_with_pipefunc, storage="dict", persisted=False),
                kind="raw",
                needs=("pipefunc",),
                share=0.04,
                note="not persisted",
            ),
        ),
    ),
)
