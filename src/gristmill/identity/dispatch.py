"""Which writer encodes values of a type.

Owns the order of precedence and the registry of users' own digests. Knows nothing of how a writer works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, FunctionType
from typing import Any, TypeVar

import numpy as np

from gristmill.identity import tags
from gristmill.identity.arrays import ARRAYS, write_scalar
from gristmill.identity.containers import CONTAINERS
from gristmill.identity.encoder import Encoder, Writer
from gristmill.identity.objects import custom_writer, subclass_writer, write_iterator, write_object
from gristmill.identity.scalars import SCALARS
from gristmill.identity.types import Root

T = TypeVar("T")

_registry: dict[type, Callable[[Any], object]] = {}
"""What `register_digest` collected. Module state because a type is registered once, where it is defined or
imported, before anything is digested; entries are only ever added."""


def write_code(encoder: Encoder, value: object) -> None:
    encoder.code(value)


def write_root(encoder: Encoder, value: Root) -> None:
    encoder.parts.append(tags.ROOT + bytes(value))


_TABLE: dict[type, Writer] = {
    **CONTAINERS,
    **ARRAYS,
    Root: write_root,
    type: write_code,
    FunctionType: write_code,
    BuiltinFunctionType: write_code,
}


def register_digest(kind: type[T]) -> Callable[[Callable[[T], object]], Callable[[T], object]]:
    """Register a function that returns what identifies values of a type and of its subclasses.

    The function returns something digestible; the class always counts besides. A type's own ``__digest__`` goes
    before.

    Raises
    ------
    ValueError
        For Python's own scalars and containers, which have a digest already.
    """
    if kind in SCALARS or kind in _TABLE:
        raise ValueError(f"{kind.__qualname__} has a digest of its own; register a subclass of it instead")

    def register(function: Callable[[T], object]) -> Callable[[T], object]:
        _registry[kind] = function
        return function

    return register


def writer_of(kind: type) -> Writer:
    """Choose the writer for values of a type.

    Its own ``__digest__`` or ``__cache_key__``, then what the user registered, then what is built in, then the
    parts that pickling would take it to.
    """
    writer = _TABLE.get(kind)
    if writer is not None:
        return writer
    return _custom(kind) or _built_in(kind) or write_object


def _custom(kind: type) -> Writer | None:
    for method in ("__digest__", "__cache_key__"):
        function = getattr(kind, method, None)
        if function is not None:
            return custom_writer(function)
    for base in kind.__mro__:
        if base in _registry:
            return custom_writer(_registry[base])
    return None


def _built_in(kind: type) -> Writer | None:
    if issubclass(kind, type):
        return write_code
    if issubclass(kind, np.generic):
        return write_scalar
    for base in kind.__mro__[1:]:
        if base in SCALARS or base in _TABLE:
            return subclass_writer(base, _TABLE.get(base))
    if issubclass(kind, Iterator):
        return write_iterator
    return None
