"""Encodings of numpy dtypes and shapes.

Owns what makes two dtypes the same: kind, size, byte order, unit, and the names and offsets of fields. Knows
nothing of arrays.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from gristmill.identity import tags
from gristmill.identity.primitives import length, text

_PLAIN = frozenset("biufcmMSU")
"""Kinds whose items are all content: no references."""


@lru_cache(maxsize=256)
def dtype_bytes(dtype: np.dtype[Any]) -> bytes:
    """Encode a dtype: kind, size, byte order and unit; fields by name and offset."""
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        return tags.DTYPE + b"s" + shape_bytes(shape) + dtype_bytes(base)
    if dtype.names is None:
        return tags.DTYPE + text(dtype.str) + _foreign(dtype)
    fields = [dtype.fields[name] for name in dtype.names]  # type: ignore[index]
    head = tags.DTYPE + b"f" + length(dtype.itemsize) + length(len(fields))
    return head + b"".join(map(_field_bytes, dtype.names, fields))


def _foreign(dtype: np.dtype[Any]) -> bytes:
    """Name a dtype that another library brings: its type string only says how wide it is."""
    kind = dtype.type
    if kind.__module__ == "numpy" or dtype.kind == "T":
        return b""
    return text(kind.__module__) + text(kind.__qualname__)


def _field_bytes(name: str, field: tuple[Any, ...]) -> bytes:
    dtype, offset, *_ = field
    return text(name) + length(offset) + dtype_bytes(dtype)


def shape_bytes(shape: tuple[int, ...]) -> bytes:
    """Encode a shape."""
    return length(len(shape)) + b"".join(map(length, shape))


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Tell whether every byte of an item is content."""
    if dtype.subdtype is not None:
        return is_plain(dtype.subdtype[0])
    if dtype.names is None:
        return dtype.kind in _PLAIN and not is_extended(dtype)
    fields = [dtype.fields[name] for name in dtype.names]  # type: ignore[index]
    packed = sum(field[0].itemsize for field in fields) == dtype.itemsize
    return packed and all(is_plain(field[0]) for field in fields)


def is_extended(dtype: np.dtype[Any]) -> bool:
    """Tell whether items are extended-precision numbers, which are padded on some machines."""
    return dtype.char in "gG"
