"""The key index: where in which segment a call key stands.

One `KeyIndex` covers one group (the calls with one call prefix). The usual resume asks for the same keys in the
same order, so a cursor first walks the segments and compares whole blocks of bytes, from one look-up to the next;
what it does not find is looked up in sorted levels, which are made when they are needed first.

A *locator* is an int64: the segment's position in this index, shifted by 32, plus the call's position in the
segment; -1 means missing. Locators are meaningful in one process only.
"""

import itertools
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.errors import IntegrityError
from gristmill.storage.columns import holds_files
from gristmill.storage.levels import MISSING, Level, Levels
from gristmill.storage.segment import KEY_SIZE, Segment, Tombstone, decode_index
from gristmill.storage.spool import Spool

if TYPE_CHECKING:
    from gristmill.storage.ledger import Ledger
    from gristmill.storage.places import Ledgers

__all__ = ["MISSING", "KeyIndex"]

Array = np.ndarray[Any, Any]
_SHIFT = 32
_POSITION = (1 << _SHIFT) - 1
_DIGEST = np.dtype("V16")


class KeyIndex:
    """Look-up of call keys over the segments of one group.

    Parameters
    ----------
    ledger, group
        Whose segments.
    spool
        What holds their keys and digests; memory, unless given.
    most
        Calls that are kept in order in memory; further ones are in files of the spool.
    """

    def __init__(
        self, ledger: "Ledger | Ledgers", group: bytes, spool: Spool | None = None, most: int = 2**62
    ) -> None:
        self._ledger = ledger
        self.group = group
        self._spool = spool
        self._segments: list[Segment] = []
        self._ordinals: dict[int, int] = {}
        self._in_order = (np.empty(0, dtype=np.int64),) * 2
        self._starts: dict[bytes, int] = {}
        self._dead: dict[int, set[int] | None] = {}
        self._tombstones: list[Tombstone] = []
        self._levels = Levels(spool, most)
        self._unsorted: list[int] = []
        self._cursor = (-1, 0)
        self._last: dict[Ledger, int] = {}
        self._outputs: int | None = None
        self._own: set[int] = set()
        self._lock = threading.RLock()
        self._filed: set[int] = set()
        self.damaged: list[int] = []
        """Numbers of segments whose index could not be read: their calls are misses."""

    def expect(self, outputs: int) -> None:
        """Find nothing in segments of another number of outputs: none such was ever appended to this group."""
        with self._lock:
            if self._outputs == outputs:
                return
            self._outputs = outputs
            foreign = [k for k, segment in enumerate(self._segments) if len(segment.codecs) != outputs]
            if foreign:
                self._dead.update(dict.fromkeys(foreign))
                self._start_again()

    def __len__(self) -> int:
        return sum(segment.count for segment in self._segments)

    def refresh(self) -> bool:
        """Take in what any process has appended since; return whether what this one has appended is among it."""
        with self._lock:
            for ledger in self._ledger.parts:
                for number, body in ledger.scan(self.group, self._last.get(ledger, 0)):
                    self._take_in(ledger, number, body)
            return not self._own

    def add(self, segment: Segment) -> None:
        """Take in a segment that this process has just appended."""
        with self._lock:
            if segment.number not in self._ordinals:  # else a refresh was faster
                self._own.add(segment.number)
                self._admit(segment)

    def rename(self, number: int, to: int) -> None:
        """Know a segment by its number in the store, where it has been moved to; its old one still means it."""
        with self._lock:
            ordinal = self._ordinals.get(number)
            if ordinal is not None and to not in self._ordinals:
                self._segments[ordinal] = replace(self._segments[ordinal], number=to)
                self._ordinals[to] = ordinal
                self._own.add(to)

    def bury(self, tombstone: Tombstone) -> None:
        """Take in a tombstone that this process has just appended."""
        with self._lock:
            if all(known.number != tombstone.number for known in self._tombstones):
                self._own.add(tombstone.number)
                self._admit(tombstone)

    def restart(self, spool: Spool | None = None) -> None:
        """Find nothing of what was known so far: the ledger has begun anew.

        Parameters
        ----------
        spool
            What holds keys and digests from now on, where that is another.
        """
        with self._lock:
            if spool is not None:
                self._spool = spool
                self._levels = Levels(spool, self._levels.most)
            self._dead = dict.fromkeys(range(len(self._segments)))
            self._ordinals.clear()
            self._in_order = (np.empty(0, dtype=np.int64),) * 2
            self._starts.clear()
            self._levels.clear()
            self._unsorted.clear()
            self._cursor = (-1, 0)
            self._own.clear()
            self._tombstones.clear()
            self._last.clear()

    def find(self, keys: bytes) -> Array:
        """Return the locators of `keys`, a block of 16-byte keys; -1 where missing."""
        count = len(keys) // KEY_SIZE
        found = np.full(count, MISSING, dtype=np.int64)
        if self._segments and count:
            with self._lock:
                done = self._walk(keys, count, found)
                if done < count:
                    found[done:] = self._search(keys[done * KEY_SIZE :])
                    last = int(found[-1])  # what comes next is likely to go on there
                    self._cursor = (last >> _SHIFT, (last & _POSITION) + 1) if last != MISSING else (-1, 0)
        return found

    def find_one(self, key: bytes) -> int:
        """Return the locator of one key; the calls of a `run` each begin a segment."""
        with self._lock:
            ordinal = self._starts.get(key)
            if ordinal is not None and ordinal not in self._dead:
                return ordinal << _SHIFT
        return int(self.find(key)[0])

    def lost(self, keys: bytes) -> list[str]:
        """Return, for each of `keys`, why its call was taken back; "" for those that never were."""
        why: dict[bytes, str] = {}
        for tombstone in self._tombstones:
            for number, dead in tombstone.dead.items():
                if number in self._ordinals:
                    segment = self._segments[self._ordinals[number]]
                    positions = range(segment.count) if dead is None else dead
                    keys_of = segment.keys
                    why.update({_item(keys_of, position): tombstone.why for position in positions})
        return [why.get(_item(keys, k), "") for k in range(len(keys) // KEY_SIZE)]

    @property
    def has_files(self) -> bool:
        """Whether any of its calls returned files."""
        return bool(self._filed)

    def filed(self, locators: Array) -> Array:
        """Return the mask of the `locators` in segments whose calls returned files."""
        return np.isin(locators >> _SHIFT, list(self._filed)) & (locators >= 0)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments, in the order in which they were appended."""
        return tuple(self._segments)

    def locate(self, locator: int) -> tuple[Segment, int]:
        """Return the segment of a locator and the position in it."""
        return self._segments[locator >> _SHIFT], locator & _POSITION

    def portable(self, locators: Array) -> Array:
        """Return locators as rows that mean the same in every process: (segment number, position in it)."""
        numbers = np.array([segment.number for segment in self._segments] or [0], dtype=np.int64)
        rows = np.stack((numbers[locators >> _SHIFT], locators & _POSITION), axis=1)
        rows[locators < 0] = MISSING
        return rows

    def locators(self, rows: Array) -> Array:
        """Return the locators of `portable` rows; missing where this index does not know the segment."""
        if not self._ordinals:
            return np.full(len(rows), MISSING, dtype=np.int64)
        if len(self._in_order[0]) != len(self._ordinals):
            numbers = np.fromiter(self._ordinals, dtype=np.int64, count=len(self._ordinals))
            ordinals = np.fromiter(self._ordinals.values(), dtype=np.int64, count=len(self._ordinals))
            order = np.argsort(numbers)
            self._in_order = numbers[order], ordinals[order]
        numbers, ordinals = self._in_order
        at = np.minimum(np.searchsorted(numbers, rows[:, 0]), len(numbers) - 1)
        return np.where(numbers[at] == rows[:, 0], (ordinals[at] << _SHIFT) + rows[:, 1], MISSING)

    def runs(self, locators: Array) -> Iterable[tuple[Segment, slice, Array]]:
        """Yield (segment, slice of `locators`, positions in the segment) for each run in one segment.

        Raises
        ------
        IntegrityError
            One of them is missing.
        """
        if not len(locators):
            return
        if int(locators.min()) < 0:
            raise IntegrityError(f"a call of group {self.group.hex()} is not in the ledger any more")
        ordinals = locators >> _SHIFT
        cuts = np.flatnonzero(ordinals[1:] != ordinals[:-1]) + 1
        bounds = [0, *cuts.tolist(), len(locators)]
        for start, stop in itertools.pairwise(bounds):
            part = locators[start:stop]
            yield self._segments[int(part[0]) >> _SHIFT], slice(start, stop), part & _POSITION

    def digests(self, locators: Array, output: int) -> Array:
        """Return the digests of `output` at `locators` (none missing) as an array of 16-byte items."""
        result = np.empty(len(locators), dtype=_DIGEST)
        ordinals = locators >> _SHIFT
        if len(locators) and np.count_nonzero(ordinals[1:] != ordinals[:-1]) > 4 * len(self._segments):
            order = np.argsort(locators)
            result[order] = self.digests(locators[order], output)
            return result
        for segment, where, positions in self.runs(locators):
            result[where] = np.frombuffer(segment.digests_of(output), dtype=_DIGEST)[positions]
        return result

    def digest(self, locator: int, output: int) -> bytes:
        """Return the digest of `output` of one call, which is there."""
        segment, position = self.locate(locator)
        return _item(segment.digests_of(output), position)

    def _take_in(self, ledger: "Ledger", number: int, body: bytes | None) -> None:
        if body is None:  # it may not be the number that is meant: what comes next may have a lower one
            self._note_damage(number)
            return
        self._last[ledger] = max(self._last.get(ledger, 0), number)
        if number in self._own:
            self._own.discard(number)
        else:
            self._decode(number, body)

    def _decode(self, number: int, body: bytes) -> None:
        try:
            entry = decode_index(number, body)
        except IntegrityError:
            entry = None
        if entry is None or (isinstance(entry, Segment) and self._outputs not in (None, len(entry.codecs))):
            self._note_damage(number)
        else:
            self._admit(entry)

    def _note_damage(self, number: int) -> None:
        if number not in self.damaged:
            self.damaged.append(number)

    def _admit(self, entry: Segment | Tombstone) -> None:
        if isinstance(entry, Tombstone):
            self._apply(entry)
            return
        ordinal = len(self._segments)
        first = bytes(entry.keys_between(0, 1))
        if self._spool is not None:
            entry = replace(entry, block=self._spool.hold(entry.block[:]))
        self._segments.append(entry)
        self._ordinals[entry.number] = ordinal
        for tombstone in self._tombstones:  # of another ledger, which was read before this one's
            if entry.number in tombstone.dead:
                self._mark_dead(ordinal, tombstone.dead[entry.number])
        if any(map(holds_files, entry.codecs)):
            self._filed.add(ordinal)
        if entry.count:
            if ordinal not in self._dead:
                self._starts.setdefault(first, ordinal)
            self._unsorted.append(ordinal)

    def _apply(self, tombstone: Tombstone) -> None:
        self._tombstones.append(tombstone)
        for number, positions in tombstone.dead.items():
            ordinal = self._ordinals.get(number)
            if ordinal is not None:
                self._mark_dead(ordinal, positions)
        self._start_again()

    def _start_again(self) -> None:
        """Sort in anew what has not been taken back."""
        self._levels.clear()
        self._cursor = (-1, 0)
        self._unsorted = [ordinal for ordinal, segment in enumerate(self._segments) if segment.count]
        self._starts.clear()
        for ordinal in self._unsorted:
            if ordinal not in self._dead:
                self._starts.setdefault(self._segments[ordinal].keys_between(0, 1), ordinal)

    def _mark_dead(self, ordinal: int, positions: tuple[int, ...] | None) -> None:
        before = self._dead.get(ordinal, set())
        self._dead[ordinal] = None if positions is None or before is None else before | set(positions)

    def _walk(self, keys: bytes, count: int, found: Array) -> int:
        """Fill `found` as far as `keys` follow the order of segments; return how far that was."""
        at = 0
        cursor, offset = self._cursor
        while at < count:
            start = self._starts.get(keys[at * KEY_SIZE : (at + 1) * KEY_SIZE])
            if start is not None:
                cursor, offset = start, 0
            if cursor < 0 or cursor in self._dead:
                break
            segment = self._segments[cursor]
            length = min(segment.count - offset, count - at)
            common = _common_prefix(keys, at, segment.keys_between(offset, offset + length))
            if not common:
                break
            base = (cursor << _SHIFT) + offset
            found[at : at + common] = np.arange(base, base + common)
            at, offset = at + common, offset + common
        self._cursor = (cursor, offset)
        return at

    def _search(self, keys: bytes) -> Array:
        self._sort_in()
        return self._levels.find(np.frombuffer(keys, dtype="<u8").reshape(-1, 2))

    def _sort_in(self) -> None:
        ordinals, self._unsorted = self._unsorted, []
        is_much = sum(self._segments[ordinal].count for ordinal in ordinals) > 2 * self._levels.most
        while ordinals:
            ends = np.cumsum([self._segments[ordinal].count for ordinal in ordinals])
            some = max(int(np.searchsorted(ends, self._levels.most, side="right")), 1)
            self._levels.add(self._sorted(ordinals[:some]))
            ordinals = ordinals[some:]
        if is_much:
            self._levels.compact()

    def _sorted(self, ordinals: list[int]) -> Level:
        """Return the living calls of some segments as one level."""
        size = sum(self._segments[ordinal].count for ordinal in ordinals)
        first, second = (np.empty(size, dtype=np.uint64) for _ in range(2))
        locators = np.empty(size, dtype=np.int64)
        end = 0
        for ordinal in ordinals:
            positions = self._living(ordinal)
            halves = np.frombuffer(self._segments[ordinal].keys, dtype="<u8").reshape(-1, 2)
            start, end = end, end + len(positions)
            first[start:end], second[start:end] = halves[positions, 0], halves[positions, 1]
            locators[start:end] = positions + (ordinal << _SHIFT)
        return Level.of(first[:end], second[:end], locators[:end])

    def _living(self, ordinal: int) -> Array:
        """Return the positions in a segment that have not been taken back."""
        positions = np.arange(self._segments[ordinal].count, dtype=np.int64)
        dead = self._dead.get(ordinal, set())
        if dead is None:
            return positions[:0]
        return np.setdiff1d(positions, list(dead)) if dead else positions


def _item(block: bytes, position: int) -> bytes:
    return block[position * KEY_SIZE : (position + 1) * KEY_SIZE]


def _common_prefix(keys: bytes, at: int, others: bytes) -> int:
    """Return how many 16-byte items of `others` are those of `keys` from `at` on."""
    own = keys[at * KEY_SIZE : at * KEY_SIZE + len(others)]
    if own == others:
        return len(others) // KEY_SIZE
    differs = np.frombuffer(own, dtype="<u8") != np.frombuffer(others, dtype="<u8")
    return int(np.argmax(differs)) // 2
