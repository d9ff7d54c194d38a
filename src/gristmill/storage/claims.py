"""Claims: "I am computing this call", so that nobody else starts it.

The table is one memory-mapped array of buckets of eight cells; a cell holds an owner's number and 40 bits of the
call key. Taking and dropping work on whole batches with numpy, under one short file lock. A table with a full bucket
is made larger, up to a limit; beyond that a claim is granted without a record: then a call may be made twice, which
is never wrong.

An owner is alive while it holds the lock on its own file (``flock``, which the kernel drops when the process
ends, however it ends), and moving while its heartbeat counter in that file changes. Where the platform has no
``flock``, every claim is granted. So it is while somebody who has stopped holds the table's lock.
"""

import contextlib
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.storage import patience
from gristmill.storage.patience import Waiter

try:
    import fcntl

    HAS_FLOCK = True
except ImportError:  # Windows
    HAS_FLOCK = False

from gristmill.storage.segment import KEY_SIZE

Array = np.ndarray[Any, Any]

CELLS = 8
"""Cells of a bucket: one cache line."""

BUCKETS = 1 << 15
"""Buckets of a new table: 2 MiB."""

MOST_BUCKETS = 1 << 19
"""Buckets of the largest table: of a million calls claimed at once, less than one in a thousand is not recorded."""

_GROWTH = 4
"""How many times as large a table becomes in which a bucket is full."""

_BLOCK = 1 << 12
"""Keys dealt with together, so that what is needed on the way stays in the processor's cache."""

BEAT_SECONDS = 1.0
_CLOSE_SECONDS = 2.0

_OWNER_SHIFT = np.uint64(40)
_TAG_MASK = (1 << 40) - 1
_TAG = np.uint64(_TAG_MASK)
_CELL_SHIFT = np.uint64(37)
_ONE = np.uint64(1)
_BASE = np.uint64(BUCKETS - 1)
_NONE = np.empty(0, dtype=np.int64)
_BASE_BITS = np.uint64(BUCKETS.bit_length() - 1)
_MAX_OWNER = (1 << 24) - 1
_NUMBER = struct.Struct("<Q")
_HALVES = struct.Struct("<QQ")

NESTED: ContextVar[bool] = ContextVar("gristmill_nested", default=False)
"""Whether user code runs in this context, on behalf of a batch that holds claims. An engine that it starts waits
for nobody: the call it waited for could be in that very batch, or in one that waits for this one."""


