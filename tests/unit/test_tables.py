"""Results as datasets, data frames and masked arrays: axes have their names, what is missing is said to be."""

from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped, unused-ignore]
import pytest
import xarray

from gristmill import GristmillError, MapResult, Pipeline, node


def divide(x: int, y: int) -> float:
    return x / y


def both(function: Any = divide, **options: Any) -> MapResult:
    nodes = [
        node(function, output_name="z", mapspec="x[i], y[j] -> z[i, j]"),
        node(lambda x: np.full(2, x), output_name="pair", mapspec="x[i] -> pair[i]"),
        node(lambda x: "-".join(map(str, x)), output_name="all"),
    ]
    given = {"x": [10, 20], "y": [1, 0, 4]}
    return Pipeline(nodes).map(given, map_executor="sequential", on_error="continue", **options)


def test_a_dataset_has_named_axes_and_labels() -> None:
    data = both(lambda x, y: x + y).to_xarray()
    assert isinstance(data, xarray.Dataset)
    assert (data["z"].dims, data["pair"].dims, data["all"].dims) == (("i", "j"), ("i", "pair_0"), ())
    assert data["z"].dtype == np.int64
    assert (data["z"].sel(i=1, j=2).item(), data["all"].item()) == (24, "10-20")
    assert (data["x"].dims, data["x"].values.tolist(), data["y"].values.tolist()) == (
        ("i",),
        [10, 20],
        [1, 0, 4],
    )


def test_what_failed_or_was_not_asked_for_is_nan_in_a_dataset() -> None:
    failed = both().to_xarray()["z"]
    assert np.isnan(failed.values).tolist() == [[False, True, False]] * 2
    part = both(lambda x, y: x + y, fixed_indices={"j": 0}, output_name=["z", "pair"]).to_xarray()
    assert np.isnan(part["z"].values).tolist() == [[False, True, True]] * 2
    assert part["pair"].values.tolist() == [[10, 10], [20, 20]]


def test_ragged_outputs_are_arrays_in_a_dataset() -> None:
    words = node(lambda line: line.split(), output_name="word", mapspec="line[i] -> word[i, *j]")
    data = Pipeline([words]).map({"line": ["a b", "c"]}, map_executor="sequential").to_xarray()
    assert data["word"].dims == ("i",)
    assert [one.tolist() for one in data["word"].values] == [["a", "b"], ["c"]]


def test_axes_of_one_name_and_two_lengths_have_no_dataset() -> None:
    nodes = [
        node(lambda a: a, output_name="p", mapspec="a[i] -> p[i]"),
        node(lambda b: b, output_name="q", mapspec="b[i] -> q[i]"),
    ]
    result = Pipeline(nodes).map({"a": [1], "b": [1, 2]}, map_executor="sequential")
    for method in (result.to_xarray, result.to_dataframe):
        with pytest.raises(GristmillError, match="along 'i'"):
            method()


def test_a_data_frame_has_a_row_for_each_index() -> None:
    frame = both(output_name=["z", "pair"]).to_dataframe()
    assert isinstance(frame, pd.DataFrame)
    assert (list(frame.columns), frame.index.names) == (["x", "y", "z", "pair"], ["i", "j"])
    assert frame.index.tolist() == [(i, j) for i in range(2) for j in range(3)]
    assert frame["x"].tolist() == [10] * 3 + [20] * 3
    assert frame["z"].isna().tolist() == [False, True, False] * 2
    assert frame["z"].dropna().tolist() == [10.0, 2.5, 20.0, 5.0]
    assert frame["pair"][1, 0].tolist() == [20, 20]


def test_a_data_frame_of_one_axis_keeps_its_types() -> None:
    squares = node(lambda x: x * x, output_name="y", mapspec="x[i] -> y[i]")
    frame = Pipeline([squares]).map({"x": [1, 2]}, map_executor="sequential").to_dataframe()
    assert (frame.index.name, str(frame["y"].dtype), frame["y"].tolist()) == ("i", "int64", [1, 4])


def test_an_empty_map_is_an_empty_table() -> None:
    result = Pipeline([node(lambda x: x, output_name="y", mapspec="x[i] -> y[i]")]).map({"x": []})
    assert (len(result.to_dataframe()), result.to_xarray()["y"].shape) == (0, (0,))


def test_partial_results_are_masked_arrays() -> None:
    output = both()["z"]
    masked = output.masked()
    assert masked.mask.tolist() == output.missing.tolist() == [[False, True, False]] * 2
    assert masked.sum() == 10 + 2.5 + 20 + 5
    part = both(lambda x, y: x + y, fixed_indices={"i": 1}, output_name="z")["z"].masked()
    assert (part.dtype, part.mask.tolist()) == (np.int64, [[True] * 3, [False] * 3])
    whole = both(lambda x, y: x + y)["z"].masked()
    assert (whole.mask.any(), whole.tolist()) == (False, [[11, 10, 14], [21, 20, 24]])
    with pytest.raises(GristmillError, match=r"or were not asked for. Use \.masked\(\)"):
        np.asarray(output)
