"""Encodings of numpy arrays, scalars and dtypes.

Owns which properties of an array are part of its value: dtype with byte order, shape, and content in C order.
Strides, views, flags and memory maps are not. Reads buffers; never copies a contiguous array.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128, xxh3_128_digest

from gristmill.identity import tags
from gristmill.identity.dtypes import dtype_bytes, is_extended, is_plain, shape_bytes
from gristmill.identity.encoder import Encoder, NoIdentityError, Writer
from gristmill.identity.primitives import text
from gristmill.identity.scalars import scalar_head, without_padding

Array = NDArray[Any]

BLOCK = 1 << 14
"""Items that `nditer` hands over at once where an array is not contiguous; about what the L2 cache holds."""


COLUMNS = 1 << 10
"""Beyond as many columns, each on pages of its own, going along a row misses the processor's page cache."""

TILE = 128
"""Rows and columns that are copied at once there: four times as fast as `nditer`."""

ROOM = 1 << 23
"""Bytes for the rows that are put together there. Rows so long that fewer than TILE fit cost up to a third
more time; without the bound, a block could be all of the array."""

FEWEST = 8
"""Rows at once however long they are: fewer would waste most of each line of memory that is fetched."""


def header(array: Array) -> bytes:
    """What precedes the checksum of a plain array's content."""
    return header_of(array.dtype, array.shape)


def header_of(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What precedes the checksum of a plain array's content, for one that is not in memory."""
    return tags.ARRAY + dtype_bytes(dtype) + shape_bytes(shape)


def content_hash(array: Array) -> bytes:
    """xxh3_128 of the content in C order: one shot over a contiguous buffer, else block by block."""
    if array.flags.c_contiguous:
        return xxh3_128_digest(buffer_of(array))
    state = xxh3_128()
    for block in blocks(array):
        state.update(buffer_of(block))
    return state.digest()


def _tiles(array: Array) -> Iterator[Array]:
    """Yield the rows of a matrix that is laid out by columns, some at a time, copied tile by tile."""
    rows, columns = array.shape
    height = min(TILE, max(FEWEST, ROOM // (columns * array.itemsize)))
    block = np.empty((height, columns), array.dtype)
    for low in range(0, rows, height):
        part = array[low : low + height]
        for left in range(0, columns, TILE):
            block[: len(part), left : left + TILE] = part[:, left : left + TILE]
        yield block[: len(part)]


def content_hashes(arrays: Sequence[Array]) -> list[bytes]:
    """Hash one-dimensional arrays of one length, which may be the columns of a row-major table.

    Those that are not contiguous are read side by side, so that each line of memory is fetched once.
    """
    hashes = {i: xxh3_128() for i, array in enumerate(arrays) if not array.flags.c_contiguous}
    extent = max((len(arrays[i]) for i in hashes), default=0)
    for low in range(0, extent, BLOCK):
        for i, state in hashes.items():
            state.update(buffer_of(np.ascontiguousarray(arrays[i][low : low + BLOCK])))
    return [hashes[i].digest() if i in hashes else content_hash(array) for i, array in enumerate(arrays)]


def buffer_of(array: Array) -> memoryview:
    """View the bytes of a C-contiguous array, of whatever dtype and flags."""
    if array.nbytes == 0:
        return memoryview(b"")
    return array.reshape(-1).view(np.uint8).data


def blocks(array: Array) -> Iterator[Array]:
    """Yield the items in C order as contiguous blocks; `nditer` beats copying the whole array by 1.6."""
    if array.nbytes == 0:
        return
    if array.ndim == 2 and array.shape[1] > COLUMNS and abs(array.strides[0]) < abs(array.strides[1]):
        yield from _tiles(array)
        return
    access: Any = [["readonly", "contig"]]
    iterator: Any = np.nditer(array, ["external_loop", "buffered"], access, order="C", buffersize=BLOCK)
    yield from iterator


def write_array(encoder: Encoder, array: Array) -> None:
    """Append an array; one of a subclass (memmap) as the plain array that it is a view of."""
    array = array.view(np.ndarray)
    if is_plain(array.dtype):
        encoder.parts.append(header(array) + content_hash(array))
    else:
        write_opaque(encoder, array)


def write_columns(encoder: Encoder, names: Iterable[object], columns: Sequence[object]) -> None:
    """Append the columns of a table: numpy arrays together, whatever else one by one."""
    plain = {i: column for i, column in enumerate(columns) if _is_plain_array(column)}
    hashes = dict(zip(plain, content_hashes([*plain.values()]), strict=True))
    for i, (name, column) in enumerate(zip(names, columns, strict=True)):
        if i in hashes:
            encoder.parts.append(header(plain[i]) + hashes[i])
        else:
            encoder.part(f"[{name!r}]", column)


def _is_plain_array(value: object) -> TypeGuard[Array]:
    return type(value) is np.ndarray and is_plain(value.dtype)


def write_opaque(encoder: Encoder, array: Array) -> None:
    """Append an array whose buffer is not its content: references, or padding between fields."""
    dtype = array.dtype
    if dtype.names is not None:
        encoder.parts.append(tags.FIELDS_ARRAY + dtype_bytes(dtype) + shape_bytes(array.shape))
        for name in dtype.names:
            write_array(encoder, array[name])
    elif is_extended(dtype):
        encoder.parts.append(header(array) + content_hash(without_padding(array)))
    elif dtype.kind in "OT":
        encoder.parts.append(tags.OBJECT_ARRAY + text(dtype.kind) + shape_bytes(array.shape))
        if dtype.kind == "T":
            encoder.value(getattr(dtype, "na_object", ...))
        encoder.values(array.ravel().tolist())
    elif dtype.kind == "V":
        encoder.parts.append(header(array) + content_hash(array))
    else:
        raise NoIdentityError(array, f"gristmill does not know the content of arrays of {dtype!r}")


def _write_void(encoder: Encoder, value: np.void) -> None:
    encoder.parts.append(tags.SCALAR)
    write_array(encoder, np.asarray(value))


def write_foreign_scalar(encoder: Encoder, value: np.generic[Any]) -> None:
    """Append a scalar of a type that another library brings to numpy, such as bfloat16."""
    encoder.parts.append(scalar_head(value.dtype) + value.tobytes())


ARRAYS: Mapping[type, Writer] = {np.ndarray: write_array, np.memmap: write_array, np.void: _write_void}
