"""Active stages: what is queued, under way and waiting of a stage that has started."""

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gristmill.engine.batches import BatchSizer
from gristmill.engine.executors.base import Transport
from gristmill.engine.flow import Held
from gristmill.engine.stagerun import StageRun

Array = np.ndarray[Any, Any]


@dataclass
class Active:
    """A stage that has started."""

    run: StageRun
    transport: Transport | None
    """What runs it; None as long as there is nothing to run."""
    sizer: BatchSizer
    found: int
    pending: deque[Array] = field(default_factory=deque)
    suspects: deque[int] = field(default_factory=deque)
    """Positions that were in a batch whose process died: each is run alone."""
    later: list[Array] = field(default_factory=list)
    """Positions with a call that another position of this stage makes too."""
    waiting: list[Array] = field(default_factory=list)
    """Positions with a call that another process has claimed."""
    deaths: dict[int, int] = field(default_factory=dict)
    held: Held = field(default_factory=Held)
    """Positions that have not been looked at, because what they take may not be there yet."""
    flows: bool = False
    """Whether it has been running beside what makes its arguments: workers have to look for these."""
    is_doubtful: bool = False
    """Whether something may be gone that queued positions take."""
    attempts: dict[tuple[int, int], int] = field(default_factory=dict)
    """How often calls have taken too long in worker processes, by step and position."""
    flying: int = 0
    started: float = field(default_factory=time.perf_counter)

    def queue(self, positions: Array) -> None:
        """Have positions run."""
        if len(positions):
            self.pending.append(positions)

    @property
    def left(self) -> int:
        """How many positions are queued."""
        return sum(map(len, self.pending)) + len(self.suspects)

    @property
    def complete(self) -> bool:
        """Whether nothing of it is left to be done, or under way."""
        return not (
            self.pending or self.suspects or self.later or self.waiting or self.flying or len(self.held)
        )

    @property
    def done(self) -> int:
        """How many positions need nothing more."""
        waiting = sum(map(len, self.later)) + sum(map(len, self.waiting)) + len(self.held)
        return self.run.size - self.left - waiting - self.flying


@dataclass(frozen=True)
class Flight:
    """A batch on its way."""

    active: Active
    positions: Array
    claimed: bytes
    transport: Transport
    is_alone: bool
    """Whether nobody else's death can have ended its process."""
    left: Array
    """Those of which nobody who waits for items has heard."""
    sent: float = field(default_factory=time.monotonic)
