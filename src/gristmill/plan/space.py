"""Spaces: the indices of a stage or of an output, numbered in C order.

A *position* is the number of an index. A dense space is a product of extents; in a ragged one an axis has other
lengths at other indices of the axes before it, and it is described by which places of its bounding box exist.
Everything here works on whole arrays of positions, since a map may have millions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gristmill.errors import InputError

Array = np.ndarray[Any, Any]
Axes = Sequence[str | None]
"""One per dimension of an array: an axis of a space, or None for all of that dimension."""


@dataclass(frozen=True, eq=False)
class Space:
    """Indices over named axes.

    Examples
    --------
    >>> space = Space(("i", "j"), (2, 3))
    >>> space.size, space.index(4), space.position((1, 1))
    (6, (1, 1), 4)
    >>> outer = Space(("i",), (3,))
    >>> ragged = Space.below(outer, ("j",), np.array([[2], [0], [1]]), frozenset("j"))
    >>> [ragged.index(k) for k in range(ragged.size)]
    [(0, 0), (0, 1), (2, 0)]
    """

    axes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    """Extents; of a ragged axis, the greatest."""
    ragged: frozenset[str] = frozenset()
    """The axes whose lengths depend on the indices of those before them."""
    places: Array | None = None
    """Where the positions are in the bounding box, increasing; None where all of it exists."""
    outer: "Space | None" = None
    """Of a ragged space, the indices along all axes but the last: some of them may have nothing below them."""

    @classmethod
    def below(cls, outer: "Space", axes: tuple[str, ...], lengths: Array, ragged: frozenset[str]) -> "Space":
        """Return a space with more axes, as long as it says at each index of another space.

        Parameters
        ----------
        outer
            The space without them.
        axes
            The new axes, which come after those of `outer`.
        lengths
            Shape (indices of `outer`, new axes).
        ragged
            Which of all axes are ragged.
        """
        if not outer.axes:
            ragged = ragged - {axes[0]}  # there is but one length
        last = int(lengths[:, 0].max(initial=0))
        if outer.places is None and not ragged & {*outer.axes, axes[0]}:
            found = cls((*outer.axes, axes[0]), (*outer.shape, last))
        else:
            rows = np.repeat(np.arange(outer.size), lengths[:, 0])
            within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths[:, 0]) - lengths[:, 0], lengths[:, 0])
            shape = (*outer.shape, last)
            known = (*outer.axes, axes[0])
            places = ravel([*outer.coordinates(rows), within], shape)
            found = cls(known, shape, ragged & set(known), places, outer)
        if len(axes) == 1:
            return found
        return cls.below(found, axes[1:], np.repeat(lengths[:, 1:], lengths[:, 0], axis=0), ragged)

    def prefix(self, count: int) -> "Space":
        """Return the indices along the first `count` axes, those included that have nothing below them."""
        if count == len(self.axes):
            return self
        if self.outer is None or not self.ragged & set(self.axes[:count]):
            return Space(self.axes[:count], self.shape[:count])
        return self.outer.prefix(count)

    @property
    def size(self) -> int:
        """How many indices there are."""
        return math.prod(self.shape) if self.places is None else len(self.places)

    def coordinates(self, positions: Array) -> tuple[Array, ...]:
        """Return the indices at `positions`, an array for each axis."""
        if not self.axes:
            return ()
        places = positions if self.places is None else self.places[positions]
        return tuple(np.unravel_index(places, self.shape))

    def index(self, position: int) -> tuple[int, ...]:
        """Return the index at a position."""
        return tuple(int(along[0]) for along in self.coordinates(np.array([position])))

    def position(self, index: tuple[int, ...]) -> int:
        """Return the position of an index.

        Raises
        ------
        IndexError
            There is no such index.
        """
        if not self.axes:
            return 0
        place = int(np.ravel_multi_index(index, self.shape)) if all(self.shape) else -1
        if self.places is None and place >= 0:
            return place
        found = int(np.searchsorted(self.places, place)) if self.places is not None else -1
        if self.places is None or found >= len(self.places) or int(self.places[found]) != place:
            raise IndexError(f"there is no index {index}")
        return found

    def elements(self, positions: Array, axes: Sequence[str], source: "Space") -> Array:
        """Return, for each of `positions`, the position of its element in an array over `axes` of this space.

        Parameters
        ----------
        positions
            Shape (n,), positions in this space.
        axes
            Axes of this space, one per dimension of the array.
        source
            The array's space.

        Examples
        --------
        >>> Space(("i", "j"), (2, 3)).elements(np.arange(6), ("j",), Space(("j",), (3,)))
        array([0, 1, 2, 0, 1, 2])
        """
        if tuple(axes) == self.axes and (source.places is self.places or source.size == self.size):
            return positions
        if not axes:
            return np.zeros(len(positions), dtype=np.int64)
        known = dict(zip(self.axes, self.coordinates(positions), strict=True))
        return source.located(ravel([known[axis] for axis in axes], source.shape))

    def located(self, places: Array) -> Array:
        """Return the positions of places in the bounding box, all of which exist."""
        return places if self.places is None else np.searchsorted(self.places, places)

    def slices(self, positions: Array, axes: Axes, source: "Space") -> "Slices":
        """Return the slices of an array, and which of them each of `positions` takes.

        Parameters
        ----------
        positions
            Shape (n,), positions in this space.
        axes
            One per dimension of the array: an axis of this space, or None for all of that dimension.
        source
            The array's space.

        Examples
        --------
        >>> slices = Space(("i",), (2,)).slices(np.arange(2), ("i", None), Space(("i", "k"), (2, 3)))
        >>> [slices.members(row).tolist() for row in slices.taken]
        [[0, 1, 2], [3, 4, 5]]
        """
        kept = [d for d, axis in enumerate(axes) if axis is not None]
        known = dict(zip(self.axes, self.coordinates(positions), strict=True))
        extents = tuple(source.shape[d] for d in kept)
        taken = (
            ravel([known[axis] for axis in axes if axis is not None], extents)
            if kept
            else np.zeros(len(positions), dtype=np.int64)
        )
        return Slices(source, tuple(kept), extents, taken)

    def fixed(self, index: Sequence[int]) -> tuple["Slices", int]:
        """Return the slices along all but the first axes, and which of them is at an index of those.

        Raises
        ------
        IndexError
            There is no such index; negative ones count from the end.
        """
        slices, row = Slices(self, (), (), np.empty(0, dtype=np.int64)), 0
        for d, one in enumerate(index):
            length = slices.length(d, row)
            if not -length <= one < length:
                raise IndexError(
                    f"index {one} is out of bounds for axis {self.axes[d]!r} with length {length}"
                )
            kept = tuple(range(d + 1))
            slices = Slices(self, kept, self.shape[: d + 1], np.empty(0, dtype=np.int64))
            row = row * self.shape[d] + one % length
        return slices, row

    def meets(self, marked: Array, positions: Array, axes: Axes, source: "Space") -> Array:
        """Mask of those of `positions` whose slice of an array takes an element that is `marked`.

        The parameters are those of `slices`, and a mask over the array's elements.
        """
        slices = self.slices(positions, axes, source)
        return slices.any(marked)[slices.taken]

    def without(self, marked: Array) -> "Space":
        """Return the space of the positions that are not `marked`; one axis where there were several dense ones."""
        if self.places is not None:
            return replace(self, places=self.places[~marked])
        left = int(np.count_nonzero(~marked))
        return Space(self.axes if len(self.axes) == 1 else ("_".join(self.axes),), (left,))


class Slices:
    """The slices of an array along some of its dimensions.

    Parameters
    ----------
    source
        The array's space.
    kept
        The dimensions that are not sliced.
    extents
        Of these.
    taken
        Which slice each of some positions takes: its place in the box of the kept dimensions.
    """

    def __init__(self, source: Space, kept: tuple[int, ...], extents: tuple[int, ...], taken: Array) -> None:
        self.source = source
        self.taken = taken
        self._kept = kept
        self._extents = extents
        self._reduced = tuple(d for d in range(len(source.axes)) if d not in kept)
        self._prefixes: dict[int, Slices] = {}

    def members(self, row: int) -> Array:
        """Return the positions of the elements in one slice."""
        if self.source.places is None:
            return np.asarray(self._rows[row], dtype=np.int64)
        order, starts = self._sorted
        return order[starts[row] : starts[row + 1]]

    def part(self, row: int) -> Space:
        """Return the space of one slice, over the dimensions that it takes all of."""
        source = self.source
        axes = tuple(source.axes[d] for d in self._reduced)
        if source.places is None:
            return Space(axes, tuple(source.shape[d] for d in self._reduced))
        if not self._kept:
            return source
        first = self._reduced[0] if self._reduced else 0
        ragged = frozenset(
            source.axes[d] for d in self._reduced if source.axes[d] in source.ragged and d > first
        )
        shape = tuple(self.length(d, row) for d in self._reduced)
        if not ragged:
            return Space(axes, shape)
        along = source.coordinates(self.members(row))
        outer, below = self._before(self._reduced[-1], row)
        places = ravel([along[d] for d in self._reduced], shape)
        return Space(axes, shape, ragged, places, outer.part(below))

    def length(self, dimension: int, row: int) -> int:
        """Return how long a slice is along a dimension; of a ragged one that is ragged in the slice, at most."""
        if self.source.axes[dimension] not in self.source.ragged:
            return self.source.shape[dimension]
        slices, place = self._before(dimension + 1, row)
        along = slices.source.coordinates(slices.members(place))[dimension]
        return int(along.max(initial=-1)) + 1

    def _before(self, count: int, row: int) -> "tuple[Slices, int]":
        """The slices of the first dimensions alone, and which of them belongs to one of these."""
        if count == len(self.source.axes):
            return self, row
        kept = tuple(d for d in self._kept if d < count)
        if count not in self._prefixes:
            extents = self._extents[: len(kept)]
            self._prefixes[count] = Slices(self.source.prefix(count), kept, extents, self.taken[:0])
        return self._prefixes[count], row // math.prod(self._extents[len(kept) :])

    def any(self, marked: Array) -> Array:
        """Mask of the slices in which an element is `marked`."""
        if self.source.places is None:
            return np.asarray(np.any(marked[self._rows], axis=1))
        found = np.zeros(math.prod(self._extents), dtype=bool)
        found[self._rows[marked]] = True
        return found

    @cached_property
    def _rows(self) -> Array:
        """Of a dense source, the members of all slices; of a ragged one, which slice each position is in."""
        source = self.source
        if source.places is not None:
            along = source.coordinates(np.arange(source.size))
            if not self._kept:
                return np.zeros(source.size, dtype=np.int64)
            return ravel([along[d] for d in self._kept], self._extents)
        every = np.arange(source.size, dtype=np.int64).reshape(source.shape)
        count = math.prod(self._extents)
        moved = np.moveaxis(every, self._kept, range(len(self._kept)))
        return moved.reshape(count, source.size // count if count else 0)

    @cached_property
    def _sorted(self) -> tuple[Array, Array]:
        """Positions of a ragged source, slice by slice, and where each slice starts."""
        order = np.argsort(self._rows, kind="stable")
        starts = np.searchsorted(self._rows[order], np.arange(math.prod(self._extents) + 1))
        return order, starts


class Reading(NamedTuple):
    """How the arrays that a space is made from are indexed."""

    name: str
    """What messages call it."""
    axes: tuple[str | None, ...]
    """One per dimension: an axis of the new space, or None for one that is reduced."""
    source: Space


def joined(axes: tuple[str, ...], readings: Sequence[Reading], owner: str) -> Space:
    """Return the space over `axes` at which every array has an element.

    Parameters
    ----------
    axes
        In the order of the new space.
    readings
        What it is made from; together they have all axes.
    owner
        Who needs it, for messages.

    Raises
    ------
    InputError
        Two arrays differ in length along an axis that they share.
    """
    extents: dict[str, tuple[int, str]] = {}
    tables: list[tuple[str, tuple[str, ...], Array]] = []
    ragged: set[str] = set()
    for name, over, source in readings:
        kept = [d for d, axis in enumerate(over) if axis is not None]
        free = {over[d] for d in kept if source.axes[d] in source.ragged}
        if free:
            ragged |= {axis for axis in free if axis}
            tables.append((name, tuple(over[d] or "" for d in kept), _unique(source, kept)))
        for d in kept:
            axis = over[d] or ""
            if axis in free:
                continue
            before, whose = extents.setdefault(axis, (source.shape[d], name))
            if before != source.shape[d]:
                raise zip_mismatch(axis, owner, (whose, before), (name, source.shape[d]))
    if not tables:
        return Space(axes, tuple(extents[axis][0] for axis in axes))
    known, table = _merged(tables, owner)
    for axis in axes:
        if axis not in known:
            table = _crossed(table, extents[axis][0])
            known = (*known, axis)
    outer = _outer(axes, readings, owner) if ragged & set(axes[:-1]) else None
    longest = {axis: length for axis, (length, _) in extents.items()}
    if outer is not None:  # indices with nothing below them count too
        longest |= dict(zip(outer.axes, outer.shape, strict=True))
    columns = [table[:, known.index(axis)] for axis in axes]
    shape = tuple(
        longest[axis] if axis in longest else int(column.max(initial=-1)) + 1
        for axis, column in zip(axes, columns, strict=True)
    )
    return Space(axes, shape, frozenset(ragged), np.sort(ravel(columns, shape)), outer)


def _outer(axes: tuple[str, ...], readings: Sequence[Reading], owner: str) -> Space:
    """The space along all axes but the last."""
    without = [
        Reading(one.name, tuple(None if axis == axes[-1] else axis for axis in one.axes), one.source)
        for one in readings
    ]
    return joined(axes[:-1], [one for one in without if any(one.axes)], owner)


def zip_mismatch(axis: str, owner: str, one: tuple[str, int], other: tuple[str, int]) -> InputError:
    """Say that two arrays are zipped that are not equally long."""
    return InputError(
        f"{one[0]!r} and {other[0]!r} are zipped along {axis!r} in {owner}, but {one[0]!r} has length "
        f"{one[1]} and {other[0]!r} has length {other[1]}; make them equal, or give one of them an axis of "
        "its own for a product"
    )


def _unique(source: Space, kept: Sequence[int]) -> Array:
    """The indices of a ragged space along some of its axes, each once: shape (n, number of them).

    Of a ragged axis all axes before it are kept, too.
    """
    count = 1 + max(d for d in kept if source.axes[d] in source.ragged)
    prefix = source.prefix(count)
    table = np.stack(prefix.coordinates(np.arange(prefix.size)), axis=1)
    for d in kept[count:]:
        table = _crossed(table, source.shape[d])
    return table


def _merged(
    tables: Sequence[tuple[str, tuple[str, ...], Array]], owner: str
) -> tuple[tuple[str, ...], Array]:
    """Join tables of indices on the axes that they share."""
    name, axes, table = tables[0]
    for other, more, rows in tables[1:]:
        if set(more) == set(axes):
            mine = rows[:, [more.index(axis) for axis in axes]]
            _check_same(axes, (name, table), (other, mine[np.lexsort(mine.T[::-1])]), owner)
            continue
        shared = [axis for axis in axes if axis in more]
        left = _codes(table, axes, shared, rows, more)
        right = _codes(rows, more, shared, table, axes)
        order = np.argsort(right, kind="stable")
        starts = np.searchsorted(right[order], left, side="left")
        counts = np.searchsorted(right[order], left, side="right") - starts
        repeated = np.repeat(np.arange(len(table)), counts)
        within = np.arange(len(repeated)) - np.repeat(np.cumsum(counts) - counts, counts)
        chosen = order[np.repeat(starts, counts) + within]
        new = [k for k, axis in enumerate(more) if axis not in axes]
        table = np.concatenate([table[repeated], rows[chosen][:, new]], axis=1)
        axes = (*axes, *(more[k] for k in new))
    return axes, table


def _codes(
    table: Array, axes: Sequence[str], shared: Sequence[str], other: Array, others: Sequence[str]
) -> Array:
    """One number for what each row has along the shared axes, comparable between the two tables."""
    extents = tuple(
        int(max(table[:, axes.index(a)].max(initial=0), other[:, others.index(a)].max(initial=0))) + 1
        for a in shared
    )
    if not shared:
        return np.zeros(len(table), dtype=np.int64)
    return ravel([table[:, axes.index(a)] for a in shared], extents)


def _check_same(axes: tuple[str, ...], one: tuple[str, Array], other: tuple[str, Array], owner: str) -> None:
    if one[1].shape == other[1].shape and (one[1] == other[1]).all():
        return
    outer = sorted({tuple(row[:-1]) for table in (one[1], other[1]) for row in table.tolist()})
    for index in outer:
        lengths = [int((table[:, :-1] == index).all(axis=1).sum()) for table in (one[1], other[1])]
        if lengths[0] != lengths[1]:
            where = f"{axes[-1]!r} at {index}" if index else repr(axes[-1])
            raise InputError(
                f"{one[0]!r} and {other[0]!r} are zipped along the ragged axis {where} in {owner}, but {one[0]!r} has "
                f"length {lengths[0]} there and {other[0]!r} has length {lengths[1]}"
            )
    raise InputError(f"{one[0]!r} and {other[0]!r} are zipped in {owner}, but have other indices")


def _crossed(table: Array, extent: int) -> Array:
    """Every row with every index of one more axis."""
    more = np.tile(np.arange(extent), len(table))[:, None]
    return np.concatenate([np.repeat(table, extent, axis=0), more], axis=1)


def ravel(columns: Sequence[Array], shape: tuple[int, ...]) -> Array:
    """Return the places of indices in a box, in C order; of an empty one there are none."""
    if not all(shape):
        return np.zeros(len(columns[0]) if columns else 0, dtype=np.int64)
    return np.asarray(np.ravel_multi_index(tuple(columns), shape), dtype=np.int64)
