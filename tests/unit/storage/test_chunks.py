"""Chunk files: immutable, whole or absent, verified whenever they are read."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xxhash import xxh3_128_digest

from gristmill.errors import IntegrityError, StoreError
from gristmill.storage.chunks import ChunkFiles
from gristmill.storage.elements import ChunkRef


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("chunks", "tmp"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture(params=[False, True], ids=["plain", "durable"])
def chunks(directory: Path, request: pytest.FixtureRequest) -> ChunkFiles:
    return ChunkFiles(directory / "chunks", directory / "tmp", durable=request.param)


def put(chunks: ChunkFiles, array: Any) -> ChunkRef:
    data = array.tobytes()
    chunks.write(xxh3_128_digest(data), data)
    return ChunkRef(xxh3_128_digest(data), array.dtype.str, array.shape)


@pytest.mark.parametrize("dtype", ["f8", "u1", "?", "c16", "f2", "i8"])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (), (0,), (1, 1, 5)])
def test_an_array_comes_back(dtype: str, shape: tuple[int, ...], chunks: ChunkFiles) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    found = chunks.read(put(chunks, array))
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert type(found) is np.ndarray
    found[...] = 0
    assert chunks.read(put(chunks, array)).tobytes() == array.tobytes()


def test_a_chunk_is_the_plain_bytes_under_their_checksum(chunks: ChunkFiles, directory: Path) -> None:
    array = np.arange(5.0)
    put(chunks, array)
    name = xxh3_128_digest(array.tobytes()).hex()
    path = directory / "chunks" / name[:2] / name
    assert path.read_bytes() == array.tobytes()
    assert path.stat().st_mode & 0o222 == 0


def test_a_chunk_that_is_there_is_not_written_again(chunks: ChunkFiles, directory: Path) -> None:
    ref = put(chunks, np.arange(5.0))
    before = chunks.path(ref.checksum).stat().st_ino
    put(chunks, np.arange(5.0))
    assert chunks.path(ref.checksum).stat().st_ino == before
    assert list((directory / "tmp").iterdir()) == []


def test_a_torn_chunk_is_written_again(chunks: ChunkFiles) -> None:
    ref = put(chunks, np.arange(5.0))
    path = chunks.path(ref.checksum)
    path.chmod(0o600)
    os.truncate(path, 7)
    put(chunks, np.arange(5.0))
    assert chunks.read(ref).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("place", [0, 13, 39])
def test_a_flipped_bit_is_found(place: int, chunks: ChunkFiles) -> None:
    ref = put(chunks, np.arange(5.0))
    path = chunks.path(ref.checksum)
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.chmod(0o600)
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        chunks.read(ref)


@pytest.mark.parametrize("size", [0, 1, 39, 41, 80])
def test_another_length_is_found(size: int, chunks: ChunkFiles) -> None:
    ref = put(chunks, np.arange(5.0))
    path = chunks.path(ref.checksum)
    path.chmod(0o600)
    path.write_bytes((path.read_bytes() * 2)[:size])
    with pytest.raises(IntegrityError):
        chunks.read(ref)


def test_a_missing_chunk_is_found(chunks: ChunkFiles) -> None:
    ref = put(chunks, np.arange(5.0))
    chunks.path(ref.checksum).unlink()
    with pytest.raises(IntegrityError):
        chunks.read(ref)


def test_a_directory_in_its_place_is_found(chunks: ChunkFiles) -> None:
    ref = put(chunks, np.arange(5.0))
    chunks.path(ref.checksum).unlink()
    chunks.path(ref.checksum).mkdir()
    with pytest.raises(IntegrityError):
        chunks.read(ref)


def test_a_damaged_chunk_moves_aside(chunks: ChunkFiles, directory: Path) -> None:
    ref = put(chunks, np.arange(5.0))
    chunks.quarantine(ref.checksum, directory / "quarantine")
    chunks.quarantine(ref.checksum, directory / "quarantine")
    assert len(list((directory / "quarantine").iterdir())) == 1
    with pytest.raises(IntegrityError):
        chunks.read(ref)
    assert chunks.read(put(chunks, np.arange(5.0))).tolist() == [0, 1, 2, 3, 4]


def test_a_write_that_fails_leaves_nothing(
    chunks: ChunkFiles, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gristmill.storage.chunks.os.write", full)
    with pytest.raises(StoreError, match="No space left"):
        put(chunks, np.arange(5.0))
    assert [path for path in directory.rglob("*") if path.is_file()] == []


def test_a_write_in_many_pieces_is_whole(chunks: ChunkFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr("gristmill.storage.chunks.os.write", lambda fd, data: write(fd, data[:7]))
    array = np.arange(1000.0)
    assert chunks.read(put(chunks, array)).tobytes() == array.tobytes()
