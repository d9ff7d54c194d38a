"""The store's directory: what is in it, how it is made, who may use it.

Opening refuses, and touches nothing in, a directory that is no store, a store of another format, and a store
that other users own or may write to.
"""

import contextlib
import errno
import fcntl
import hmac
import json
import os
import shutil
import stat
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from xxhash import xxh3_64_hexdigest

from gristmill.errors import StoreError, StorePermissionError, StoreVersionError
from gristmill.storage.medium import sync_directory
from gristmill.storage.patience import lock
from gristmill.storage.seal import ENVIRONMENT, NO_KEY, Secret, check_value

FORMAT = 1
"""Version of everything under a store's root; a store of another version is refused."""

Identity = tuple[int, int, int, int]
"""Device, inode, time of the last write and time of the last change of a store's marker."""

NO_STORE: Identity = (0, 0, 0, 0)

_MARKER = "store.json"
_INCOMPLETE = {"chunks", "arrays", "tmp", "claims", "gate"}
"""What may be in a directory that was about to become a store when the disk was full."""

_CHUNK_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}]


@dataclass(frozen=True, slots=True)
class Marker:
    """What `store.json` says."""

    salt: bytes = b""
    """What the store's key is derived from beside the secret; empty where there is no secret."""
    check: bytes = b""
    """What tells the right secret from a wrong one."""

    @classmethod
    def made_with(cls, secret: Secret | None, salt: bytes = b"") -> "Marker":
        """Return the marker of a new store, with that salt if one is given and there is a secret."""
        if secret is None:
            return cls()
        salt = salt or os.urandom(16)
        return cls(salt, check_value(secret.key(salt)))

    @classmethod
    def decode(cls, data: bytes) -> "Marker | None":
        """Return the marker of which `data` is the exact form, or None."""
        try:
            told = json.loads(data).get("key", {})
            marker = cls(bytes.fromhex(told.get("salt", "")), bytes.fromhex(told.get("check", "")))
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None
        return marker if marker.encode() == data else None

    def encode(self) -> bytes:
        """Return the content of `store.json`."""
        told: dict[str, Any] = {
            "gristmill": FORMAT,
            "checksum": "blake2b_128" if self.salt else "xxh3_128",
            "chunk_codecs": _CHUNK_CODECS,
        }
        if self.salt:  # the sum tells a flipped bit from a wrong secret
            parts = {"salt": self.salt.hex(), "check": self.check.hex()}
            told["key"] = {**parts, "sum": xxh3_64_hexdigest("".join(parts.values()).encode())}
        return (json.dumps(told, indent=1) + "\n").encode()


