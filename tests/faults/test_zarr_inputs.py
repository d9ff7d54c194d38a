"""A zarr array that is harmed while it is mapped over: calls fail alone, and nothing wrong is kept."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from gristmill import Pipeline, node
from gristmill.errors import InputError

DATA = np.arange(40.0).reshape(10, 4)


def make(path: Path) -> Any:
    array = zarr.create_array(str(path), shape=DATA.shape, chunks=(1, 4), dtype="f8", compressors=None)
    array[...] = DATA
    return array


def delete(chunk: Path) -> None:
    chunk.unlink()


def truncate(chunk: Path) -> None:
    chunk.write_bytes(chunk.read_bytes()[:7])


def flip(chunk: Path) -> None:
    data = bytearray(chunk.read_bytes())
    data[5] ^= 1
    chunk.write_bytes(data)


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("harm", [delete, truncate, flip])
def test_an_element_that_is_harmed_fails_alone(harm: Any, executor: str, tmp_path: Path) -> None:
    chunk = tmp_path / "x" / "c" / "8" / "0"

    def total(row: Any, place: str) -> float:
        if row[0] == 0.0:
            harm(Path(place))
        return float(row.sum())

    pipeline = Pipeline([node(total, mapspec="row[i] -> total[i]")], store=str(tmp_path / "store"))
    given = {"row": make(tmp_path / "x"), "place": str(chunk)}
    result = pipeline.map(given, on_error="continue", map_executor=executor, max_workers=1)
    assert [one.index for one in result.errors] == [(8,)]
    expected = [float(row.sum()) for row in DATA]
    assert result["total"].tolist() == [*expected[:8], None, expected[9]]
    shutil.rmtree(tmp_path / "x")
    again = pipeline.map({**given, "row": make(tmp_path / "x")}, on_error="continue", map_executor=executor)
    assert (again["total"].tolist(), again.stats.computed) == (expected, 1)


def test_an_array_that_is_gone_before_the_map_is_an_error_then(tmp_path: Path) -> None:
    array = make(tmp_path / "x")
    truncate(tmp_path / "x" / "c" / "3" / "0")
    called: list[float] = []
    pipeline = Pipeline([node(lambda row: called.append(1.0), output_name="y", mapspec="row[i] -> y[i]")])
    with pytest.raises(InputError, match=r"input 'row' cannot be read"):
        pipeline.map({"row": array})
    assert not called
