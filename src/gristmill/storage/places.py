"""The two places of a store: its own directory, and the refuge for what that does not take.

A ledger and chunk files over both, with the methods of one of each. Writes try the store; after one has failed,
they go to the refuge, and the store is tried again now and then. Look-ups go through both. What refers to bytes in
the refuge goes there too: nothing in the store may refer to anything outside.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from gristmill.errors import IntegrityError, StoreError
from gristmill.storage.chunks import Array, ChunkFiles
from gristmill.storage.elements import ChunkRef, Filed, KeptFile, ObjectRef
from gristmill.storage.layout import Layout, Scratch
from gristmill.storage.ledger import Ledger
from gristmill.storage.refuge import Refuge, sweep_refuges
from gristmill.storage.seal import NO_KEY
from gristmill.storage.segment import Entry

RETRY_SECONDS = 5.0
"""How long after a failed write the store is left alone."""

T = TypeVar("T")


class Shelter:
    """Decides where a write goes, and remembers why.

    Parameters
    ----------
    layout
        The store's.
    refuge
        Where writes go that the store does not take.
    readonly
        Whether the store is not written by choice, which is no fault.
    """

    def __init__(self, layout: Layout, refuge: Refuge, *, readonly: bool) -> None:
        self._layout = layout
        self.refuge = refuge
        self._readonly = readonly
        self._until = 0.0
        self._reason = ""
        self.is_opened = True
        """Whether the directory is known to be the store that it should be; else it is not written."""
        self.fault = ""
        """Why the latest write that went to the refuge did so; empty where that was by choice."""
        self.writes = 0
        """How many writes went to the refuge because of a fault."""
        self.names: set[bytes] = set()
        """Checksums of what this process has put into the refuge, or found only there."""
        self.stuck: set[bytes] = set()
        """Checksums of damaged chunks that could not be moved out of the way in the store."""

    @property
    def is_open(self) -> bool:
        """Whether the store is tried at all now."""
        return not self._readonly and self.is_opened and time.monotonic() >= self._until

    def write(self, to_store: Callable[[], T], to_refuge: Callable[[], T]) -> T:
        """Write to the store, or else to the refuge.

        Raises
        ------
        StoreError
            Neither takes it.
        """
        failed = None
        if self.is_open:
            try:
                self._check_there()
                return to_store()
            except StoreError as error:
                failed = error
        try:
            self.refuge.make()
            done = to_refuge()
        except StoreError as error:
            raise StoreError(f"{failed or self._reason or 'the store is read-only'}; and {error}") from error
        if failed is not None:
            self.avoid(failed)
        if not self._readonly:
            self.fault = self._reason
            self.writes += 1
        return done

    def spare(self, to_store: Callable[[], object]) -> bool:
        """Write what nobody will miss: to the store, if that takes it now; return whether it has."""
        if not self.is_open:
            return False
        try:
            self._check_there()
            to_store()
        except StoreError as error:
            self.avoid(error)
            return False
        return True

    def attempt(self, to_store: Callable[[], object]) -> bool:
        """Write what nobody will miss even while the store is left alone; return whether it has taken that."""
        try:
            self._check_there()
            to_store()
        except StoreError:
            return False
        return True

    def avoid(self, error: StoreError | str) -> None:
        """Leave the store alone for a while."""
        self._reason = str(error)
        self._until = time.monotonic() + RETRY_SECONDS

    def try_again(self) -> None:
        """Forget that there was a fault."""
        self._until = 0.0

    def _check_there(self) -> None:
        if not (self.is_opened and self._layout.exists):
            raise StoreError(self._reason or f"there is no store at {self._layout.root} any more")


class Ledgers:
    """The ledger of a store, and the one in its refuge.

    Parameters
    ----------
    store
        The store's.
    shelter
        Decides which of them takes what.
    key
        What rows are sealed with, in a store with a secret.
    """

    def __init__(self, store: Ledger, shelter: Shelter, *, key: bytes = NO_KEY) -> None:
        self.store = store
        self._shelter = shelter
        self.refuge = Ledger(shelter.refuge.layout.ledger, key=key)

    def use(self, key: bytes) -> None:
        """Seal with another key from now on: the store has been made anew."""
        for ledger in (self.store, self.refuge):
            ledger.use(key)

    @property
    def parts(self) -> tuple[Ledger, ...]:
        """The ledgers that a look-up goes through."""
        return (self.store, self.refuge) if self._shelter.refuge.exists else (self.store,)

    @property
    def generation(self) -> int:
        """How often one of them was found damaged, and begun anew."""
        return self.store.generation + self.refuge.generation

    def version(self) -> tuple[int, ...]:
        """Return what differs from the last time if anybody has committed since."""
        return tuple(ledger.version() for ledger in self.parts)

    def append(self, entries: Sequence[Entry], *, outside: bool = False) -> list[int]:
        """Append `entries` in one transaction and return their numbers.

        Parameters
        ----------
        entries
            What to append.
        outside
            Whether they refer to something in the refuge, where they have to go then.

        Raises
        ------
        StoreError
            Neither ledger takes them; nothing was appended.
        """
        if outside:
            return self.refuge.append(entries)
        return self._shelter.write(lambda: self._to_store(entries), lambda: self.refuge.append(entries))

    def rebuild(self) -> None:
        """Make the index of the store's database anew, if that can be read and written."""
        if not self.store.unreadable:
            self._shelter.spare(self.store.rebuild)

    def put(self, key: bytes, body: bytes) -> None:
        """Store `body` under `key`, a letter and a checksum."""

        def to_refuge() -> None:
            self.refuge.put(key, body)
            self._shelter.names.add(key[1:])

        def to_store() -> None:
            self.store.put(key, body)
            self._shelter.names.discard(key[1:])

        self._shelter.write(to_store, to_refuge)

    def renew(self, key: bytes) -> bool:
        """Mark the row of `key` in the store as about to be named by others; return whether that was possible."""
        there: list[bool] = []
        self._shelter.spare(lambda: there.append(self.store.renew(key)))
        return there == [True]

    def delete(self, keys: Sequence[bytes]) -> None:
        """Delete the rows of `keys` wherever that is possible."""
        self._shelter.names.difference_update(key[1:] for key in keys)
        self._shelter.spare(lambda: self.store.delete(keys))
        if self._shelter.refuge.exists:
            with contextlib.suppress(StoreError):
                self.refuge.delete(keys)

    def get(self, key: bytes) -> bytes | None:
        """Return the body stored under `key`, or None.

        Raises
        ------
        IntegrityError
            The row exists, and is damaged wherever it does.
        """
        if not self._shelter.refuge.exists:
            return self.store.get(key)
        try:
            found = self.store.get(key)
        except IntegrityError:
            found = self.refuge.get(key)
            if found is None:
                raise
        return self.refuge.get(key) if found is None else found

    def values(self, group: bytes, number: int) -> bytes | None:
        """Return the values of the segment `number` of `group`, or None where there is no such segment."""
        found = self.store.values(group, number)
        if found is None and self._shelter.refuge.exists:
            found = self.refuge.values(group, number)
        return found

    def close(self) -> None:
        """Close all connections; the next call opens them again."""
        for ledger in (self.store, self.refuge):
            ledger.close()

    def _to_store(self, entries: Sequence[Entry]) -> list[int]:
        if self.store.unreadable:  # what cannot be read back is better written elsewhere
            reason, self.store.unreadable = self.store.unreadable, ""
            raise StoreError(reason)
        return self.store.append(entries)


