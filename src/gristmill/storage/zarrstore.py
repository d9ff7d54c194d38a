"""zarr over the ledger: a read-only zarr store that serves elements as chunks, verified.

Packed and chunked elements look alike, and what is missing raises: stock zarr would return the fill value.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from gristmill.storage.views import array_metadata

Array = np.ndarray[Any, Any]


class ElementStore(Store):
    """The chunks of one mapped output.

    Parameters
    ----------
    metadata
        The `zarr.json` of the array.
    extents
        Lengths of the axes; each element is one chunk.
    element
        Gives the element at a position as a C-contiguous array; raises where there is none.
    """

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, metadata: bytes, extents: tuple[int, ...], element: Callable[[int], Array]) -> None:
        super().__init__(read_only=True)
        self._metadata = metadata
        self._extents = extents
        self._element = element

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        data = await self._data(key)
        if data is None:
            return None
        return prototype.buffer.from_bytes(data[_range(byte_range)])

    async def _data(self, key: str) -> bytes | None:
        if key == "zarr.json":
            return self._metadata
        index = chunk_index(key)
        if index is None:
            return None
        position = (
            int(np.ravel_multi_index(index[: len(self._extents)], self._extents)) if self._extents else 0
        )
        return (await asyncio.to_thread(self._element, position)).tobytes()

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        return key == "zarr.json" or chunk_index(key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        raise PermissionError("a mapped output is read-only; to_zarr(path) makes a copy that can be written")

    async def delete(self, key: str) -> None:
        raise PermissionError("a mapped output is read-only")

    async def list(self) -> AsyncIterator[str]:
        yield "zarr.json"

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        if "zarr.json".startswith(prefix):
            yield "zarr.json"

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        if not prefix:
            yield "zarr.json"

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def _range(request: ByteRequest | None) -> slice:
    match request:
        case RangeByteRequest(start, end):
            return slice(start, end)
        case OffsetByteRequest(offset):
            return slice(offset, None)
        case SuffixByteRequest(suffix):
            return slice(-suffix, None)
    return slice(None)


def chunk_index(key: str) -> tuple[int, ...] | None:
    """Return the index that a chunk key like `c.0.3` names, or None."""
    head, *numbers = key.split(".")
    if head != "c" or not all(number.isdecimal() for number in numbers):
        return None
    return tuple(map(int, numbers))


def open_array(
    axes: tuple[str, ...],
    extents: tuple[int, ...],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    element: Callable[[int], Array],
) -> "zarr.Array[Any]":
    """Return a mapped output of that whole shape as a read-only zarr array."""
    metadata = json.dumps(array_metadata(axes, extents, shape[len(extents) :], dtype)).encode()
    return zarr.open_array(ElementStore(metadata, extents, element), mode="r")


def copy_array(source: "zarr.Array[Any]", axes: tuple[str, ...], path: str) -> "zarr.Array[Any]":
    """Write a copy of `source` to `path`, chunk by chunk."""
    made = zarr.create_array(
        path,
        shape=source.shape,
        chunks=source.chunks,
        dtype=source.dtype,
        dimension_names=[*axes, *(f"dim_{k}" for k in range(source.ndim - len(axes)))],
    )
    for index in np.ndindex(source.cdata_shape):
        where = tuple(slice(k * c, (k + 1) * c) for k, c in zip(index, source.chunks, strict=True))
        made[where] = source[where]
    return made
