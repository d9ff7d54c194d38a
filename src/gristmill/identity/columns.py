"""Many scalars of one type, encoded at once.

Owns the shortcuts for homogeneous sequences. They write exactly what the encoding of one value after the
other writes; nothing here defines an encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap
from struct import iter_unpack
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from gristmill.identity import tags
from gristmill.identity.primitives import length
from gristmill.identity.scalars import NAN, scalar_head

Rows = NDArray[np.uint8]
"""One encoded value per row, C order."""

BLOCK = 1 << 16
"""Rows at once: separate digests take four times the room of the block they end up in."""

NUMBERS = frozenset(np.dtype(code).type for code in "?bhilqBHILQefdFD")

WORTHWHILE = 16
"""Below this many values the fixed cost of numpy outweighs what it saves."""


def scalar_rows(values: Sequence[Any]) -> Rows | None:
    """Encode ints, floats or numpy numbers, one per row; None when `values` are not all of one such type.

    Parameters
    ----------
    values
        A list or tuple.
    """
    kinds = set(map(type, values))
    if kinds == {int}:
        return integer_rows(values)
    if kinds == {float}:
        return real_rows(np.array(values, "<f8"))
    if len(kinds) == 1 and kinds <= NUMBERS:
        items = np.array(values)
        return rows(scalar_head(items.dtype), items)
    return None


def scalar_digests(prefix: bytes, values: Sequence[Any]) -> bytes | None:
    """Digest many scalars of one type behind `prefix`; None when they are not, or too few to be worth it."""
    if len(values) < WORTHWHILE:
        return None
    if set(map(type, values)) == {str}:
        return _text_digests(prefix + tags.STR, values)
    table = scalar_rows(values)
    return None if table is None else hash_rows(prefixed(prefix, table))


def _text_digests(head: bytes, values: Sequence[str]) -> bytes | None:
    hash_, size_of = xxh3_128_digest, length
    try:
        return b"".join([hash_(head + size_of(len(data)) + data) for data in map(str.encode, values)])
    except UnicodeEncodeError:
        return None


def integer_rows(values: Sequence[int]) -> Rows | None:
    """Encode ints; None when one does not fit int64."""
    try:
        return rows(tags.INT, np.array(values, "<i8"))
    except OverflowError:
        return None


def real_rows(values: NDArray[np.float64]) -> Rows:
    """Encode Python floats held in an array, which is changed: its NaNs become the canonical one."""
    values[np.isnan(values)] = NAN
    return rows(tags.FLOAT, values)


def rows(prefix: bytes, items: NDArray[Any]) -> Rows:
    """Put `prefix` before the bytes of each item of a one-dimensional array."""
    data = np.ascontiguousarray(items).view(np.uint8).reshape(len(items), items.itemsize)
    return prefixed(prefix, data)


def prefixed(prefix: bytes, table: Rows) -> Rows:
    """Put `prefix` before each row."""
    width = len(prefix)
    wider = np.empty((len(table), width + table.shape[1]), np.uint8)
    wider[:, :width] = np.frombuffer(prefix, np.uint8)
    wider[:, width:] = table
    return wider


def hash_rows(table: Rows) -> bytes:
    """Digest each row; `starmap` over unpacked rows is twice as fast as slicing."""
    form = f"{table.shape[1]}s"
    blocks = (table[low : low + BLOCK] for low in range(0, len(table), BLOCK))
    return b"".join([b"".join(starmap(xxh3_128_digest, iter_unpack(form, block.data))) for block in blocks])


def hash_items(prefix: bytes, items: NDArray[Any]) -> bytes:
    """Digest `prefix` and the bytes of each item of a one-dimensional array."""
    blocks = (items[low : low + BLOCK] for low in range(0, len(items), BLOCK))
    return b"".join([hash_rows(rows(prefix, block)) for block in blocks])
