"""Chunks: array elements as files, named by the checksum of their bytes.

A chunk file is what zarr v3's ``bytes`` codec (little endian) makes of the array: its raw C-order buffer. So the
xxh3_128 of the buffer is the file's name, the file's checksum and part of the array's digest, in one pass.
Files are immutable (mode 0444), appear by rename, and may be hard-linked into views.
"""

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_128, xxh3_128_digest

from gristmill.errors import InputError, IntegrityError, StoreError
from gristmill.storage.elements import ChunkRef
from gristmill.storage.medium import sync_directory

Array = np.ndarray[Any, Any]

_BLOCK = 1 << 20


class DamagedChunkError(IntegrityError):
    """A chunk's bytes are not those that it is named after."""

    def __init__(self, checksum: bytes) -> None:
        super().__init__(f"the chunk {checksum.hex()} does not match its checksum")
        self.checksum = checksum

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.checksum,)


class ChunkFiles:
    """The directory of chunk files.

    Parameters
    ----------
    directory
        Where the chunks live.
    scratch
        Where files are written before they are renamed; on the same file system.
    durable
        Sync each file and its directory before `write` returns.
    """

    def __init__(self, directory: Path, scratch: Path, *, durable: bool = False) -> None:
        self._directory = directory
        self._scratch = scratch
        self._durable = durable

    def path(self, checksum: bytes) -> Path:
        """Return where the chunk with `checksum` is, or would be."""
        name = checksum.hex()
        return self._directory / name[:2] / name

    def write(self, checksum: bytes, buffer: bytes | memoryview) -> bool:
        """Store `buffer`, whose xxh3_128 is `checksum`; return False where it is there already.

        Raises
        ------
        StoreError
            The file system refuses; nothing is left behind.
        """
        path = self.path(checksum)
        view = memoryview(buffer).cast("B")
        if _renew(path, len(view)):
            return False
        temporary = self._scratch / os.urandom(12).hex()
        try:
            self._write_file(temporary, view)
            path.parent.mkdir(exist_ok=True, parents=True)
            os.rename(temporary, path)
            if self._durable:
                sync_directory(path.parent)
                sync_directory(self._directory)
        except OSError as error:
            raise StoreError(f"cannot write a chunk of {len(view)} bytes: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return True

    def read(self, ref: ChunkRef) -> Array:
        """Return the array of `ref`, verified, as a plain writable ndarray.

        Raises
        ------
        IntegrityError
            The file is missing, has another length, or does not match its checksum.
        """
        array = np.empty(ref.shape, dtype=np.dtype(ref.dtype))
        buffer = raw_bytes(array)
        path = self.path(ref.checksum)
        try:
            with path.open("rb", buffering=0) as file:
                size = _read_into(file.fileno(), buffer)
                torn = size != len(buffer) or os.read(file.fileno(), 1) != b""
        except OSError as error:
            raise IntegrityError(f"a chunk cannot be read: {error}") from error
        if torn or xxh3_128_digest(buffer) != ref.checksum:
            raise DamagedChunkError(ref.checksum)
        return array

    def adopt(self, path: str, checksum: bytes) -> bool:
        """Keep a copy of the file at `path`, whose content has `checksum`; False where it is there already.

        Raises
        ------
        InputError
            Its content is not what it was.
        StoreError
            The file system refuses; nothing is left behind.
        """
        chunk = self.path(checksum)
        if _renew(chunk, os.stat(path).st_size):
            return False
        temporary = self._scratch / os.urandom(12).hex()
        try:
            temporary.parent.mkdir(exist_ok=True)
            if _copy(path, temporary, 0o444, durable=self._durable) != checksum:
                raise InputError(
                    f"{path!r} changed while it was copied to the store; return it once it is complete"
                )
            chunk.parent.mkdir(exist_ok=True, parents=True)
            os.rename(temporary, chunk)
            if self._durable:
                sync_directory(chunk.parent)
                sync_directory(self._directory)
        except OSError as error:
            raise StoreError(f"cannot keep a copy of {path!r}: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return True

    def put_back(self, checksum: bytes, target: Path, mode: int) -> None:
        """Copy a chunk to `target`, verified, unless something is there: that is never overwritten.

        Raises
        ------
        IntegrityError
            The chunk is missing or damaged.
        OSError
            The file cannot be written there.
        """
        chunk = self.path(checksum)
        if not chunk.exists():
            raise IntegrityError(f"the chunk {chunk.name} is missing")
        target.parent.mkdir(exist_ok=True, parents=True)
        temporary = target.with_name(f".{os.urandom(8).hex()}")
        try:
            if _copy(chunk, temporary, mode, durable=self._durable) != checksum:
                raise DamagedChunkError(checksum)
            try:
                os.link(temporary, target)
            except FileExistsError:
                return
            except OSError:  # a file system without hard links
                if not target.exists():
                    os.rename(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def quarantine(self, checksum: bytes, to: Path) -> None:
        """Move a damaged chunk out of the way, so that it can be written again."""
        to.mkdir(exist_ok=True)
        with contextlib.suppress(OSError):
            os.rename(self.path(checksum), to / checksum.hex())

    def _write_file(self, path: Path, view: memoryview) -> None:
        path.parent.mkdir(exist_ok=True)  # a cleaner of old files may have been here
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
            if self._durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _copy(source: str | Path, target: Path, mode: int, *, durable: bool) -> bytes:
    """Copy a file block by block and return the xxh3_128 of what was copied."""
    state, block = xxh3_128(), memoryview(bytearray(_BLOCK))
    with open(source, "rb", buffering=0) as file:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            while count := file.readinto(block):
                state.update(block[:count])
                part = block[:count]
                while part:
                    part = part[os.write(descriptor, part) :]
            os.fchmod(descriptor, mode)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return state.digest()


def raw_bytes(array: Array) -> memoryview:
    """Return the buffer of a C-contiguous array, byte by byte, without a copy."""
    return memoryview(array.reshape(-1).view(np.uint8).data)


def _read_into(descriptor: int, buffer: memoryview) -> int:
    size = 0
    while size < len(buffer):
        count = os.readv(descriptor, [buffer[size:]])  # one call reads at most 2 GiB
        if not count:
            break
        size += count
    return size


def _renew(path: Path, size: int) -> bool:
    """Return whether a file of that size is there, after saying by its time that it will be named by others."""
    try:
        if path.stat().st_size != size:
            return False
        os.utime(path)
    except PermissionError:  # another user's, in a store that is trusted
        return True
    except OSError:
        return False
    return True
