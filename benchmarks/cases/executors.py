"""Calls that wait and calls that compute, on warm executors: what the engine adds to what the machine has to do.

The seed workloads of this field: many calls that wait, a few nodes side by side, a few calls that compute for long.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.case import AtMost, Case, Job, Runner, SpeedOf
from benchmarks.systems import WORKERS, warm_loky

WAIT = 0.05
LONG_WAIT = 0.1
THREADS = 100
HASHES = 100_000


def wait(x: int) -> int:
    """50 ms of waiting."""
    time.sleep(WAIT)
    return x


async def wait_async(x: int) -> int:
    """The same on an event loop."""
    await asyncio.sleep(WAIT)
    return x


async def wait_longer(x: int) -> int:
    """100 ms of waiting on an event loop."""
    await asyncio.sleep(LONG_WAIT)
    return x


def first(x: int) -> int:
    """One of three nodes side by side: 100 ms of waiting."""
    time.sleep(LONG_WAIT)
    return x


def second(x: int) -> int:
    """Another one."""
    time.sleep(LONG_WAIT)
    return x


def third(x: int) -> int:
    """The last one."""
    time.sleep(LONG_WAIT)
    return x


async def first_async(x: int) -> int:
    """One of three coroutines side by side."""
    await asyncio.sleep(LONG_WAIT)
    return x


async def second_async(x: int) -> int:
    """Another one."""
    await asyncio.sleep(LONG_WAIT)
    return x


async def third_async(x: int) -> int:
    """The last one."""
    await asyncio.sleep(LONG_WAIT)
    return x


def together(first: int, second: int, third: int) -> int:
    """What the three make."""
    return first + second + third


def hashed(x: int) -> str:
    """About 50 ms of computing."""
    value = x.to_bytes(8, "little", signed=True)
    for _ in range(HASHES):
        value = hashlib.sha256(value).digest()
    return value.hex()


def waited_longer(x: int) -> int:
    """100 ms of waiting."""
    time.sleep(LONG_WAIT)
    return x


def _check(values: list[Any], function: Callable[[int], Any], items: int) -> None:
    if len(values) != items or (function is hashed and values[-1] != hashed(items - 1)):
        raise AssertionError(f"{len(values)} of {items} values, the last {values[-1:]}")


def _mapped(job: Job, function: Callable[[int], Any], executor: str) -> None:
    from gristmill import Pipeline, Store, node

    made = node(function, output_name="y", mapspec="x[i] -> y[i]")
    pipeline = Pipeline([made], store=Store(job.directory / "store"))
    pipeline.map({"x": range(-2 * WORKERS, 0)}, map_executor=executor)
    with job.timer():
        result = pipeline.map({"x": range(job.items)}, map_executor=executor)
    _check(list(result["y"]), function, job.items)


def _pipefunc(job: Job, function: Callable[[int], Any], executor: Callable[[], Any]) -> None:
    from pipefunc import PipeFunc, Pipeline

    pipeline = Pipeline([PipeFunc(function, "y", mapspec="x[i] -> y[i]")])
    options = {"executor": executor(), "parallel": True, "storage": "file_array", "show_progress": False}
    pipeline.map({"x": range(-2 * WORKERS, 0)}, run_folder=job.directory / "warm", **options)
    with job.timer():
        results = pipeline.map({"x": range(job.items)}, run_folder=job.directory / "run", **options)
    _check(list(results["y"].output), function, job.items)


def _hypernodes(job: Job, function: Callable[[int], Any]) -> None:
    from hypernodes import Pipeline, SeqEngine, node

    pipeline = Pipeline(nodes=[node(output_name="y")(function)], engine=SeqEngine())
    pipeline.map(inputs={"x": [0]}, map_over="x")
    with job.timer():
        results = pipeline.map(inputs={"x": list(range(job.items))}, map_over="x")
    _check([result["y"] for result in results], function, job.items)


def _joblib(job: Job, function: Callable[[int], Any], backend: str, workers: int) -> None:
    from joblib import Parallel, delayed

    with Parallel(n_jobs=workers, backend=backend) as parallel:
        parallel(delayed(function)(x) for x in range(2 * WORKERS))
        with job.timer():
            values = parallel(delayed(function)(x) for x in range(job.items))
    _check(values, function, job.items)


def _threads() -> Any:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(THREADS)


def _pooled(job: Job, function: Callable[[int], Any], executor: Callable[[], Any]) -> None:
    pool = executor()
    list(pool.map(function, range(2 * WORKERS)))
    with job.timer():
        values = list(pool.map(function, range(job.items)))
    _check(values, function, job.items)


def _gathered(job: Job, function: Callable[[int], Any]) -> None:
    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(function(x) for x in range(job.items)))

    with job.timer():
        values = asyncio.run(all_of_them())
    _check(values, function, job.items)


def _run(job: Job, executor: str, nodes: tuple[Callable[..., Any], ...]) -> None:
    from gristmill import Pipeline, Store, node

    names = ("first", "second", "third")
    made = [node(function, output_name=name) for function, name in zip(nodes, names, strict=True)]
    pipeline = Pipeline([*made, together], store=Store(job.directory / "store"))
    pipeline.run({"x": -1}, node_executor=executor)
    with job.timer():
        values = [pipeline.run({"x": x}, node_executor=executor)["together"] for x in range(job.items)]
    if values != [3 * x for x in range(job.items)]:
        raise AssertionError(values)


def _run_pipefunc(job: Job) -> None:
    from pipefunc import PipeFunc, Pipeline

    pipeline = Pipeline([PipeFunc(function, function.__name__) for function in (*SYNC, together)])
    with job.timer():
        for x in range(job.items):
            pipeline.run("together", kwargs={"x": x})


def _streamed(job: Job) -> None:
    from gristmill import Pipeline, Store, node

    made = node(waited_longer, output_name="y", mapspec="x[i] -> y[i]")
    pipeline = Pipeline([made], store=Store(job.directory / "store"))
    executor = f"parallel:{WORKERS}"
    pipeline.map({"x": range(-2 * WORKERS, 0)}, map_executor=executor)
    with job.timer():
        stream = pipeline.map_stream({"x": range(100)}, map_executor=executor)
        item = next(iter(stream))
    stream.close()
    if item.outputs["y"] != item.index[0]:
        raise AssertionError(item)


def _streamed_joblib(job: Job) -> None:
    from joblib import Parallel, delayed

    with Parallel(n_jobs=WORKERS, return_as="generator_unordered") as parallel:
        list(parallel(delayed(waited_longer)(x) for x in range(WORKERS)))
        with job.timer():
            stream = parallel(delayed(waited_longer)(x) for x in range(100))
            next(stream)
        list(stream)


SYNC = (first, second, third)
COROUTINES = (first_async, second_async, third_async)

CASES = (
    Case(
        name="wait-threads",
        title=f"80 calls that wait for 50 ms, up to {THREADS} threads",
        items=80,
        quick_items=8,
        budget=AtMost(62_000 / 80),
        runners=(
            Runner("gristmill", partial(_mapped, function=wait, executor=f"threaded:{THREADS}"), kind="ours"),
            Runner("pipefunc", partial(_pipefunc, function=wait, executor=_threads), needs=("pipefunc",)),
            Runner(
                "HyperNodes",
                partial(_hypernodes, function=wait),
                needs=("hypernodes",),
                note="one after the other; not persisted",
            ),
            Runner(
                "joblib threading",
                partial(_joblib, function=wait, backend="threading", workers=THREADS),
                needs=("joblib",),
                note="not persisted",
            ),
            Runner(
                "ThreadPoolExecutor",
                partial(_pooled, function=wait, executor=_threads),
                kind="raw",
                note="not persisted",
            ),
        ),
    ),
    Case(
        name="wait-async",
        title="80 coroutines that wait for 50 ms",
        items=80,
        quick_items=8,
        budget=AtMost(62_000 / 80),
        runners=(
            Runner("gristmill", partial(_mapped, function=wait_async, executor="async"), kind="ours"),
            Runner(
                "asyncio.gather", partial(_gathered, function=wait_async), kind="raw", note="not persisted"
            ),
        ),
    ),
    Case(
        name="coroutines",
        title="10,000 coroutines that wait for 100 ms, all at once",
        items=10_000,
        quick_items=100,
        budget=AtMost(1_000_000 / 10_000),
        runners=(
            Runner("gristmill", partial(_mapped, function=wait_longer, executor="async:10000"), kind="ours"),
            Runner(
                "asyncio.gather", partial(_gathered, function=wait_longer), kind="raw", note="not persisted"
            ),
        ),
    ),
    *(
        Case(
            name=f"nodes-{executor}",
            title=f"three nodes of 100 ms side by side and one that combines them, {executor}",
            items=5,
            quick_items=1,
            budget=AtMost(115_000),
            unit="µs/run",
            runners=(
                Runner("gristmill", partial(_run, executor=executor, nodes=nodes), kind="ours"),
                Runner("pipefunc run", _run_pipefunc, needs=("pipefunc",), note="one after the other"),
            ),
        )
        for executor, nodes in (("threaded", SYNC), ("async", COROUTINES), ("parallel:3", SYNC))
    ),
    Case(
        name="compute",
        title=f"20 calls that compute for about 50 ms, {WORKERS} processes",
        items=20,
        quick_items=4,
        budget=SpeedOf("loky map", 0.95),
        runners=(
            Runner(
                "gristmill", partial(_mapped, function=hashed, executor=f"parallel:{WORKERS}"), kind="ours"
            ),
            Runner("pipefunc", partial(_pipefunc, function=hashed, executor=warm_loky), needs=("pipefunc",)),
            Runner(
                "HyperNodes",
                partial(_hypernodes, function=hashed),
                needs=("hypernodes",),
                note="one after the other; not persisted",
            ),
            Runner(
                "joblib loky",
                partial(_joblib, function=hashed, backend="loky", workers=WORKERS),
                needs=("joblib",),
                note="not persisted",
            ),
            Runner(
                "loky map",
                partial(_pooled, function=hashed, executor=warm_loky),
                kind="raw",
                note="not persisted",
            ),
        ),
    ),
    Case(
        name="first-streamed",
        title=f"the first of 100 streamed items of 100 ms, {WORKERS} processes",
        items=1,
        quick_items=1,
        budget=AtMost(300_000),
        unit="µs",
        runners=(
            Runner("gristmill", _streamed, kind="ours"),
            Runner("joblib generator", _streamed_joblib, needs=("joblib",), note="not persisted"),
        ),
    ),
)
