"""Claims: "I am computing this call", so that nobody else starts it.

The table is one memory-mapped array of owner numbers, indexed by the low bits of the call key. Two calls that
share a slot exclude each other for a while, which costs a moment of waiting and never a wrong or a missing
result. Taking and dropping work on whole batches with numpy, under one short file lock.

An owner is alive while it holds the lock on its own file (``flock``, which the kernel drops when the process
ends, however it ends), and is moving while its heartbeat counter in that file changes. Where the platform has
no ``flock`` every claim is granted: work may be done twice, and is never wrong.
"""

import contextlib
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

try:
    import fcntl

    HAS_FLOCK = True
except ImportError:  # Windows
    HAS_FLOCK = False

Array = np.ndarray[Any, Any]

SLOTS = 1 << 22
"""Slots of the table: with 20,000 calls in flight elsewhere, 1 key in 200 waits for a stranger."""

BEAT_SECONDS = 1.0
STALL_SECONDS = 30.0
"""An owner whose heartbeat stands still for this long (stopped, swapped out) is no longer waited for."""

_NUMBER = struct.Struct("<Q")


class Claims:
    """The claim table of one store, as seen by one owner.

    Parameters
    ----------
    directory
        Where the table and the owners' files live.
    stall_seconds
        How long a silent owner is waited for.
    """

    def __init__(self, directory: Path, *, stall_seconds: float = STALL_SECONDS) -> None:
        self._directory = directory
        self._stall_seconds = stall_seconds
        self._held = np.zeros(0, dtype=np.int16)
        self._marks = np.zeros(0, dtype=np.uint32)
        self._table = np.zeros(0, dtype=np.uint32)
        self._lock_file = -1
        self._owner = 0
        self._owner_file = -1
        self._thread_lock = threading.Lock()
        self._silent: dict[int, tuple[bytes, float]] = {}
        self._stop = threading.Event()

    def take(self, keys: bytes) -> Array:
        """Claim the calls `keys`; return a mask that is True where the claim was granted."""
        if not HAS_FLOCK:
            return np.ones(len(keys) // 16, dtype=bool)
        slots = _slots(keys)
        with self._locked():
            owners = self._table[slots]
            taken = (owners != 0) & (owners != self._owner)
            if taken.any():
                taken &= np.isin(
                    owners, [owner for owner in np.unique(owners[taken]) if self._is_alive(int(owner))]
                )
            granted = ~taken
            mine = slots[granted]
            self._table[mine] = self._owner
            self._count(mine, 1)
        return np.asarray(granted)

    def drop(self, keys: bytes) -> None:
        """Give the granted claims on `keys` back."""
        if not (HAS_FLOCK and keys):
            return
        slots = _slots(keys)
        with self._locked():
            self._count(slots, -1)
            free = slots[(self._held[slots] == 0) & (self._table[slots] == self._owner)]
            self._table[free] = 0

    def drop_all(self) -> None:
        """Give back whatever this owner holds, after something went wrong."""
        if not self._owner:
            return
        with self._locked():
            self._table[self._table == self._owner] = 0
            self._held[:] = 0

    def _count(self, slots: Array, change: int) -> None:
        """Add `change` to the number of own claims on each slot, where a slot may occur more than once."""
        order = np.arange(len(slots), dtype=np.uint32)
        self._marks[slots] = order
        if (self._marks[slots] == order).all():
            self._held[slots] += change
        else:
            np.add.at(self._held, slots, change)

    def close(self) -> None:
        """End this owner: all its claims are free."""
        with self._thread_lock:
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

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self._thread_lock:
            if self._lock_file < 0:
                self._open()
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            try:
                if not self._owner:
                    self._register()
                yield
            finally:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _open(self) -> None:
        self._directory.mkdir(exist_ok=True, parents=True, mode=0o700)
        self._lock_file = os.open(self._directory / "table", os.O_RDWR | os.O_CREAT, 0o600)
        size = (SLOTS + 2) * 4
        if os.fstat(self._lock_file).st_size < size:
            os.ftruncate(self._lock_file, size)
        mapped = mmap.mmap(self._lock_file, size)
        self._counter = np.frombuffer(mapped, dtype=np.uint32, count=1, offset=4 * SLOTS)
        self._table = np.frombuffer(mapped, dtype=np.uint32, count=SLOTS)
        self._held = np.zeros(SLOTS, dtype=np.int16)
        self._marks = np.zeros(SLOTS, dtype=np.uint32)

    def _register(self) -> None:
        """Become a new owner; numbers are never used twice, so a dead owner's slots stay recognisable."""
        self._counter[0] += 1
        self._owner = int(self._counter[0])
        self._owner_file = os.open(self._path(self._owner), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._owner_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._stop = threading.Event()
        beat = (
            os.dup(self._owner_file),
            self._stop,
        )  # its own descriptor: ours may be closed and its number reused
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
        return now - since < self._stall_seconds

    def _path(self, owner: int) -> Path:
        return self._directory / f"owner-{owner}"


def _slots(keys: bytes) -> Array:
    return np.frombuffer(keys, dtype="<u8")[::2] & np.uint64(SLOTS - 1)


def _beat(descriptor: int, stop: threading.Event) -> None:
    count = 0
    try:
        while not stop.wait(BEAT_SECONDS):
            count += 1
            os.pwrite(descriptor, _NUMBER.pack(count), 0)
    finally:
        os.close(descriptor)
