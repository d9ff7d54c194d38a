"""What is remembered of files that were hashed before.

Owns when two looks at a file see the same content, and a form in which a store can keep that. Knows nothing
of how content is hashed.
"""

from __future__ import annotations

import os
import struct
from typing import Protocol

_ROW = struct.Struct("<5Q16s")
_KEY = struct.Struct("<5Q")
_MASK = (1 << 64) - 1


class Memo(Protocol):
    """Remembers the hash of a file's content while what `os.stat` says of the file stays the same."""

    def get(self, path: str, status: os.stat_result) -> bytes | None:
        """Return the hash that was put for a file in this state."""

    def put(self, path: str, status: os.stat_result, content: bytes) -> None:
        """Remember the hash of a file in this state."""


class StatMemo:
    """A memo in memory, by device, inode, size, and times of modification and of change.

    The time of change catches what sets the time of modification back, as ``cp -p`` and ``touch -r`` do.
    """

    def __init__(self) -> None:
        self._hashes: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._hashes)

    def get(self, path: str, status: os.stat_result) -> bytes | None:
        """Return the hash that was put for a file in this state."""
        return self._hashes.get(state_of(status))

    def put(self, path: str, status: os.stat_result, content: bytes) -> None:
        """Remember the hash of a file in this state."""
        self._hashes[state_of(status)] = content

    def dump(self) -> bytes:
        """Return all entries, 56 bytes each."""
        return b"".join([key + content for key, content in self._hashes.items()])

    def load(self, block: bytes) -> None:
        """Add the entries of a block that `dump` returned.

        Raises
        ------
        ValueError
            When the block does not consist of whole entries.
        """
        if len(block) % _ROW.size:
            raise ValueError(f"a memo of {len(block)} bytes does not consist of entries of {_ROW.size}")
        width = _KEY.size
        for start in range(0, len(block), _ROW.size):
            self._hashes[block[start : start + width]] = block[start + width : start + _ROW.size]


def state_of(status: os.stat_result) -> bytes:
    """Pack what changes with the content of a file."""
    return _KEY.pack(
        status.st_dev & _MASK,
        status.st_ino & _MASK,
        status.st_size,
        status.st_mtime_ns & _MASK,
        status.st_ctime_ns & _MASK,
    )


class Memos:
    """Holds the memo in use. State of the process, like the files that it describes."""

    current: Memo = StatMemo()


def install_memo(memo: Memo) -> Memo:
    """Use another memo from now on; return the one that was used before."""
    before, Memos.current = Memos.current, memo
    return before
