"""Census: which calls of one group are on record, which can be found, and what each of them costs.

Everything here is about one group at a time: its keys are in memory together, 16 bytes and a little more a call.
"""

import contextlib
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from gristmill.errors import IntegrityError
from gristmill.runs import Calls
from gristmill.storage.index import MISSING
from gristmill.storage.ledger import INDEX, NUMBER, VALUES
from gristmill.storage.references import References, references
from gristmill.storage.rows import Rows
from gristmill.storage.segment import KEY_SIZE, Segment, Tombstone, decode_index, time_of

Array = np.ndarray[Any, Any]


class Census:
    """The calls of one group, in the order of their segments.

    Parameters
    ----------
    rows
        The ledger's.
    group
        Which group.
    """

    def __init__(self, rows: Rows, group: bytes) -> None:
        self._rows = rows
        self.group = group
        self.segments: list[Segment] = []
        self.tombstones: list[Tombstone] = []
        self.damaged: list[int] = []
        """Numbers of segments that cannot be read; they are left alone."""
        self.index_bytes: list[int] = []
        for row in rows.under(INDEX + group):
            number = NUMBER.unpack(row.key[-8:])[0]
            try:
                body = rows.body(row)
                entry = decode_index(number, body)
            except IntegrityError:
                self.damaged.append(number)
                continue
            if isinstance(entry, Tombstone):
                self.tombstones.append(entry)
            else:
                self.segments.append(entry)
                self.index_bytes.append(len(body))
        self.starts = np.cumsum([0, *(segment.count for segment in self.segments)])
        """Where each segment's calls start among all, and how many there are."""
        self.owners = np.repeat(np.arange(len(self.segments)), np.diff(self.starts))
        """For each call, the place of its segment."""
        keys = b"".join(segment.keys for segment in self.segments)
        self._keys = np.frombuffer(keys, dtype=f"S{KEY_SIZE}")
        self.found = self._findable()
        """Mask of the calls that a look-up finds: not taken back, and the first with their key."""

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def times(self) -> Array:
        """When each call was committed."""
        when = np.array([time_of(segment.number) for segment in self.segments], dtype=np.float64)
        return when[self.owners] if len(self) else when[:0]

    def keys(self, calls: Array) -> bytes:
        """Return the keys of some calls."""
        return self._keys[calls].tobytes()

    def of_run(self, calls: Calls) -> Array:
        """Return the calls that a run names, or those that have taken their place."""
        places = {segment.number: k for k, segment in enumerate(self.segments)}
        named = [
            np.arange(start, min(start + count, self.segments[k].count)) + self.starts[k]
            for number, start, count in zip(*(c.tolist() for c in _columns(calls)), strict=True)
            if (k := places.get(number)) is not None
        ]
        flat = np.concatenate(named) if named else np.zeros(0, dtype=np.int64)
        now = self.current(flat)
        return np.unique(now[now >= 0])

    def current(self, calls: Array) -> Array:
        """Return, for each of `calls`, the one that a look-up finds under its key; -1 where there is none."""
        result = calls.astype(np.int64)
        lost = np.flatnonzero(~self.found[calls]) if len(calls) else calls
        if len(lost):
            live = np.flatnonzero(self.found)
            order = live[np.argsort(self._keys[live], kind="stable")]
            wanted = self._keys[calls[lost]]
            at = np.minimum(np.searchsorted(self._keys[order], wanted), max(len(order) - 1, 0))
            hit = self._keys[order][at] == wanted if len(order) else np.zeros(len(lost), dtype=bool)
            result[lost] = np.where(hit, order[at] if len(order) else -1, -1)
        return result

    def locations(self) -> Array:
        """Return (segment number, row) of each call."""
        numbers = np.array([segment.number for segment in self.segments], dtype=np.int64)
        return np.stack((numbers[self.owners], np.arange(len(self)) - self.starts[self.owners]), axis=1)

    def moved(self, calls: Calls, where: Array) -> Calls:
        """Return what a run names, with `where` each call is now; missing where it cannot be found."""
        rows = calls.rows()
        places = {segment.number: k for k, segment in enumerate(self.segments)}
        owners = np.array([places.get(number, -1) for number in rows[:, 0].tolist()], dtype=np.int64)
        known = np.flatnonzero(owners >= 0)  # the others have moved before
        now = self.current(self.starts[owners[known]] + rows[known, 1])
        rows[known] = np.where(now[:, None] >= 0, where[now], MISSING)
        return Calls.of_rows(rows)

    def places(self, numbers: Iterable[int]) -> Array:
        """Return the mask of the segments that have one of `numbers`."""
        wanted = set(numbers)
        return np.array([segment.number in wanted for segment in self.segments], dtype=bool)

    def values(self, place: int) -> bytes:
        """Return the values of a segment.

        Raises
        ------
        IntegrityError
            They are missing or damaged.
        """
        row = self._rows.get(VALUES + self.group + NUMBER.pack(self.segments[place].number))
        if row is None:
            raise IntegrityError(f"the values of segment {self.segments[place].number} are missing")
        return self._rows.body(row)

    def references(self, place: int) -> References | None:
        """Return what the calls of a segment name; None where that cannot be read."""
        with contextlib.suppress(IntegrityError):
            return references(self.segments[place], partial(self.values, place))
        return None

    def _findable(self) -> Array:
        alive = np.ones(len(self), dtype=bool)
        places = {segment.number: k for k, segment in enumerate(self.segments)}
        for tombstone in self.tombstones:
            for number, positions in tombstone.dead.items():
                if (k := places.get(number)) is not None:
                    start, stop = int(self.starts[k]), int(self.starts[k + 1])
                    alive[slice(start, stop) if positions is None else start + np.array(positions, int)] = (
                        False
                    )
        live = np.flatnonzero(alive)
        order = live[np.argsort(self._keys[live], kind="stable")]  # stable: the older of two is first
        sorted_keys = self._keys[order]
        alive[order[1:][sorted_keys[1:] == sorted_keys[:-1]]] = False
        return alive


def _columns(calls: Calls) -> tuple[Array, Array, Array]:
    there = calls.numbers >= 0
    return calls.numbers[there], calls.starts[there], calls.counts[there]
