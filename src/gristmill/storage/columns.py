"""Column codecs: many stored forms to bytes and back, each with exactly the type it had.

A column of one type is packed as one numpy buffer; anything else is a sequence of tagged items. The codec of
a column is a small JSON-able mapping that stands in the segment's header.
"""

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.errors import IntegrityError
from gristmill.storage.elements import (
    ChunkRef,
    Filed,
    KeptFile,
    KeptTree,
    Made,
    ObjectRef,
    Pickled,
    stored_dtype,
    stored_shape,
)

Codec = dict[str, Any]
Array = np.ndarray[Any, Any]


DAMAGE = (
    *(
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        OverflowError,
        MemoryError,
        RecursionError,
    ),
    struct.error,
)
"""What decoding raises on bytes that nobody encoded."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A column as bytes."""

    codec: Codec
    """How to decode it."""
    payload: bytes
    """The values; empty where every element is a chunk."""
    checksums: bytes = b""
    """For a column of equal chunks, their 16-byte checksums in order."""


def pack(items: Sequence[object]) -> Packed:
    """Pack `items` (stored forms); `unpack` returns equal ones, of the same types."""
    kinds = set(map(type, items))
    if len(kinds) == 1:
        kind = kinds.pop()
        packer = _PACKERS.get(kind) or (_pack_numpy_scalars if issubclass(kind, np.generic) else None)
        packed = packer(items) if packer else None
        if packed is not None:
            return packed
    return _pack_mixed(items)


def unpack(packed: Packed, count: int) -> list[Any]:
    """Return the `count` stored forms of a column.

    Raises
    ------
    IntegrityError
        The payload does not have the length that its codec and `count` ask for.
    """
    try:
        items = _UNPACKERS[packed.codec["kind"]](packed, count)
    except DAMAGE as error:
        raise IntegrityError(f"a packed column cannot be decoded: {error}") from error
    if len(items) != count:
        raise IntegrityError(f"a packed column holds {len(items)} values instead of {count}")
    return items


def as_array(packed: Packed, count: int) -> Array:
    """Return a column of one of the kinds `NUMERIC` as one array of shape (count, *element shape).

    Python ints, floats and bools become int64, float64 and bool; numpy scalars and arrays keep their dtype.

    Raises
    ------
    IntegrityError
        The payload does not have the length that its codec and `count` ask for.
    """
    kind = packed.codec["kind"]
    try:
        if kind in _PYTHON_DTYPES:
            return np.frombuffer(packed.payload, dtype=_PYTHON_DTYPES[kind]).reshape(count)
        dtype = stored_dtype(packed.codec["dtype"])
        return np.frombuffer(packed.payload, dtype).reshape(count, *packed.codec.get("shape", ()))
    except DAMAGE as error:
        raise IntegrityError(f"a packed column cannot be decoded: {error}") from error


def check_codec(codec: object) -> Codec:
    """Return a codec that was stored, if `pack` could have made it.

    Raises
    ------
    IntegrityError
        It could not.
    """
    if (
        not isinstance(codec, dict)
        or not isinstance(codec.get("kind"), str)
        or codec["kind"] not in _UNPACKERS
    ):
        raise IntegrityError("a column has a codec that is not known here")
    if codec["kind"] in ("scalar", "array", "chunk"):
        dtype = stored_dtype(codec.get("dtype"))
        if codec["kind"] != "scalar":
            stored_shape(codec.get("shape"), dtype.itemsize)
        if not isinstance(codec.get("compressor", ""), str):
            raise IntegrityError("a column has a compressor without a name")
    return codec


NUMERIC = frozenset({"int", "float", "bool", "complex", "scalar", "array"})
"""Kinds of columns that are one buffer."""

_PYTHON_DTYPES = {"int": "<i8", "float": "<f8", "bool": "?", "complex": "<c16"}


def _numbers(kind: str) -> Callable[[Sequence[Any]], Packed | None]:
    dtype = np.dtype(_PYTHON_DTYPES[kind])

    def pack_numbers(items: Sequence[Any]) -> Packed | None:
        try:
            return Packed({"kind": kind}, np.array(items, dtype=dtype).tobytes())
        except OverflowError:  # an int beyond 64 bits
            return None

    return pack_numbers


def _pack_none(items: Sequence[None]) -> Packed:
    return Packed({"kind": "none"}, b"")


def _join(kind: str, parts: list[bytes]) -> Packed:
    lengths = np.fromiter(map(len, parts), dtype="<u4", count=len(parts))
    return Packed({"kind": kind}, lengths.tobytes() + b"".join(parts))


def _pack_str(items: Sequence[str]) -> Packed:
    return _join("str", [item.encode("utf-8", "surrogatepass") for item in items])


def _pack_bytes(items: Sequence[bytes]) -> Packed:
    return _join("bytes", list(items))


def _pack_pickled(items: Sequence[Pickled]) -> Packed:
    return _join("pickle", [item.data for item in items])


def _pack_filed(items: Sequence[Filed]) -> Packed:
    return _join("files", [_encode_filed(item) for item in items])


