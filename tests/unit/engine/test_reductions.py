"""What a reduction receives, and that `np.asarray`, `shape` and `dtype` of a result follow the same rule."""

from typing import Any

import numpy as np
import pytest
from tests.support.values import same

from gristmill import Pipeline, node


def element(v: Any) -> Any:
    return v


def received(element: Any) -> Any:
    return element


def received_list(element: list[Any]) -> Any:
    return element


ELEMENT = node(element, mapspec="v[i] -> element[i]")
BIG = 2**64


def objects(*values: Any) -> Any:
    """An object array of exactly these elements."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


RULES: dict[str, tuple[list[Any], Any]] = {
    "bools": ([True, False], np.array([True, False])),
    "ints": ([1, -2], np.array([1, -2], dtype="i8")),
    "floats": ([1.5, 2.5], np.array([1.5, 2.5])),
    "ints and floats": ([1, 2.5], np.array([1.0, 2.5])),
    "complex numbers": ([1j, 2j], np.array([1j, 2j])),
    "complex with ints and floats": ([1j, 2, 0.5], np.array([1j, 2, 0.5])),
    "bools among numbers": ([True, 2], objects(True, 2)),
    "ints beyond 64 bits": ([1, BIG], objects(1, BIG)),
    "the largest and smallest int64": ([2**63 - 1, -(2**63)], np.array([2**63 - 1, -(2**63)], dtype="i8")),
    "one int too large": ([2**63], objects(2**63)),
    "strings": (["a", "bc"], objects("a", "bc")),
    "bytes": ([b"a", b"b\0"], objects(b"a", b"b\0")),
    "None": ([None, None], objects(None, None)),
    "numbers and None": ([1, None], objects(1, None)),
    "tuples": ([(1, 2), (3, 4)], None),
    "lists": ([[1], [2]], None),
    "dicts": ([{"a": 1}], objects({"a": 1})),
    "numpy scalars of one type": ([np.int16(1), np.int16(2)], np.array([1, 2], dtype="i2")),
    "numpy scalars of two types": ([np.int16(1), np.float32(2)], np.array([1, 2], dtype="f4")),
    "numpy bools": ([np.True_, np.False_], np.array([True, False])),
    "numpy dates": (
        [np.datetime64("2024-01-01"), np.datetime64("2024-01-02", "s")],
        np.array(["2024-01-01", "2024-01-02"], dtype="M8[s]"),
    ),
    "numpy strings": ([np.str_("a"), np.str_("bcd")], np.array(["a", "bcd"])),
    "numpy scalars and ints": ([np.int64(1), 2], objects(np.int64(1), 2)),
    "arrays of one shape and dtype": ([np.arange(3), np.arange(3)], np.array([[0, 1, 2], [0, 1, 2]])),
    "arrays of two shapes": ([np.arange(2), np.arange(3)], None),
    "arrays of two dtypes": ([np.arange(2), np.arange(2.0)], None),
    "0-d arrays": ([np.array(1), np.array(2)], np.array([1, 2])),
    "empty arrays": ([np.zeros((0, 2)), np.zeros((0, 2))], np.zeros((2, 0, 2))),
    "large arrays": (
        [np.arange(20_000.0), np.ones(20_000)],
        np.stack([np.arange(20_000.0), np.ones(20_000)]),
    ),
    "arrays of strings": ([np.array(["a"]), np.array(["b"])], np.array([["a"], ["b"]])),
    "arrays of objects": ([np.array([None, 1]), np.array([2, {}])], None),
    "arrays and numbers": ([np.arange(2), 3], None),
    "a nan": ([float("nan"), -0.0], np.array([np.nan, -0.0])),
}


def expected_of(name: str) -> tuple[list[Any], Any]:
    values, expected = RULES[name]
    return values, objects(*values) if expected is None and len(values) == 1 else _filled(values, expected)


def _filled(values: list[Any], expected: Any) -> Any:
    if expected is not None:
        return expected
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        array[position] = value
    return array


@pytest.mark.parametrize("name", RULES)
def test_a_reduction_receives_an_array_by_the_rule(name: str, executor: str) -> None:
    values, expected = expected_of(name)
    pipeline = Pipeline([ELEMENT, node(received)])
    assert same(pipeline.map({"v": values}, map_executor=executor)["received"], expected)


@pytest.mark.parametrize("name", RULES)
def test_asarray_shape_and_dtype_follow_the_rule(name: str) -> None:
    values, expected = expected_of(name)
    output = Pipeline([ELEMENT]).map({"v": values}, map_executor="sequential")["element"]
    assert (output.shape, output.dtype, output.ndim) == (expected.shape, expected.dtype, expected.ndim)
    assert same(np.asarray(output), expected)
    assert same(output[:], expected)


@pytest.mark.parametrize("name", RULES)
def test_the_rule_does_not_depend_on_how_elements_were_committed(name: str) -> None:
    values, expected = expected_of(name)
    pipeline = Pipeline([ELEMENT])
    for value in reversed(values):
        pipeline.map({"v": [value]}, map_executor="sequential")
    output = pipeline.map({"v": values}, map_executor="sequential")["element"]
    assert (output.shape, output.dtype) == (expected.shape, expected.dtype)
    assert same(np.asarray(output), expected)


@pytest.mark.parametrize("name", RULES)
def test_a_parameter_annotated_as_a_list_receives_the_exact_elements(name: str, executor: str) -> None:
    values, _ = expected_of(name)
    pipeline = Pipeline([ELEMENT, node(received_list, output_name="received")])
    assert same(pipeline.map({"v": values}, map_executor=executor)["received"], values)


@pytest.mark.parametrize("annotation", [list, list[int], "list[int]"])
def test_every_way_to_write_the_annotation_counts(annotation: Any) -> None:
    def kind(element: Any) -> str:
        return type(element).__name__

    kind.__annotations__["element"] = annotation
    pipeline = Pipeline([ELEMENT, node(kind)])
    assert pipeline.map({"v": [1, 2]}, map_executor="sequential")["kind"] == "list"


@pytest.mark.parametrize("annotation", [np.ndarray, "np.ndarray", Any, None])
def test_other_annotations_give_an_array(annotation: Any) -> None:
    def kind(element: Any) -> str:
        return type(element).__name__

    if annotation is None:
        del kind.__annotations__["element"]
    else:
        kind.__annotations__["element"] = annotation
    pipeline = Pipeline([ELEMENT, node(kind)])
    assert pipeline.map({"v": [1, 2]}, map_executor="sequential")["kind"] == "ndarray"


def test_a_list_over_two_axes_is_nested(executor: str) -> None:
    def grid(x: int, y: str) -> str:
        return f"{x}{y}"

    def rows(grid: list[list[str]]) -> Any:
        return grid

    pipeline = Pipeline([node(grid, mapspec="x[i], y[j] -> grid[i, j]"), node(rows)])
    result = pipeline.map({"x": [1, 2], "y": ["a", "b", "c"]}, map_executor=executor)
    assert result["rows"] == [["1a", "1b", "1c"], ["2a", "2b", "2c"]]


@pytest.mark.parametrize(("x", "expected"), [([], []), ([1, 2], [[], []])])
def test_a_list_with_an_empty_axis_keeps_its_shape(x: list[int], expected: Any) -> None:
    def grid(x: int, y: int) -> int:
        return x + y

    def rows(grid: list[list[int]]) -> Any:
        return grid

    pipeline = Pipeline([node(grid, mapspec="x[i], y[j] -> grid[i, j]"), node(rows)])
    assert pipeline.map({"x": x, "y": []}, map_executor="sequential")["rows"] == expected


def test_a_slice_of_arrays_has_its_axes_before_the_elements_dimensions(executor: str) -> None:
    def image(x: int, y: int) -> Any:
        return np.full((4, 5), 10 * x + y)

    def stack(image: Any) -> Any:
        return image

    pipeline = Pipeline(
        [node(image, mapspec="x[i], y[j] -> image[i, j]"), node(stack, mapspec="image[:, j] -> stack[j]")]
    )
    result = pipeline.map({"x": [1, 2, 3], "y": [0, 1]}, map_executor=executor)
    assert result["stack"].shape == (2, 3, 4, 5)
    assert result["stack"][1][:, 0, 0].tolist() == [11, 21, 31]


def test_the_delivered_form_counts_in_the_key() -> None:
    """The same function text with another annotation receives another thing, so it may return another one."""

    def as_list(element: list[int]) -> str:
        return type(element).__name__

    def as_array(element: Any) -> str:
        return type(element).__name__

    for function, kind in ((as_list, "list"), (as_array, "ndarray")):
        pipeline = Pipeline([ELEMENT, node(function, output_name="kind")])
        assert pipeline.map({"v": [1, 2]}, map_executor="sequential")["kind"] == kind