@dataclass(frozen=True)
class Layout:
    """The paths of one store."""

    root: Path

    @cached_property
    def marker(self) -> Path:
        """The file that makes the directory a store."""
        return self.root / _MARKER

    @property
    def exists(self) -> bool:
        """Whether there is a store, as far as the disk says."""
        return os.path.exists(self.marker)

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

    def open(
        self, *, readonly: bool = False, trust: bool = False, secret: Secret | None = None, salt: bytes = b""
    ) -> bytes:
        """Make the directory a store if it is new, and refuse it if it cannot be used.

        Parameters
        ----------
        readonly
            Make none.
        trust
            Take it whoever else may write to it.
        secret
            What it is sealed with.
        salt
            What the key of a new store with a secret is derived from; random by default.

        Returns
        -------
        The key of a store with a secret, `NO_KEY` of one without.

        Raises
        ------
        StoreVersionError
            It is a store of another format, or a directory with something else in it.
        StorePermissionError
            Other users own it or may write to it, and `trust` is False; or it was made with another secret, with
            one where none is given, or without one.
        StoreError
            It cannot be made.
        """
        try:
            if not trust and self.root.exists():
                self._check_owner()
            if not self.marker.exists():
                self._create(Marker.made_with(secret, salt), readonly=readonly)
        except OSError as error:
            if isinstance(error, StoreError):
                raise
            raise StoreError(f"cannot use the store at {self.root}: {error}") from error
        return self._unlock(self._check_format(readonly=readonly), secret)

    def identity(self) -> Identity:
        """Return what tells this store from another one at the same place; `NO_STORE` where there is none.

        With the times, since a file system gives the number of a deleted file to the next one; with that of the
        last change too, since a restored backup brings the time of the last write with it.
        """
        try:
            status = self.marker.stat()
        except OSError:
            return NO_STORE
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns

    def is_marked(self) -> bool:
        """Return whether the marker is what was written."""
        return Marker.decode(self.marker.read_bytes()) is not None

    def _create(self, marker: Marker, *, readonly: bool) -> None:
        if readonly:
            raise StoreError(f"there is no store at {self.root}, and readonly=True does not make one")
        try:
            new = [path for path in (self.root, *self.root.parents) if not path.exists()]
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.suppress(OSError):  # some file systems cannot sync a directory
                for path in new:
                    sync_directory(path.parent)
            if foreign := sorted(set(os.listdir(self.root)) - _INCOMPLETE):
                if self.marker.exists():  # made by another process meanwhile
                    return
                raise StoreVersionError(
                    f"{self.root} is not a gristmill store (it contains {foreign[0]!r}); nothing in it was touched. "
                    "Give a directory that is empty or does not exist."
                )
            for path in (self.chunks, self.arrays, self.scratch):
                path.mkdir(exist_ok=True, mode=0o700)
            self._write_marker(marker)
        except OSError as error:
            raise StoreError(f"cannot make a store at {self.root}: {error}") from error

    def _write_marker(self, marker: Marker) -> None:
        temporary = self.scratch / f"{_MARKER}.{os.urandom(8).hex()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(marker.encode())
            file.flush()
            os.fsync(
                descriptor
            )  # whatever the durability: after a power cut, a marker without content is no store
        with contextlib.suppress(FileExistsError):
            os.link(temporary, self.marker)
        temporary.unlink()
        with contextlib.suppress(OSError):  # some file systems cannot sync a directory
            sync_directory(self.root)

    def _check_format(self, *, readonly: bool) -> Marker:
        try:
            data = self.marker.read_bytes()
            if (marker := Marker.decode(data)) is not None:
                return marker
            if (mended := _mended(data)) is not None:  # no other format is as near as that
                self._mend_marker(mended, readonly=readonly)
                return mended
            found = json.loads(data)["gristmill"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise StoreVersionError(
                f"{self.marker} cannot be read ({error}); this is no store of gristmill's"
            ) from error
        if found != FORMAT:
            raise StoreVersionError(
                f"the store at {self.root} has format {found}; this gristmill reads format {FORMAT}. "
                "Use the gristmill that wrote it, or another directory."
            )
        raise StoreVersionError(
            f"{self.marker} is not what gristmill wrote, although it names format {FORMAT}; it has been changed or "
            "damaged. Restore it from a copy, or use another directory."
        )

    def _unlock(self, marker: Marker, secret: Secret | None) -> bytes:
        if not marker.salt:
            if secret is not None:
                raise StorePermissionError(
                    f"the store at {self.root} was made without a secret, so that it cannot be told who wrote what "
                    f"is in it. Open it without one (and unset ${ENVIRONMENT}), or use another directory."
                )
            return NO_KEY
        if secret is None:
            raise StorePermissionError(
                f"the store at {self.root} was made with a secret; give it as Store(..., secret=...), "
                f"or in ${ENVIRONMENT}."
            )
        key = secret.key(marker.salt)
        if not hmac.compare_digest(check_value(key), marker.check):
            raise StorePermissionError(
                f"the store at {self.root} was made with another secret; nothing in it was touched."
            )
        return key

    def _mend_marker(self, marker: Marker, *, readonly: bool) -> None:
        """Write the marker over itself: its inode is what tells this store from another at the same place."""
        if not readonly:
            with contextlib.suppress(OSError), self.marker.open("r+b") as file:
                file.write(marker.encode())

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


READ_ONLY = frozenset((errno.EROFS, errno.EACCES, errno.EPERM))
"""What an operating system says that never lets a directory be written."""

_REFUSALS = READ_ONLY | {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM}
"""What an operating system says that does not, or not now, let a directory be written."""


def is_refusal(error: BaseException | None) -> bool:
    """Whether the disk, or who owns it, does not let us write now: no fault of what is there or was asked for."""
    return isinstance(error, OSError) and error.errno in _REFUSALS


def _mended(data: bytes) -> Marker | None:
    """Return the marker that `data` is one flipped bit away from, or None."""
    if len(data) not in {len(Marker().encode()), len(Marker(bytes([1] * 16), bytes(16)).encode())}:
        return None
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        if (marker := Marker.decode(bytes(flipped))) is not None:
            return marker
    return None


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
    """Return the locked descriptor of a new directory, or -1 where somebody else was faster."""
    try:
        descriptor = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return -1
    # Whoever looks whether it is locked has it for an instant, or for long, if it is stopped in that.
    if lock(descriptor, fcntl.LOCK_EX, 0.0) and (path / ".lock").exists():
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
