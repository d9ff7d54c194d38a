"""Levels: call keys in order with where each of them is, for look-ups in any order.

Levels merge as they grow, like a log-structured merge tree (O'Neil et al., 1996). They lie in memory, 24 bytes a
call, or beyond a limit in files, page by page, of which a look-up reads the pages that it needs.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.errors import StoreError
from gristmill.storage.spool import NamelessFile, Spool

Array = np.ndarray[Any, Any]
MISSING = -1

_PAGE_CALLS = 128
_PAGE = np.dtype(
    [(name, kind, _PAGE_CALLS) for name, kind in (("first", "<u8"), ("second", "<u8"), ("at", "<i8"))]
)
"""A page of a level in a file; its end may be empty, which is said by what is missing there."""

_QUERIES = 1 << 12
"""Keys looked up together in a file: their pages are in memory together."""

_RANGE_CALLS = 1 << 15
"""Calls merged together on their way to a file."""


@dataclass(frozen=True, slots=True)
class Level:
    """Keys sorted by their first half, in memory."""

    first: Array
    second: Array
    locators: Array

    @classmethod
    def of(cls, first: Array, second: Array, locators: Array) -> "Level":
        """Sort the halves of keys; of two rows for one key, the one that comes first stays in front."""
        order = np.argsort(first, kind="stable")
        first = first[order]  # one after the other: of each, the old and the new one are there together
        second = second[order]
        locators = locators[order]
        return cls(first, second, locators)

    @classmethod
    def merged(cls, levels: "Sequence[Level]") -> "Level":
        """Return several levels as one, given the oldest first."""
        columns = ("first", "second", "locators")
        return cls.of(*(np.concatenate([getattr(level, name) for level in levels]) for name in columns))

    def __len__(self) -> int:
        return len(self.first)

    def find(self, first: Array, second: Array) -> Array:
        """Return the locators of keys, given in the order of their first halves; missing ones as such."""
        at = np.searchsorted(self.first, first)
        at[at == len(self.first)] = 0
        hit = (self.first[at] == first) & (self.second[at] == second)
        return np.where(hit, self.locators[at], MISSING)

    def between(self, low: int, high: int) -> "Level":
        """Return the keys with first halves from `low` up to `high`, without the latter."""
        start = int(np.searchsorted(self.first, np.uint64(low)))
        stop = int(np.searchsorted(self.first, np.uint64(high - 1), side="right"))
        return Level(self.first[start:stop], self.second[start:stop], self.locators[start:stop])


class PagedLevel:
    """Keys sorted by their first half, in a file; in memory is only with which key each page begins.

    Parameters
    ----------
    levels
        What is in it, the oldest first.
    file
        Where it is.

    Raises
    ------
    OSError
        The disk refuses.
    """

    def __init__(self, levels: "Sequence[Level | PagedLevel]", file: NamelessFile) -> None:
        self._file = file
        self._count = sum(map(len, levels))
        begins = [self._write(part) for part in _ranges(levels, self._count)]
        self._begins = np.concatenate([np.empty(0, dtype=np.uint64), *begins])

    def __len__(self) -> int:
        return self._count

    def find(self, first: Array, second: Array) -> Array:
        """Return the locators of keys, given in the order of their first halves; missing ones as such."""
        found = np.full(len(first), MISSING, dtype=np.int64)
        for start in range(0, len(first), _QUERIES):
            part = slice(start, start + _QUERIES)
            found[part] = self._find(first[part], second[part])
        return found

    def between(self, low: int, high: int) -> Level:
        """Return the keys with first halves from `low` up to `high`, without the latter."""
        start = max(int(np.searchsorted(self._begins, np.uint64(low))) - 1, 0)
        stop = int(np.searchsorted(self._begins, np.uint64(high - 1), side="right"))
        pages = self._pages(start, max(stop - start, 0))
        first, locators = pages["first"].reshape(-1), pages["at"].reshape(-1)
        chosen = (locators != MISSING) & (first >= np.uint64(low)) & (first <= np.uint64(high - 1))
        return Level(first[chosen], pages["second"].reshape(-1)[chosen], locators[chosen])

    def _find(self, first: Array, second: Array) -> Array:
        pages = np.maximum(np.searchsorted(self._begins, first, side="right") - 1, 0)
        needed, rows = np.unique(pages, return_inverse=True)
        width = _PAGE.itemsize
        pages_read = [self._file.read(page * width, width) for page in needed.tolist()]
        table = np.frombuffer(b"".join(pages_read), dtype=_PAGE)
        same = (table["first"][rows] == first[:, None]) & (table["second"][rows] == second[:, None])
        found: Array = np.where(same.any(axis=1), table["at"][rows, same.argmax(axis=1)], MISSING)
        return found

    def _pages(self, start: int, count: int) -> Array:
        return np.frombuffer(self._file.read(start * _PAGE.itemsize, count * _PAGE.itemsize), dtype=_PAGE)

    def _write(self, part: Level) -> Array:
        """Append pages; return with which key each begins."""
        pages = np.zeros(-(-len(part) // _PAGE_CALLS), dtype=_PAGE)
        pages["at"] = MISSING
        for name, column in (("first", part.first), ("second", part.second), ("at", part.locators)):
            filled = pages[name].reshape(-1).copy()
            filled[: len(part)] = column
            pages[name] = filled.reshape(-1, _PAGE_CALLS)
        self._file.append(pages.tobytes())
        return part.first[::_PAGE_CALLS].copy()


class Levels:
    """All levels of one index.

    Parameters
    ----------
    spool
        Gives files; without one, everything is in memory.
    most
        Calls in memory.
    """

    def __init__(self, spool: Spool | None, most: int) -> None:
        self._spool = spool
        self.most = most if spool is not None else 2**62
        """Calls in memory."""
        self._paged: list[PagedLevel] = []
        self._levels: list[Level] = []

    @property
    def in_memory(self) -> int:
        """How many calls are in memory."""
        return sum(map(len, self._levels))

    def clear(self) -> None:
        """Forget everything."""
        self._paged.clear()
        self._levels.clear()

    def add(self, level: Level) -> None:
        """Take in calls that are younger than all others."""
        if not len(level):
            return
        self._levels.append(level)
        while _is_due(self._levels):
            self._levels[-2:] = [Level.merged(self._levels[-2:])]
        if self.in_memory > self.most:
            self._move_out()

    def compact(self) -> None:
        """Merge what is in files, after much has been added: a look-up goes through every level."""
        if self._spool is not None and len(self._paged) > 1:
            with contextlib.suppress(OSError, StoreError):
                self._paged = [PagedLevel(self._paged, self._spool.file())]

    def find(self, keys: Array) -> Array:
        """Return the locators of keys, given as rows of two halves; missing ones as such."""
        order = np.argsort(keys[:, 0])
        first, second = keys[order, 0], keys[order, 1]
        found = np.full(len(order), MISSING, dtype=np.int64)
        levels: list[Level | PagedLevel] = [*self._paged, *self._levels]
        for level in reversed(levels):  # the oldest is first and must win
            here = level.find(first, second)
            found = np.where(here != MISSING, here, found)
        result = np.empty_like(found)
        result[order] = found
        return result

    def _move_out(self) -> None:
        """Move what is in memory to a file, if the disk takes it."""
        if self._spool is None:
            return
        with contextlib.suppress(OSError, StoreError):
            self._paged.append(PagedLevel(self._levels, self._spool.file()))
            self._levels.clear()
            while _is_due(self._paged):
                self._paged[-2:] = [PagedLevel(self._paged[-2:], self._spool.file())]


def _is_due(levels: Sequence[Level] | Sequence[PagedLevel]) -> bool:
    """Whether the last two levels are merged: so that there are few of them, and no call is moved often."""
    return len(levels) > 1 and len(levels[-2]) <= 2 * len(levels[-1])


def _ranges(levels: Sequence[Level | PagedLevel], count: int) -> Iterator[Level]:
    """Yield what is in some levels in order, so many calls at once as fit: keys are spread evenly."""
    parts = count // _RANGE_CALLS + 1
    bounds = [(k << 64) // parts for k in range(parts + 1)]
    for low, high in itertools.pairwise(bounds):
        yield Level.merged([level.between(low, high) for level in levels])
