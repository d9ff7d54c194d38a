"""The spool: bytes that are held for long and read seldom, in a file of this process instead of its memory.

Owns where a block of bytes is held: the first of them stay in memory, so that small stores need no file. What is
in the file is keys and digests, which are looked up and never trusted alone: a damaged one is a miss.
"""

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

from gristmill.errors import IntegrityError, StoreError

IN_MEMORY = 16 * 1024 * 1024
"""Bytes of all blocks together that are held in memory."""

_SMALLEST = 1024
"""Bytes below which a block is held in memory: saying where it is would take about as many."""


class Block(Protocol):
    """Bytes, wherever they are held."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, where: slice, /) -> bytes:
        """Return some of them."""


class Spool:
    """Holds blocks of bytes for as long as somebody refers to them.

    Parameters
    ----------
    directory
        Gives the directory for the file once one is needed; the file has no name there.
    """

    def __init__(self, directory: Callable[[], Path]) -> None:
        self._directory = directory
        self._file: IO[bytes] | None = None
        self._pid = os.getpid()
        self._end = 0
        self._in_memory = 0
        self._lock = threading.Lock()

    def hold(self, block: bytes) -> Block:
        """Return `block` as it is held from now on: itself where the disk refuses."""
        with self._lock:
            if len(block) < _SMALLEST or self._in_memory + len(block) <= IN_MEMORY:
                self._in_memory += len(block)
                return block
            try:
                return self._write(block)
            except (OSError, StoreError):
                return block

    def _write(self, block: bytes) -> "_Spooled":
        if self._file is None or self._pid != os.getpid():  # two processes would write to the same places
            self._file = tempfile.TemporaryFile(dir=self._directory(), buffering=0)  # noqa: SIM115 - it stays open
            self._pid, self._end = os.getpid(), 0
        start, view = self._end, memoryview(block)
        while view:
            written = os.pwrite(self._file.fileno(), view, start + len(block) - len(view))
            view = view[written:]
        self._end += len(block)
        return _Spooled(self._file, start, len(block))


class _Spooled:
    """A block in the file, which lives as long as any block in it."""

    __slots__ = ("_file", "_length", "_start")

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file = file
        self._start = start
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, where: slice, /) -> bytes:
        start, stop, _ = where.indices(self._length)
        try:
            found = os.pread(self._file.fileno(), max(stop - start, 0), self._start + start)
        except OSError as error:
            raise IntegrityError(f"what was known of calls cannot be read back: {error}") from error
        if len(found) != max(stop - start, 0):
            raise IntegrityError("what was known of calls cannot be read back: its file is too short")
        return found
