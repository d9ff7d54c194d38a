"""The same map, as each system writes it. Everything heavy is imported by the process that measures it."""

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from benchmarks import functions
from benchmarks.case import Job

WARM_ITEMS = 200
WORKERS = 2


@dataclass(frozen=True)
class Step:
    """One function of a mapped chain."""

    function: Callable[[Any], Any]
    output: str
    mapspec: str


CHAIN = (
    Step(functions.double, "y", "x[i] -> y[i]"),
    Step(functions.increment, "z", "y[i] -> z[i]"),
    Step(functions.square, "w", "z[i] -> w[i]"),
)
SCALAR = CHAIN[:1]
CONTAINER = (Step(functions.describe, "y", "x[i] -> y[i]"),)


def apply(steps: Iterable[Step], x: int) -> Any:
    """What the chain makes of `x`."""
    return reduce(lambda value, step: step.function(value), steps, x)


def check(found: Any, steps: Iterable[Step], x: int) -> None:
    """Stop where a result is wrong: a fast wrong answer is not worth timing."""
    expected = apply(steps, x)
    if found != expected:
        raise AssertionError(f"at x={x}: got {found!r}, expected {expected!r}")


def with_gristmill(
    job: Job, steps: tuple[Step, ...], executor: Literal["sequential", "parallel"] = "sequential"
) -> None:
    """Map over `range(job.items)`, with the store in the job's directory."""
    from gristmill import Engine, Pipeline, Store, node

    nodes = [node(step.function, output_name=step.output, mapspec=step.mapspec) for step in steps]
    engine = Engine(map_executor=executor, max_workers=WORKERS)
    with Store.temporary() as elsewhere:  # what a first map imports and starts, everybody may have ready
        Pipeline(nodes, store=elsewhere, engine=engine).map({"x": range(WARM_ITEMS)})
    with Store(job.directory / "store") as store:
        pipeline = Pipeline(nodes, store=store, engine=engine)
        with job.timer():
            result = pipeline.map({"x": range(job.items)})
        check(result[steps[-1].output][job.items - 1], steps, job.items - 1)
        job.facts["piped B/item"] = result.stats.bytes_piped / job.items


def worker_peaks() -> dict[int, int]:
    """The most memory that each child process has had resident so far, in bytes; nothing where /proc is not there."""
    peaks = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError, KeyError, ValueError):
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            if int(fields["PPid"]) == os.getpid():
                peaks[int(status.parent.name)] = int(fields["VmHWM"].split()[0]) * 1024
    return peaks


def with_pipefunc(
    job: Job,
    steps: tuple[Step, ...],
    *,
    storage: Literal["file_array", "dict"] = "file_array",
    persisted: bool = True,
    resume: bool = False,
    executor: Any = None,
) -> None:
    """Map with pipefunc, its run folder in the job's directory; in parallel if an executor is given."""
    from pipefunc import PipeFunc, Pipeline

    pipeline = Pipeline([PipeFunc(step.function, step.output, mapspec=step.mapspec) for step in steps])
    options = {
        "storage": storage,
        "parallel": executor is not None,
        "executor": executor,
        "show_progress": False,
    }

    def run(items: int, folder: str, *, again: bool) -> Any:
        place = job.directory / folder if persisted else None
        return pipeline.map({"x": range(items)}, run_folder=place, resume=again, **options)

    for again in (False, resume):  # what a first map imports and starts, everybody may have ready
        run(WARM_ITEMS, "warm", again=again)
    with job.timer():
        results = run(job.items, "run", again=resume)
    check(results[steps[-1].output].output[job.items - 1], steps, job.items - 1)


def with_joblib(job: Job, steps: tuple[Step, ...]) -> None:
    """Call functions cached by joblib.Memory, one item after another."""
    from joblib import Memory

    memory = Memory(job.directory / "memory", verbose=0)
    cached = [memory.cache(step.function) for step in steps]
    with job.timer():
        values = [reduce(lambda value, function: function(value), cached, x) for x in range(job.items)]
    check(values[-1], steps, job.items - 1)


def bare_loop(job: Job, steps: tuple[Step, ...]) -> None:
    """Call the functions and keep nothing."""
    calls = [step.function for step in steps]
    with job.timer():
        for x in range(job.items):
            value: Any = x
            for call in calls:
                value = call(value)
    check(value, steps, job.items - 1)


def warm_loky() -> Any:
    """A loky executor whose workers have imported what they need."""
    from loky import get_reusable_executor

    executor = get_reusable_executor(max_workers=WORKERS, timeout=300)
    list(executor.map(functions.double, range(WARM_ITEMS)))
    return executor
