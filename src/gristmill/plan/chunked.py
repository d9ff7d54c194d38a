"""Chunked inputs: zarr arrays whose elements are read where they are, in pieces that are whole chunks.

The elements of an array that a map indexes are never all in memory: they are identified block by block, and a
worker reads those that it needs. Nothing here imports zarr; an array is what has `shape`, `chunks` and a store.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np

from gristmill.identity.digest import digest_block, digest_slabs
from gristmill.identity.types import SIZE

Array = np.ndarray[Any, Any]
Region = tuple[slice, ...]

ROOM = 1 << 24
"""Bytes that are read at once, or one block of chunks where that is more."""

_STORES = frozenset({"LocalStore", "FsspecStore"})
"""Stores that another process can open; what is in memory, or in somebody's file handle, it cannot."""


@dataclass(frozen=True, eq=False)
class ChunkedElements(Sequence[Any]):
    """The elements of a zarr array over some of its dimensions, in C order."""

    array: Any
    """The `zarr.Array`; other processes open its store themselves."""
    named: tuple[int, ...]
    """The dimensions that are indexed, increasing; elements are what is left."""

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Extents of the dimensions that are indexed."""
        return tuple(int(self.array.shape[d]) for d in self.named)

    @cached_property
    def rest(self) -> tuple[int, ...]:
        """The shape of an element."""
        return tuple(int(n) for d, n in enumerate(self.array.shape) if d not in self.named)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of all elements."""
        found: np.dtype[Any] = np.dtype(self.array.dtype)
        return found

    @property
    def item_bytes(self) -> int:
        """The size of an element."""
        return math.prod(self.rest) * self.dtype.itemsize

    @cached_property
    def block(self) -> tuple[int, ...]:
        """How many elements, along each dimension that is indexed, have the same chunks."""
        chunks = (int(self.array.chunks[d]) for d in self.named)
        return tuple(max(1, min(chunk, n)) for chunk, n in zip(chunks, self.shape, strict=True))

    def __len__(self) -> int:
        return math.prod(self.shape)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        found = [self.rows(self._around(k))[0] for k in np.arange(len(self))[index].reshape(-1).tolist()]
        return found if isinstance(index, slice) else found[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:  # noqa: FBT001 - numpy's protocol
        return np.asarray(self.rows(tuple(slice(0, n) for n in self.shape)), dtype)

    def digests(self, name: str) -> bytes:
        """Return 16 bytes for each element; each chunk is read once, where a block of them fits in memory.

        Raises
        ------
        DigestError
            An element has no identity.
        """
        found = np.empty(self.shape, dtype=f"V{SIZE}")
        for region in self._regions(self._wide):
            count = math.prod(one.stop - one.start for one in region)
            if not self.rest or count * self.item_bytes <= max(ROOM, self.item_bytes):
                block = digest_block(self.rows(region), name=name)
            else:
                block = digest_slabs(self._slabs(region, count), count, self.dtype, self.rest)
            found[region] = np.frombuffer(block, dtype=found.dtype).reshape(found[region].shape)
        return found.tobytes()

    def rows(self, region: Region) -> Array:
        """Read the elements of a region: shape (elements in C order, ...)."""
        return self._read(region, ())

    def region(self, position: int) -> Region:
        """Return the region of the elements that have the same chunks as one of them."""
        index = np.unravel_index(position, self.shape)
        starts = [int(k) // step * step for k, step in zip(index, self.block, strict=True)]
        return tuple(
            slice(start, min(start + step, n))
            for start, step, n in zip(starts, self.block, self.shape, strict=True)
        )

    def alone(self, position: int) -> Array:
        """Read one element: shape (1, ...)."""
        return self.rows(self._around(position))

    def _around(self, position: int) -> Region:
        return tuple(slice(int(k), int(k) + 1) for k in np.unravel_index(position, self.shape))

    def _read(self, region: Region, inside: tuple[slice, ...]) -> Array:
        """Read a region, of each element only what is `inside`."""
        outer, inner = iter(region), iter(inside)
        whole = tuple(
            next(outer) if d in self.named else next(inner, slice(None)) for d in range(len(self.array.shape))
        )
        part = np.moveaxis(np.asarray(self.array[whole]), self.named, range(len(self.named)))
        count = math.prod(part.shape[: len(self.named)])
        return np.ascontiguousarray(part).reshape(count, *part.shape[len(self.named) :])

    @cached_property
    def _wide(self) -> tuple[int, ...]:
        """Extents of what is read at once: blocks side by side, as many as there is room for."""
        wide = list(self.block)
        for d in reversed(range(len(wide))):
            room = ROOM // max(1, math.prod(wide) * self.item_bytes)
            wide[d] = min(self.shape[d], wide[d] * max(1, room))
        return tuple(wide)

    def _regions(self, steps: tuple[int, ...]) -> Iterator[Region]:
        along = [
            [slice(low, min(low + step, n)) for low in range(0, n, max(1, step))]
            for n, step in zip(self.shape, steps, strict=True)
        ]
        return itertools.product(*along)

    def _slabs(self, region: Region, count: int) -> Iterator[Array]:
        """Read a region in pieces along the first dimension of the elements."""
        first = next(d for d in range(len(self.array.shape)) if d not in self.named)
        row = count * self.item_bytes // max(1, self.rest[0])
        chunk = int(self.array.chunks[first])
        step = max(chunk, ROOM // max(1, row) // chunk * chunk)
        for low in range(0, self.rest[0], step):
            yield self._read(region, (slice(low, min(low + step, self.rest[0])),))


def is_elsewhere(value: Any) -> bool:
    """Whether a value is a zarr array that another process can open, of numbers, times or text of fixed width."""
    if type(value).__module__.partition(".")[0] != "zarr" or not hasattr(value, "chunks"):
        return False
    if not {kind.__name__ for kind in type(value.store).__mro__} & _STORES:
        return False
    protocol = getattr(getattr(value.store, "fs", None), "protocol", "")
    in_memory = "memory" in ([protocol] if isinstance(protocol, str) else protocol)
    return not in_memory and np.dtype(value.dtype).kind in "biufcmMSU"
