"""zarr arrays as mapped inputs: read where they are, chunk by chunk, and identified by their content."""

import math
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.calls import CallLog, record
from zarr.storage import LocalStore

from gristmill import Pipeline, Store, node
from gristmill.errors import InputError
from gristmill.plan import chunked
from gristmill.plan.chunked import ChunkedElements, is_elsewhere
from gristmill.plan.inputs import mapped_input


class CountingStore(LocalStore):
    """Counts how often each chunk is read."""

    reads: ClassVar[Counter[str]] = Counter()

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        self.reads[key] += 1
        return await super().get(key, *args, **kwargs)


def saved(path: Path, array: Any, chunks: tuple[int, ...], store: type[LocalStore] = LocalStore) -> Any:
    found = zarr.create_array(store(path), shape=array.shape, chunks=chunks, dtype=array.dtype)
    found[...] = array
    return found


def total(image: Any) -> float:
    return float(np.sum(image))


TOTAL = node(total, mapspec="image[i] -> total[i]")
IMAGES = np.arange(60.0).reshape(10, 2, 3)

SPECS = [
    ("x[i] -> y[i]", (6,), (4,)),
    ("x[i] -> y[i]", (6, 4), (1, 4)),
    ("x[i] -> y[i]", (6, 4), (4, 3)),
    ("x[:, i] -> y[i]", (6, 4), (4, 3)),
    ("x[i, j] -> y[i, j]", (5, 3), (2, 2)),
    ("x[i, :, j] -> y[i, j]", (3, 4, 2), (2, 3, 1)),
    ("x[i, j] -> y[j, i]", (2, 3, 2), (1, 2, 2)),
]


def what(x: Any) -> tuple[Any, ...]:
    """All of what a function is handed, but where it lies in memory."""
    writeable = x.flags.writeable if isinstance(x, np.ndarray) else None
    return type(x).__name__, np.shape(x), str(x.dtype), writeable, np.asarray(x).tolist()


