"""What `"auto"` chooses, and why: from what has been measured of a stage's calls so far."""

import math
from collections.abc import Container
from dataclasses import dataclass, replace

from gristmill.engine.batches import BatchSizer
from gristmill.engine.executors.warm import WARM
from gristmill.engine.specs import THREADS, ExecutorSpec, cpu_count
from gristmill.engine.stagerun import StageRun

PROCESS_SECONDS = 0.5
"""Estimated work from which `"auto"` starts processes: they take about this long to come up."""

WARM_SECONDS = 0.05
"""The same where processes of an earlier run wait for work: what is left is a batch of one call, and a few messages. By
the quicker of two batches: a first call that was slow once must not send quick ones to processes."""

THREAD_SECONDS = 0.02
"""Estimated work from which it starts threads."""

WAITING_SHARE = 0.2
"""Share of CPU time in the wall time of calls below which they are taken to wait, so that threads help."""

WAITING_THREADS = 100
"""Threads for calls that do little but wait, where no width was given; for others, as many as `"threaded"` has."""

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


@dataclass(frozen=True, slots=True)
class Choice:
    """What runs the rest of a stage, and why."""

    spec: ExecutorSpec
    reason: str
    """As a person reads it; empty where the user has chosen."""
    is_final: bool = True
    """Whether anything had been measured, if that was needed."""


def decide(
    run: StageRun, width: int | None, known: BatchSizer, left: int, made: Container[ExecutorSpec]
) -> Choice:
    """Choose: coroutines on a loop, calls that wait in threads, and processes once the rest is worth starting them.

    A reduction goes where the map went; so does the last call that is left, which may be one that has killed a process.

    Parameters
    ----------
    run
        The stage.
    width
        How many workers, where that was given.
    known
        What has been measured of its calls, or of other nodes of the same `run`.
    left
        How many calls there still are.
    made
        What runs other stages already.
    """
    parallel = ExecutorSpec("parallel", width)
    alone = Choice(ExecutorSpec("sequential"), "a single call is left", is_final=False)
    is_measured = known.seconds_per_item is not None
    if left < 2 and (run.stage.axes or is_measured) and parallel not in made:
        return alone
    if any(step.node.is_async for step in run.stage.steps):
        return Choice(ExecutorSpec("async", width), "a coroutine function")
    if known.seconds_per_item is not None:
        several = (width or cpu_count()) > 1
        is_warm = len(WARM) > 1 and (known.confirmed or 0.0) * left > WARM_SECONDS
        return _measured(
            known.seconds_per_item,
            known.busy_share,
            left,
            parallel,
            is_there=parallel in made or (is_warm and several),
            worth=PROCESS_SECONDS if several else math.inf,
        )
    if parallel in made:
        return Choice(parallel, "processes run another stage already")
    return alone if left < 2 else replace(alone, reason="nothing has been measured yet")


def _measured(
    seconds: float, share: float | None, left: int, parallel: ExecutorSpec, *, is_there: bool, worth: float
) -> Choice:
    each, work = f"{lasting(seconds)} each, {left:,} left", seconds * left
    if share is not None and share < WAITING_SHARE and work > THREAD_SECONDS:
        threads = parallel.width or (THREADS if share > WAITING_SHARE / 2 else WAITING_THREADS)
        return Choice(ExecutorSpec("threaded", threads), f"calls wait: {share:.0%} CPU of {each}")
    if work > worth:
        return Choice(parallel, f"calls compute: {each}")
    if is_there:
        return Choice(parallel, f"processes run already: {each}")
    return Choice(ExecutorSpec("sequential"), f"starting anything takes longer: {each}")


def lasting(seconds: float) -> str:
    """Return a duration to two digits.

    Examples
    --------
    >>> lasting(0.0512), lasting(2.5e-6), lasting(130), lasting(0)
    ('51 ms', '2.5 µs', '130 s', '0 µs')
    """
    size, unit = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    number = seconds / size
    return f"{number:.0f} {unit}" if number >= 10 or not number else f"{number:.2g} {unit}"
