"""What is remembered of files that were hashed before.

Owns when two looks at a file see the same content, and the form in which stores keep that. Knows nothing of
how content is hashed, nor of stores.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterable
from types import MethodType
from weakref import WeakMethod

_ROW = struct.Struct("<5Q16s")
_KEY = struct.Struct("<5Q")
_INODE = struct.Struct("<2Q")
_MASK = (1 << 64) - 1


class StatMemo:
    """Hashes by device, inode, size, and times of modification and of change.

    The time of change catches what sets the time of modification back, as ``cp -p`` and ``touch -r`` do.
    """

    def __init__(self) -> None:
        self._hashes: dict[bytes, bytes] = {}
        self._added: list[bytes] = []
        self._offers: dict[str, Callable[[], Callable[[], Iterable[bytes]] | None]] = {}
        self._taken: set[str] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._hashes)

    def get(self, status: os.stat_result) -> bytes | None:
        """Return the hash that was put for a file in this state, here or in a process that kept its memo."""
        state = state_of(status)
        found = self._hashes.get(state)
        if found is None and self._offers:
            self._take_offers()
            found = self._hashes.get(state)
        return found

    def put(self, status: os.stat_result, content: bytes) -> None:
        """Remember the hash of a file in this state."""
        state = state_of(status)
        self._hashes[state] = content
        self._added.append(state + content)

    def offer(self, name: str, load: Callable[[], Iterable[bytes]]) -> None:
        """Ask `load` for blocks that were kept, once, when a file is looked for that is not known here.

        Parameters
        ----------
        name
            Where they are; what was taken from there is not asked for again.
        load
            If it is a method, its object is not kept alive for this.
        """
        if name not in self._taken:
            self._offers[name] = WeakMethod(load) if isinstance(load, MethodType) else lambda: load

    def added(self, since: int) -> tuple[bytes, int]:
        """Return what was put after the first `since` entries, 56 bytes each, and how many there are now."""
        count = len(self._added)
        return b"".join(self._added[since:count]), count

    def load(self, block: bytes) -> None:
        """Add the entries of a block that `added` or `merged` returned.

        Raises
        ------
        ValueError
            When the block does not consist of whole entries.
        """
        self._hashes.update((row[: _KEY.size], row[_KEY.size :]) for row in _rows(block))

    def _take_offers(self) -> None:
        with self._lock:
            while self._offers:
                name, load = self._offers.popitem()
                self._taken.add(name)
                loader = load()
                for block in loader() if loader is not None else ():
                    self.load(block)


def merged(blocks: Iterable[bytes]) -> bytes:
    """Return blocks as one, with only the last entry of each file."""
    latest = {row[: _INODE.size]: row for block in blocks for row in _rows(block)}
    return b"".join(latest.values())


def state_of(status: os.stat_result) -> bytes:
    """Pack what changes with the content of a file."""
    return _KEY.pack(
        status.st_dev & _MASK,
        status.st_ino & _MASK,
        status.st_size,
        status.st_mtime_ns & _MASK,
        status.st_ctime_ns & _MASK,
    )


def is_block(block: bytes) -> bool:
    """Return whether `block` consists of whole entries."""
    return len(block) % _ROW.size == 0


def _rows(block: bytes) -> Iterable[bytes]:
    if not is_block(block):
        raise ValueError(f"a memo of {len(block)} bytes does not consist of entries of {_ROW.size}")
    return (block[start : start + _ROW.size] for start in range(0, len(block), _ROW.size))


class Memos:
    """Holds the memo in use. State of the process, like the files that it describes."""

    current = StatMemo()


def install_memo(memo: StatMemo) -> StatMemo:
    """Use another memo from now on; return the one that was used before."""
    before, Memos.current = Memos.current, memo
    return before