def _pack_numpy_scalars(items: Sequence[Any]) -> Packed | None:
    dtypes = {item.dtype for item in items}
    if len(dtypes) > 1 or next(iter(dtypes)).kind in "SU":  # a buffer of strings loses trailing NULs
        return None
    dtype = dtypes.pop()
    return Packed({"kind": "scalar", "dtype": dtype.str}, np.array(items, dtype=dtype).tobytes())


def _pack_arrays(items: Sequence[Array]) -> Packed | None:
    first = items[0]
    if any(item.shape != first.shape or item.dtype != first.dtype for item in items):
        return None
    payload = b"".join(map(_raw, items))
    return Packed({"kind": "array", "dtype": first.dtype.str, "shape": list(first.shape)}, payload)


def _raw(array: Array) -> bytes:
    return array.tobytes()


def _pack_chunks(items: Sequence[ChunkRef]) -> Packed | None:
    first = items[0]
    like = (first.dtype, first.shape, first.compressor)
    if any((item.dtype, item.shape, item.compressor) != like for item in items):
        return None
    codec: Codec = {"kind": "chunk", "dtype": first.dtype, "shape": list(first.shape)}
    if first.compressor:
        codec["compressor"] = first.compressor
    return Packed(codec, b"", b"".join([item.checksum for item in items]))


_PACKERS: dict[type, Callable[[Any], Packed | None]] = {
    int: _numbers("int"),
    float: _numbers("float"),
    bool: _numbers("bool"),
    complex: _numbers("complex"),
    type(None): _pack_none,
    str: _pack_str,
    bytes: _pack_bytes,
    Pickled: _pack_pickled,
    Filed: _pack_filed,
    np.ndarray: _pack_arrays,
    ChunkRef: _pack_chunks,
}


def _unpack_numbers(packed: Packed, count: int) -> list[Any]:
    items: list[Any] = np.frombuffer(packed.payload, dtype=_PYTHON_DTYPES[packed.codec["kind"]]).tolist()
    return items


def _split(packed: Packed, count: int) -> list[bytes]:
    lengths = np.frombuffer(packed.payload, dtype="<u4", count=count)
    ends = (np.cumsum(lengths, dtype=np.int64) + 4 * count).tolist()
    starts = [4 * count, *ends[:-1]]
    if ends and ends[-1] != len(packed.payload):
        raise IntegrityError(f"a packed column ends at byte {ends[-1]} of {len(packed.payload)}")
    return [packed.payload[start:end] for start, end in zip(starts, ends, strict=True)]


def _unpack_str(packed: Packed, count: int) -> list[str]:
    return [part.decode("utf-8", "surrogatepass") for part in _split(packed, count)]


def _unpack_pickled(packed: Packed, count: int) -> list[Pickled]:
    return [Pickled(part) for part in _split(packed, count)]


def _unpack_filed(packed: Packed, count: int) -> list[Filed]:
    return [_decode_filed(part) for part in _split(packed, count)]


def _unpack_scalars(packed: Packed, count: int) -> list[Any]:
    return list(np.frombuffer(packed.payload, dtype=stored_dtype(packed.codec["dtype"])))


def _unpack_arrays(packed: Packed, count: int) -> list[Array]:
    array = as_array(packed, count)
    # Not `array[k].copy()`: of a 0-d element that is a scalar, in the machine's byte order.
    return [array[k : k + 1].reshape(array.shape[1:]).copy() for k in range(count)]


def _unpack_chunks(packed: Packed, count: int) -> list[ChunkRef]:
    dtype, shape = packed.codec["dtype"], tuple(packed.codec["shape"])
    sums, compressor = packed.checksums, packed.codec.get("compressor", "")
    return [ChunkRef(sums[k : k + 16], dtype, shape, compressor) for k in range(0, len(sums), 16)]


def _unpack_mixed(packed: Packed, count: int) -> list[Any]:
    return [_decode_item(part) for part in _split(packed, count)]


_UNPACKERS: dict[str, Callable[[Packed, int], list[Any]]] = {
    "int": _unpack_numbers,
    "float": _unpack_numbers,
    "bool": _unpack_numbers,
    "complex": _unpack_numbers,
    "none": lambda packed, count: [None] * count,
    "str": _unpack_str,
    "bytes": _split,
    "pickle": _unpack_pickled,
    "files": _unpack_filed,
    "scalar": _unpack_scalars,
    "array": _unpack_arrays,
    "chunk": _unpack_chunks,
    "mixed": _unpack_mixed,
}


def _pack_mixed(items: Sequence[object]) -> Packed:
    packed = _join("mixed", [_encode_item(item) for item in items])
    if any(type(item) is Filed for item in items):
        packed.codec["files"] = True
    return packed


def holds_files(codec: Codec) -> bool:
    """Return whether a column's values have files in them that have to be where they were."""
    return codec["kind"] == "files" or bool(codec.get("files"))


def _encode_filed(item: Filed) -> bytes:
    header = json.dumps([_noted(place) for place in item.places]).encode()
    return struct.pack("<I", len(header)) + header + item.data


