"""Stored forms: what one value becomes on its way to the store.

A *stored form* is either small enough to be packed into a segment (a scalar, a small array, a pickle) or a
reference to a chunk or an object. This module decides which; it writes nothing itself.
"""

import contextlib
import copyreg
import io
import math
import pickle
import re
import sys
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.errors import IntegrityError, StoreError

PACK_LIMIT = 64 * 1024
"""Values up to this many bytes are packed into segments; measured, SQLite's double write loses above it."""

SCALARS = frozenset({int, float, bool, type(None), complex, str, bytes})
"""Immutable builtin types that are packed as they are."""

_SIZED_SCALARS = frozenset({int, str, bytes})
_PACKED_KINDS = "biufcmM"
_CHUNK_DTYPES = frozenset(
    np.dtype(name).str
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
)


@dataclass(frozen=True, slots=True)
class Pickled:
    """A value that only pickle can express, already pickled."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """An array whose bytes are a chunk file."""

    checksum: bytes
    """Of the file's bytes, which is also the chunk's name; where nothing is compressed, of the C-order buffer."""
    dtype: str
    """`numpy.dtype.str`, byte order included."""
    shape: tuple[int, ...]
    compressor: str = ""
    """What the buffer was compressed with, as `Compressor` spells it; empty where it was not."""


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """A value that is an object of the ledger: a pickle, or an item as `columns` encodes it."""

    checksum: bytes


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file whose content is a chunk."""

    path: str
    """As the function returned it; in a `KeptTree`, relative to it."""
    content: bytes
    """xxh3_128 of the content."""
    mode: int
    """Its permissions."""
    chunk: bytes = b""
    """The chunk's name, where that is another: in a store with a secret."""

    @property
    def name(self) -> bytes:
        """The name of its chunk."""
        return self.chunk or self.content


@dataclass(frozen=True, slots=True)
class KeptTree:
    """A folder, and all files in it."""

    path: str
    content: bytes
    """Hash of the whole tree."""
    folders: tuple[str, ...]
    """Relative paths, outer before inner."""
    files: tuple[KeptFile, ...]


