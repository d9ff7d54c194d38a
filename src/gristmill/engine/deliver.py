"""Delivery: what a function is handed, the same on cold and on warm runs.

Arrays arrive as read-only views (private copies with `writable=True`), immutable values as they are, any
other value as a private copy for each call. A reduction's argument is assembled by the rule of `assemble`.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gristmill.errors import StoreError
from gristmill.identity.files import Dir, File
from gristmill.plan.space import Slices, Space
from gristmill.storage.elements import SCALARS, Made, Pickled, pickle_value

Array = np.ndarray[Any, Any]


_IMMUTABLE = (File, Dir)


class Shared:
    """A value that cannot be pickled, or is not stored, and so is handed on as it is."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Alone:
    """The one element of a group of a tree reduction, which goes on as it is: nothing is called for it."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


def as_form(value: object) -> object:
    """Return what copies of an input are made from, call by call."""
    kind = type(value)
    if kind in SCALARS or kind in _IMMUTABLE or kind is np.ndarray or issubclass(kind, np.generic):
        return value
    try:
        return Pickled(pickle_value(value, given=True))
    except StoreError:
        return Shared(value)


def deliver(forms: Sequence[Any], load: Callable[[object], Any], *, writable: bool) -> Sequence[Any]:
    """Return what calls are handed for the stored forms of their argument.

    Parameters
    ----------
    forms
        One per call.
    load
        Makes a private value of a form that is not a value itself.
    writable
        Whether arrays are private copies rather than read-only views.
    """
    if set(map(type, forms)) <= SCALARS:
        return forms
    return [_deliver_one(form, load, writable=writable) for form in forms]


def _deliver_one(form: Any, load: Callable[[object], Any], *, writable: bool) -> Any:
    if type(form) in SCALARS or isinstance(form, np.generic):
        return form
    if isinstance(form, np.ndarray):
        return form.copy() if writable else read_only(form)
    if isinstance(form, Shared):
        return form.value
    value = load(form)
    if isinstance(form, Made):
        return value
    if isinstance(value, np.ndarray) and not writable:
        value.flags.writeable = False
    elif not writable:
        _protect(value)
    return value


def _protect(value: Any) -> None:
    """Make the arrays inside a private copy of a builtin container read-only."""
    if isinstance(value, dict):
        inside: Any = value.values()
    elif isinstance(value, list | tuple):
        inside = value
    else:
        return
    for item in inside:
        if isinstance(item, np.ndarray):
            item.flags.writeable = False
        elif isinstance(item, dict | list | tuple):
            _protect(item)


def read_only(array: Array) -> Array:
    """Return a view of `array` that cannot be written through."""
    view = array.view()
    view.flags.writeable = False
    return view


def assemble(values: Sequence[Any], space: Space, form: str) -> Any:
    """Return the elements of a reduction's argument in the form its parameter asks for.

    Parameters
    ----------
    values
        The elements in C order.
    space
        Their indices.
    form
        `"list"`: nested lists of the exact elements. `"array"`: all bool → bool; Python ints → int64 if they
        fit; floats, or ints and floats → float64; complex with any of these → complex128; numpy scalars →
        their `numpy.result_type`; arrays of one shape and dtype → stacked behind the reduced axes; anything
        else → an object array. Along a ragged axis: an object array, or list, of arrays or lists.
    """
    if space.places is not None:
        return _assemble_ragged(values, space, form)
    return _nest(list(values), space.shape) if form == "list" else _array(values, space.shape)


def _array(values: Sequence[Any], shape: tuple[int, ...]) -> Array:
    kinds = set(map(type, values))
    dtype = _number_dtype(kinds)
    if dtype is not None:
        try:
            return np.array(values, dtype=dtype).reshape(shape)
        except OverflowError:
            return _objects(values, shape)
    if kinds and all(issubclass(kind, np.generic) for kind in kinds):
        return np.array(values, dtype=np.result_type(*{v.dtype for v in values})).reshape(shape)
    if kinds == {np.ndarray} and len({(v.shape, v.dtype) for v in values}) == 1 and values[0].dtype != object:
        return np.stack(values).reshape(shape + values[0].shape)
    return _objects(values, shape)


def _assemble_ragged(values: Sequence[Any], space: Space, form: str) -> Any:
    """Assemble what is along the ragged axes for each index of the axes before them."""
    first = next((d for d, axis in enumerate(space.axes) if axis in space.ragged), len(space.axes))
    outer = space.shape[:first]
    slices = Slices(space, tuple(range(first)), outer, np.empty(0, dtype=np.int64))
    parts = []
    for row in range(math.prod(outer)):
        members, part = slices.members(row), slices.part(row)
        if part.size != len(members):  # some have failed and were left out
            part = Space(("_".join(part.axes),), (len(members),))
        parts.append(assemble([values[k] for k in members.tolist()], part, form))
    return _nest(parts, outer) if form == "list" else _objects(parts, outer)


_NUMBERS = {bool: 0, int: 1, float: 2, complex: 3}


def _number_dtype(kinds: set[type]) -> np.dtype[Any] | None:
    if not kinds:
        return np.dtype(np.float64)  # as numpy.array([])
    if kinds == {bool}:
        return np.dtype(bool)
    if kinds <= {int, float, complex}:
        return np.dtype((np.int64, np.float64, np.complex128)[max(_NUMBERS[kind] for kind in kinds) - 1])
    return None


def _objects(values: Sequence[Any], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        array[position] = value
    return array.reshape(shape)


def _nest(values: list[Any], shape: tuple[int, ...]) -> list[Any]:
    for depth in range(len(shape) - 1, 0, -1):
        rows = iter(values)
        values = [list(itertools.islice(rows, shape[depth])) for _ in range(math.prod(shape[:depth]))]
    return values
