"""Spaces: positions are C-order numbers, and elements and slices are what numpy indexing says."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.plan.space import Space

AXES = ("i", "j", "k")


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    axes = tuple(draw(st.permutations(AXES))[: draw(st.integers(0, 3))])
    return Space(axes, tuple(draw(st.integers(0, 4)) for _ in axes))


@given(spaces())
def test_index_and_position_are_inverse(space: Space) -> None:
    for position, index in enumerate(np.ndindex(space.shape)):
        assert space.index(position) == index
        assert space.position(index) == position
    assert space.size == np.prod(space.shape, dtype=int)


def test_an_index_is_a_tuple_of_ints() -> None:
    assert [type(k) for k in Space(("i", "j"), (2, 3)).index(4)] == [int, int]


@given(spaces(), st.data())
def test_elements_are_what_numpy_indexing_picks(space: Space, data: st.DataObject) -> None:
    axes = tuple(data.draw(st.permutations(space.axes))[: data.draw(st.integers(0, len(space.axes)))])
    extents = dict(zip(space.axes, space.shape, strict=True))
    source = np.arange(np.prod([extents[axis] for axis in axes], dtype=int)).reshape(
        [extents[axis] for axis in axes]
    )
    positions = np.arange(space.size)
    found = space.elements(positions, axes)
    for position in positions.tolist():
        named = dict(zip(space.axes, space.index(position), strict=True))
        assert found[position] == source[tuple(named[axis] for axis in axes)]


@given(spaces(), st.data())
def test_slices_are_what_numpy_slicing_picks(space: Space, data: st.DataObject) -> None:
    named = list(data.draw(st.permutations(space.axes))[: data.draw(st.integers(0, len(space.axes)))])
    reduced = data.draw(st.lists(st.integers(0, 3), max_size=2))
    axes: list[str | None] = data.draw(st.permutations([*named, *[None] * len(reduced)]))
    extents = dict(zip(space.axes, space.shape, strict=True))
    rest = iter(reduced)
    shape = tuple(next(rest) if axis is None else extents[axis] for axis in axes)
    source = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    positions = np.arange(space.size)
    rows, taken = space.slices(positions, tuple(axes), shape)
    found = rows[taken]
    assert found.shape == (space.size, np.prod(reduced, dtype=int))
    for position in positions.tolist():
        index = dict(zip(space.axes, space.index(position), strict=True))
        chosen: Any = tuple(slice(None) if axis is None else index[axis] for axis in axes)
        assert found[position].tolist() == source[chosen].ravel().tolist()


@pytest.mark.parametrize("positions", [[], [3], [0, 5], [5, 0, 5]])
def test_any_positions_may_be_asked_for(positions: list[int]) -> None:
    space = Space(("i", "j"), (2, 3))
    array = np.array(positions, dtype=np.int64)
    assert space.elements(array, ("j",)).tolist() == [p % 3 for p in positions]
    rows, taken = space.slices(array, ("i", None), (2, 2))
    assert rows[taken].tolist() == [[2 * (p // 3), 2 * (p // 3) + 1] for p in positions]


def test_a_space_without_axes_has_one_index() -> None:
    space = Space()
    assert (space.size, space.index(0), space.position(())) == (1, (), 0)
    rows, taken = space.slices(np.arange(1), (None,), (3,))
    assert (rows.tolist(), taken.tolist()) == ([[0, 1, 2]], [0])


def test_a_slice_meets_what_is_marked_in_it() -> None:
    space = Space(("i", "j"), (2, 3))
    marked = np.array([False, False, False, True])
    met = space.meets(marked, np.arange(6), ("i", None), (2, 2))
    assert met.tolist() == [False, False, False, True, True, True]