def _noted(place: KeptFile | KeptTree) -> list[Any]:
    if isinstance(place, KeptFile):
        return [place.path, place.content.hex(), place.mode, *([place.chunk.hex()] if place.chunk else [])]
    return [place.path, place.content.hex(), list(place.folders), [_noted(file) for file in place.files]]


def _decode_filed(data: bytes) -> Filed:
    (length,) = struct.unpack_from("<I", data)
    places = json.loads(data[4 : 4 + length])
    return Filed(data[4 + length :], tuple(_place(*noted) for noted in places))


def _place(path: str, content: str, what: Any, rest: Any = "") -> KeptFile | KeptTree:
    if isinstance(what, list):
        return KeptTree(path, bytes.fromhex(content), tuple(what), tuple(_file(*noted) for noted in rest))
    return _file(path, content, what, rest)


def _file(path: str, content: str, mode: int, chunk: str = "") -> KeptFile:
    return KeptFile(path, bytes.fromhex(content), int(mode), bytes.fromhex(chunk))


def _encode_item(item: Any) -> bytes:
    match item:
        case Pickled(data):
            return b"p" + data
        case ObjectRef(checksum):
            return b"O" + checksum
        case Filed():
            return b"F" + _encode_filed(item)
        case ChunkRef(checksum, dtype, shape, compressor):
            return b"C" + checksum + _layout(dtype, shape) + compressor.encode()
        case Made(identity, key, output):
            return b"M" + identity + key + struct.pack("<H", output)
        case np.ndarray():
            return b"a" + _layout(item.dtype.str, item.shape) + item.tobytes()
        case np.str_():
            return b"S" + item.encode("utf-8", "surrogatepass")
        case np.bytes_():
            return b"Y" + bytes(item)
        case np.generic():
            return b"g" + _layout(item.dtype.str, ()) + item.tobytes()
        case None:
            return b"n"
        case bool():
            return b"b" + bytes([item])
        case int():
            return b"i" + item.to_bytes(item.bit_length() // 8 + 1, "little", signed=True)
        case float():
            return b"f" + struct.pack("<d", item)
        case complex():
            return b"c" + struct.pack("<dd", item.real, item.imag)
        case str():
            return b"s" + item.encode("utf-8", "surrogatepass")
        case bytes():
            return b"y" + item
    raise TypeError(f"a {type(item).__qualname__} is no stored form")


def _layout(dtype: str, shape: tuple[int, ...]) -> bytes:
    name = dtype.encode()
    return struct.pack(f"<BB{len(name)}s{len(shape)}Q", len(name), len(shape), name, *shape)


def _read_layout(data: bytes) -> tuple[str, tuple[int, ...], bytes]:
    length, ndim = data[0], data[1]
    end = 2 + length + 8 * ndim
    shape = struct.unpack_from(f"<{ndim}Q", data, 2 + length)
    return data[2 : 2 + length].decode(), shape, data[end:]


def _decode_array(data: bytes) -> Array:
    dtype, shape, raw = _read_layout(data)
    return np.frombuffer(raw, dtype=stored_dtype(dtype)).reshape(shape).copy()


def _decode_chunk(data: bytes) -> ChunkRef:
    dtype, shape, compressor = _read_layout(data[16:])
    return ChunkRef(data[:16], dtype, stored_shape(shape, stored_dtype(dtype).itemsize), compressor.decode())


_DECODERS: dict[bytes, Callable[[bytes], Any]] = {
    b"p": Pickled,
    b"O": ObjectRef,
    b"F": _decode_filed,
    b"C": _decode_chunk,
    b"M": lambda data: Made(data[:16], data[16:32], *struct.unpack("<H", data[32:])),
    b"a": _decode_array,
    b"g": lambda data: _decode_array(data)[()],
    b"n": lambda data: None,
    b"b": lambda data: data != b"\0",
    b"i": lambda data: int.from_bytes(data, "little", signed=True),
    b"f": lambda data: struct.unpack("<d", data)[0],
    b"c": lambda data: complex(*struct.unpack("<dd", data)),
    b"s": lambda data: data.decode("utf-8", "surrogatepass"),
    b"y": bytes,
    b"S": lambda data: np.str_(data.decode("utf-8", "surrogatepass")),
    b"Y": np.bytes_,
}


def _decode_item(data: bytes) -> Any:
    return _DECODERS[data[:1]](data[1:])


def encode_exact(value: object) -> bytes:
    """Return the body of an object whose value `elements.is_exact`; it never begins like a pickle does."""
    return _encode_item(value)


def decode_exact(body: bytes) -> Any:
    """Return the value that `encode_exact` made a body of.

    Raises
    ------
    IntegrityError
        The body is none.
    """
    try:
        if body[:1] not in _EXACT:
            raise IntegrityError("an object is neither a pickle nor an item")
        return _decode_item(body)
    except DAMAGE as error:
        raise IntegrityError(f"an object cannot be decoded: {error}") from error


_EXACT = frozenset({b"a", b"i", b"s", b"y", b"S", b"Y"})