@dataclass(frozen=True, slots=True)
class Filed:
    """A value with files or folders in it, whose content is kept too."""

    data: bytes
    """The value's pickle."""
    places: tuple[KeptFile | KeptTree, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """A value that is not stored: in another process, it has to be made again by the same call."""

    identity: bytes
    """Its digest, or how it was made."""
    key: bytes
    """Of the call that made it."""
    output: int
    """Which output of that call it is."""


def is_plain_array(value: object) -> bool:
    """Return whether `value` is an ndarray (no subclass) that its raw bytes, dtype and shape express exactly."""
    if type(value) is not np.ndarray:
        return False
    dtype = value.dtype
    known = dtype.kind in _PACKED_KINDS or (dtype.kind in "SU" and dtype.itemsize > 0)
    return known and dtype.char not in "gG" and dtype.metadata is None


_STORED_DTYPE = re.compile(r"[<>|][biufcmMSU][0-9]{1,9}(\[[0-9]{0,9}[A-Za-z]{1,2}\])?")


def stored_dtype(text: object) -> np.dtype[Any]:
    """Return the dtype that a stored name means; only numbers, times and fixed-width text are ever stored.

    Raises
    ------
    IntegrityError
        It is none of these.
    """
    if isinstance(text, str) and _STORED_DTYPE.fullmatch(text):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return np.dtype(text)
    raise IntegrityError(f"a stored dtype is {str(text)[:40]!r}, which gristmill never writes")


def stored_shape(shape: object, itemsize: int) -> tuple[int, ...]:
    """Return a stored shape, if an array of that shape can exist.

    Raises
    ------
    IntegrityError
        It is none.
    """
    if not isinstance(shape, list | tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise IntegrityError("a stored shape is not made of lengths")
    if len(shape) > _MOST_DIMENSIONS or math.prod(max(n, 1) for n in shape) * max(itemsize, 1) >= 2**63:
        raise IntegrityError("a stored shape is one that no array has")
    return tuple(shape)


_MOST_DIMENSIONS = 64  # numpy's limit; 32 before numpy 2


def is_exact(value: object) -> bool:
    """Return whether `value` is of a type that an object keeps as it is, without pickle, however large it is."""
    if type(value) in _SIZED_SCALARS or type(value) in (np.str_, np.bytes_):
        return True
    return is_plain_array(value)


def is_chunkable(array: np.ndarray[Any, Any]) -> bool:
    """Return whether zarr's `bytes` codec expresses `array` exactly, and it is too large to be packed."""
    return array.nbytes > PACK_LIMIT and array.dtype.str in _CHUNK_DTYPES


def to_packed(value: object) -> object | None:
    """Return the form in which `value` is packed as it is, or None where it must be pickled.

    Arrays are copied: the function that returned one may go on writing to it.
    """
    kind = type(value)
    if kind in SCALARS:
        return value if kind not in _SIZED_SCALARS or _scalar_size(value) <= PACK_LIMIT else None
    if isinstance(value, np.ndarray):
        return value.copy(order="C") if is_plain_array(value) and value.nbytes <= PACK_LIMIT else None
    if kind is np.str_ or kind is np.bytes_:
        return value if len(value) <= PACK_LIMIT else None  # type: ignore[arg-type]
    if isinstance(value, np.generic) and kind.__module__ == "numpy":
        return value if value.dtype.kind in _PACKED_KINDS and value.dtype.char not in "gG" else None
    return None


def _scalar_size(value: Any) -> int:
    return (value.bit_length() >> 3) if type(value) is int else len(value)


_REDUCERS: ChainMap[type, Callable[[Any], Any]] = ChainMap(
    {
        np.bytes_: lambda value: (np.bytes_, (bytes(value),)),
        np.str_: lambda value: (np.str_, (str.__str__(value),)),
    },
    copyreg.dispatch_table,
)
"""numpy's own reducers of its strings, like `str(numpy.str_)`, lose trailing NULs."""


class _ElsewhereError(StoreError):
    """A value's content is somewhere else, where it may change."""


def _refuse_zarr(array: Any) -> Any:
    raise _ElsewhereError(
        f"the zarr array {array.store}/{array.path} cannot be stored, since its content is elsewhere and may change; "
        "return its content (array[...]), or the folder that it is in: Dir(path) keeps that"
    )


def _reduce_zarr(array: Any) -> Any:
    return _open_zarr, (array.store, array.path)


def _open_zarr(store: Any, path: str) -> Any:
    import zarr

    return zarr.open_array(store if store.read_only else store.with_read_only(True), path=path, mode="r")


def _reducers(zarr_array: Callable[[Any], Any]) -> ChainMap[type, Callable[[Any], Any]]:
    zarr = sys.modules.get("zarr")
    return _REDUCERS if zarr is None else _REDUCERS.new_child({zarr.Array: zarr_array})


def pickle_value(value: object, *, given: bool = False) -> bytes:
    """Return `value` as a pickle of protocol 5; by value what cannot be imported.

    Parameters
    ----------
    value
        What to pickle.
    given
        Whether it is an argument: zarr arrays in it become read-only. Results may not hold any.

    Raises
    ------
    StoreError
        Nothing can pickle it; the message names its type.
    """
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=5)
    pickler.dispatch_table = _reducers(_reduce_zarr if given else _refuse_zarr)
    try:
        pickler.dump(value)
    except _ElsewhereError:
        raise
    except Exception:  # noqa: BLE001 - whatever a __reduce__ raises, cloudpickle is the second opinion
        return _pickle_by_value(value)
    return buffer.getvalue()


def _pickle_by_value(value: object) -> bytes:
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(value, protocol=5)
    except Exception as error:
        raise StoreError(
            f"a {type(value).__qualname__} cannot be stored, since it cannot be pickled: {error}"
        ) from error
    return data
