"""Encodings of instances: the class, and the parts that make up the state.

Owns the rules for users' classes. Knows nothing of which classes there are.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any

from gristmill.identity import tags
from gristmill.identity.containers import write_items
from gristmill.identity.encoder import Encoder, Unidentifiable, Writer
from gristmill.identity.scalars import SCALARS, length, text
from gristmill.identity.types import Root

_NEW = getattr(copyreg, "__newobj__")  # noqa: B009 - an attribute access would be mangled inside a class
_NEW_EX = getattr(copyreg, "__newobj_ex__")  # noqa: B009


def custom_writer(function: Callable[[Any], object]) -> Writer:
    """Write an object as its class and what `function` says identifies it."""

    def write(encoder: Encoder, value: object) -> None:
        key = function(value)
        if type(key) is Root:
            encoder.value(key)
            return
        encoder.parts.append(tags.CUSTOM + encoder.class_identity(type(value)))
        encoder.value(key)

    return write


def subclass_writer(base: type, write_base: Writer | None) -> Writer:
    """Write an instance of a subclass of a builtin as its class, the builtin's content, and its attributes."""

    def write(encoder: Encoder, value: Any) -> None:
        encoder.parts.append(tags.SUBCLASS + encoder.class_identity(type(value)))
        content = _CONTENT.get(base, base)(value)
        if write_base is None:
            encoder.parts.append(SCALARS[base](content))
        else:
            write_base(encoder, content)
        _write_state(encoder, value.__getstate__())

    return write


_CONTENT: dict[type, Callable[[Any], object]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    list: lambda value: list(list.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    dict: lambda value: dict(dict.items(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
}


def write_iterator(encoder: Encoder, value: object) -> None:
    raise Unidentifiable(value, f"reading a {type(value).__qualname__} would use it up")


def write_object(encoder: Encoder, value: object) -> None:
    """Append what pickling would take an object apart to: how to make it, its state, items and pairs."""
    try:
        reduced = value.__reduce_ex__(4)
    except RecursionError:
        raise
    except Exception as error:
        raise Unidentifiable(value, f"a {type(value).__qualname__} has no content to identify ({error})") from None
    if isinstance(reduced, str):
        encoder.parts.append(tags.NAMED + encoder.class_identity(type(value)) + text(reduced))
        return
    make, arguments, state, items, pairs, *_ = (*reduced, None, None, None)
    _write_making(encoder, make, arguments)
    _write_state(encoder, state)
    write_items(encoder, [list(items or ()), [list(pair) for pair in pairs or ()]])


def _write_making(encoder: Encoder, make: Any, arguments: tuple[Any, ...]) -> None:
    if make is _NEW:
        kind, *arguments_list = arguments
        encoder.parts.append(tags.OBJECT + encoder.class_identity(kind))
        encoder.value(tuple(arguments_list))
    elif make is _NEW_EX:
        kind, positional, keywords = arguments
        encoder.parts.append(tags.OBJECT + encoder.class_identity(kind))
        encoder.value(tuple(positional))
        _write_fields(encoder, keywords)
    else:
        encoder.parts.append(tags.REDUCED)
        encoder.value(make)
        encoder.value(arguments)


def _write_state(encoder: Encoder, state: object) -> None:
    """Append attributes sorted by name: the order of assignment is no part of an object."""
    if type(state) is tuple and len(state) == 2 and all(part is None or type(part) is dict for part in state):
        plain, slots = state
        state = {**(plain or {}), **(slots or {})}
    if type(state) is dict and all(type(name) is str for name in state):
        _write_fields(encoder, state)
    else:
        encoder.value(state)


def _write_fields(encoder: Encoder, fields: dict[str, Any]) -> None:
    append, scalar_of = encoder.parts.append, SCALARS.get
    append(tags.OBJECT + length(len(fields)))
    for name in sorted(fields):
        append(text(name))
        value = fields[name]
        scalar = scalar_of(type(value))
        if scalar is not None:
            append(scalar(value))
        else:
            encoder.compound(value)
