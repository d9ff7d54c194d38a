"""Inputs: what the caller supplies, checked and digested before anything runs.

A mapped input is laid out over the axes that a node indexes; what is left of each element (further dimensions
of an array) goes to the function whole.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from gristmill.errors import DigestError, InputError
from gristmill.identity.digest import digest, digest_block
from gristmill.identity.files import Encounters
from gristmill.identity.types import Root
from gristmill.plan.chunked import ChunkedElements, is_elsewhere
from gristmill.plan.space import Space

Array = np.ndarray[Any, Any]
Elements = Sequence[Any] | Array
"""A flat sequence, or an array whose first dimension runs over the elements."""

_BLOCK = 1 << 16
"""Elements digested at once, so that what is needed on the way stays small."""


@runtime_checkable
class Reference(Protocol):
    """A mapped output of an earlier map that is passed on: known, and read, by reference."""

    space: Space
    """Its indices."""
    elements: Any
    """What the engine reads the elements through."""
    mend: Callable[[Array], None]
    """Makes elements readable again of which some cannot be read, or raises."""

    def __digest__(self) -> Root:
        """Return what identifies it: as an argument, the same as when it was reduced where it was made."""

    def tolist(self) -> list[Any]:
        """Return nested lists of the elements."""


_SCALARS = frozenset({int, float, bool, str, bytes, type(None)})
_PLAIN = _SCALARS | {list, dict, tuple, np.ndarray}


def is_by_reference(value: object) -> bool:
    """Whether a value is a mapped output of an earlier map."""
    return type(value) not in _PLAIN and isinstance(value, Reference)


@dataclass(eq=False)
class WholeInput:
    """A value that every call gets as it is."""

    name: str
    value: Any
    _identity: tuple[bytes, bool] | None = field(default=None, init=False, repr=False)

    @property
    def digest(self) -> bytes:
        """Its identity.

        Raises
        ------
        DigestError
            Names the path inside the value.
        """
        return self.identify()[0]

    @property
    def holds_files(self) -> bool:
        """Whether there are files or folders in it, which may change while calls read them."""
        return self.identify()[1]

    def identify(self) -> tuple[bytes, bool]:
        """Return its digest, which is made once, and whether there are files in it."""
        if self._identity is None:
            if type(self.value) in _SCALARS:
                self._identity = bytes(digest(self.value, name=self.name)), False
            else:
                with Encounters() as met:
                    self._identity = bytes(digest(self.value, name=self.name)), bool(met.places)
        return self._identity


@dataclass(frozen=True, eq=False)
class MappedInput:
    """A sequence or array, as elements over axes."""

    name: str
    shape: tuple[int, ...]
    """Extents of the axes it is indexed by."""
    elements: Elements
    """The elements in C order: a flat sequence, or an array whose first dimension runs over them."""

    @property
    def space(self) -> Space:
        """Its indices; nobody names the axes here."""
        return Space(tuple(map(str, range(len(self.shape)))), self.shape)

    @property
    def digests(self) -> bytes:
        """16 bytes an element.

        Raises
        ------
        DigestError
            Names the element and the path inside it.
        """
        return self._identities[0]

    @property
    def holds_files(self) -> bool:
        """Whether there are files or folders in it, which may change while calls read them."""
        return self._identities[1]

    @cached_property
    def _identities(self) -> tuple[bytes, bool]:
        with Encounters() as met:
            return self._digest_all(), bool(met.places)

    def _digest_all(self) -> bytes:
        if isinstance(self.elements, ChunkedElements):
            try:
                return self.elements.digests(self.name)
            except DigestError:
                raise
            except Exception as error:  # its store and its codecs may raise anything
                raise InputError(f"input {self.name!r} cannot be read: {error!r}") from error
        parts = []
        for start in range(0, len(self.elements), _BLOCK):
            part = self.elements[start : start + _BLOCK]
            try:
                parts.append(digest_block(part, name=self.name))
            except DigestError:
                if start:  # say it again, with the element's number in the whole
                    digest_block(self.elements, name=self.name)
                raise
        return b"".join(parts)


@dataclass(frozen=True, eq=False)
class GivenOutput:
    """A mapped output of an earlier map, as an input whose elements stay where they are."""

    name: str
    output: Reference

    @property
    def space(self) -> Space:
        """Its indices."""
        return self.output.space

    @property
    def digests(self) -> bytes:
        """16 bytes an element.

        Raises
        ------
        InputError
            Elements are missing, because their calls failed.
        """
        self.check()
        found: Array = self.output.elements.digests(np.arange(self.space.size))
        return found.tobytes()

    def check(self) -> None:
        """See that all elements are there.

        Raises
        ------
        InputError
            They are not.
        """
        missing = np.flatnonzero(self.output.elements.missing)
        if len(missing):
            first = self.space.index(int(missing[0]))
            raise InputError(
                f"input {self.name!r}: {len(missing)} of {self.space.size} elements are missing, "
                f"the first at {first}, because their calls failed; pass what there is, like result[...].masked()"
            )

    @property
    def holds_files(self) -> bool:
        """Whether there are files or folders in it, which may change while calls read them."""
        return bool(self.output.elements.holds_files)


def mapped_input(name: str, value: object, axes: tuple[str | None, ...]) -> MappedInput:
    """Lay `value` out over the axes that are not None; they select, None leaves that dimension to the function.

    Raises
    ------
    InputError
        The value has no such dimensions, or is nothing that a map can index.
    """
    if isinstance(value, Reference):
        GivenOutput(name, value).check()
        value = value.tolist()  # indexed into its elements, or by less than all of its axes
    asked = _Asked(f"input {name!r}", "is mapped", f"Pass a list: {name}=[...].")
    if is_elsewhere(value):
        _check_dimensions(asked, value, axes)
        chunked = ChunkedElements(value, tuple(d for d, axis in enumerate(axes) if axis is not None))
        return MappedInput(name, chunked.shape, chunked)
    return MappedInput(name, *_laid_out(value, axes, asked))


def made_elements(node: str, value: object, axes: tuple[str, ...]) -> tuple[tuple[int, ...], Elements]:
    """Lay what a call returned out over the axes that it makes: their lengths, and the elements in C order.

    Raises
    ------
    InputError
        The value has no such dimensions.
    """
    if isinstance(value, Iterator):
        value = list(value)
    asked = _Asked(f"what {node} returned", f"is spread over {_shown(axes)}", "Return a list or an array.")
    return _laid_out(value, axes, asked)


class _Asked(NamedTuple):
    """What is laid out, for messages."""

    what: str
    why: str
    way_out: str


def _laid_out(value: object, axes: tuple[str | None, ...], asked: _Asked) -> tuple[tuple[int, ...], Elements]:
    named = tuple(d for d, axis in enumerate(axes) if axis is not None)
    array = _as_array(value)
    if array is not None:
        return _from_array(asked, array, axes, named)
    nested = _as_sequence(asked, value)
    if named == (0,) and len(axes) == 1:
        return (len(nested),), nested
    return _from_nested(asked, nested, axes, named)


def _as_array(value: object) -> Array | None:
    if isinstance(value, np.ndarray):
        return value
    if type(value).__module__.partition(".")[0] in ("pandas", "polars") and hasattr(value, "to_numpy"):
        array = np.asarray(value.to_numpy())
        return array if array.dtype.kind in "biufc" else None
    if type(value).__module__.partition(".")[0] == "zarr" and hasattr(value, "shape"):
        return np.asarray(value[...])  # type: ignore[index]
    return None


def _as_sequence(asked: _Asked, value: object) -> Sequence[Any]:
    kind = type(value).__name__
    if isinstance(value, str | bytes | bytearray | Mapping | AbstractSet):
        raise InputError(
            f"{asked.what} {asked.why}, so it must be a sequence or an array; a {kind} is one value. {asked.way_out}"
        )
    if isinstance(value, Iterator) or not hasattr(value, "__len__"):
        raise InputError(
            f"{asked.what} {asked.why}, so its length must be known; a {kind} has none. {asked.way_out}"
        )
    if isinstance(value, list | tuple | range):
        return value
    if hasattr(value, "to_list"):  # pandas and polars Series
        elements: Sequence[Any] = value.to_list()
        return elements
    if hasattr(value, "__getitem__"):
        return list(value)  # type: ignore[call-overload, no-any-return]
    raise InputError(f"{asked.what} {asked.why}; a {kind} is no sequence and no array. {asked.way_out}")


def _from_array(
    asked: _Asked, array: Array, axes: tuple[str | None, ...], named: tuple[int, ...]
) -> tuple[tuple[int, ...], Elements]:
    _check_dimensions(asked, array, axes)
    moved = np.moveaxis(array, named, range(len(named)))
    shape = moved.shape[: len(named)]
    return shape, moved.reshape(math.prod(shape), *moved.shape[len(named) :])


def _check_dimensions(asked: _Asked, array: Any, axes: tuple[str | None, ...]) -> None:
    if len(array.shape) < len(axes):
        raise InputError(
            f"{asked.what} is indexed by {_shown(axes)}, so it needs {len(axes)} dimensions; "
            f"its shape is {array.shape}"
        )


def _from_nested(
    asked: _Asked, nested: Sequence[Any], axes: tuple[str | None, ...], named: tuple[int, ...]
) -> tuple[tuple[int, ...], Elements]:
    """Index nested sequences; dimensions that are None come back as numpy arrays of the selected elements."""
    shape, flat = _flatten(asked, nested, len(axes), axes)
    grid = np.empty(len(flat), dtype=object)
    for place, element in enumerate(flat):  # numpy would look into elements that are lists
        grid[place] = element
    moved = np.moveaxis(grid.reshape(shape), named, range(len(named)))
    outer = moved.shape[: len(named)]
    if len(named) == len(axes):
        return outer, moved.reshape(-1).tolist()
    rows = moved.reshape(math.prod(outer), *moved.shape[len(named) :])
    return outer, [np.array(row.tolist()) for row in rows]


def _flatten(
    asked: _Asked, nested: Sequence[Any], depth: int, axes: tuple[str | None, ...]
) -> tuple[tuple[int, ...], list[Any]]:
    shape = [len(nested)]
    level: list[Any] = list(nested)
    for _ in range(depth - 1):
        rows = [_row(asked, row, axes) for row in level]
        lengths = {len(row) for row in rows}
        if len(lengths) > 1:
            raise InputError(
                f"{asked.what} is indexed by {_shown(axes)}, so its rows must be of one length; "
                f"found lengths {sorted(lengths)[:5]}"
            )
        shape.append(lengths.pop() if lengths else 0)
        level = [element for row in rows for element in row]
    return tuple(shape), level


def _row(asked: _Asked, row: object, axes: tuple[str | None, ...]) -> Sequence[Any]:
    if isinstance(row, list | tuple | range | np.ndarray):
        return row  # type: ignore[return-value]
    raise InputError(
        f"{asked.what} is indexed by {_shown(axes)}, so it must be nested; found a {type(row).__name__} as a row"
    )


def _shown(axes: tuple[str | None, ...]) -> str:
    return f"[{', '.join(':' if axis is None else axis for axis in axes)}]"