class Chunks(ChunkFiles):
    """The chunk files of a store, and those in its refuge.

    Parameters
    ----------
    layout
        The store's.
    shelter
        Decides which of them takes what.
    durable
        Sync each file that goes to the store.
    verify
        Whether arrays that are read are compared with their checksums; with a key they always are.
    key
        What checksums are made with, in a store with a secret.
    """

    def __init__(
        self, layout: Layout, shelter: Shelter, *, durable: bool, verify: bool = True, key: bytes = NO_KEY
    ) -> None:
        self._layout = layout
        self._shelter = shelter
        self._durable = durable
        self._wants_check = verify
        self._own: Scratch | None = None
        self._lock = threading.Lock()
        self.use(key)

    def use(self, key: bytes) -> None:
        """Make checksums with another key from now on: the store has been made anew."""
        self._key = key
        self._reader = self._store_files(self._layout.scratch)
        self._refuge = self._refuge_files(self._shelter.refuge.layout.scratch)

    @property
    def scratch(self) -> Path:
        """A directory of the store for files of this process.

        Raises
        ------
        StoreError
            The file system refuses.
        """
        with self._lock:
            if self._own is None:
                sweep_refuges()
                try:
                    self._own = Scratch(self._layout.scratch)
                except OSError as error:
                    raise StoreError(f"cannot write to the store at {self._layout.root}: {error}") from error
            return self._own.path

    def path(self, checksum: bytes) -> Path:
        """Return where the chunk with `checksum` is, or would be."""
        path = self._reader.path(checksum)
        if self._shelter.refuge.exists and not path.exists():
            elsewhere = self._refuge.path(checksum)
            return elsewhere if elsewhere.exists() else path
        return path

    def write(self, checksum: bytes, buffer: bytes | memoryview) -> bool:
        """Store `buffer`, which has that checksum; return False where it is there already."""
        return self._write(lambda files: (checksum, files.write(checksum, buffer)))[1]

    def adopt(self, path: str, content: bytes) -> tuple[bytes, bool]:
        """Keep a copy of the file at `path`; return the chunk's name, and whether it was not there before."""
        return self._write(lambda files: files.adopt(path, content))

    def read(self, ref: ChunkRef, *, verify: bool | None = None) -> Array:
        """Return the array of `ref` as a plain writable ndarray."""
        return self._first(lambda files: files.read(ref, verify=verify))

    def put_back(self, checksum: bytes, target: Path, mode: int) -> None:
        """Copy a chunk to `target`, verified, unless something is there: that is never overwritten."""
        self._first(lambda files: files.put_back(checksum, target, mode))

    def quarantine(self, checksum: bytes, to: Path) -> None:
        """Move a damaged chunk out of the way, so that it can be written again."""
        self._reader.quarantine(checksum, to)
        if self._reader.path(checksum).exists():
            self._shelter.stuck.add(checksum)
        if self._shelter.refuge.exists:
            self._refuge.quarantine(checksum, self._shelter.refuge.layout.quarantine)

    def bring(self, checksum: bytes) -> None:
        """Have the chunk with `checksum` in the store, from the refuge if need be.

        Raises
        ------
        IntegrityError
            It is in neither, or damaged.
        StoreError
            The store's file system refuses.
        """
        path = self._refuge.path(checksum)
        is_stuck = checksum in self._shelter.stuck
        if path.exists() and not is_stuck:
            self._store_files(self.scratch).take(path, checksum)
        elif is_stuck or not self._reader.renew(checksum):
            raise IntegrityError(f"the chunk {path.name} is missing or damaged")
        self._shelter.names.discard(checksum)

    def close(self) -> None:
        """Remove temporary files."""
        with self._lock:
            scratch, self._own = self._own, None
        if scratch is not None:
            scratch.close()

    def _write(self, action: Callable[[ChunkFiles], tuple[bytes, bool]]) -> tuple[bytes, bool]:
        def to_store() -> tuple[bytes, bool]:
            name, is_new = action(self._store_files(self.scratch))
            if is_new:
                self._shelter.stuck.discard(name)
            elif name in self._shelter.stuck:
                raise StoreError(f"the chunk {name.hex()} is damaged, and cannot be moved out of the way")
            self._shelter.names.discard(name)
            return name, is_new

        def to_refuge() -> tuple[bytes, bool]:
            name, is_new = action(self._refuge_files(self._shelter.refuge.scratch))
            self._shelter.names.add(name)
            return name, is_new

        return self._shelter.write(to_store, to_refuge)

    def _store_files(self, scratch: Path) -> ChunkFiles:
        verify = self._wants_check or bool(self._key)
        return ChunkFiles(self._layout.chunks, scratch, durable=self._durable, verify=verify, key=self._key)

    def _refuge_files(self, scratch: Path) -> ChunkFiles:
        verify = self._wants_check or bool(self._key)
        return ChunkFiles(self._shelter.refuge.layout.chunks, scratch, verify=verify, key=self._key)

    def _first(self, action: Callable[[ChunkFiles], T]) -> T:
        """Do it with the store's files, or where they are missing or damaged, with the refuge's."""
        try:
            return action(self._reader)
        except IntegrityError:
            if not self._shelter.refuge.exists:
                raise
            with contextlib.suppress(IntegrityError):
                return action(self._refuge)
            raise


def references(forms: Iterable[object]) -> Iterable[bytes]:
    """Yield the checksums of the chunks and objects that stored forms refer to."""
    for form in forms:
        match form:
            case ChunkRef(checksum) | ObjectRef(checksum):
                yield checksum
            case Filed(_, places):
                for place in places:
                    files = (place,) if isinstance(place, KeptFile) else place.files
                    yield from (file.name for file in files)
