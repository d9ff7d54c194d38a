"""Large array outputs live in storage: stock zarr and xarray read them, and no process has to hold them all."""

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from tests.support.programs import run

PROGRAM = dedent(
    """
    import json, sys, threading
    import numpy as np
    import psutil
    from gristmill import Pipeline

    def image(seed, side):
        return np.random.default_rng(seed).random((side, side))

    def brightness(image):
        return float(image.mean())

    class Peak:
        # The most memory this process has had since the block began, beyond what it had then.
        def __enter__(self):
            self.process, self.done = psutil.Process(), threading.Event()
            self.start = self.most = self.process.memory_info().rss
            self.thread = threading.Thread(target=self.watch)
            self.thread.start()
            return self

        def watch(self):
            while not self.done.wait(0.005):
                self.most = max(self.most, self.process.memory_info().rss)

        def __exit__(self, *_):
            self.done.set()
            self.thread.join()
            self.growth = self.most - self.start

    if __name__ == "__main__":
        count, side, executor = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
        pipeline = Pipeline([(image, "seed[i] -> image[i]"), (brightness, "image[i] -> brightness[i]")])
        pipeline.map({"seed": [-1 % 2**32] * 2, "side": side}, map_executor=executor)  # imports and workers are there
        with Peak() as peak:
            result = pipeline.map(
                {"seed": range(count), "side": side}, map_executor=executor, output_name=["image", "brightness"]
            )
        with Peak() as reading:
            means = [float(one.mean()) for one in result["image"]] == result["brightness"].tolist()
        again = pipeline.map({"seed": range(count), "side": side}, map_executor=executor, output_name="image")
        print(json.dumps({
            "view": result.views["image"], "peak": peak.growth, "reading": reading.growth, "means": means,
            "piped": result.stats.bytes_piped, "written": result.stats.bytes_written, "again": again.stats.computed,
        }))
    """
)
MB = 1_000_000


def check(tmp_path: Path, store: Path, executor: str, count: int, side: int, limit: int) -> None:
    script = tmp_path / "job.py"
    script.write_text(PROGRAM)
    told = json.loads(run(script, count, side, executor, store=store))

    def expected(seed: int) -> Any:
        return np.random.default_rng(seed).random((side, side))

    array = zarr.open_array(told["view"], mode="r")
    assert array.shape == (count, side, side)
    assert all(np.array_equal(np.asarray(array[k]), expected(k)) for k in range(count))
    with xarray.open_zarr(Path(told["view"]).parent, consolidated=False) as dataset:
        image = dataset["image"]
        assert image.dims[0] == "i"
        assert image.sizes["i"] == count
        assert all(np.array_equal(image.isel(i=k).values, expected(k)) for k in (0, count // 2, count - 1))
        assert dataset["done"].dims == ("i",)
        assert bool(dataset["done"].all())
    assert told["means"]
    assert told["again"] == 0
    assert told["piped"] < 100_000
    assert told["written"] >= count * side * side * 8
    assert told["peak"] < limit
    assert told["reading"] < limit


@pytest.mark.parametrize("executor", ["parallel", "sequential"])
def test_arrays_of_one_megabyte(executor: str, tmp_path: Path, default_store: Path) -> None:
    check(tmp_path, default_store, executor, 200, 354, 64 * MB)


@pytest.mark.slow
def test_arrays_of_eight_megabytes(tmp_path: Path, default_store: Path) -> None:
    check(tmp_path, default_store, "parallel", 200, 1000, 96 * MB)
