"""Encodings of values that hold no other values.

Owns one function per scalar type, from a value to its self-delimiting bytes. Knows nothing of containers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from struct import error as StructError
from typing import Any

from xxhash import xxh3_128_digest

from gristmill.identity import tags
from gristmill.identity.types import Digest

ScalarWriter = Callable[[Any], bytes]

LONG = 1 << 16
"""From this many bytes on, `bytes` enter the encoding by their checksum, so that they are not copied."""

NAN = float("nan")

_LENGTHS = tuple(n.to_bytes(8, "little") for n in range(256))
_INT = Struct("<cq").pack
_FLOAT = Struct("<cd").pack
_COMPLEX = Struct("<cdd").pack


def length(n: int) -> bytes:
    """Eight bytes for a length; the small ones come from a table, they are most of what is asked."""
    return _LENGTHS[n] if n < 256 else n.to_bytes(8, "little")


def integer(value: int) -> bytes:
    """Nine bytes for what fits int64, so that whole columns can be encoded at once; else tag, length, bytes."""
    try:
        return _INT(tags.INT, value)
    except StructError:
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return tags.BIG_INT + length(len(data)) + data


def boolean(value: bool) -> bytes:
    return tags.TRUE if value else tags.FALSE


def real(value: float) -> bytes:
    """The IEEE bits; every NaN that Python computes with is the same one."""
    return _FLOAT(tags.FLOAT, value if value == value else NAN)


def complex_number(value: complex) -> bytes:
    re, im = value.real, value.imag
    return _COMPLEX(tags.COMPLEX, re if re == re else NAN, im if im == im else NAN)


def text(value: str) -> bytes:
    try:
        data = value.encode()
    except UnicodeEncodeError:
        # Lone surrogates are legal in str: os.fsdecode makes them of undecodable file names.
        data = value.encode("utf-8", "surrogatepass")
    return tags.STR + length(len(data)) + data


def octets(value: bytes) -> bytes:
    if len(value) < LONG:
        return tags.BYTES + length(len(value)) + value
    return tags.LONG_BYTES + length(len(value)) + xxh3_128_digest(value)


def mutable_octets(value: bytearray) -> bytes:
    return tags.BYTEARRAY + length(len(value)) + xxh3_128_digest(value)


def view(value: memoryview) -> bytes:
    """Format, shape and content; a view that is not contiguous has the content it shows."""
    shape = value.shape or ()
    content: memoryview | bytes = value if value.c_contiguous else value.tobytes()
    head = text(value.format) + length(len(shape)) + b"".join(map(length, shape))
    return tags.MEMORYVIEW + head + xxh3_128_digest(content)


def interval(value: range) -> bytes:
    return tags.RANGE + integer(value.start) + integer(value.stop) + integer(value.step)


SCALARS: Mapping[type, ScalarWriter] = {
    int: integer,
    str: text,
    float: real,
    bool: boolean,
    type(None): lambda _: tags.NONE,
    bytes: octets,
    complex: complex_number,
    bytearray: mutable_octets,
    memoryview: view,
    range: interval,
    type(...): lambda _: tags.ELLIPSIS,
    type(NotImplemented): lambda _: tags.NOT_IMPLEMENTED,
    Digest: lambda value: tags.DIGEST + bytes(value),
}
