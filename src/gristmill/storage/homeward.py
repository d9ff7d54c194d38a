"""Homeward: what the refuge holds is moved into the store, once that takes it.

Bytes before the rows that name them, one segment after the other, each of them complete or not there at all.
"""

import threading
from collections.abc import Iterable
from functools import partial

from gristmill.errors import InputError, IntegrityError
from gristmill.storage.columns import unpack
from gristmill.storage.elements import ObjectRef
from gristmill.storage.ledger import Ledger
from gristmill.storage.places import OBJECT, Chunks, Shelter, references
from gristmill.storage.segment import Entry, Segment, decode_index, payload_of


class Homeward:
    """Moves segments from the ledger of a refuge to that of the store.

    Parameters
    ----------
    store, refuge
        The ledgers.
    chunks
        The chunk files of both.
    shelter
        Knows whether the store is to be tried.
    """

    def __init__(self, store: Ledger, refuge: Ledger, chunks: Chunks, shelter: Shelter) -> None:
        self._store = store
        self._refuge = refuge
        self._chunks = chunks
        self._shelter = shelter
        self._moved: dict[bytes, int] = {}
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
                for number, body in self._refuge.scan(group, self._moved.get(group, 0)):
                    self._shelter.spare(partial(self._one, group, number, body))
                    if not self._shelter.is_open:
                        return
                    self._moved[group] = number
            self._version = version

    def _one(self, group: bytes, number: int, body: bytes | None) -> None:
        """Move one segment; one that is damaged, or refers to what is lost, is as good as not there."""
        if body is None:
            return
        try:
            segment = decode_index(number, body)
            values = self._refuge.values(group, number) or b""
            if isinstance(segment, Segment):
                self._move_bytes(segment, values)
        except (IntegrityError, InputError, OSError):
            return
        self._store.append([Entry(group, body, values)])

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
            return self._store.get(key) is not None
        except IntegrityError:
            return False
