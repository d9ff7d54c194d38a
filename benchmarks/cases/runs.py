"""Single runs of a chain of three nodes, one after the other: what is around the functions."""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.case import AtMost, Case, Job, Runner
from benchmarks.systems import CHAIN, bare_loop, check

VALUES = 20
"""How many inputs there are, each run again and again."""

_LAST = CHAIN[-1].output


def _repeat(job: Job, call: Callable[[int], Any], *, warm: int) -> None:
    """Call `call` as often as there are items, after each value has been seen so often that all is ready."""
    for _ in range(warm):
        for x in range(VALUES):
            call(x)
    with job.timer():
        for k in range(job.items):
            found = call(k % VALUES)
    check(found, CHAIN, (job.items - 1) % VALUES)


def _gristmill(job: Job, *, stored: bool) -> None:
    from gristmill import Pipeline, Store, node

    nodes = [node(step.function, output_name=step.output) for step in CHAIN]
    store = Store(job.directory / "store") if stored else None
    pipeline = Pipeline(nodes, store=store)
    _repeat(job, lambda x: pipeline.run({"x": x})[_LAST], warm=2)


def _pipefunc(job: Job, *, stored: bool) -> None:
    from pipefunc import PipeFunc, Pipeline

    functions: list[Any] = [PipeFunc(step.function, step.output, cache=stored) for step in CHAIN]
    folder = {"cache_dir": str(job.directory / "cache")}
    pipeline = Pipeline(functions, cache_type="disk", cache_kwargs=folder) if stored else Pipeline(functions)
    _repeat(job, lambda x: pipeline.run(_LAST, kwargs={"x": x}), warm=2)


def _joblib(job: Job) -> None:
    from joblib import Memory

    memory = Memory(job.directory / "memory", verbose=0)
    first, second, third = (memory.cache(step.function) for step in CHAIN)
    _repeat(job, lambda x: third(second(first(x))), warm=2)


def _hypernodes(job: Job, *, stored: bool) -> None:
    from hypernodes import DiskCache, Pipeline, SeqEngine, node

    nodes = [node(output_name=step.output)(step.function) for step in CHAIN]
    engine = SeqEngine(cache=DiskCache(path=str(job.directory / "cache"))) if stored else SeqEngine()
    pipeline = Pipeline(nodes=nodes, engine=engine)
    _repeat(job, lambda x: pipeline.run(inputs={"x": x})[_LAST], warm=2)


CASES = (
    Case(
        name="run-hits",
        title="one run of three nodes, all of whose results are in the store",
        items=2_000,
        quick_items=40,
        budget=AtMost(60.0),
        unit="µs/run",
        runners=(
            Runner("gristmill", partial(_gristmill, stored=True), kind="ours"),
            Runner(
                "pipefunc cache_type=disk",
                partial(_pipefunc, stored=True),
                needs=("pipefunc",),
                note="keeps what it has read in memory, and does not look for changed helpers",
            ),
            Runner("joblib.Memory", _joblib, needs=("joblib",), share=0.5),
            Runner(
                "HyperNodes DiskCache", partial(_hypernodes, stored=True), needs=("hypernodes",), share=0.1
            ),
        ),
    ),
    Case(
        name="run",
        title="one run of three nodes, nothing of which is kept",
        items=10_000,
        quick_items=40,
        budget=AtMost(18.0),
        unit="µs/run",
        runners=(
            Runner("gristmill", partial(_gristmill, stored=False), kind="ours"),
            Runner("pipefunc", partial(_pipefunc, stored=False), needs=("pipefunc",)),
            Runner("HyperNodes", partial(_hypernodes, stored=False), needs=("hypernodes",), share=0.1),
            Runner("bare loop", partial(bare_loop, steps=CHAIN), kind="raw"),
        ),
    ),
)
