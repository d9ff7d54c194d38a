"""Compressors: what was compressed comes back, and whatever else is there is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from gristmill.errors import IntegrityError, StoreError
from gristmill.storage.chunks import ChunkFiles, DamagedChunkError
from gristmill.storage.compress import Compressor, known
from gristmill.storage.elements import ChunkRef
from gristmill.storage.seal import NO_KEY, Secret
from gristmill.storage.views import array_metadata

SPECS = ["zstd", "zstd:1", "zstd:-3", "lz4", "lz4:9", "blosc", "blosc:1"]
DTYPES = ["bool", "int8", "uint16", "int64", "float16", "float32", "float64", "complex64", "complex128"]


def array(dtype: str = "float64", shape: tuple[int, ...] = (40, 50)) -> Any:
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


@pytest.fixture(params=[NO_KEY, Secret(b"house").key(bytes(16))], ids=["plain", "secret"])
def chunks(tmp_path: Path, request: pytest.FixtureRequest) -> ChunkFiles:
    for name in ("chunks", "tmp"):
        (tmp_path / name).mkdir()
    return ChunkFiles(tmp_path / "chunks", tmp_path / "tmp", key=request.param)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_comes_back(spec: str, dtype: str) -> None:
    compressor = Compressor.parse(spec)
    for shape in ((40, 50), (1,), ()):
        value = array(dtype, shape)
        found = compressor.decode(compressor.encode(value), shape, value.dtype)
        assert (found.dtype, found.shape, found.tobytes()) == (value.dtype, shape, value.tobytes())
        assert found.flags.writeable


@pytest.mark.parametrize(("spec", "name"), [("zstd", "zstd:3"), ("blosc", "lz4:5"), ("lz4:0", "lz4:0")])
def test_a_compressor_has_one_name(spec: str, name: str) -> None:
    assert Compressor.parse(spec).name == name
    assert Compressor.parse(name) == Compressor.parse(spec)


@pytest.mark.parametrize(
    "spec", ["", "gzip", "zstd:", "zstd:99", "lz4:10", "lz4:-1", "zstd:x", "ZSTD", 3, ["zstd"]]
)
def test_what_is_no_compressor_is_refused(spec: Any) -> None:
    with pytest.raises(StoreError, match="compressor is"):
        Compressor.parse(spec)
    if isinstance(spec, str):
        with pytest.raises(IntegrityError, match="not known here"):
            known(spec)


@pytest.mark.parametrize("spec", ["zstd", "lz4"])
def test_stock_zarr_reads_it(spec: str, tmp_path: Path) -> None:
    compressor, value = Compressor.parse(spec), array()
    metadata = array_metadata(("i",), (1,), value.shape, value.dtype)
    metadata["codecs"].append(compressor.metadata(value.dtype))
    (tmp_path / "zarr.json").write_text(json.dumps(metadata))
    (tmp_path / "c.0.0.0").write_bytes(compressor.encode(value))
    assert np.array_equal(np.asarray(zarr.open_array(tmp_path, mode="r")[0]), value)


@pytest.mark.parametrize("spec", ["zstd", "lz4"])
@pytest.mark.parametrize("size", [0, 1, 7, 30, -1])
def test_a_torn_frame_is_damage(spec: str, size: int) -> None:
    compressor, value = Compressor.parse(spec), array()
    with pytest.raises(IntegrityError):
        compressor.decode(compressor.encode(value)[:size], value.shape, value.dtype)


@pytest.mark.parametrize("spec", ["zstd", "lz4"])
def test_a_frame_of_a_larger_array_is_damage(spec: str) -> None:
    compressor, value = Compressor.parse(spec), array()
    with pytest.raises(IntegrityError):
        compressor.decode(compressor.encode(value), (40, 49), value.dtype)


@pytest.mark.parametrize("spec", ["zstd", "lz4"])
def test_a_claim_of_ten_terabytes_is_damage(spec: str) -> None:
    compressor = Compressor.parse(spec)
    with pytest.raises(IntegrityError, match="cannot hold"):
        compressor.decode(compressor.encode(array()), (10**13 // 8,), np.dtype("f8"))


# -- chunks


@pytest.mark.parametrize("spec", ["zstd", "lz4"])
def test_a_chunk_is_named_by_the_bytes_of_its_file(spec: str, chunks: ChunkFiles) -> None:
    value = array(shape=(100, 100))
    ref, written = chunks.keep(value, Compressor.parse(spec))
    data = chunks.path(ref.checksum).read_bytes()
    assert chunks.checksum(data) == ref.checksum
    assert written == len(data) < value.nbytes
    assert chunks.keep(value, Compressor.parse(spec)) == (ref, 0)
    assert np.array_equal(chunks.read(ref), value)


def test_one_store_holds_chunks_of_several_compressors(chunks: ChunkFiles) -> None:
    value = array()
    refs = [chunks.keep(value, made)[0] for made in (None, Compressor.parse("zstd"), Compressor.parse("lz4"))]
    assert len({ref.checksum for ref in refs}) == 3
    assert [ref.compressor for ref in refs] == ["", "zstd:3", "lz4:5"]
    for ref in refs:
        assert np.array_equal(chunks.read(ref), value)


@pytest.mark.parametrize("spec", [None, "zstd", "lz4"])
def test_a_flipped_bit_is_found_before_anything_is_decoded(
    spec: str | None, chunks: ChunkFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, _ = chunks.keep(array(), Compressor.parse(spec) if spec else None)
    path = chunks.path(ref.checksum)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    monkeypatch.setattr(Compressor, "decode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(DamagedChunkError):
        chunks.read(ref)


def test_without_verify_the_bytes_are_taken_as_they_are(tmp_path: Path) -> None:
    careless = ChunkFiles(tmp_path / "chunks", tmp_path, verify=False)
    ref, _ = careless.keep(array())
    path = careless.path(ref.checksum)
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)
    assert careless.read(ref).tobytes() == bytes(data)
    with pytest.raises(DamagedChunkError):
        careless.read(ref, verify=True)
    path.write_bytes(data[:-1])
    with pytest.raises(DamagedChunkError):
        careless.read(ref)


def test_a_size_that_is_not_the_files_is_found_before_memory_is_taken(
    chunks: ChunkFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, _ = chunks.keep(array())
    monkeypatch.setattr("gristmill.storage.chunks.np.empty", lambda *_: pytest.fail("memory was taken"))
    for shape in ((10**13,), (2**40, 2), (1,), (39, 50)):
        with pytest.raises(IntegrityError):
            chunks.read(ChunkRef(ref.checksum, ref.dtype, shape))


@pytest.mark.parametrize("shape", [(-1,), (2**70,), (2**40, 2**40), ("3",), (1.0,), (1,) * 65, None, (True,)])
def test_a_shape_that_no_array_has_is_damage(shape: Any, chunks: ChunkFiles) -> None:
    ref, _ = chunks.keep(array())
    with pytest.raises(IntegrityError, match="shape"):
        chunks.read(ChunkRef(ref.checksum, ref.dtype, shape))


@pytest.mark.parametrize(
    "dtype", ["O", "|O", "f8,O", "|V8", "<f8\n", "", None, 7, "<f" + "9" * 20, "(2,)f8", "<M8[xx]"]
)
def test_a_dtype_that_is_never_stored_is_damage(dtype: Any, chunks: ChunkFiles) -> None:
    ref, _ = chunks.keep(array())
    with pytest.raises(IntegrityError, match="dtype"):
        chunks.read(ChunkRef(ref.checksum, dtype, ref.shape))