class Claims:
    """The claim table of one store, as seen by one owner.

    Parameters
    ----------
    directory
        Where the table and the owners' files live.
    friend
        Number of an owner whose claims are as good as one's own: the engine that a worker works for.
    """

    def __init__(self, directory: Path, *, friend: int = 0) -> None:
        self._directory = directory
        self.friend = friend
        self._table = np.zeros((0, CELLS), dtype=np.uint64)
        self._cells = self._counter = self._table.reshape(-1)
        self._size = 0
        self._lock_file = -1
        self._owner = 0
        self._owner_file = -1
        self._thread_lock = threading.Lock()
        self._waiter = Waiter()
        self._silent: dict[int, tuple[bytes, float]] = {}
        self._stop = threading.Event()
        self._nested = NESTED.get()

    @property
    def owner(self) -> int:
        """Number of this owner; 0 before it has claimed anything."""
        return self._owner

    def take(self, keys: bytes, entitled: Array | None = None) -> Array:
        """Claim the calls `keys`; return a mask that is True where the claim was granted.

        Parameters
        ----------
        keys
            16 bytes a call.
        entitled
            Where a claim that this owner or its friend already holds was made for this very purpose. Elsewhere such
            a claim belongs to another batch of theirs, and is refused like anybody's.
        """
        count = len(keys) // KEY_SIZE
        if not (HAS_FLOCK and keys):
            return np.ones(count, dtype=bool)
        try:
            with self._locked():
                if count == 1 and self._take_free(keys):
                    return np.ones(1, dtype=bool)
                return self._take(*_halves(keys), entitled)
        except (
            OSError
        ):  # a full or read-only disk, a lock that stays locked: claims are never worth a failure
            return np.ones(count, dtype=bool)

    def _take_free(self, key: bytes) -> bool:
        """Claim one call, if nobody has claimed it and its bucket has room: a third of what a batch of one costs."""
        low, high = _HALVES.unpack(key)
        tag = max(high & _TAG_MASK, 1)
        start = self._bucket(low, tag) * CELLS
        cells = self._cells[start : start + CELLS].tolist()
        if 0 not in cells or any(cell & _TAG_MASK == tag for cell in cells):
            return False
        self._cells[start + cells.index(0)] = self._owner << 40 | tag
        return True

    def _take(self, base: Array, tags: Array, entitled: Array | None) -> Array:
        granted = np.ones(len(tags), dtype=bool)
        held, cells = self._find(base, tags)
        if not len(held):
            self._write(self._owner, base, tags)
            return granted
        owners = (self._cells[cells] >> _OWNER_SHIFT).astype(np.int64)
        family = np.isin(owners, (self._owner, self.friend))
        rival = ~family & np.isin(owners, self._alive(np.unique(owners[~family])))
        stale = ~family & ~rival
        self._cells[cells[stale]] = 0
        granted[held] = stale
        self._write(self._owner, base[granted], tags[granted])
        if entitled is not None:
            granted[held] |= family & entitled[held]
        return np.ones(len(tags), dtype=bool) if self._nested else granted

    def drop(self, keys: bytes) -> None:
        """Give the granted claims on `keys` back."""
        if not (HAS_FLOCK and keys and self._owner):
            return
        try:
            with self._locked():
                _, cells = self._find(*_halves(keys))
                own = self._cells[cells] >> _OWNER_SHIFT == self._owner
                self._cells[cells[own]] = 0
        except OSError:  # nobody may wait for calls that were given up: this owner ends, and they are free
            self.close()

    def close(self) -> None:
        """End this owner: all its claims are free. The next `take` makes a new one."""
        locked = self._thread_lock.acquire(timeout=_CLOSE_SECONDS)  # Ctrl-C may have left it locked
        try:
            self._stop.set()
            if self._owner_file >= 0:
                fcntl.flock(self._owner_file, fcntl.LOCK_UN)  # the heartbeat's duplicate shares the lock
            for descriptor in (self._owner_file, self._lock_file):
                if descriptor >= 0:
                    os.close(descriptor)
            if self._owner:
                with contextlib.suppress(OSError):
                    self._path(self._owner).unlink()
            self._owner, self._owner_file, self._lock_file = 0, -1, -1
        finally:
            if locked:
                self._thread_lock.release()

    def _find(self, base: Array, tags: Array) -> tuple[Array, Array]:
        """Return which keys are claimed by anybody, and the cell of each of those."""
        rows, cells = [_NONE], [_NONE]
        for start in range(0, len(tags), _BLOCK):
            part = tags[start : start + _BLOCK]
            buckets = self._buckets(base[start : start + _BLOCK], part)
            same = (self._table.take(buckets, axis=0) & _TAG) == part[:, None]
            found = same.view(np.uint64).reshape(-1).nonzero()[0]  # eight cells at once
            if len(found):
                rows.append(start + found)
                cells.append(buckets[found] * CELLS + same[found].argmax(axis=1))
        return (rows[-1], cells[-1]) if len(rows) <= 2 else (np.concatenate(rows), np.concatenate(cells))

    def _write(self, owner: int, base: Array, tags: Array) -> None:
        """Put claims into free cells, as far as there are any."""
        while 2 * len(tags) > len(self._cells) and self._grow():
            pass  # before there is much to move
        for start in range(0, len(tags), _BLOCK):
            block = slice(start, start + _BLOCK)
            self._write_block(owner, base[block], tags[block])

    def _write_block(self, owner: int, base: Array, tags: Array) -> None:
        values = tags | np.uint64(owner << 40)
        cells = self._buckets(base, tags) * CELLS + (tags >> _CELL_SHIFT).astype(np.int64)
        free = self._cells.take(cells) == 0
        self._cells[cells[free]] = values[free]
        # Where two of them chose one cell, or it was not free, they look for another.
        left = (self._cells.take(cells) != values).nonzero()[0]
        while len(left):
            buckets = self._buckets(base[left], tags[left])
            free = self._table[buckets] == 0
            if not (fits := free.any(axis=1)).all():
                if self._grow():
                    continue
                left, buckets, free = left[fits], buckets[fits], free[fits]
            cells = buckets * CELLS + free.argmax(axis=1)
            self._cells[cells] = values[left]
            left = left[self._cells[cells] != values[left]]

    def _buckets(self, base: Array, tags: Array) -> Array:
        """Return the bucket of each key: in a table that has grown, its tag says the rest."""
        if len(self._table) == BUCKETS:
            return base.view(np.int64)
        more = tags & np.uint64(len(self._table) // BUCKETS - 1)
        buckets: Array = base | more << _BASE_BITS
        return buckets.view(np.int64)

    def _bucket(self, low: int, tag: int) -> int:
        """Return what `_buckets` returns for one key."""
        more = tag & (len(self._table) // BUCKETS - 1)
        return low & (BUCKETS - 1) | more * BUCKETS

    def _grow(self) -> bool:
        """Make the table larger, if that is possible, with what the living have claimed."""
        if len(self._table) >= MOST_BUCKETS:
            return False
        buckets, columns = np.nonzero(self._table)
        values, last = self._table[buckets, columns], int(self._counter[0])
        try:
            _allocate(self._lock_file, _GROWTH * len(self._table))
        except OSError:
            return False
        self._map()
        self._cells[:] = 0
        self._counter[0] = last
        owners = (values >> _OWNER_SHIFT).astype(np.int64)
        for owner in {self._owner, *self._alive(np.unique(owners))}:
            own = owners == owner
            self._write(owner, buckets[own].astype(np.uint64) & _BASE, values[own] & _TAG)
        return True

    def _alive(self, owners: Array) -> list[int]:
        return [owner for owner in owners.tolist() if self._is_alive(owner)]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._thread_lock:
            if self._lock_file < 0:
                self._open()
            if not self._waiter.lock(self._lock_file, fcntl.LOCK_EX, patience.TABLE_SECONDS):
                raise BlockingIOError("somebody holds the claim table, and does not go on")
            try:
                if (
                    os.fstat(self._lock_file).st_size != self._size
                ):  # it is new, or somebody has made it larger
                    self._map()
                if not self._owner:
                    self._register()
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _open(self) -> None:
        self._directory.mkdir(exist_ok=True, mode=0o700)  # never the store itself: it would not be one
        descriptor = os.open(self._directory / "table", os.O_RDWR | os.O_CREAT, 0o600)
        self._lock_file, self._size = descriptor, -1  # not mapped yet

    def _map(self) -> None:
        """Map the table as it is now, once it has its least size: it may be new, or somebody has cut it off."""
        if os.fstat(self._lock_file).st_size < _file_size(BUCKETS):
            _allocate(self._lock_file, BUCKETS)
        self._size = os.fstat(self._lock_file).st_size
        buckets = BUCKETS
        while _file_size(_GROWTH * buckets) <= self._size:
            buckets *= _GROWTH
        self._cells = np.frombuffer(mmap.mmap(self._lock_file, _file_size(buckets)), dtype=np.uint64)
        self._cells, self._counter = self._cells[:-1], self._cells[-1:]
        self._table = self._cells.reshape(buckets, CELLS)

    def _register(self) -> None:
        """Become a new owner, and free the cells of those that are gone: so no number is met twice."""
        owners = [int(path.name.partition("-")[2]) for path in self._directory.glob("owner-*")]
        living = self._alive(np.array(owners, dtype=np.int64))  # removes the files of those that are gone
        held = self._table != 0
        held[held] = ~np.isin(self._table[held] >> _OWNER_SHIFT, np.array(living, dtype=np.uint64))
        self._table[held] = 0
        owner = int(self._counter[0]) % _MAX_OWNER + 1
        while self._path(owner).exists():
            owner = owner % _MAX_OWNER + 1
        self._owner_file = os.open(self._path(owner), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._counter[0] = self._owner = owner
        fcntl.flock(self._owner_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._stop = threading.Event()
        beat = (os.dup(self._owner_file), self._stop)  # its own descriptor: our number may be reused
        threading.Thread(target=_beat, args=beat, name="gristmill-claims", daemon=True).start()

    def _is_alive(self, owner: int) -> bool:
        try:
            descriptor = os.open(self._path(owner), os.O_RDWR)
        except OSError:
            return False
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return self._is_moving(owner, os.pread(descriptor, 8, 0))
            self._path(owner).unlink(missing_ok=True)
            return False
        finally:
            os.close(descriptor)

    def _is_moving(self, owner: int, beat: bytes) -> bool:
        now = time.monotonic()
        last, since = self._silent.get(owner, (b"?", now))
        if last != beat:
            self._silent[owner] = (beat, now)
            return True
        return now - since < patience.STALL_SECONDS

    def _path(self, owner: int) -> Path:
        return self._directory / f"owner-{owner}"


def _halves(keys: bytes) -> tuple[Array, Array]:
    """Return what says where each key is looked for, and what a cell keeps of it, which is never 0."""
    halves = np.frombuffer(keys, dtype="<u8").reshape(-1, 2)
    return halves[:, 0] & _BASE, np.maximum(halves[:, 1] & _TAG, _ONE)


def _file_size(buckets: int) -> int:
    return buckets * CELLS * 8 + 8


def _allocate(descriptor: int, buckets: int) -> None:
    """Give the table its blocks now: a hole that the disk has no room for kills who writes to it, with SIGBUS."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, _file_size(buckets))
    else:
        os.ftruncate(descriptor, _file_size(buckets))


def _beat(descriptor: int, stop: threading.Event) -> None:
    count = 0
    try:
        while not stop.wait(BEAT_SECONDS):
            count += 1
            with contextlib.suppress(OSError):  # a full disk: others will not wait for long
                os.pwrite(descriptor, _NUMBER.pack(count), 0)
    finally:
        os.close(descriptor)
