"""The spool: bytes that are held for long and read seldom, in files of this process instead of its memory.

Owns where a block of bytes is held: the first of them stay in memory, so that small stores need no file. What is
in the files is keys and digests, which are looked up and never trusted alone: a damaged one is a miss.
"""

import os
import tempfile
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from gristmill.errors import IntegrityError, StoreError

IN_MEMORY = 4 * 1024 * 1024
"""Bytes of all blocks together that are held in memory."""

_SMALLEST = 1024
"""Bytes below which a block is held in memory: saying where it is would take about as many."""


class Block(Protocol):
    """Bytes, wherever they are held."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, where: slice, /) -> bytes:
        """Return some of them."""


class NamelessFile:
    """A file that only this process can open, and that goes with this object.

    Parameters
    ----------
    directory
        On which disk it is.

    Raises
    ------
    OSError
        The disk refuses.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor, path = tempfile.mkstemp(dir=directory)
        weakref.finalize(self, os.close, self._descriptor)
        os.unlink(path)
        self._pid = os.getpid()
        self._end = 0

    @property
    def is_own(self) -> bool:
        """Whether this process has made it; after a fork, two would write to the same places."""
        return self._pid == os.getpid()

    def append(self, data: bytes) -> int:
        """Write at the end; return where that was.

        Raises
        ------
        OSError
            The disk refuses.
        """
        start, view = self._end, memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, start + len(data) - len(view))
            view = view[written:]
        self._end += len(data)
        return start

    def read(self, start: int, length: int) -> bytes:
        """Return what is somewhere.

        Raises
        ------
        IntegrityError
            It cannot be read.
        """
        try:
            found = os.pread(self._descriptor, length, start)
        except OSError as error:
            raise IntegrityError(f"what was known of calls cannot be read back: {error}") from error
        if len(found) != length:
            raise IntegrityError("what was known of calls cannot be read back: its file is too short")
        return found


class Spool:
    """Holds blocks of bytes for as long as somebody refers to them.

    Parameters
    ----------
    directory
        Gives the directory for files once one is needed.
    """

    def __init__(self, directory: Callable[[], Path]) -> None:
        self._directory = directory
        self._file: NamelessFile | None = None
        self._in_memory = 0
        self._lock = threading.Lock()

    def hold(self, block: bytes) -> Block:
        """Return `block` as it is held from now on: itself where the disk refuses."""
        with self._lock:
            if len(block) < _SMALLEST or self._in_memory + len(block) <= IN_MEMORY:
                self._in_memory += len(block)
                return block
            try:
                if self._file is None or not self._file.is_own:
                    self._file = self.file()
                return _Spooled(self._file, self._file.append(block), len(block))
            except (OSError, StoreError):
                return block

    def file(self) -> NamelessFile:
        """Return a new file.

        Raises
        ------
        OSError, StoreError
            The disk refuses.
        """
        return NamelessFile(self._directory())


class _Spooled:
    """A block in a file, which lives as long as any block in it."""

    __slots__ = ("_file", "_length", "_start")

    def __init__(self, file: NamelessFile, start: int, length: int) -> None:
        self._file = file
        self._start = start
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, where: slice, /) -> bytes:
        start, stop, _ = where.indices(self._length)
        return self._file.read(self._start + start, max(stop - start, 0))
