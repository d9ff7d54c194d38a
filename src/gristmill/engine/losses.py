"""Losses: elements whose bytes are gone, and what was computed and is not found: made again, but not for ever."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gristmill.engine.active import Active
from gristmill.engine.stages import Stages
from gristmill.errors import IntegrityError
from gristmill.plan.inputs import GivenOutput, MappedInput

Array = np.ndarray[Any, Any]

_REPEATS = 10
"""How often an element whose bytes are lost is computed again before the run ends with an error."""

_REBUILD_AFTER = 3
"""How often an element is computed and not found before the ledger's database is suspected."""


class Losses:
    """What had to be made again in one run.

    Parameters
    ----------
    stages
        The stages of the run.
    tell
        Called with the name of an output and the index of an element that is gone.
    """

    def __init__(self, stages: Stages, tell: Callable[[str, tuple[int, ...]], None]) -> None:
        self._stages = stages
        self._tell = tell
        self._repeats: Counter[tuple[str, int]] = Counter()

    def repeat(self, active: Active, positions: Array, *, excused: bool) -> None:
        """Queue what a batch did not complete: its results were taken back, or its bytes are lost again.

        It is `excused` by something that it could not read; how often that may happen is counted there.
        """
        title = active.run.stage.title
        for position in () if excused else positions.tolist():
            self._repeats[title, position] += 1
            if self._repeats[title, position] == _REBUILD_AFTER:
                active.run.rebuild()
            if self._repeats[title, position] > 2 * _REPEATS:
                raise IntegrityError(
                    f"index {active.run.space.index(position)} of {title!r} was computed {2 * _REPEATS} "
                    "times, and is still not in the store; does this disk keep what is written to it?"
                )
        active.queue(positions)

    def is_repeated(self, active: Active, positions: Array) -> bool:
        """Whether any of these calls has been made again before."""
        if not self._repeats:
            return False
        names = (active.run.stage.title, *active.run.stage.outputs)
        return any((name, position) in self._repeats for name in names for position in positions.tolist())

    def recompute(self, lost: Sequence[tuple[str, int]]) -> None:
        """Compute elements of earlier stages again, because their bytes are lost."""
        by_name: dict[str, set[int]] = {}
        for name, position in lost:
            self._repeats[name, position] += 1
            if self._repeats[name, position] > _REPEATS or isinstance(
                self._stages.plan.inputs.get(name), MappedInput
            ):
                raise IntegrityError(
                    f"element {position} of {name!r} cannot be read back, although it was computed and stored "
                    f"{_REPEATS} times; does this disk return what is written to it?"
                )
            by_name.setdefault(name, set()).add(position)
        for name, positions in by_name.items():
            chosen = np.array(sorted(positions))
            if name in self._stages.plan.inputs:
                self._mend(name, chosen)
            else:
                self._take_back(name, chosen)
        for reader in self._stages.active.values() if lost else ():
            reader.is_doubtful = True
            if reader.transport is not None:
                reader.transport.forget(reader.run)

    def _mend(self, name: str, positions: Array) -> None:
        """Have elements of an earlier map computed again, which this one was given by reference."""
        given = self._stages.plan.inputs[name]
        if isinstance(given, GivenOutput):
            for position in positions.tolist():
                self._tell(given.name, given.space.index(position))
            given.output.mend(positions)

    def _take_back(self, name: str, positions: Array) -> None:
        upstream = self._stages.active[self._stages.stage_of(name).number]
        run, step = upstream.run, upstream.run.step_of(name)
        indices = [run.space_of(name).index(position) for position in positions.tolist()]
        output = run.stage.steps[step].outputs.index(name)
        if run.stage.steps[step].inner:
            run.source(name).set_aside(positions)
            positions, output = run.callers(name, positions), 0
        positions, locators = run.forget(step, positions)
        if not len(positions):
            return  # they are being computed again already
        run.storage(step).quarantine(run.indexes[step], locators, output)
        upstream.queue(positions)
        for index in indices:
            self._tell(name, index)
