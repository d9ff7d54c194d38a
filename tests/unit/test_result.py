"""Results: lazy, array-like, exact; what is missing says so."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from tests.support.values import same

from gristmill import GristmillError, MappedOutput, MapResult, Pipeline, Store, node


def add(x: int, y: int) -> int:
    return x + y


def fail_at_two(x: int) -> int:
    if x == 2:
        raise ValueError("two")
    return 10 * x


def grid() -> MappedOutput:
    """A 2 × 3 output: [[10, 11, 12], [20, 21, 22]]."""
    pipeline = Pipeline([node(add, output_name="z", mapspec="x[i], y[j] -> z[i, j]")])
    output = pipeline.map({"x": [10, 20], "y": [0, 1, 2]}, map_executor="sequential")["z"]
    assert isinstance(output, MappedOutput)
    return output


def mapped(function: Callable[[Any], Any], x: Any, **options: Any) -> MappedOutput:
    pipeline = Pipeline([node(function, output_name="y", mapspec="x[i] -> y[i]")])
    output = pipeline.map({"x": x}, **{"map_executor": "sequential", **options})["y"]
    assert isinstance(output, MappedOutput)
    return output


def gappy() -> MappedOutput:
    """[10, missing, 30]."""
    return mapped(fail_at_two, [1, 2, 3], on_error="continue")


def image(x: int) -> Any:
    return np.full((3, 4), x, dtype="f4")


# -- indexing


NUMPY = np.array([[10, 11, 12], [20, 21, 22]])
INDICES: list[Any] = [
    (0, 2),
    (-1, -1),
    np.s_[:],
    np.s_[1],
    np.s_[-1],
    np.s_[:, 1],
    np.s_[0:1, ::-1],
    np.s_[..., 0],
    np.s_[None, 0],
    ([0, 1], [2, 0]),
    NUMPY > 11,
    np.array([1, 0, 1]),
    np.s_[5:],
    (np.int64(1), np.int64(0)),
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_indexing_is_numpys(index: Any) -> None:
    found = grid()[index]
    assert np.array_equal(found, NUMPY[index])
    assert np.shape(found) == NUMPY[index].shape


@pytest.mark.parametrize("index", [2, -3, (0, 3), (0, 0, 0), "a", 1.5])
def test_a_wrong_index_is_an_index_error(index: Any) -> None:
    with pytest.raises(IndexError):
        grid()[index]


def test_an_element_has_the_exact_type() -> None:
    assert same(grid()[0, 1], 11)


def test_iterating_yields_exact_elements_or_rows() -> None:
    assert same(list(mapped(lambda x: x, [1, 2.0, None])), [1, 2.0, None])
    assert [row.tolist() for row in grid()] == NUMPY.tolist()


def test_membership_and_reversal_work_like_a_sequence() -> None:
    output = mapped(lambda x: x, [1, 2, 3])
    assert 2 in output
    assert 7 not in output


def test_arrays_as_elements() -> None:
    output = mapped(image, [1, 2])
    assert (output.shape, output.extents, output.ndim, output.dtype) == ((2, 3, 4), (2,), 3, np.dtype("f4"))
    assert same(output[1], image(2))
    assert np.asarray(output[0:2]).shape == (2, 3, 4)


def test_asarray_takes_a_dtype_and_copies_as_numpy_says() -> None:
    output = grid()
    assert np.asarray(output, dtype="f4").dtype == np.dtype("f4")
    first = np.array(output)
    first[:] = 0
    assert np.asarray(output).tolist() == NUMPY.tolist()


def test_an_output_enters_numpy_functions() -> None:
    assert np.sum(np.asarray(grid())) == NUMPY.sum()
    assert np.mean(grid()) == NUMPY.mean()


def test_the_repr_names_axes_and_extents() -> None:
    assert repr(grid()) == "<MappedOutput z[i=2, j=3]>"
    assert "1 missing" in repr(gappy())


# -- what is missing


def test_missing_is_a_mask_over_the_axes() -> None:
    assert gappy().missing.tolist() == [False, True, False]
    assert grid().missing.shape == (2, 3)
    assert not grid().missing.any()


def test_tolist_has_none_where_an_element_is_missing() -> None:
    assert gappy().tolist() == [10, None, 30]


def test_masked_masks_what_is_missing() -> None:
    masked = gappy().masked()
    assert (masked.tolist(), masked.dtype) == ([10, None, 30], np.dtype("i8"))


def test_masked_arrays_of_arrays() -> None:
    def picture(x: int) -> Any:
        return np.full(2, fail_at_two(x))

    masked = mapped(picture, [1, 2, 3], on_error="continue").masked()
    assert masked.tolist() == [[10, 10], [None, None], [30, 30]]


def test_masked_where_everything_is_missing() -> None:
    assert mapped(fail_at_two, [2], on_error="continue").masked().tolist() == [None]


READERS: dict[str, Callable[[MappedOutput], Any]] = {
    "asarray": np.asarray,
    "index": lambda output: output[1],
    "slice": lambda output: output[:],
    "iterate": list,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_reading_what_is_missing_says_where_and_why(read: Callable[[MappedOutput], Any]) -> None:
    with pytest.raises(GristmillError, match=r"'y' are missing, the first at \(1,\).*errors"):
        read(gappy())


def test_what_is_there_can_be_read_beside_what_is_missing() -> None:
    output = gappy()
    assert (output[0], output[2], output[::2].tolist()) == (10, 30, [10, 30])


def test_shape_and_dtype_come_from_what_is_there() -> None:
    assert (gappy().shape, gappy().dtype) == ((3,), np.dtype("i8"))


def test_a_value_that_is_missing_says_so() -> None:
    pipeline = Pipeline([node(fail_at_two, output_name="y")])
    result = pipeline.map({"x": 2}, on_error="continue", map_executor="sequential")
    with pytest.raises(GristmillError, match="'y' has no value"):
        result["y"]


# -- the result as a whole


def both() -> MapResult:
    pipeline = Pipeline(
        [
            node(add, output_name="z", mapspec="x[i], y[j] -> z[i, j]"),
            node(lambda x: -x, output_name="m", mapspec="x[i] -> m[i]"),
            node(lambda m: int(m.sum()), output_name="t"),
        ]
    )
    return pipeline.map({"x": [10, 20], "y": [0, 1]}, output_name=["z", "m", "t"], map_executor="sequential")


def test_a_result_is_a_mapping() -> None:
    result = both()
    assert (list(result), len(result), "z" in result, "q" in result) == (["z", "m", "t"], 3, True, False)
    with pytest.raises(KeyError):
        result["q"]


def test_rows_repeat_outputs_with_fewer_axes() -> None:
    assert list(both().rows()) == [
        {"z": 10, "m": -10},
        {"z": 11, "m": -10},
        {"z": 20, "m": -20},
        {"z": 21, "m": -20},
    ]


def test_rows_have_none_for_what_is_missing() -> None:
    pipeline = Pipeline([node(fail_at_two, output_name="y", mapspec="x[i] -> y[i]")])
    result = pipeline.map({"x": [1, 2]}, on_error="continue", map_executor="sequential")
    assert list(result.rows()) == [{"y": 10}, {"y": None}]


def test_rows_of_outputs_without_a_common_space_are_refused() -> None:
    double = node(lambda x: 2 * x, output_name="a", mapspec="x[i] -> a[i]")
    other = node(lambda y: y, output_name="b", mapspec="y[j] -> b[j]")
    result = Pipeline([double, other]).map({"x": [1], "y": [2]}, map_executor="sequential")
    with pytest.raises(GristmillError, match="one space"):
        list(result.rows())


def test_the_repr_of_a_result_says_what_was_done() -> None:
    assert (
        repr(both())
        == "<MapResult <MappedOutput z[i=2, j=2]>, <MappedOutput m[i=2]>, t; 7 computed, 0 cached>"
    )


def test_two_runs_have_two_names() -> None:
    assert both().run_id != both().run_id


def test_a_result_outlives_its_pipeline_and_temporary_store() -> None:
    def make() -> MapResult:
        pipeline = Pipeline([node(image, output_name="y", mapspec="x[i] -> y[i]")], store=None)
        return pipeline.map({"x": [1, 2]}, map_executor="sequential")

    result = make()
    gc.collect()
    assert np.asarray(result["y"])[1, 0, 0] == 2


def test_a_temporary_store_goes_with_the_last_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    output = Pipeline([node(image, output_name="y", mapspec="x[i] -> y[i]")], store=None).map(
        {"x": [1]}, map_executor="sequential"
    )["y"]
    assert len(list(tmp_path.glob("gristmill-*"))) == 1
    del output
    gc.collect()
    assert not list(tmp_path.glob("gristmill-*"))


# -- zarr


UNIFORM: dict[str, Callable[[int], Any]] = {
    "int": lambda x: x,
    "float": lambda x: x / 2,
    "bool": lambda x: x > 1,
    "complex": lambda x: x * 1j,
    "numpy scalar": lambda x: np.int16(x),
    "small array": image,
    "large array": lambda x: np.full(20_000, x),
}


@pytest.mark.parametrize("function", UNIFORM.values(), ids=UNIFORM)
def test_zarr_equals_the_array(function: Callable[[int], Any]) -> None:
    output = mapped(function, [0, 1, 2])
    array = output.zarr
    metadata = array.metadata.to_dict()
    assert next(iter(metadata["dimension_names"])) == "i"  # type: ignore[arg-type]
    assert same(array[:], np.asarray(output))


def test_zarr_is_read_only() -> None:
    array = mapped(lambda x: x, [1, 2]).zarr
    with pytest.raises((PermissionError, ValueError)):
        array[0] = 5


IRREGULAR: dict[str, Callable[[int], Any]] = {
    "strings": lambda x: f"{x}",
    "lists": lambda x: [x],
    "shapes": lambda x: np.zeros(x),
}


@pytest.mark.parametrize("function", IRREGULAR.values(), ids=IRREGULAR)
def test_zarr_refuses_what_it_cannot_hold(function: Callable[[int], Any]) -> None:
    output = mapped(function, [1, 2])
    with pytest.raises(GristmillError, match="no zarr array holds"):
        _ = output.zarr


def test_zarr_raises_where_stock_zarr_would_give_the_fill_value() -> None:
    array = gappy().zarr
    assert array[0] == 10
    with pytest.raises(GristmillError, match="missing"):
        array[:]


def test_to_zarr_writes_an_array_of_its_own(tmp_path: Path) -> None:
    output = mapped(image, [1, 2])
    output.to_zarr(str(tmp_path / "copy.zarr"))
    copy = zarr.open_array(str(tmp_path / "copy.zarr"), mode="r+")
    assert same(copy[:], np.asarray(output))
    copy[0] = 7
    assert np.asarray(output)[0, 0, 0] == 1


def test_only_chunked_outputs_have_a_view() -> None:
    pipeline = Pipeline(
        [
            node(lambda x: np.full(20_000, x), output_name="large", mapspec="x[i] -> large[i]"),
            node(lambda x: x, output_name="small", mapspec="x[i] -> small[i]"),
        ]
    )
    result = pipeline.map({"x": [1, 2]}, map_executor="sequential")
    assert list(result.views) == ["large"]
    assert same(zarr.open_array(result.views["large"], mode="r")[:], np.asarray(result["large"]))


def test_an_output_whose_elements_change_shape_has_no_view() -> None:
    pipeline = Pipeline([node(lambda x: np.zeros(20_000 + x), output_name="y", mapspec="x[i] -> y[i]")])
    for _ in range(2):
        result = pipeline.map({"x": [1, 2]}, map_executor="sequential")
        assert result.views == {}
        assert [len(element) for element in result["y"]] == [20_001, 20_002]


# -- stats


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_stats_count_calls(executor: str) -> None:
    def odd(x: int) -> int:
        if x == 2:
            raise ValueError("two")
        return x

    def after(odd: int) -> int:
        return odd

    def summed(after: Any) -> int:
        return int(after.sum())

    pipeline = Pipeline([(odd, "x[i] -> odd[i]"), (after, "odd[i] -> after[i]"), summed])
    first = pipeline.map({"x": [1, 2, 3]}, on_error="continue", map_executor=executor).stats
    assert (first.computed, first.cached, first.failed, first.skipped) == (4, 0, 1, 2)
    again = pipeline.map({"x": [1, 2, 3]}, on_error="continue", map_executor=executor).stats
    assert (again.computed, again.cached, again.failed, again.skipped) == (0, 4, 1, 2)


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_every_call_is_either_computed_or_cached(executor: str) -> None:
    parity = node(lambda x: x % 2, output_name="y", mapspec="x[i] -> y[i]")
    pipeline = Pipeline([parity, node(lambda y: -y, output_name="z", mapspec="y[i] -> z[i]")])
    stats = pipeline.map({"x": [1, 1, 2, 3]}, map_executor=executor).stats
    assert (stats.computed, stats.cached) == (3 + 2, 1 + 2)


def test_stats_tell_what_was_written_and_piped() -> None:
    pipeline = Pipeline([node(image, output_name="y", mapspec="x[i] -> y[i]")])
    stats = pipeline.map({"x": range(10)}, map_executor="sequential").stats
    assert stats.bytes_written >= 10 * image(0).nbytes
    assert stats.bytes_piped == 0
    assert stats.seconds > 0
    assert pipeline.map({"x": range(10)}, map_executor="sequential").stats.bytes_written == 0


def test_a_result_of_another_store_object_reads_the_same_bytes(tmp_path: Path) -> None:
    node_ = node(image, output_name="y", mapspec="x[i] -> y[i]")
    first = Pipeline([node_], store=str(tmp_path / "s")).map({"x": [1]}, map_executor="sequential")
    second = Pipeline([node_], store=Store(tmp_path / "s")).map({"x": [1]}, map_executor="sequential")
    assert second.stats.computed == 0
    assert same(first["y"][0], second["y"][0])
