"""Files and folders whose content is their identity.

Owns how they are hashed and what errors say of a path. Knows nothing of stores, nor of where the hashes are
remembered.
"""

# A hundred thousand files are looked at in a second: strings and descriptors, not Path objects.
# ruff: noqa: PTH100, PTH109, PTH115, PTH116, PTH119, PTH123

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

from xxhash import xxh3_128, xxh3_128_digest

from gristmill.errors import DigestError, InputError
from gristmill.identity import tags
from gristmill.identity.encoder import Encoder
from gristmill.identity.memo import Memos, state_of
from gristmill.identity.primitives import length, text

RACY = 2 * 10**9
"""Nanoseconds in which a file may change again under the same time stamp (git calls it "racily clean")."""

BLOCK = 1 << 20
ATTEMPTS = 3


class MissingFileError(InputError, FileNotFoundError):
    """There is no file, or no folder, at the path that was given."""


class _Place:
    """A path that stands for what is there."""

    __slots__ = ("_named", "_path")

    _path: str
    _named: bool

    def __init__(self, path: str | os.PathLike[str], *, name: bool = True) -> None:
        object.__setattr__(self, "_path", os.fspath(path))
        object.__setattr__(self, "_named", name)

    def __setattr__(self, attribute: str, value: object) -> None:
        raise AttributeError(f"{self!r} is immutable")

    def __fspath__(self) -> str:
        return self._path

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._path == other._path and self._named == other._named

    def __hash__(self) -> int:
        return hash((self._path, self._named))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path!r}{'' if self._named else ', name=False'})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (type(self), self._path, self._named)

    @property
    def path(self) -> Path:
        """Where it is."""
        return Path(self._path)

    @property
    def identifying_name(self) -> str | None:
        """The base name, where it counts."""
        if not self._named:
            return None
        name = os.path.basename(self._path)
        return name if name not in ("", ".", "..") else os.path.basename(os.path.abspath(self._path))


def _make(kind: type[_Place], path: str, named: bool) -> _Place:  # noqa: FBT001 - called by pickle, by position
    return kind(path, name=named)


class File(_Place):
    """A file whose identity is its content and its base name, wherever it is.

    Parameters
    ----------
    path
        Where it is.
    name
        Whether the base name counts; functions look at names and suffixes.
    """

    __slots__ = ()

    def read_bytes(self) -> bytes:
        """Return the content."""
        return self.path.read_bytes()

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the content as text."""
        return self.path.read_text(encoding)

    def open(self, mode: str = "r", **options: Any) -> IO[Any]:
        """Open the file as the builtin `open` does."""
        return open(self._path, mode, **options)


class Dir(_Place):
    """A folder whose identity is everything in it, by relative path, and its base name, wherever it is.

    Parameters
    ----------
    path
        Where it is.
    name
        Whether the folder's own base name counts; the names in it always do.
    """

    __slots__ = ()


class Encounters:
    """Collects, while it is entered, the files and folders that digests of this thread come by.

    >>> with Encounters() as met:
    ...     pass
    >>> met.places
    []
    """

    __slots__ = ("_outer", "places")

    def __init__(self) -> None:
        self.places: list[tuple[File | Dir, bytes]] = []
        """Each with the hash of its content."""

    def __enter__(self) -> Self:
        self._outer = _THREAD.encounters
        _THREAD.encounters = self
        return self

    def __exit__(self, *_: object) -> None:
        _THREAD.encounters = self._outer


class _Thread(threading.local):
    encounters: Encounters | None = None


_THREAD = _Thread()


def write_file(encoder: Encoder, value: File) -> None:
    """Append the content's hash, and the base name where it counts."""
    _write(encoder, value, "gristmill.File", file_hash(value._path))  # noqa: SLF001 - our own


def write_dir(encoder: Encoder, value: Dir) -> None:
    """Append the hash of the tree, and the base name where it counts."""
    _write(encoder, value, "gristmill.Dir", tree_hash(value._path))  # noqa: SLF001 - our own


def _write(encoder: Encoder, value: File | Dir, kind: str, content: bytes) -> None:
    encoder.parts.append(tags.NAMED + text(kind) + content)
    encoder.value(value.identifying_name)
    if _THREAD.encounters is not None:
        _THREAD.encounters.places.append((value, content))


def file_hash(path: str) -> bytes:
    """Return the xxh3_128 of a file's content, from the memo where that holds.

    Raises
    ------
    MissingFileError
        When there is no such file.
    InputError
        When it is no regular file, or changes all the time.
    """
    status = _status(path)
    known = Memos.current.get(status)
    if known is not None:
        return known
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path!r} is a folder; pass Dir({path!r})")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path!r} is no regular file, so it has no content that stays")
    return _read(path)


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path!r} (working directory: {os.getcwd()!r})") from None


def _read(path: str) -> bytes:
    """Hash a file that stays as it is meanwhile, and remember it unless it was written only just now."""
    for _ in range(ATTEMPTS):
        started = time.time_ns()
        with open(path, "rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            content = _hash(file)
            after = os.fstat(file.fileno())
        if state_of(before) == state_of(after):
            if after.st_mtime_ns < started - RACY:
                Memos.current.put(after, content)
            return content
    raise InputError(f"{path!r} changes while it is read; pass it once it is complete")


def _hash(file: Any) -> bytes:
    state, block = xxh3_128(), memoryview(bytearray(BLOCK))
    while count := file.readinto(block):
        state.update(block[:count])
    return state.digest()


def tree_hash(path: str) -> bytes:
    """Return the hash of everything in a folder: names, kinds and contents, following links.

    Raises
    ------
    MissingFileError
        When there is no such folder.
    InputError
        When it is no folder.
    DigestError
        When something in it has no content, such as a socket.
    """
    status = _status(path)
    if not stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path!r} is no folder; pass File({path!r})")
    return _tree(path, {(status.st_dev, status.st_ino): 0})


def _tree(path: str, ancestors: dict[tuple[int, int], int]) -> bytes:
    with os.scandir(path) as entries:
        ordered = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    return xxh3_128_digest(b"".join(part for entry in ordered for part in _entry(entry, ancestors)))


def _entry(entry: os.DirEntry[str], ancestors: dict[tuple[int, int], int]) -> Iterator[bytes]:
    yield text(entry.name)
    try:
        status = entry.stat()
    except FileNotFoundError:
        yield b"l" + text(os.readlink(entry.path))
        return
    place = (status.st_dev, status.st_ino)
    if stat.S_ISREG(status.st_mode):
        yield b"f" + (Memos.current.get(status) or _read(entry.path))
    elif not stat.S_ISDIR(status.st_mode):
        raise DigestError(f"{entry.path!r} is neither a file nor a folder, so it has no content to identify")
    elif place in ancestors:
        yield b"^" + length(len(ancestors) - ancestors[place])
    else:
        yield b"d" + _tree(entry.path, {**ancestors, place: len(ancestors)})
