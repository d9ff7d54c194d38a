"""The store's directory: what is in it, how it is made, who may use it.

Opening refuses, and touches nothing in, a directory that is no store, a store of another format, and a store
that other users own or may write to.
"""

import contextlib
import fcntl
import json
import os
import shutil
import stat
import weakref
from dataclasses import dataclass
from pathlib import Path

from gristmill.errors import StoreError, StorePermissionError, StoreVersionError

FORMAT = 1
"""Version of everything under a store's root; a store of another version is refused."""

_MARKER = "store.json"
_CHUNK_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}]


_MARKER_BYTES = (
    json.dumps({"gristmill": FORMAT, "checksum": "xxh3_128", "chunk_codecs": _CHUNK_CODECS}, indent=1) + "\n"
).encode()


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one store."""

    root: Path

    @property
    def marker(self) -> Path:
        """The file that makes the directory a store."""
        return self.root / _MARKER

    @property
    def ledger(self) -> Path:
        """The diskcache directory."""
        return self.root / "ledger"

    @property
    def chunks(self) -> Path:
        """Array elements, by checksum."""
        return self.root / "chunks"

    @property
    def arrays(self) -> Path:
        """Views: zarr groups of hard links."""
        return self.root / "arrays"

    @property
    def claims(self) -> Path:
        """Who is computing what."""
        return self.root / "claims"

    @property
    def scratch(self) -> Path:
        """What is being written."""
        return self.root / "tmp"

    @property
    def quarantine(self) -> Path:
        """Damaged chunks, kept for whoever wants to know what happened."""
        return self.root / "quarantine"

    @property
    def collector(self) -> Path:
        """What only one collector at a time has locked."""
        return self.root / "collector"

    @property
    def gate(self) -> Path:
        """What keeps look-ups and deletions apart."""
        return self.root / "gate"

    def open(self, *, readonly: bool = False, trust: bool = False) -> None:
        """Make the directory a store if it is new, and refuse it if it cannot be used.

        Raises
        ------
        StoreVersionError
            It is a store of another format, or a directory with something else in it.
        StorePermissionError
            Other users own it or may write to it, and `trust` is False.
        StoreError
            It cannot be made.
        """
        if not trust and self.root.exists():
            self._check_owner()
        if not self.marker.exists():
            self._create(readonly=readonly)
        self._check_format(readonly=readonly)

    def identity(self) -> tuple[int, int]:
        """Return what tells this store from another one at the same place; (0, 0) where there is none."""
        try:
            status = self.marker.stat()
        except OSError:
            return 0, 0
        return status.st_dev, status.st_ino

    def is_marked(self) -> bool:
        """Return whether the marker is what was written."""
        return _differing_bits(self.marker.read_bytes(), _MARKER_BYTES) == 0

    def _create(self, *, readonly: bool) -> None:
        if readonly:
            raise StoreError(f"there is no store at {self.root}, and readonly=True does not make one")
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            if foreign := sorted(set(os.listdir(self.root)) - {"chunks", "arrays", "tmp"}):
                if self.marker.exists():  # made by another process meanwhile
                    return
                raise StoreVersionError(
                    f"{self.root} is not a gristmill store (it contains {foreign[0]!r}); nothing in it was touched. "
                    "Give a directory that is empty or does not exist."
                )
            for path in (self.chunks, self.arrays, self.scratch):
                path.mkdir(exist_ok=True, mode=0o700)
            self._write_marker()
        except OSError as error:
            raise StoreError(f"cannot make a store at {self.root}: {error}") from error

    def _write_marker(self) -> None:
        temporary = self.scratch / f"{_MARKER}.{os.urandom(8).hex()}"
        temporary.write_bytes(_MARKER_BYTES)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, self.marker)
        temporary.unlink()

    def _check_format(self, *, readonly: bool) -> None:
        try:
            data = self.marker.read_bytes()
            if _differing_bits(data, _MARKER_BYTES) == 1:  # no other format is as near as that
                self._mend_marker(readonly=readonly)
                return
            found = json.loads(data)["gristmill"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreVersionError(
                f"{self.marker} cannot be read ({error}); this is no store of gristmill's"
            ) from error
        if found != FORMAT:
            raise StoreVersionError(
                f"the store at {self.root} has format {found}; this gristmill reads format {FORMAT}. "
                "Use the gristmill that wrote it, or another directory."
            )

    def _mend_marker(self, *, readonly: bool) -> None:
        """Write the marker over itself: its inode is what tells this store from another at the same place."""
        if not readonly:
            with contextlib.suppress(OSError), self.marker.open("r+b") as file:
                file.write(_MARKER_BYTES)

    def _check_owner(self) -> None:
        status = self.root.stat()
        if status.st_uid != os.geteuid():
            raise StorePermissionError(
                f"the store at {self.root} belongs to user {status.st_uid}. Its contents are unpickled, so this is "
                "as if that user ran code here; pass trust=True if you do trust them."
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StorePermissionError(
                f"the store at {self.root} can be written by other users (mode {status.st_mode & 0o777:o}). "
                f"Run `chmod 700 {self.root}`, or pass trust=True."
            )


def _differing_bits(left: bytes, right: bytes) -> int:
    if len(left) != len(right):
        return 8 * max(len(left), len(right))
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).bit_count()


class Scratch:
    """A directory for files that are being written, swept by others once this process is gone."""

    def __init__(self, parent: Path) -> None:
        parent.mkdir(exist_ok=True, mode=0o700)
        sweep(parent)
        self._lock = -1
        while self._lock < 0:
            self.path = parent / os.urandom(8).hex()
            self.path.mkdir(mode=0o700)
            self._lock = _lock_directory(self.path)
        # Also at exit, for whoever does not close; after kill -9 the next process sweeps.
        self._remove = weakref.finalize(self, _remove, self.path, self._lock, os.getpid())

    def close(self) -> None:
        """Remove the directory."""
        self._remove()


def _remove(path: Path, lock: int, maker: int) -> None:
    if os.getpid() == maker:  # a forked child that ends has a copy of the finalizer
        shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


def _lock_directory(path: Path) -> int:
    """Return the locked descriptor of a new directory, or -1 where a sweeper was faster."""
    try:
        descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return -1
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    if (path / ".lock").exists():
        return descriptor
    os.close(descriptor)
    return -1


def sweep(parent: Path) -> None:
    """Remove the scratch directories whose writers are gone."""
    for path in parent.iterdir():
        try:
            descriptor = os.open(path / ".lock", os.O_RDWR)
        except OSError:
            continue  # just being made, or a leftover file of `Layout.open`
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue
        finally:
            os.close(descriptor)
