"""Mapped outputs: all elements of one output, array-like and lazy.

What a map gives back, and what a reduction gets that asks for one: elements are read, and verified, when they
are asked for.
"""

import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.engine.deliver import assemble, read_only
from gristmill.engine.failed import ItemError
from gristmill.engine.sources import OutputSource
from gristmill.errors import GristmillError, IntegrityError
from gristmill.identity.digest import merkle
from gristmill.identity.types import Root
from gristmill.plan.space import Space
from gristmill.storage.index import MISSING

if TYPE_CHECKING:
    from zarr import Array as ZarrArray

Array = np.ndarray[Any, Any]
_BLOCK = 4096
_ATTEMPTS = 3


def root(space: Space, block: bytes) -> Root:
    """Return the identity of all elements at once: of their digests in C order, and of where they are."""
    places = b"" if space.places is None else np.ascontiguousarray(space.places, dtype="<i8").tobytes()
    return merkle(space.shape, block + places)


def _line(length: int) -> Space:
    return Space(("element",), (length,))


class MappedOutput:
    """A mapped output, array-like and lazy: elements are read from the store, and verified, when asked for.

    `output[3]` and iteration give an element with exactly the type the function returned; slices and
    `numpy.asarray` give arrays by the rule for what a reduction receives.

    Parameters
    ----------
    name, space
        What it is called, and its axes and extents.
    elements
        Where they are.
    mend
        Called with positions among which some cannot be read: makes them readable, or raises.
    causes
        Gives, for the positions of missing elements, the failed calls that are why, None for those without one.
    stand_ins
        Gives what is read in their places; without it, reading them is an error.
    """

    def __init__(
        self,
        name: str,
        space: Space,
        elements: OutputSource,
        mend: Callable[[Array], None],
        *,
        causes: Callable[[Array], Sequence[ItemError | None]] | None = None,
        stand_ins: Callable[[Array], Sequence[Any]] | None = None,
    ) -> None:
        self.name = name
        self.space = space
        """Its indices."""
        self.elements = elements
        """Where they are."""
        self.mend = mend
        """Makes positions readable of which some cannot be read, or raises."""
        self._causes = causes
        self._stand_ins = stand_ins
        self._array: Array | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of its axes; dimensions of the elements come after them and have none."""
        return self.space.axes

    @property
    def extents(self) -> tuple[int, ...]:
        """Lengths of its axes; of a ragged one, the greatest."""
        return self.space.shape

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that `numpy.asarray` gives.

        Lengths of its axes, then the shape of the elements where they are arrays of one shape and dtype; of a
        ragged output, lengths of the axes before the first ragged one, since the rest are arrays of their own.
        """
        if self.space.places is not None:
            return self.space.shape[: self._first_ragged]
        return self.space.shape + self._layout()[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that `numpy.asarray` gives."""
        return np.dtype(object) if self.space.places is not None else self._layout()[1]

    @property
    def ndim(self) -> int:
        """Number of dimensions, the elements' included."""
        return len(self.shape)

    @property
    def missing(self) -> Array:
        """Mask over the axes: True where there is no element, because its call failed or was skipped.

        Of a ragged output an object array of masks.
        """
        mask: Array = assemble(self.elements.missing.tolist(), self.space, "array")
        return mask

    @property
    def errors(self) -> list[ItemError]:
        """The failed calls that are why elements are missing, each once: those of this output, and what they need.

        They are among `result.errors`. An output that was loaded from a run record has none.
        """
        if self._causes is None:
            return []
        causes = self._causes(np.flatnonzero(self.elements.missing))
        return list(dict.fromkeys(one for one in causes if one is not None))

    def __len__(self) -> int:
        return self.space.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if len(self.space.axes) > 1:
            yield from (self[k] for k in range(len(self)))
            return
        step = self.step
        for start in range(0, len(self), step):
            yield from self._values(np.arange(start, min(start + step, len(self))))

    def __getitem__(self, index: Any) -> Any:
        if self.space.places is not None:
            return self._ragged_item(index if isinstance(index, tuple) else (index,))
        return self._chosen(np.arange(self.space.size).reshape(self.space.shape)[index])

    def _chosen(self, chosen: Any) -> Any:
        """The element at a position, or an array of those at an array of positions."""
        if np.ndim(chosen) == 0:
            return self._values(np.array([chosen]))[0]
        self._check_complete(chosen.reshape(-1))
        part = Space(tuple(map(str, range(chosen.ndim))), chosen.shape)
        return assemble(self._values(chosen.reshape(-1)), part, "array")

    def _ragged_item(self, index: tuple[Any, ...]) -> Any:
        """What an index selects of a ragged output: first where it fixes axes, then in the array that is left."""
        if len(index) > len(self.space.axes):
            raise IndexError(
                f"{self.name!r} has {len(self.space.axes)} axes; {len(index)} indices were given"
            )
        fixed = list(itertools.takewhile(lambda one: hasattr(one, "__index__"), index))
        slices, row = self.space.fixed([operator.index(one) for one in fixed])
        members, part = slices.members(row), slices.part(row)
        rest = index[len(fixed) :]
        if part.places is None:
            return self._chosen(members.reshape(part.shape)[rest])
        self._check_complete(members)
        return assemble(self._values(members), part, "array")[rest]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:  # noqa: FBT001 - numpy's protocol
        if self._array is None:
            self._check_complete(np.arange(self.space.size))
            self._array = self._read_array()
        array = self._array if dtype is None else self._array.astype(dtype, copy=False)
        if array is not self._array:
            return array
        return read_only(array) if copy is False else array.copy()

    def __digest__(self) -> Root:
        """Return the identity that it has as a reduction's argument; no element is read for that.

        Raises
        ------
        GristmillError
            Elements are missing, because their calls failed.
        """
        every = np.arange(self.space.size)
        self._check_complete(every, stand_ins=False)
        return root(self.space, self.elements.digests(every).tobytes())

    def tolist(self) -> list[Any]:
        """Return nested lists of the exact elements; None where one is missing."""
        values: list[Any] = []
        for start in range(0, self.space.size, _BLOCK):
            positions = np.arange(start, min(start + _BLOCK, self.space.size))
            values += self._values(positions, absent=None)
        nested: list[Any] = assemble(values, self.space, "list")
        return nested

    def masked(self) -> "np.ma.MaskedArray[Any, Any]":
        """Return a masked array, in which missing elements are masked.

        Raises
        ------
        GristmillError
            The output is ragged.
        """
        if self.space.places is not None:
            raise GristmillError(
                f"{self.name!r} is ragged, which no masked array is; use .tolist() and .missing"
            )
        there = np.flatnonzero(~self.elements.missing)
        if len(there) == self.space.size:
            whole = np.asarray(self)
            return np.ma.MaskedArray(whole, np.zeros(whole.shape, dtype=bool))
        values = assemble(self._values(there), _line(len(there)), "array")
        data = np.zeros((self.space.size, *values.shape[1:]), dtype=values.dtype)
        data[there] = values
        mask = np.ones(data.shape, dtype=bool)
        mask[there] = False
        shape = self.space.shape + data.shape[1:]
        return np.ma.MaskedArray(data.reshape(shape), mask.reshape(shape))

    def labelled(self) -> Array:
        """Return what tables and datasets are made of: an array, masked where elements are missing.

        Of a ragged output an object array of arrays, with None where elements are missing.
        """
        if self.space.places is None:
            return self.masked() if self.elements.missing.any() else np.asarray(self)
        every = np.arange(self.space.size)
        return np.asarray(assemble(self._values(every, absent=None), self.space, "array"))

    @property
    def zarr(self) -> "ZarrArray[Any]":
        """A read-only `zarr.Array` whose chunks are read from the store, verified.

        Raises
        ------
        GristmillError
            The elements are not arrays or numbers of one shape and dtype.
        """
        from gristmill.storage.zarrstore import open_array

        if self.space.places is not None:
            raise GristmillError(
                f"{self.name!r} is ragged, which no zarr array is; use result[{self.name!r}].tolist()"
            )
        shape, dtype = self._layout()
        if dtype.kind not in "biufc" or dtype.char in "gG":
            raise GristmillError(
                f"{self.name!r} has elements of different shapes or types, or of {dtype}, which no zarr array holds; "
                f"use result[{self.name!r}].tolist()"
            )
        stored = dtype.newbyteorder("<")

        def element(position: int) -> Array:
            value = self._values(np.array([position]))[0]
            return np.ascontiguousarray(np.asarray(value, dtype=stored))

        return open_array(self.space.axes, self.space.shape, self.space.shape + shape, dtype, element)

    def to_zarr(self, path: str) -> "ZarrArray[Any]":
        """Write a zarr array of its own to `path`, chunked as here, and return it."""
        from gristmill.storage.zarrstore import copy_array

        return copy_array(self.zarr, self.space.axes, path)

    def scalar(self) -> Any:
        """Return the one element of an output without axes."""
        if self.elements.locators[0] == MISSING:
            raise GristmillError(
                f"{self.name!r} has no value, because a call it needs failed; see result.errors"
            )
        return self._values(np.zeros(1, dtype=np.int64))[0]

    @property
    def _first_ragged(self) -> int:
        return next(d for d, axis in enumerate(self.space.axes) if axis in self.space.ragged)

    @property
    def step(self) -> int:
        """How many elements are read at once when all are: one where they are too large to be packed."""
        kinds = {
            segment.codecs[self.elements.output]["kind"]
            for segment, _, _ in self.elements.index.runs(
                self.elements.locators[self.elements.locators != MISSING]
            )
        }
        return 1 if kinds & {"chunk", "mixed"} else _BLOCK

    def at(self, space: Space, positions: Array) -> list[Any]:
        """Return the elements for `positions` of a space that has all axes of this output; None where missing."""
        return self._values(space.elements(positions, self.space.axes, self.space), absent=None)

    def __repr__(self) -> str:
        named = ", ".join(
            f"{axis}≤{n}" if axis in self.space.ragged else f"{axis}={n}"
            for axis, n in zip(self.space.axes, self.space.shape, strict=True)
        )
        missing = int(np.count_nonzero(self.elements.locators == MISSING))
        return f"<MappedOutput {self.name}[{named}]{f', {missing} missing' if missing else ''}>"

    def _layout(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape of the elements and dtype of the whole: from the segments' headers where those tell."""
        if self._has_stand_ins:
            return (), np.dtype(object)
        there = self.elements.locators[self.elements.locators != MISSING]
        kinds = set()
        for segment, _, _ in self.elements.index.runs(there):
            codec = segment.codecs[self.elements.output]
            kinds.add((codec["kind"], codec.get("dtype"), tuple(codec.get("shape", ()))))
        known = {"int": np.int64, "float": np.float64, "bool": np.bool_, "complex": np.complex128}
        if len(kinds) == 1:
            kind, dtype, shape = kinds.pop()
            if kind in known:
                return (), np.dtype(known[kind])
            if kind in ("scalar", "array", "chunk"):
                return shape, np.dtype(dtype)
        array = assemble(
            self._values(np.flatnonzero(self.elements.locators != MISSING)), _line(len(there)), "array"
        )
        return array.shape[1:], array.dtype

    def _read_array(self) -> Array:
        if self.space.places is not None or self._has_stand_ins:
            return np.asarray(assemble(self._values(np.arange(self.space.size)), self.space, "array"))
        packed = self._retry(self.elements.packed, np.arange(self.space.size))
        if packed is not None:
            return np.asarray(packed.reshape(self.space.shape + packed.shape[1:]))
        shape, dtype = self._layout()
        if dtype == np.dtype(object):
            return np.asarray(assemble(self._values(np.arange(self.space.size)), self.space, "array"))
        array = np.empty((self.space.size, *shape), dtype=dtype)
        for start in range(0, self.space.size, 64):
            positions = np.arange(start, min(start + 64, self.space.size))
            for position, value in zip(positions, self._values(positions), strict=True):
                array[position] = value
        return array.reshape(self.space.shape + shape)

    @property
    def _has_stand_ins(self) -> bool:
        return self._stand_ins is not None and bool(self.elements.missing.any())

    def _check_complete(self, positions: Array, *, stand_ins: bool = True) -> None:
        if stand_ins and self._stand_ins is not None:
            return
        missing = np.flatnonzero(self.elements.locators[positions] == MISSING)
        if len(missing):
            index = self.space.index(int(positions[missing[0]]))
            raise GristmillError(
                f"{len(missing)} of {len(positions)} elements of {self.name!r} are missing, the first at {index}: "
                "their calls failed (see result.errors) or were not asked for. Use .masked() for a masked array, or "
                ".tolist()"
            )

    def _values(self, positions: Array, *, absent: Any = IntegrityError) -> list[Any]:
        """The elements at `positions`; `absent` stands for missing ones, which are an error by default."""
        there = np.flatnonzero(self.elements.locators[positions] != MISSING)
        if len(there) < len(positions) and absent is IntegrityError:
            self._check_complete(positions)
        found = self._retry(lambda: self._load(positions[there]), positions[there])
        if len(there) == len(positions):
            return list(found)
        values = [absent] * len(positions)
        if self._stand_ins is not None:
            places = np.flatnonzero(self.elements.locators[positions] == MISSING)
            for place, error in zip(places.tolist(), self._stand_ins(positions[places]), strict=True):
                values[place] = error
        for place, value in zip(there.tolist(), found, strict=True):
            values[place] = value
        return values

    def _load(self, positions: Array) -> list[Any]:
        return [self.elements.load(form) for form in self.elements.forms(positions)]

    def _retry(self, read: Callable[[], Any], positions: Array) -> Any:
        """Read; where stored bytes of `positions` are damaged or gone, have them mended and read again."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return read()
            except IntegrityError:
                self.mend(positions)
        return read()
