"""Mapped inputs: laid out over the axes that a node indexes, whatever kind of sequence they are."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.values import same

from gristmill import digest
from gristmill.errors import InputError
from gristmill.plan.inputs import MappedInput, mapped_input


def elements(given_: MappedInput) -> list[Any]:
    return list(given_.elements)


@given(st.integers(1, 4), st.data())
def test_an_array_is_indexed_like_numpy(ndim: int, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(0, 3)) for _ in range(ndim))
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    axes = tuple(data.draw(st.sampled_from(["axis", None])) for _ in range(data.draw(st.integers(1, ndim))))
    named = [d for d, axis in enumerate(axes) if axis]
    if not named:
        return
    laid = mapped_input("x", array, axes)
    assert laid.shape == tuple(shape[d] for d in named)
    for element, index in zip(elements(laid), np.ndindex(laid.shape), strict=True):
        chosen: list[Any] = [slice(None)] * ndim
        for d, k in zip(named, index, strict=True):
            chosen[d] = k
        assert np.array_equal(element, array[tuple(chosen)])


@pytest.mark.parametrize(
    "value",
    [[1, "a", None], (1, "a", None), [[1, 2], [3]], range(3), [np.zeros(2), np.ones(3), 7], [{}, {}], []],
)
def test_a_sequence_keeps_its_elements(value: Any) -> None:
    laid = mapped_input("x", value, ("i",))
    assert laid.shape == (len(value),)
    assert same(elements(laid), list(value))


def test_nested_sequences_are_indexed_by_several_axes() -> None:
    laid = mapped_input("x", [[1, 2, 3], (4, 5, 6)], ("i", "j"))
    assert (laid.shape, elements(laid)) == ((2, 3), [1, 2, 3, 4, 5, 6])


def test_a_dimension_that_is_not_indexed_goes_to_the_function() -> None:
    nested = [[1, 2, 3], [4, 5, 6]]
    assert [element.tolist() for element in elements(mapped_input("x", nested, (None, "j")))] == [
        [1, 4],
        [2, 5],
        [3, 6],
    ]
    assert [element.tolist() for element in elements(mapped_input("x", nested, ("i", None)))] == nested


def test_series_are_sequences_of_python_values_or_numbers() -> None:
    import pandas as pd

    assert same(elements(mapped_input("x", pd.Series(["a", None]), ("i",)))[0], "a")
    assert [int(v) for v in elements(mapped_input("x", pd.Series([3, 4]), ("i",)))] == [3, 4]


def test_zarr_arrays_are_like_the_equal_array() -> None:
    import zarr

    array = zarr.array(np.arange(6.0).reshape(2, 3))
    laid = mapped_input("x", array, ("i",))
    assert np.array_equal(np.asarray(laid.elements), np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "value",
    [
        np.arange(4),
        np.arange(6.0).reshape(2, 3),
        np.array(["a", "b"]),
        [1, 2.0, "x"],
        [np.arange(3), np.ones(2)],
    ],
    ids=["ints", "rows", "strings", "list", "list of arrays"],
)
def test_digests_are_those_of_what_the_function_gets(value: Any) -> None:
    laid = mapped_input("x", value, ("i",))
    assert laid.digests == b"".join(bytes(digest(element)) for element in value)


@pytest.mark.parametrize("layout", ["C", "F", "strided", "read-only"])
def test_memory_layout_does_not_count(layout: str) -> None:
    array = np.arange(12.0).reshape(4, 3)
    other = {
        "C": array.copy(),
        "F": np.asfortranarray(array),
        "strided": np.repeat(array, 2, axis=0)[::2],
        "read-only": array.view(),
    }[layout]
    other.flags.writeable = layout != "read-only"
    assert mapped_input("x", other, ("i",)).digests == mapped_input("x", array, ("i",)).digests


@pytest.mark.parametrize(
    "value", ["abc", b"abc", bytearray(b"a"), {"a": 1}, {1}, frozenset({1}), 5, None, object()]
)
def test_what_is_one_value_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="'x' is mapped"):
        mapped_input("x", value, ("i",))


@pytest.mark.parametrize("value", [iter([1]), (k for k in [1]), map(abs, [1]), zip([1], strict=True)])
def test_what_has_no_length_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"length must be known.*Pass a list"):
        mapped_input("x", value, ("i",))


@pytest.mark.parametrize("value", [np.arange(3), np.array(1), [1, 2], [[1, 2], [3]], [[1], 2], ["ab", "cd"]])
def test_too_few_dimensions_and_unequal_rows_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"'x' is indexed by \[i, j\]"):
        mapped_input("x", value, ("i", "j"))
