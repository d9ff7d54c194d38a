"""Encodings of instances: the class, and the parts that make up the state.

Owns the rules for classes that gristmill does not know. Knows nothing of which classes there are.
"""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from gristmill.identity import tags
from gristmill.identity.encoder import Encoder, NoIdentityError, Writer
from gristmill.identity.primitives import text
from gristmill.identity.scalars import SCALARS
from gristmill.identity.types import Root

_NEW = vars(copyreg)["__newobj__"]
_NEW_EX = vars(copyreg)["__newobj_ex__"]

_CONTENT: Mapping[type, Callable[[Any], object]] = {
    int: int.__int__,
    float: float.__float__,
    complex: complex.__complex__,
    str: str.__str__,
    bytes: lambda value: bytes(memoryview(value)),
    bytearray: lambda value: bytearray(memoryview(value)),
    list: lambda value: [*list.__iter__(value)],
    tuple: lambda value: (*tuple.__iter__(value),),
    dict: lambda value: dict(dict.items(value)),
    set: lambda value: {*set.__iter__(value)},
    frozenset: lambda value: frozenset({*frozenset.__iter__(value)}),
}
"""What a builtin holds, whatever its subclass makes of its methods."""


def custom_writer(function: Callable[[Any], object]) -> Writer:
    """Write an object as its class and what `function` says identifies it."""

    def write(encoder: Encoder, value: object) -> None:
        key = function(value)
        if key is value:
            raise NoIdentityError(value, f"what shall identify a {type(value).__qualname__} is itself")
        if type(key) is Root:
            encoder.value(key)
            return
        encoder.parts.append(tags.CUSTOM + encoder.class_identity(type(value)))
        encoder.part(".__digest__()", key)

    return write


def library_writer(base: type, write_base: Writer) -> Writer:
    """Write an instance of a subclass of a library's class: the class, the content, what was added.

    That is its own slots and public attributes; private ones belong to the library, whose writer knows them.
    """

    def write(encoder: Encoder, value: object) -> None:
        kind = type(value)
        encoder.parts.append(tags.SUBCLASS + encoder.class_identity(kind))
        write_base(encoder, value)
        own = kind.__mro__[: kind.__mro__.index(base)]
        fields = {name: getattr(value, name) for name in _slots(own) if hasattr(value, name)}
        fields |= {
            name: item for name, item in getattr(value, "__dict__", {}).items() if not name.startswith("_")
        }
        encoder.fields(fields)

    return write


def _slots(classes: tuple[type, ...]) -> Iterator[str]:
    for kind in classes:
        names = kind.__dict__.get("__slots__", ())
        yield from (names,) if isinstance(names, str) else names


def subclass_writer(base: type, write_base: Writer | None) -> Writer:
    """Write an instance of a subclass of a builtin: the class, the content, the attributes."""
    content_of = _CONTENT.get(base, _itself)
    scalar = SCALARS.get(base)

    def write(encoder: Encoder, value: Any) -> None:
        kind = type(value)
        encoder.parts.append(tags.SUBCLASS + encoder.class_identity(kind))
        if scalar is not None:
            encoder.parts.append(scalar(content_of(value)))
        elif write_base is not None:
            write_base(encoder, content_of(value))
        if base is tuple:
            # Classes that namedtuple() makes share a name and differ in their fields.
            encoder.value(getattr(kind, "_fields", None))
        _write_state(encoder, value.__getstate__())

    return write


def _itself(value: object) -> object:
    return value


def write_iterator(_: Encoder, value: object) -> None:
    """Refuse what can be read only once."""
    raise NoIdentityError(value, f"reading a {type(value).__qualname__} would use it up")


def write_object(encoder: Encoder, value: object) -> None:
    """Append what pickling would take an object apart into: how it is made, state, items and pairs."""
    reduced = _reduce(value)
    if isinstance(reduced, str):
        _write_global(encoder, value, reduced)
        return
    parts: tuple[Any, ...] = (*reduced, None, None, None)
    make, arguments, state, items, pairs = parts[:5]
    _write_making(encoder, make, arguments)
    _write_state(encoder, state)
    encoder.value(list(items) if items is not None else None)
    encoder.value([*map(tuple, pairs)] if pairs is not None else None)


def _reduce(value: object) -> str | tuple[Any, ...]:
    reducer = copyreg.dispatch_table.get(type(value))
    try:
        return reducer(value) if reducer is not None else value.__reduce_ex__(4)
    except RecursionError:
        raise
    except Exception as error:  # noqa: BLE001 - a reduction is foreign code; whatever it raises means "no parts"
        reason = f"a {type(value).__qualname__} cannot be taken apart ({error})"
        raise NoIdentityError(value, reason) from None


def _write_global(encoder: Encoder, value: object, name: str) -> None:
    """Append what exists once, under a name; the module is left out, as it may be found in several."""
    module: str = vars(pickle)["whichmodule"](value, name)
    found: Any = import_module(module)
    for attribute in name.split("."):
        found = getattr(found, attribute, None)
    if found is not value:
        raise NoIdentityError(value, f"it says that it is {module}.{name}, but that is something else")
    encoder.parts.append(tags.GLOBAL + encoder.class_identity(type(value)) + text(name))


def _write_making(encoder: Encoder, make: Any, arguments: tuple[Any, ...]) -> None:
    if make is _NEW:
        kind, *positional = arguments
        encoder.parts.append(tags.OBJECT + encoder.class_identity(kind))
        encoder.value(tuple(positional))
    elif make is _NEW_EX:
        kind, positional, keywords = arguments
        encoder.parts.append(tags.OBJECT + encoder.class_identity(kind))
        encoder.value(tuple(positional))
        encoder.fields(keywords)
    else:
        encoder.parts.append(tags.REDUCED)
        encoder.value(make)
        encoder.value(arguments)


def _write_state(encoder: Encoder, state: Any) -> None:
    if type(state) is tuple and len(state) == 2 and _is_attributes(state[0]) and _is_attributes(state[1]):
        plain, slots = state
        state = {**(plain or {}), **(slots or {})}
    if _is_attributes(state):
        encoder.fields(state or {})
    else:
        encoder.part(".__getstate__()", state)


def _is_attributes(state: object) -> bool:
    return state is None or (type(state) is dict and all(type(name) is str for name in state))
