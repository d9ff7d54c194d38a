"""Encodings of values that hold no other values.

Owns one function per scalar type, from a value to its self-delimiting bytes. Knows nothing of containers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isnan
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from gristmill.identity import tags
from gristmill.identity.dtypes import dtype_bytes, is_extended, shape_bytes
from gristmill.identity.primitives import integer, length, octets, text
from gristmill.identity.types import Digest

ScalarWriter = Callable[[Any], bytes]

NAN = float("nan")
"""The NaN that Python computes with. All of a program's are this one, whatever bits they carry."""

X87_MANTISSA = 63

_FLOAT = Struct("<cd").pack
_COMPLEX = Struct("<cdd").pack


def _boolean(value: bool) -> bytes:  # noqa: FBT001 - the value is the subject here, not an option
    return tags.TRUE if value else tags.FALSE


def _real(value: float) -> bytes:
    return _FLOAT(tags.FLOAT, NAN if isnan(value) else value)


def _complex_number(value: complex) -> bytes:
    parts = (NAN if isnan(part) else part for part in (value.real, value.imag))
    return _COMPLEX(tags.COMPLEX, *parts)


def _mutable_octets(value: bytearray) -> bytes:
    return tags.BYTEARRAY + length(len(value)) + xxh3_128_digest(value)


def _view(value: memoryview) -> bytes:
    """Format, shape and content; a _view that is not contiguous has the content it shows."""
    shape = value.shape or ()
    content: memoryview | bytes = value if value.c_contiguous else value.tobytes()
    head = text(value.format) + shape_bytes(shape)
    return tags.MEMORYVIEW + head + xxh3_128_digest(content)


def _interval(value: range) -> bytes:
    return tags.RANGE + integer(value.start) + integer(value.stop) + integer(value.step)


def scalar_head(dtype: np.dtype[Any]) -> bytes:
    """What precedes the bytes of a numpy number, date or duration."""
    return tags.SCALAR + dtype_bytes(dtype)


def _number(value: np.generic[Any]) -> bytes:
    """Its bytes are inline, unlike an array's, so that the items of an array can be encoded in one go."""
    return scalar_head(value.dtype) + value.tobytes()


def _extended(value: np.generic[Any]) -> bytes:
    return scalar_head(value.dtype) + without_padding(np.asarray(value)).tobytes()


def without_padding(array: NDArray[Any]) -> NDArray[Any]:
    """Copy extended-precision numbers onto zeroed memory: on x86 ten of their sixteen bytes are content."""
    clean = np.zeros(array.shape, array.dtype)
    clean[...] = array
    if np.finfo(np.longdouble).nmant == X87_MANTISSA:
        clean.reshape(-1).view(np.uint8).reshape(-1, np.dtype(np.longdouble).itemsize)[:, 10:] = 0
    return clean


def _numpy_scalars() -> dict[type, ScalarWriter]:
    numbers = {kind for kind in np.sctypeDict.values() if np.dtype(kind).kind in "biufcmM"}
    writers: dict[type, ScalarWriter] = dict.fromkeys(numbers, _number)
    writers |= {kind: _extended for kind in numbers if is_extended(np.dtype(kind))}
    # The dtype of such a scalar is its length; an element does not keep the width of its array.
    writers[np.str_] = lambda value: tags.SCALAR + text(value.item())
    writers[np.bytes_] = lambda value: tags.SCALAR + octets(value.item())
    return writers


SCALARS: Mapping[type, ScalarWriter] = {
    int: integer,
    str: text,
    float: _real,
    bool: _boolean,
    type(None): lambda _: tags.NONE,
    bytes: octets,
    complex: _complex_number,
    bytearray: _mutable_octets,
    memoryview: _view,
    range: _interval,
    type(...): lambda _: tags.ELLIPSIS,
    type(NotImplemented): lambda _: tags.NOT_IMPLEMENTED,
    Digest: lambda value: tags.DIGEST + bytes(value),
    **_numpy_scalars(),
}
