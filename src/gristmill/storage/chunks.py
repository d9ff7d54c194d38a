"""Chunks: array elements as files, named by the checksum of their bytes.

A chunk file is what zarr v3's codecs make of the array: its raw C-order buffer (little endian), compressed if
the store was asked to. The name is the checksum of the file's bytes, whatever they are, so that they are checked
before they are decompressed; of an array that is not compressed, in a store without a secret, it is the xxh3_128
of the buffer, and part of the array's digest, in one pass.
Files are immutable (mode 0444), appear by rename, and may be hard-linked into views.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_128

from gristmill.errors import InputError, IntegrityError, StoreError
from gristmill.storage import compress
from gristmill.storage.compress import Compressor
from gristmill.storage.elements import ChunkRef, stored_dtype, stored_shape
from gristmill.storage.medium import sync_directory, sync_file
from gristmill.storage.seal import NO_KEY, Hasher, content_checksum, content_hasher

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
    verify
        Whether arrays that are read are compared with their checksums.
    key
        What checksums are made with, in a store with a secret.
    """

    def __init__(
        self,
        directory: Path,
        scratch: Path,
        *,
        durable: bool = False,
        verify: bool = True,
        key: bytes = NO_KEY,
    ) -> None:
        self._directory = directory
        self._scratch = scratch
        self._durable = durable
        self._verify = verify
        self._key = key

    def checksum(self, data: bytes | memoryview) -> bytes:
        """Return the name of the chunk that holds `data`."""
        return content_checksum(data, self._key)

    def keep(
        self, array: Array, compressor: Compressor | None = None, checksum: bytes | None = None
    ) -> tuple[ChunkRef, int]:
        """Store a C-contiguous array; return how to find it, and the bytes that were written.

        Parameters
        ----------
        array
            Of a dtype that zarr's codecs express.
        compressor
            What its buffer is compressed with.
        checksum
            xxh3_128 of the buffer, where the caller has it.

        Raises
        ------
        StoreError
            The file system refuses; nothing is left behind.
        """
        data: bytes | memoryview = raw_bytes(array)
        used = ""
        if compressor is not None and compressor.takes(array):
            data, used = compressor.encode(array), compressor.name
        plain = not (used or self._key)
        name = checksum if checksum is not None and plain else self.checksum(data)
        written = len(data) if self.write(name, data) else 0
        return ChunkRef(name, array.dtype.str, array.shape, used), written

    def path(self, checksum: bytes) -> Path:
        """Return where the chunk with `checksum` is, or would be."""
        name = checksum.hex()
        return self._directory / name[:2] / name

    def write(self, checksum: bytes, buffer: bytes | memoryview) -> bool:
        """Store `buffer`, which has that checksum; return False where it is there already.

        Raises
        ------
        StoreError
            The file system refuses; nothing is left behind.
        """
        path = self.path(checksum)
        view = memoryview(buffer).cast("B")
        if self._has(path, len(view)):
            return False
        temporary = self._scratch / os.urandom(12).hex()
        try:
            self._write_file(temporary, view)
            self._publish(temporary, path)
        except OSError as error:
            raise StoreError(f"cannot write a chunk of {len(view)} bytes: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return True

    def read(self, ref: ChunkRef, *, verify: bool | None = None) -> Array:
        """Return the array of `ref` as a plain writable ndarray.

        Parameters
        ----------
        ref
            Which one.
        verify
            Whether it is compared with its checksum; by default as the store is set.

        Raises
        ------
        IntegrityError
            The file is missing, has another length, or does not match its checksum.
        """
        dtype = stored_dtype(ref.dtype)
        shape = stored_shape(ref.shape, dtype.itemsize)
        verify = self._verify if verify is None else verify
        with self._opened(ref.checksum) as (descriptor, size):
            if ref.compressor:
                data = np.empty(size, np.uint8)
                self._fill(ref.checksum, descriptor, raw_bytes(data), verify=verify)
                return compress.known(ref.compressor).decode(data.data, shape, dtype)
            if size != int(np.prod(shape, dtype=object)) * dtype.itemsize:  # before there is memory for it
                raise DamagedChunkError(ref.checksum)
            array = np.empty(shape, dtype)
            self._fill(ref.checksum, descriptor, raw_bytes(array), verify=verify)
            return array

    @contextlib.contextmanager
    def _opened(self, checksum: bytes) -> Iterator[tuple[int, int]]:
        """Open a chunk; give its descriptor and its size."""
        try:
            # A pipe in its place would have us wait.
            descriptor = os.open(self.path(checksum), os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise IntegrityError(f"a chunk cannot be read: {error}") from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DamagedChunkError(checksum)
            yield descriptor, status.st_size
        except (OSError, MemoryError) as error:
            raise IntegrityError(f"a chunk cannot be read: {error}") from error
        finally:
            os.close(descriptor)

    def _fill(self, checksum: bytes, descriptor: int, buffer: memoryview, *, verify: bool) -> None:
        if _read_into(descriptor, buffer) != len(buffer) or os.read(descriptor, 1) != b"":
            raise DamagedChunkError(checksum)
        if verify and self.checksum(buffer) != checksum:
            raise DamagedChunkError(checksum)

    def adopt(self, path: str, content: bytes) -> tuple[bytes, bool]:
        """Keep a copy of the file at `path`; return the chunk's name, and whether it was not there before.

        Parameters
        ----------
        path
            What to copy.
        content
            xxh3_128 of its content; also the chunk's name in a store without a secret.

        Raises
        ------
        InputError
            Its content is not what it was.
        StoreError
            The file system refuses; nothing is left behind.
        """
        if not self._key and self._has(self.path(content), os.stat(path).st_size):
            return content, False
        temporary = self._scratch / os.urandom(12).hex()
        looked, named = xxh3_128(), content_hasher(self._key)
        try:
            temporary.parent.mkdir(exist_ok=True)
            _copy(path, temporary, 0o444, (looked, named), durable=self._durable)
            if looked.digest() != content:
                raise InputError(
                    f"{path!r} changed while it was copied to the store; return it once it is complete"
                )
            chunk = self.path(named.digest())
            if self._has(chunk, temporary.stat().st_size):
                return named.digest(), False
            self._publish(temporary, chunk)
        except OSError as error:
            raise StoreError(f"cannot keep a copy of {path!r}: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return named.digest(), True

    def take(self, path: Path, checksum: bytes) -> None:
        """Keep a copy of the chunk in the file `path`, which another directory of chunks has under the same name.

        Raises
        ------
        IntegrityError
            It is damaged.
        StoreError
            The file system refuses; nothing is left behind.
        """
        temporary = self._scratch / os.urandom(12).hex()
        hasher = content_hasher(self._key)
        try:
            if self._has(self.path(checksum), path.stat().st_size):
                return
            temporary.parent.mkdir(exist_ok=True)
            _copy(path, temporary, 0o444, (hasher,), durable=self._durable)
            if hasher.digest() != checksum:
                raise DamagedChunkError(checksum)
            self._publish(temporary, self.path(checksum))
        except OSError as error:
            raise StoreError(f"cannot keep a copy of {path}: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def renew(self, checksum: bytes) -> bool:
        """Return whether the chunk is there, after saying by its time that it will be named by others."""
        path = self.path(checksum)
        try:
            return self._has(path, path.stat().st_size)
        except OSError:
            return False

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
            hasher = content_hasher(self._key)
            _copy(chunk, temporary, mode, (hasher,), durable=self._durable)
            if hasher.digest() != checksum:
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
        """Move a damaged chunk out of the way, so that it can be written again; it may stay on a bad disk."""
        with contextlib.suppress(OSError):
            to.mkdir(exist_ok=True, mode=0o700)
            os.rename(self.path(checksum), to / checksum.hex())

    def _has(self, path: Path, size: int) -> bool:
        """Return whether a chunk of that size is there, after saying by its time that it will be named by others.

        Whoever has written it need not have waited until it was on the medium.
        """
        if not _renew(path, size):
            return False
        if self._durable:
            try:
                sync_file(path, self._directory)
            except OSError:
                return False  # then it is written again
        return True

    def _publish(self, temporary: Path, chunk: Path) -> None:
        for folder in (self._directory, chunk.parent):
            folder.mkdir(exist_ok=True, mode=0o700)
        os.rename(temporary, chunk)
        if self._durable:
            sync_directory(chunk.parent)
            sync_directory(self._directory)

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


def _copy(source: str | Path, target: Path, mode: int, hashers: tuple[Hasher, ...], *, durable: bool) -> None:
    """Copy a file block by block and show each block to the hashers."""
    block = memoryview(bytearray(_BLOCK))
    with open(source, "rb", buffering=0) as file:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            while count := file.readinto(block):
                part = block[:count]
                for hasher in hashers:
                    hasher.update(part)
                while part:
                    part = part[os.write(descriptor, part) :]
            os.fchmod(descriptor, mode)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