@pytest.mark.filterwarnings("ignore:The data type")
@pytest.mark.parametrize("dtype", ["f8", ">i4", "bool", "M8[s]", "U3"])
@pytest.mark.parametrize(("spec", "shape", "chunks"), SPECS)
def test_calls_are_those_of_the_equal_array(
    spec: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str, tmp_path: Path
) -> None:
    array = np.arange(math.prod(shape)).astype(dtype).reshape(shape)
    given = saved(tmp_path / "x", array, chunks)
    assert isinstance(given.store, LocalStore)
    pipeline = Pipeline([node(what, output_name="y", mapspec=spec)])
    expected = pipeline.map({"x": array}, map_executor="sequential")
    found = pipeline.map({"x": given}, map_executor="sequential")
    assert (found["y"].tolist(), found.stats.computed) == (expected["y"].tolist(), 0)
    with Store.temporary() as other:
        again = pipeline.with_(store=other).map({"x": given}, map_executor="sequential")
        assert (again["y"].tolist(), again.stats.computed > 0) == (expected["y"].tolist(), True)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_digests_do_not_depend_on_chunks(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shape = tuple(data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=3)))
    chunks = tuple(data.draw(st.integers(1, 8)) for _ in shape)
    axes = tuple(data.draw(st.sampled_from([f"i{d}", None])) for d in range(len(shape)))
    if not any(axes):
        axes = ("i", *axes[1:])
    array = np.arange(math.prod(shape), dtype="i2").reshape(shape)
    found = saved(tmp_path_factory.mktemp("property") / "x", array, chunks)
    room = data.draw(st.sampled_from([1, 16, 64, 1 << 24]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "ROOM", room)
        laid = mapped_input("x", found, axes)
        assert isinstance(laid.elements, ChunkedElements)
        assert (laid.shape, laid.digests) == (
            mapped_input("x", array, axes).shape,
            mapped_input("x", array, axes).digests,
        )


def test_every_chunk_is_read_once_to_identify_and_once_to_compute(tmp_path: Path) -> None:
    images = saved(tmp_path / "x", IMAGES, (3, 1, 2), CountingStore)
    CountingStore.reads.clear()
    result = Pipeline([TOTAL]).map({"image": images}, map_executor="sequential")
    assert result["total"].tolist() == IMAGES.sum(axis=(1, 2)).tolist()
    chunk_reads = {key: count for key, count in CountingStore.reads.items() if key.startswith("c/")}
    assert chunk_reads == {f"c/{i}/{j}/{k}": 2 for i in range(4) for j in range(2) for k in range(2)}
    CountingStore.reads.clear()
    assert Pipeline([TOTAL]).map({"image": images}, map_executor="sequential").stats.computed == 0
    assert max(CountingStore.reads.values()) == 1


def test_workers_read_it_themselves(tmp_path: Path) -> None:
    images = saved(tmp_path / "x", IMAGES, (2, 2, 3))
    result = Pipeline([TOTAL]).map({"image": images}, map_executor="parallel", max_workers=2)
    assert result["total"].tolist() == IMAGES.sum(axis=(1, 2)).tolist()
    in_memory = zarr.array(IMAGES)
    again = Pipeline([TOTAL]).map({"image": in_memory}, map_executor="parallel", max_workers=2)
    assert (again["total"].tolist(), again.stats.computed) == (result["total"].tolist(), 0)


@pytest.mark.parametrize(("shape", "chunks"), [((400, 50_000), (1, 50_000)), ((16, 1_250_000), (16, 50_000))])
def test_an_array_larger_than_memory_is_mapped(
    shape: tuple[int, ...], chunks: tuple[int, ...], tmp_path: Path
) -> None:
    path = tmp_path / "x"
    images = zarr.create_array(LocalStore(path), shape=shape, chunks=chunks, dtype="f8", fill_value=2.0)
    Pipeline([TOTAL]).map({"image": saved(tmp_path / "small", IMAGES, (1, 1, 1))})  # imports what it needs
    tracemalloc.start()
    try:
        result = Pipeline([TOTAL]).map({"image": images}, map_executor="sequential")
        assert tracemalloc.get_traced_memory()[1] < 90e6 < images.nbytes
    finally:
        tracemalloc.stop()
    assert set(result["total"].tolist()) == {2.0 * shape[1]}


def test_an_array_that_is_written_to_meanwhile_fails_the_calls(tmp_path: Path, executor: str) -> None:
    path = tmp_path / "x"

    def first(image: Any, place: str) -> float:
        value = float(image[0, 0])
        if value == 0.0:
            zarr.open_array(LocalStore(place), mode="r+")[5:] = -1.0
        return value

    images = saved(path, IMAGES, (1, 2, 3))
    pipeline = Pipeline([node(first, mapspec="image[i] -> first[i]")])
    given = {"image": images, "place": str(path)}
    result = pipeline.map(given, on_error="continue", map_executor=executor, max_workers=1)
    failed = [one.index for one in result.errors]
    assert failed
    assert set(failed) <= {(k,) for k in range(5, 10)}
    assert all("was written to while it was mapped over" in str(one.error) for one in result.errors)
    right = [6.0 * k for k in range(10)]
    assert all(one in (None, right[k]) for k, one in enumerate(result["first"].tolist()))
    again = pipeline.map(given, on_error="continue", map_executor=executor)
    assert again["first"].tolist() == right[:5] + [-1.0] * 5


def test_added_elements_are_computed_alone(tmp_path: Path, log: CallLog, executor: str) -> None:
    path = log.path

    def peak(image: Any) -> float:
        record(path, "peak")
        return float(image.max())

    images = saved(tmp_path / "x", IMAGES, (4, 2, 3))
    pipeline = Pipeline([node(peak, mapspec="image[i] -> peak[i]")])
    pipeline.map({"image": images}, map_executor=executor)
    log.take()
    images.append(IMAGES[:2] + 100)
    result = pipeline.map({"image": images}, map_executor=executor)
    assert (len(log.take()), result["peak"].tolist()[-2:]) == (2, [105.0, 111.0])


def test_too_few_dimensions_are_told(tmp_path: Path) -> None:
    images = saved(tmp_path / "x", np.arange(4), (2,))
    with pytest.raises(InputError, match=r"needs 2 dimensions; its shape is \(4,\)"):
        Pipeline([node(total, mapspec="image[i, j] -> total[i, j]")]).map({"image": images})


def test_what_other_processes_cannot_open_is_read_here(tmp_path: Path) -> None:
    assert is_elsewhere(saved(tmp_path / "x", IMAGES, (1, 1, 1)))
    assert not is_elsewhere(zarr.array(IMAGES))
    assert not is_elsewhere(IMAGES)
    result = Pipeline([TOTAL]).map({"image": zarr.array(IMAGES)}, map_executor="sequential")
    assert result["total"].tolist() == IMAGES.sum(axis=(1, 2)).tolist()


def test_labels_of_a_dataset_are_read_from_it(tmp_path: Path) -> None:
    xs = saved(tmp_path / "x", np.arange(5.0), (2,))
    result = Pipeline([node(lambda x: 2 * x, output_name="y", mapspec="x[i] -> y[i]")]).map({"x": xs})
    assert result.to_xarray()["x"].values.tolist() == list(np.arange(5.0))
    assert result.to_dataframe()["x"].tolist() == list(np.arange(5.0))
