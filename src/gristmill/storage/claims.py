"""Claims: "I am computing this call", so that nobody else starts it.

The table is one memory-mapped array of buckets of eight cells; a cell holds an owner's number and 40 bits of the
call key. Taking and dropping work on whole batches with numpy, under one short file lock. A bucket that is full
grants without a record: then a call may be made twice, which is never wrong.

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

Array = np.ndarray[Any, Any]

BUCKETS = 1 << 15
CELLS = 8
"""Cells of a bucket: one cache line."""

BEAT_SECONDS = 1.0
_CLOSE_SECONDS = 2.0

_TAG_BITS = np.uint64(40)
_TAG = np.uint64((1 << 40) - 1)
_MAX_OWNER = (1 << 24) - 1
_NUMBER = struct.Struct("<Q")

NESTED: ContextVar[bool] = ContextVar("gristmill_nested", default=False)
"""Whether user code runs in this context, on behalf of a batch that holds claims. An engine that it starts waits
for nobody: the call it waited for could be in that very batch, or in one that waits for this one."""
_SIZE = BUCKETS * CELLS * 8 + 8


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
        buckets, tags = _places(keys)
        everything = np.ones(len(tags), dtype=bool)
        if not (HAS_FLOCK and keys):
            return everything
        try:
            return self._take(buckets, tags, entitled)
        except (
            OSError
        ):  # a full or read-only disk, a lock that stays locked: claims are never worth a failure
            return everything

    def _take(self, buckets: Array, tags: Array, entitled: Array | None) -> Array:
        with self._locked():
            cells = self._table[buckets]
            same = ((cells & _TAG) == tags[:, None]) & (cells != 0)
            held = same.any(axis=1)
            if not held.any():
                self._write(buckets, tags)
                return np.asarray(~held)
            owners = (cells[np.arange(len(cells)), same.argmax(axis=1)] >> _TAG_BITS).astype(np.int64)
            family = held & np.isin(owners, (self._owner, self.friend))
            rival = held & ~family & np.isin(owners, self._alive(np.unique(owners[held & ~family])))
            stale = held & ~family & ~rival
            refused = rival | (family if entitled is None else family & ~entitled)
            self._erase(buckets[stale], cells[stale, same[stale].argmax(axis=1)])
            new = ~held | stale
            self._write(buckets[new], tags[new])
            return np.ones(len(held), dtype=bool) if self._nested else np.asarray(~refused)

    def drop(self, keys: bytes) -> None:
        """Give the granted claims on `keys` back."""
        if not (HAS_FLOCK and keys and self._owner):
            return
        buckets, tags = _places(keys)
        try:
            with self._locked():
                self._erase(buckets, tags | np.uint64(self._owner << 40))
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

    def _write(self, buckets: Array, tags: Array) -> None:
        """Put claims into free cells; where two of them choose one cell, the loser looks again."""
        values = tags | np.uint64(self._owner << 40)
        left = np.arange(len(values))
        for _ in range(CELLS + 1):
            if not len(left):
                return
            free = self._table[buckets[left]] == 0
            left, free = left[free.any(axis=1)], free[free.any(axis=1)]
            rows, columns = buckets[left], free.argmax(axis=1)
            self._table[rows, columns] = values[left]
            left = left[self._table[rows, columns] != values[left]]

    def _erase(self, buckets: Array, values: Array) -> None:
        rows, columns = np.nonzero(self._table[buckets] == values[:, None])
        self._table[buckets[rows], columns] = 0

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
                if not self._owner:
                    self._register()
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _open(self) -> None:
        self._directory.mkdir(exist_ok=True, mode=0o700)  # never the store itself: it would not be one
        descriptor = os.open(self._directory / "table", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if os.fstat(descriptor).st_size < _SIZE:
                _allocate(descriptor)
            mapped = mmap.mmap(descriptor, _SIZE)
        except OSError:
            os.close(descriptor)
            raise
        cells = np.frombuffer(mapped, dtype=np.uint64)
        self._table, self._counter = cells[:-1].reshape(BUCKETS, CELLS), cells[-1:]
        self._lock_file = descriptor

    def _register(self) -> None:
        """Become a new owner, and free the cells of those that are gone: so no number is met twice."""
        owners = [int(path.name.partition("-")[2]) for path in self._directory.glob("owner-*")]
        living = self._alive(np.array(owners, dtype=np.int64))  # removes the files of those that are gone
        held = self._table != 0
        held[held] = ~np.isin(self._table[held] >> _TAG_BITS, np.array(living, dtype=np.uint64))
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


def _places(keys: bytes) -> tuple[Array, Array]:
    """The bucket of each key, and what a cell keeps of it."""
    halves = np.frombuffer(keys, dtype="<u8").reshape(-1, 2)
    return (halves[:, 0] & np.uint64(BUCKETS - 1)).astype(np.int64), halves[:, 1] & _TAG


def _allocate(descriptor: int) -> None:
    """Give the table its blocks now: a hole that the disk has no room for kills who writes to it, with SIGBUS."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, _SIZE)
    else:
        os.ftruncate(descriptor, _SIZE)


def _beat(descriptor: int, stop: threading.Event) -> None:
    count = 0
    try:
        while not stop.wait(BEAT_SECONDS):
            count += 1
            with contextlib.suppress(OSError):  # a full disk: others will not wait for long
                os.pwrite(descriptor, _NUMBER.pack(count), 0)
    finally:
        os.close(descriptor)
