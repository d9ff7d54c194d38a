"""Spread: the elements along axes that calls have made, `x[i] -> y[i, j]`.

A call that makes axes is recorded with their lengths; each element is a record of its own, whose key is the
call's and its place. So they are found, read and passed on like the elements of any other output.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.engine.sources import OutputSource
from gristmill.errors import GristmillError, IntegrityError, RaggedError
from gristmill.identity.keys import element_keys, elements_group
from gristmill.plan.space import Space
from gristmill.storage.index import MISSING

if TYPE_CHECKING:
    from gristmill.engine.stagerun import StageRun

Array = np.ndarray[Any, Any]


class Spread:
    """The elements that the calls of one step of a stage have made.

    Parameters
    ----------
    run, step
        The calls; all of them are made, or have failed.

    Raises
    ------
    RaggedError
        The calls have made axes of different lengths, and the mapspec does not say that they may.
    """

    def __init__(self, run: "StageRun", step: int) -> None:
        self._run = run
        self._step = step
        self._node = run.stage.steps[step].node
        self._inner = run.stage.steps[step].inner
        self._storage = run.storage(step)
        alive, lengths = self._lengths()
        self._sizes = self._filled(alive, lengths)
        self.space = Space.below(run.space, self._inner, self._sizes, self._ragged)
        counts = self._sizes.prod(axis=1)
        self.calls = np.repeat(np.arange(run.size), counts)
        """For each element, the position of its call."""
        self.dead = np.zeros(self.space.size, dtype=bool)
        """Mask of the elements that stand for a failed call."""
        self._sources = [self._source(output) for output in range(len(self._node.output_names))]
        self.find()

    def source(self, output: int) -> OutputSource:
        """Return the elements of one output."""
        return self._sources[output]

    def find(self) -> None:
        """Look the elements up, again where calls were made again.

        Raises
        ------
        GristmillError
            They have not made as many elements as before.
        """
        alive, lengths = self._lengths()
        if (self._sizes[alive] != lengths).any():
            raise GristmillError(
                f"{self._node.name} made another number of elements when it was called again, because stored bytes "
                "were lost; a function that makes axes has to make the same ones each time. Run again"
            )
        made = np.zeros(self._run.size, dtype=bool)
        made[alive] = True
        self.dead[:] = ~made[self.calls]
        there = np.flatnonzero(~self.dead)
        for source in self._sources:
            source.locators[:] = MISSING
            if len(there):
                source.locators[there] = source.index.find(self._keys(there))

    def unsettled(self) -> Array:
        """Return the positions of the calls of which an element is in no ledger."""
        lost = np.zeros(self.space.size, dtype=bool)
        for source in self._sources:
            lost |= source.missing & ~self.dead
        return np.unique(self.calls[lost])

    def _source(self, output: int) -> OutputSource:
        index = self._storage.index(elements_group(self._run.stage.steps[self._step].prefix, output))
        return OutputSource(self._storage, index, np.full(self.space.size, MISSING, dtype=np.int64), output=0)

    def _keys(self, elements: Array) -> bytes:
        used, places = np.unique(self.calls[elements], return_inverse=True)
        keys = np.frombuffer(self._run.keys(self._step, used), dtype="V16")[places]
        along = self.space.coordinates(elements)[len(self._run.space.axes) :]
        return element_keys(keys.tobytes(), np.stack(along, axis=1))

    def _lengths(self) -> tuple[Array, Array]:
        """Return which calls are made, and the lengths of the axes that each of them has made."""
        locators = self._run.locators[self._step]
        alive = np.flatnonzero(locators != MISSING)
        noted = self._storage.forms(self._run.indexes[self._step], locators[alive], 0) if len(alive) else []
        return alive, np.frombuffer(b"".join(noted), dtype="<i8").reshape(len(alive), len(self._inner))

    @property
    def _ragged(self) -> frozenset[str]:
        spec = self._node.mapspec
        return self._run.space.ragged | (spec.ragged if spec else frozenset())

    def _filled(self, alive: Array, lengths: Array) -> Array:
        """The lengths of all calls: a failed one is as long as the others, or has one element that stands for it."""
        dense = [k for k, axis in enumerate(self._inner) if axis not in self._ragged]
        self._check_equal(alive, lengths, dense)
        filled = np.ones((self._run.size, len(self._inner)), dtype=np.int64)
        if len(alive):
            filled[:, dense] = lengths[0, dense]
        filled[alive] = lengths
        return filled

    def _check_equal(self, alive: Array, lengths: Array, dense: list[int]) -> None:
        for k in dense:
            others = np.flatnonzero(lengths[:, k] != lengths[:1, k])
            if not len(others):
                continue
            node, axis = self._node, self._inner[k]
            spec = node.mapspec.outputs[0] if node.mapspec else None
            starred = ", ".join(f"*{one}" if one == axis else str(one) for one in (spec.axes if spec else ()))
            first, other = (self._run.space.index(int(alive[row])) for row in (0, others[0]))
            raise RaggedError(
                f"{node.name} made {lengths[0, k]} elements along {axis!r} at index {first}, and "
                f"{lengths[others[0], k]} at {other}; if lengths may differ, write {node.output_names[0]}[{starred}] "
                "in its mapspec"
            )


def unreadable(run: "StageRun", step: int) -> Array:
    """Return the positions of the calls that are recorded, but whose lengths cannot be read back."""
    locators = run.locators[step]
    calls = OutputSource(run.storage(step), run.indexes[step], locators, output=0)
    alive = np.flatnonzero(locators != MISSING)
    try:
        if len(alive):
            calls.forms(alive)
    except IntegrityError:
        return calls.damaged(alive)
    return alive[:0]
