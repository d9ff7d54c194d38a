"""Items: what a map has made at one index, and the line in which those that are done wait to be taken."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.engine.failed import ItemError

Array = np.ndarray[Any, Any]

_OPEN, _READY, _PAST = 0, 1, 2
_STEP = 1 << 14
"""Positions looked at together."""


@dataclass(frozen=True)
class Item:
    """What a map has made at one index."""

    index: tuple[int, ...]
    """Where: one number for each axis; () for what is not mapped."""
    outputs: Mapping[str, Any]
    """Output name to value; None where a call failed."""
    cached: bool
    """Whether no call ran for it: everything was found."""
    seconds: float
    """How long its calls took: an average over the calls that were sent together; 0.0 where none ran."""
    error: ItemError | None = None
    """The failed call because of which a value is missing."""


class Line:
    """The positions of a space, each open, ready to be taken, or past.

    Parameters
    ----------
    size
        How many there are.
    ordered
        Whether one is taken only after all before it, else as they get ready.
    """

    def __init__(self, size: int, *, ordered: bool) -> None:
        self._state = np.zeros(size, dtype=np.uint8)
        self._counts = np.zeros(size, dtype=bool)
        self._ordered = ordered
        self._ready: deque[Array] = deque()
        self._front = 0
        """All positions before it are ready or past."""
        self.takeable = 0
        """How many could be taken now."""
        self.waiting = 0
        """How many are ready of those that count."""

    def open(self, positions: Array | None = None) -> Array:
        """Return those of some positions, or of all, that are neither ready nor past."""
        if positions is None:
            return np.flatnonzero(self._state == _OPEN)
        is_open: Array = self._state[positions] == _OPEN
        return np.asarray(positions[is_open])

    def skip(self, positions: Array) -> None:
        """Have open positions never taken."""
        self._state[positions] = _PAST
        self._advance()

    def add(self, positions: Array, counts: Array) -> None:
        """Have open positions ready; a mask says which of them count."""
        if not len(positions):
            return
        self._state[positions] = _READY
        self._counts[positions] = counts
        self.waiting += int(np.count_nonzero(counts))
        if self._ordered:
            self._advance()
        else:
            self._ready.append(positions)
            self.takeable += len(positions)

    def take(self, most: int) -> Array:
        """Take up to so many positions."""
        if not self._ready:
            return np.empty(0, dtype=np.int64)
        head = self._ready.popleft()
        if len(head) > most:
            self._ready.appendleft(head[most:])
        taken = head[:most]
        self._state[taken] = _PAST
        self.takeable -= len(taken)
        self.waiting -= int(np.count_nonzero(self._counts[taken]))
        return taken

    def _advance(self) -> None:
        """In order: let what has got to the front be taken."""
        while self._ordered and self._front < len(self._state):
            ahead = self._state[self._front : self._front + _STEP]
            is_open = ahead == _OPEN
            known = int(is_open.argmax()) if is_open.any() else len(ahead)
            if not known:
                return
            ready = self._front + np.flatnonzero(ahead[:known] == _READY)
            if len(ready):
                self._ready.append(ready)
                self.takeable += len(ready)
            self._front += known
