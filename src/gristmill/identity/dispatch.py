"""Which writer encodes values of a type.

Owns the order of precedence and the registry of users' own digests. Knows nothing of how a writer works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeVar

import numpy as np

from gristmill.identity import tags
from gristmill.identity.arrays import ARRAYS, write_foreign_scalar
from gristmill.identity.containers import CONTAINERS
from gristmill.identity.encoder import Encoder, Writer
from gristmill.identity.files import Dir, File, write_dir, write_file
from gristmill.identity.objects import (
    custom_writer,
    library_writer,
    subclass_writer,
    write_iterator,
    write_object,
)
from gristmill.identity.scalars import SCALARS
from gristmill.identity.standard import STANDARD, write_enum
from gristmill.identity.types import Root

T = TypeVar("T")

_registry: dict[type, Callable[[Any], object]] = {}
"""What `register_digest` collected. Module state because a type is registered once, where it is defined or
imported, before anything is digested; entries are only ever added."""


def _write_root(encoder: Encoder, value: Root) -> None:
    encoder.parts.append(tags.ROOT + bytes(value))


_TABLE: Mapping[type, Writer] = {
    **STANDARD,
    **CONTAINERS,
    **ARRAYS,
    Root: _write_root,
    File: write_file,
    Dir: write_dir,
}

LIBRARIES: Mapping[str, str] = {
    **{name: name for name in ("jax", "numpy", "pandas", "polars", "pyarrow", "torch", "xarray", "zarr")},
    "jaxlib": "jax",
}
"""Packages whose types have writers, and the module in `libraries` that is imported once one occurs."""


def register_digest(kind: type[T]) -> Callable[[Callable[[T], object]], Callable[[T], object]]:
    """Register a function that returns what identifies values of a type and of its subclasses.

    The function returns something digestible; the class always counts besides. A type's own ``__digest__``
    goes before.

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

    Its own ``__digest__`` or ``__cache_key__``, then what the user registered, then what is built in, then
    the parts that pickling would take it apart into.
    """
    return _TABLE.get(kind) or _custom(kind) or _library(kind) or _built_in(kind) or write_object


def _custom(kind: type) -> Writer | None:
    for method in ("__digest__", "__cache_key__"):
        function = getattr(kind, method, None)
        if function is not None and not issubclass(kind, type):
            return custom_writer(function)
    return next((custom_writer(_registry[base]) for base in kind.__mro__ if base in _registry), None)


def _library(kind: type) -> Writer | None:
    for base in kind.__mro__:
        package = base.__module__.partition(".")[0]
        writer = _table_of(package).get(base) if package in LIBRARIES else None
        if writer is not None:
            return writer if base is kind else library_writer(base, writer)
    return None


@lru_cache(maxsize=len(LIBRARIES))
def _table_of(package: str) -> Mapping[type, Writer]:
    module = import_module(f"gristmill.identity.libraries.{LIBRARIES[package]}")
    writers: Mapping[type, Writer] = module.writers()
    return writers


def _built_in(kind: type) -> Writer | None:
    if issubclass(kind, type):
        return _TABLE[type]
    if issubclass(kind, Enum):
        return write_enum
    for base in kind.__mro__[1:]:
        if base in SCALARS or base in _TABLE:
            return subclass_writer(base, _TABLE.get(base))
    if issubclass(kind, np.generic):
        return write_foreign_scalar
    return write_iterator if issubclass(kind, Iterator) else None
