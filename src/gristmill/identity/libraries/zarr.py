"""Encodings of zarr arrays: those of the equal numpy array, read a slab of chunks at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import zarr
from xxhash import xxh3_128

from gristmill.identity.arrays import buffer_of, header_of, write_array
from gristmill.identity.dtypes import is_plain
from gristmill.identity.encoder import Encoder, NoIdentityError, Writer

SLAB = 1 << 26
"""Bytes read at once. Chunks that are cut by it are read several times."""


def writers() -> Mapping[type, Writer]:
    """Return the writers of zarr's types."""
    return {zarr.Array: _write_zarr, zarr.Group: _refuse}


def _refuse(_: Encoder, value: zarr.Group) -> None:
    raise NoIdentityError(value, "a zarr group is a place, not a value; pass its arrays")


def _write_zarr(encoder: Encoder, value: Any) -> None:
    dtype = np.dtype(value.dtype)
    if not is_plain(dtype) or not value.shape:
        write_array(encoder, np.asarray(value[...]))
        return
    state = xxh3_128()
    for slab in slabs(value, ()):
        state.update(buffer_of(np.ascontiguousarray(slab, dtype)))
    encoder.parts.append(header_of(dtype, value.shape) + state.digest())


def slabs(array: Any, start: tuple[int, ...]) -> Iterator[np.ndarray[Any, Any]]:
    """Yield the content below `start` in C order, in pieces along the first axes that fit in memory.

    A piece is a whole number of chunks where it can be: chunks are then read once.
    """
    axis = len(start)
    row = int(np.prod(array.shape[axis + 1 :], dtype=np.int64)) * np.dtype(array.dtype).itemsize
    extent, chunk = array.shape[axis], array.chunks[axis]
    if row > SLAB and axis + 1 < len(array.shape):
        for index in range(extent):
            yield from slabs(array, (*start, index))
        return
    fitting = max(1, SLAB // max(1, row))
    step = fitting // chunk * chunk or min(fitting, chunk)
    for low in range(0, extent, step):
        yield array[(*start, slice(low, min(extent, low + step)))]
