"""Flow: a stage that takes single elements of another starts with the first of them, not after the last.

So a stage on threads feeds one on processes index by index. What reduces, or runs along axes that calls make, has to
wait for all of it.
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from gristmill.engine.apart import wants_errors
from gristmill.engine.stagerun import StageRun
from gristmill.plan.stage import Constant, Element, Stage
from gristmill.storage.index import MISSING

Array = np.ndarray[Any, Any]

_DUTY = 10
"""What has just looked for elements that are there looks again only after this many times as long."""


def may_flow(stage: Stage, under_way: Mapping[str, StageRun]) -> bool:
    """Return whether a stage can run beside those that make what it reads.

    Parameters
    ----------
    stage
        The stage.
    under_way
        By output, what is not complete of what it reads.
    """
    if stage.is_tree or wants_errors(stage):
        return False
    taken = [a for step in stage.steps for a in step.arguments if not isinstance(a, Constant)]
    return all(
        isinstance(a, Element) and not _made_by(under_way[a.source], a.source)
        for a in taken
        if a.source in under_way
    )


def _made_by(run: StageRun, name: str) -> tuple[str, ...]:
    """The axes of an output that its calls make."""
    return tuple(run.stage.steps[run.step_of(name)].inner)


class Held:
    """The positions of a stage that have not been looked at, because what they take may not be there yet."""

    def __init__(self) -> None:
        self.positions: Array = np.empty(0, dtype=np.int64)
        self._next = 0.0

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def is_due(self) -> bool:
        """Whether it has been long enough since the last look."""
        return time.monotonic() >= self._next

    def hold(self, positions: Array) -> None:
        """Take in more of them."""
        self.positions = np.union1d(self.positions, positions) if len(self.positions) else positions

    def release(self, run: StageRun, under_way: Mapping[str, StageRun]) -> Array:
        """Take out those of which everything is there, or will never be, and return them."""
        if not under_way:
            free, self.positions = self.positions, self.positions[:0]
            return free
        started = time.monotonic()
        there = is_there(run, self.positions, under_way)
        free, self.positions = self.positions[there], self.positions[~there]
        now = time.monotonic()
        self._next = now + _DUTY * (now - started)
        return free


def is_there(run: StageRun, positions: Array, under_way: Mapping[str, StageRun]) -> Array:
    """Mask of the positions whose elements of what is under way are known, or known to be missing."""
    mask = np.ones(len(positions), dtype=bool)
    for name, elements in taken(run, positions, under_way).items():
        maker = under_way[name]
        step = maker.step_of(name)
        mask &= (maker.locators[step][elements] != MISSING) | maker.dead[step][elements]
    return mask


def taken(run: StageRun, positions: Array, names: Mapping[str, object]) -> dict[str, Array]:
    """Return, for each of `names` that a stage takes elements of, which of them it takes at `positions`."""
    arguments = [
        a for step in run.stage.steps for a in step.arguments if isinstance(a, Element) and a.source in names
    ]
    return {a.source: run.elements(a, positions) for a in arguments}
