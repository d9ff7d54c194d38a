"""Homeward: what the refuge holds is moved into the store, once that takes it.

Bytes before the rows that name them, one segment after the other, each of them complete or not there at all.
"""

import threading
from collections.abc import Callable, Iterable
from functools import partial

from gristmill.errors import InputError, IntegrityError
from gristmill.storage.columns import unpack
from gristmill.storage.elements import ObjectRef
from gristmill.storage.local import OBJECT
from gristmill.storage.places import Chunks, Ledgers, Shelter, references
from gristmill.storage.segment import Entry, Segment, Tombstone, decode_index, encode_tombstone, payload_of


class Homeward:
    """Moves segments from the ledger of a refuge to that of the store.

    Parameters
    ----------
    ledgers, chunks
        Of both places.
    shelter
        Knows whether the store is to be tried.
    on_moved
        Told the group of each segment that was moved, its number in the refuge, and the one in the store.
    """

    def __init__(
        self,
        ledgers: Ledgers,
        chunks: Chunks,
        shelter: Shelter,
        on_moved: Callable[[bytes, int, int], None],
    ) -> None:
        self._store = ledgers.store
        self._refuge = ledgers.refuge
        self._chunks = chunks
        self._shelter = shelter
        self._on_moved = on_moved
        self._moved: dict[bytes, int] = {}
        self._numbers: dict[tuple[bytes, int], int] = {}
        self._version = -1
        self._lock = threading.Lock()

    @property
    def is_done(self) -> bool:
        """Whether the refuge holds nothing that is not in the store too."""
        return not self._shelter.refuge.exists or self._refuge.version() == self._version

    def move(self) -> None:
        """Move what has been added since the last time, until the store takes no more."""
        with self._lock:
            if self.is_done:
                return
            version = self._refuge.version()
            self._shelter.try_again()
            for group in self._refuge.groups():
                for number, to in self._move_group(group):  # once the ledger is not being read any more
                    self._on_moved(group, number, to)
                if not self._shelter.is_open:
                    return
            self._version = version

    def forget(self) -> None:
        """Have nothing moved yet: the store has been made anew."""
        with self._lock:
            self._moved.clear()
            self._numbers.clear()
            self._version = -1

    def _move_group(self, group: bytes) -> list[tuple[int, int]]:
        """Move segments of a group until the store takes no more; return their numbers in the refuge and the store."""
        done: list[tuple[int, int]] = []
        for number, body in self._refuge.scan(group, self._moved.get(group, 0)):
            self._shelter.spare(partial(self._one, group, number, body))
            if not self._shelter.is_open:
                break
            self._moved[group] = number
            if (group, number) in self._numbers:
                done.append((number, self._numbers[group, number]))
        return done

    def _one(self, group: bytes, number: int, body: bytes | None) -> None:
        """Move one segment; one that is damaged, or refers to what is lost, is as good as not there."""
        if body is None:
            return
        try:
            entry = decode_index(number, body)
            if isinstance(entry, Tombstone):
                self._store.append([self._translated(group, entry)])
                return
            values = self._refuge.values(group, number) or b""
            self._move_bytes(entry, values)
        except (IntegrityError, InputError):
            return
        (moved,) = self._store.append([Entry(group, body, values)])
        self._numbers[group, number] = moved

    def _translated(self, group: bytes, tombstone: Tombstone) -> Entry:
        """Return the entry that takes back, in the store, what a tombstone of the refuge takes back."""
        dead = {
            self._numbers.get((group, number), number): places for number, places in tombstone.dead.items()
        }
        return encode_tombstone(group, dead, tombstone.why)

    def _move_bytes(self, segment: Segment, values: bytes) -> None:
        for output in range(len(segment.codecs)):
            packed = segment.packed(output, b"")
            if segment.codecs[output]["kind"] not in ("chunk", "none"):
                packed = segment.packed(output, payload_of(values, output, segment.keys))
            forms = unpack(packed, segment.count)
            self._move_objects(form.checksum for form in forms if isinstance(form, ObjectRef))
            for checksum in references(form for form in forms if not isinstance(form, ObjectRef)):
                self._chunks.bring(checksum)

    def _move_objects(self, checksums: Iterable[bytes]) -> None:
        for checksum in checksums:
            key = OBJECT + checksum
            if not self._is_in_store(key):
                data = self._refuge.get(key)
                if data is None:
                    raise IntegrityError(f"the object {checksum.hex()} is missing")
                self._store.put(key, data)
            self._shelter.names.discard(checksum)

    def _is_in_store(self, key: bytes) -> bool:
        try:
            return self._store.get(key) is not None and self._store.renew(key)
        except IntegrityError:
            return False
