"""What is measured: cases, the systems that run them, their budgets.

Knows nothing of processes or of reports.
"""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from cProfile import Profile
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Literal

Kind = Literal["ours", "peer", "raw"]


class Timer:
    """Wall time, and growth of this process's peak memory, inside its `with` blocks."""

    def __init__(self, profile: Profile | None = None) -> None:
        self.seconds = 0.0
        self.growth = 0
        self.profile = profile
        """What notes the calls of this thread meanwhile, if that is wanted; it costs more than most of them."""

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Count until the block ends."""
        peak = peak_memory()
        start = perf_counter()
        if self.profile is not None:
            self.profile.enable()
        try:
            yield
        finally:
            if self.profile is not None:
                self.profile.disable()
            self.seconds += perf_counter() - start
            self.growth += peak_memory() - peak


def peak_memory() -> int:
    """The most memory this process has had resident so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@dataclass(frozen=True)
class Job:
    """What a runner is given: how much to do, where, and the clock to do it under."""

    items: int
    """How many items to process."""
    directory: Path
    """An empty directory of this runner alone; what `prepare` left in it is there when `measure` starts."""
    timer: Timer = field(default_factory=Timer)
    """Runs only while the measured part does."""
    facts: dict[str, float] = field(default_factory=dict)
    """Anything else worth reporting, by name and unit."""


@dataclass(frozen=True)
class Runner:
    """One system's way to do a case's work."""

    system: str
    """Who does it, as the report says it."""
    measure: Callable[[Job], None]
    """Does the work once, with the measured part under `job.timer`, and checks what came out."""
    prepare: Callable[[Job], None] | None = None
    """Runs once, first, in a process of its own; its directory is kept from one measurement to the next."""
    kind: Kind = "peer"
    """Ours, a peer, or a limit that nothing can beat."""
    needs: tuple[str, ...] = ()
    """Modules without which it is skipped."""
    share: float = 1.0
    """The part of the case's items it gets; below one for systems that would take all day."""
    note: str = ""
    """What a reader must know to compare it fairly."""


@dataclass(frozen=True)
class AtMost:
    """A budget in the case's own unit."""

    limit: float
    """The most that an item may cost."""

    def __str__(self) -> str:
        return f"≤ {self.limit:g}"


@dataclass(frozen=True)
class SpeedOf:
    """A budget relative to another runner of the same case."""

    system: str
    """The runner compared with."""
    ratio: float
    """The least part of its speed to reach."""

    def __str__(self) -> str:
        return f"≥ {self.ratio:.3g} × the speed of {self.system}"


@dataclass(frozen=True)
class Case:
    """Something that costs time, and everybody who can do it."""

    name: str
    """How the command line calls it."""
    title: str
    """What is done, in a sentence."""
    items: int
    """How many items a full measurement processes."""
    quick_items: int
    """The same for `--quick`, which shows that a case runs and measures nothing."""
    runners: tuple[Runner, ...]
    """Who does it."""
    budget: AtMost | SpeedOf | None = None
    """What gristmill may cost."""
    memory: int | None = None
    """Bytes by which gristmill's process may grow."""
    memory_per_item: int | None = None
    """The same for each item."""
    long: bool = False
    """Whether it takes minutes and gigabytes, and is run only when it is named."""
    unit: str = "µs/item"
    """What a figure is; the number is always microseconds for each of the items."""
