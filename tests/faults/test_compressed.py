"""Compressed chunks: the same values, damage found as in any other, and views that stock zarr reads."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from tests.support.calls import CallLog, record

from gristmill import MapResult, Pipeline, Store, StoreError, node

COUNT = 4
COMPRESSORS = [None, "zstd", "zstd:9", "lz4", "blosc:1"]


class Scene:
    """A store, and a map of images that is run on it."""

    def __init__(self, directory: Path) -> None:
        self.location = directory / "store"
        self.log = CallLog(directory / "calls.log")

    def map(self, compressor: str | None, count: int = COUNT, executor: str = "sequential") -> MapResult:
        """Run it; every value is right, and so is the view."""
        result = self.run(compressor, count, executor)
        view = zarr.open_array(result.views["image"], mode="r")
        assert np.array_equal(np.asarray(view[:]), np.asarray(result["image"]))
        assert np.array_equal(np.asarray(result["image"].zarr[:]), np.asarray(view[:]))
        return result

    def run(self, compressor: str | None, count: int = COUNT, executor: str = "sequential") -> MapResult:
        log = self.log.path

        def image(x: int) -> Any:
            record(log, x)
            return np.arange(20_000.0).reshape(100, 200) + x

        total = node(lambda image: float(image.sum()), output_name="total", version="1")
        nodes = [node(image, mapspec="x[i] -> image[i]", version="1"), total]
        with Store(self.location, compressor=compressor) as store:
            result = Pipeline(nodes, store=store).map(
                {"x": range(count)}, output_name=["image", "total"], map_executor=executor
            )
            assert result["total"] == sum(199_990_000.0 + 20_000 * x for x in range(count))
            for x, found in enumerate(result["image"]):
                assert np.array_equal(found, np.arange(20_000.0).reshape(100, 200) + x)
            return result

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.location.glob("chunks/*/*"))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_values_come_back_and_stock_zarr_reads_the_view(
    compressor: str | None, executor: str, scene: Scene
) -> None:
    scene.map(compressor, executor=executor)
    assert (scene.size() < COUNT * 40_000) == (compressor is not None)
    assert scene.map(compressor, executor=executor).stats.computed == 0


def test_what_is_found_does_not_depend_on_the_compressor(scene: Scene) -> None:
    scene.map("zstd")
    for compressor in COMPRESSORS:
        assert scene.map(compressor).stats.computed == 0


@pytest.mark.parametrize(
    ("first", "second"), [(None, "zstd"), ("zstd", None), ("zstd", "lz4"), ("lz4", "zstd:9")]
)
def test_a_map_that_goes_on_with_another_compressor_has_a_view_all_the_same(
    first: str | None, second: str | None, scene: Scene
) -> None:
    scene.map(first, count=2)
    scene.map(second)
    assert sorted(scene.log.take()) == ["0", "1", "2", "3"]
    for compressor in (first, second):
        for path in scene.location.glob("arrays/*/image/c*"):
            assert path.exists()
        assert scene.map(compressor).stats.computed == 0


def test_copies_in_a_view_are_made_once(scene: Scene) -> None:
    scene.map("zstd", count=COUNT)
    lost = min(scene.location.glob("chunks/*/*"))
    lost.unlink()
    scene.map("lz4")
    views = list(scene.location.glob("arrays/*/image"))
    copies = [path for path in views[0].glob("c.*") if path.stat().st_nlink == 1]
    before = {path: path.stat().st_ino for path in copies}
    assert len(copies) == 1
    scene.map("lz4")
    assert {path: path.stat().st_ino for path in copies} == before


def test_a_view_with_other_codecs_is_made_anew(scene: Scene) -> None:
    made = scene.map("zstd")
    metadata = Path(made.views["image"]) / "zarr.json"
    for text in (metadata.read_text().replace('"zstd"', '"gzip"'), "[]", "{", '{"attributes": 7}'):
        metadata.write_text(text)
        assert scene.map("zstd").stats.computed == 0


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("compressor", ["zstd", "lz4"])
def test_damage_in_a_compressed_chunk_is_computed_again(compressor: str, executor: str, scene: Scene) -> None:
    scene.map(compressor)
    scene.log.take()
    chunks = sorted(scene.location.glob("chunks/*/*"))
    for path, keep in zip(chunks, (0, 20, -1, None), strict=True):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o600)
        path.write_bytes(data[:keep])
    scene.run(compressor, executor=executor)
    assert sorted(scene.log.take()) == ["0", "1", "2", "3"]
    assert scene.map(compressor).stats.computed == 0


@pytest.mark.parametrize("compressor", ["gzip", "zstd:99", "", 3])
def test_a_compressor_that_there_is_not_is_refused_before_anything_is_made(
    compressor: Any, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="compressor is"):
        Store(tmp_path / "store", compressor=compressor)
    assert not (tmp_path / "store").exists()


def test_without_verify_a_damaged_array_is_a_wrong_one_and_a_torn_one_is_still_missing(
    tmp_path: Path,
) -> None:
    image = node(lambda x: np.full(20_000, float(x)), output_name="y", mapspec="x[i] -> y[i]", version="1")

    def run(*, verify: bool) -> tuple[list[float], int]:
        with Store(tmp_path / "store", verify=verify) as store:
            result = Pipeline([image], store=store).map({"x": [1, 2]}, map_executor="sequential")
            return [float(y[0]) for y in result["y"]], result.stats.computed

    assert run(verify=False) == ([1.0, 2.0], 2)
    for path in tmp_path.glob("store/chunks/*/*"):
        path.chmod(0o600)
        path.write_bytes(np.full(20_000, 7.0).tobytes())
    assert run(verify=False) == ([7.0, 7.0], 0)
    assert run(verify=True) == ([1.0, 2.0], 0)
    for path in tmp_path.glob("store/chunks/*/*"):
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:-1])
    assert run(verify=False)[0] == [1.0, 2.0]
