"""Compressors: what the bytes of a chunk may be passed through, as zarr's own codecs do it.

A compressor has a name such as ``zstd:3``, which stands in the ledger beside each chunk, so that one store may
hold chunks of several. zarr v3 metadata for it is what stock zarr reads.

Sources: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/index.html,
https://github.com/zarr-developers/zarr-extensions/tree/main/codecs/zstd
"""

import math
import re
import struct
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from gristmill.errors import IntegrityError, StoreError

Array = np.ndarray[Any, Any]

_SPEC = re.compile(r"(zstd|lz4|blosc)(?::(-?[0-9]{1,2}))?")
_LEVELS = {"zstd": (-7, 22, 3), "lz4": (0, 9, 5)}
"""Lowest, highest and usual level."""

_BLOSC_LIMIT = 2**31 - 1
"""Blosc's largest buffer."""

_BLOSC_HEADER = struct.Struct("<4x3I")
"""Bytes before compression, of a block, and after compression; blosc looks at the first only.
Source: https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst"""

_HIGHEST_RATIO = 2**17
"""zstd makes 4 bytes of at most 128 KiB, blosc's lz4 much less; a chunk that claims more is damaged."""


@dataclass(frozen=True, slots=True)
class Compressor:
    """One codec behind the bytes codec."""

    kind: str
    """`zstd`, or `lz4` in a blosc frame with shuffled bytes."""
    level: int

    @classmethod
    def parse(cls, spec: str) -> Self:
        """Return the compressor that `spec` names, such as `"zstd"`, `"zstd:9"`, `"lz4"` or `"blosc:5"`.

        Raises
        ------
        StoreError
            It names none.
        """
        given: object = spec
        found = _SPEC.fullmatch(given) if isinstance(given, str) else None
        if found is None:
            raise StoreError(
                f"compressor is {spec!r}; use None, 'zstd' or 'lz4' ('blosc' is the same), with a level as in 'zstd:9'"
            )
        kind = "lz4" if found[1] == "blosc" else found[1]
        lowest, highest, usual = _LEVELS[kind]
        level = usual if found[2] is None else int(found[2])
        if not lowest <= level <= highest:
            raise StoreError(f"compressor is {spec!r}; its level must lie between {lowest} and {highest}")
        return cls(kind, level)

    @property
    def name(self) -> str:
        """How the ledger spells it."""
        return f"{self.kind}:{self.level}"

    def takes(self, array: Array) -> bool:
        """Whether it can compress arrays of that size."""
        return self.kind == "zstd" or array.nbytes <= _BLOSC_LIMIT

    def encode(self, array: Array) -> bytes:
        """Return the compressed C-order buffer of an array."""
        return bytes(self._codec().encode(array.reshape(-1)))

    def decode(self, data: bytes | memoryview, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Return the array whose compressed buffer is `data`.

        Raises
        ------
        IntegrityError
            It is not what `encode` returns, or of another array.
        """
        size = math.prod(shape) * dtype.itemsize
        if size > len(data) * _HIGHEST_RATIO:
            raise IntegrityError(f"a chunk of {len(data)} bytes cannot hold the {size} bytes that it should")
        if self.kind == "lz4" and not _is_whole(data, size):
            raise IntegrityError("a chunk is torn, or of another array")
        try:
            array = np.zeros(shape, dtype)  # what a torn frame does not fill is not somebody's memory
            self._codec().decode(data, array.reshape(-1).view(np.uint8))
        except (RuntimeError, ValueError, TypeError, MemoryError) as error:
            raise IntegrityError(f"a chunk cannot be decompressed: {error}") from error
        return array

    def metadata(self, dtype: np.dtype[Any]) -> dict[str, Any]:
        """Return the codec as it stands in a `zarr.json`."""
        if self.kind == "zstd":
            return {"name": "zstd", "configuration": {"level": self.level, "checksum": False}}
        settings = {"cname": "lz4", "clevel": self.level, "shuffle": "shuffle", "blocksize": 0}
        return {"name": "blosc", "configuration": {"typesize": dtype.itemsize, **settings}}

    def _codec(self) -> Any:
        import numcodecs

        if self.kind == "zstd":
            return numcodecs.Zstd(level=self.level)
        return numcodecs.Blosc(cname="lz4", clevel=self.level, shuffle=numcodecs.Blosc.SHUFFLE)


def _is_whole(data: bytes | memoryview, size: int) -> bool:
    if len(data) < _BLOSC_HEADER.size:
        return False
    before, _, after = _BLOSC_HEADER.unpack_from(data)
    return bool(before == size and after == len(data))


def known(name: str) -> Compressor:
    """Return the compressor that a chunk was made with.

    Raises
    ------
    IntegrityError
        No chunk is made with such a one.
    """
    try:
        return Compressor.parse(name)
    except StoreError as error:
        raise IntegrityError(f"a chunk has a compressor that is not known here: {name[:40]!r}") from error
