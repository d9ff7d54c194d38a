"""Spaces: the set of indices that a stage runs over, and the positions of its arguments' elements.

A position is the C-order (row-major) number of an index. A space of no axes has one index, `()`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Space:
    """A dense space: the product of its extents.

    Examples
    --------
    >>> space = Space(("i", "j"), (2, 3))
    >>> space.size, space.index(4), space.position((1, 1))
    (6, (1, 1), 4)
    """

    axes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many indices there are."""
        return math.prod(self.shape)

    def index(self, position: int) -> tuple[int, ...]:
        """Return the index at a position."""
        return tuple(int(k) for k in np.unravel_index(position, self.shape)) if self.axes else ()

    def position(self, index: tuple[int, ...]) -> int:
        """Return the position of an index."""
        return int(np.ravel_multi_index(index, self.shape)) if self.axes else 0

    def elements(self, positions: Array, axes: tuple[str, ...]) -> Array:
        """Return, for each of `positions`, the position of its element in an array over `axes` of this space.

        Examples
        --------
        >>> Space(("i", "j"), (2, 3)).elements(np.arange(6), ("j",))
        array([0, 1, 2, 0, 1, 2])
        """
        if axes == self.axes:
            return positions
        if not axes:
            return np.zeros(len(positions), dtype=np.int64)
        coordinates = dict(zip(self.axes, np.unravel_index(positions, self.shape), strict=True))
        extents = dict(zip(self.axes, self.shape, strict=True))
        shape = tuple(extents[axis] for axis in axes)
        return np.asarray(
            np.ravel_multi_index(tuple(coordinates[axis] for axis in axes), shape), dtype=np.int64
        )

    def slices(
        self, positions: Array, axes: tuple[str | None, ...], shape: tuple[int, ...]
    ) -> tuple[Array, Array]:
        """Return the slices of an array, as positions of their elements, and which of them each position takes.

        Parameters
        ----------
        positions
            Shape (n,), positions in this space.
        axes
            One per dimension of the array: an axis of this space, or None for all of that dimension.
        shape
            The array's shape.

        Returns
        -------
        Shape (k, m), where m is the product of the dimensions that are None; and shape (n,), numbers of its rows.

        Examples
        --------
        >>> rows, taken = Space(("i",), (2,)).slices(np.arange(2), ("i", None), (2, 3))
        >>> rows[taken]
        array([[0, 1, 2],
               [3, 4, 5]])
        """
        every = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
        named = [d for d, axis in enumerate(axes) if axis is not None]
        rows = np.moveaxis(every, named, range(len(named)))
        kept = tuple(axis for axis in axes if axis is not None)
        taken = math.prod(n for d, n in enumerate(shape) if d not in named)
        rows = rows.reshape(math.prod(shape[d] for d in named), taken)
        return rows, self.elements(positions, kept)

    def meets(
        self, marked: Array, positions: Array, axes: tuple[str | None, ...], shape: tuple[int, ...]
    ) -> Array:
        """Mask of those of `positions` whose slice of an array takes an element that is `marked`.

        The parameters are those of `slices`, and a mask over the array's elements in C order.
        """
        rows, taken = self.slices(positions, axes, shape)
        return np.asarray(np.any(marked[rows], axis=1))[taken]
