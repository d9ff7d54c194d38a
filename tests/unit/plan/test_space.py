"""Spaces: positions are C-order numbers, and elements and slices are what numpy indexing says."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.engine.deliver import assemble
from gristmill.plan.space import Reading, Space, joined

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


def dense(*shape: int) -> Space:
    return Space(tuple(f"d{k}" for k in range(len(shape))), shape)


@given(spaces(), st.data())
def test_elements_are_what_numpy_indexing_picks(space: Space, data: st.DataObject) -> None:
    axes = tuple(data.draw(st.permutations(space.axes))[: data.draw(st.integers(0, len(space.axes)))])
    extents = dict(zip(space.axes, space.shape, strict=True))
    source = np.arange(np.prod([extents[axis] for axis in axes], dtype=int)).reshape(
        [extents[axis] for axis in axes]
    )
    positions = np.arange(space.size)
    found = space.elements(positions, axes, Space(axes, source.shape))
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
    slices = space.slices(positions, tuple(axes), dense(*shape))
    for position in positions.tolist():
        index = dict(zip(space.axes, space.index(position), strict=True))
        chosen: Any = tuple(slice(None) if axis is None else index[axis] for axis in axes)
        row = int(slices.taken[position])
        assert slices.members(row).tolist() == source[chosen].ravel().tolist()
        assert slices.part(row).shape == tuple(reduced)


@pytest.mark.parametrize("positions", [[], [3], [0, 5], [5, 0, 5]])
def test_any_positions_may_be_asked_for(positions: list[int]) -> None:
    space = Space(("i", "j"), (2, 3))
    array = np.array(positions, dtype=np.int64)
    assert space.elements(array, ("j",), dense(3)).tolist() == [p % 3 for p in positions]
    slices = space.slices(array, ("i", None), dense(2, 2))
    found = [slices.members(row).tolist() for row in slices.taken.tolist()]
    assert found == [[2 * (p // 3), 2 * (p // 3) + 1] for p in positions]


def test_a_space_without_axes_has_one_index() -> None:
    space = Space()
    assert (space.size, space.index(0), space.position(())) == (1, (), 0)
    slices = space.slices(np.arange(1), (None,), dense(3))
    assert (slices.members(0).tolist(), slices.taken.tolist()) == ([0, 1, 2], [0])


def test_a_slice_meets_what_is_marked_in_it() -> None:
    space = Space(("i", "j"), (2, 3))
    marked = np.array([False, False, False, True])
    met = space.meets(marked, np.arange(6), ("i", None), dense(2, 2))
    assert met.tolist() == [False, False, False, True, True, True]


LENGTHS = st.lists(st.lists(st.integers(0, 2), max_size=3), max_size=4)
"""For each i the lengths along k of each j."""


def below(lengths: list[list[int]]) -> Space:
    """Indices (i, j, k), ragged in j and in k."""
    outer = Space(("i",), (len(lengths),))
    rows = np.array([[len(row)] for row in lengths], dtype=np.int64).reshape(-1, 1)
    middle = Space.below(outer, ("j",), rows, frozenset("j"))
    inner = np.array([n for row in lengths for n in row], dtype=np.int64).reshape(-1, 1)
    return Space.below(middle, ("k",), inner, frozenset("jk"))


@given(LENGTHS)
def test_a_ragged_space_has_the_indices_that_loops_visit(lengths: list[list[int]]) -> None:
    space = below(lengths)
    expected = [(i, j, k) for i, row in enumerate(lengths) for j, n in enumerate(row) for k in range(n)]
    assert [space.index(p) for p in range(space.size)] == expected
    assert [space.position(index) for index in expected] == list(range(space.size))
    pairs = space.prefix(2)
    assert [pairs.index(p) for p in range(pairs.size)] == [
        (i, j) for i, row in enumerate(lengths) for j in range(len(row))
    ]


@given(LENGTHS)
def test_ragged_slices_keep_what_has_nothing_below_it(lengths: list[list[int]]) -> None:
    space = below(lengths)
    values = list(range(space.size))
    counter = iter(values)
    nested = [[[next(counter) for _ in range(n)] for n in row] for row in lengths]
    assert assemble(values, space, "list") == nested
    rows = Space(("i",), (len(lengths),)).slices(np.arange(len(lengths)), ("i", None, None), space)
    for i, row in enumerate(rows.taken.tolist()):
        members = rows.members(row).tolist()
        assert assemble([values[m] for m in members], rows.part(row), "list") == nested[i]
    pairs = space.prefix(2)
    cells = pairs.slices(np.arange(pairs.size), ("i", "j", None), space)
    for position, row in enumerate(cells.taken.tolist()):
        i, j = pairs.index(position)
        assert cells.members(row).tolist() == nested[i][j]


@given(LENGTHS, st.integers(0, 2))
def test_a_product_with_a_ragged_space(lengths: list[list[int]], extent: int) -> None:
    space = below(lengths)
    readings = [Reading("y", ("i", "j", "k"), space), Reading("z", ("b",), Space(("b",), (extent,)))]
    for axes in (("i", "j", "k", "b"), ("i", "b", "j", "k"), ("b", "i", "j", "k")):
        found = joined(axes, readings, "f")
        indices = {
            tuple(dict(zip(axes, found.index(p), strict=True))[a] for a in "ijkb") for p in range(found.size)
        }
        assert indices == {(*space.index(p), b) for p in range(space.size) for b in range(extent)}
        assert len(indices) == found.size
    pairs = joined(("i", "j"), [Reading("y", ("i", "j", None), space)], "f")
    assert [pairs.index(p) for p in range(pairs.size)] == [
        (i, j) for i, row in enumerate(lengths) for j in range(len(row))
    ]
