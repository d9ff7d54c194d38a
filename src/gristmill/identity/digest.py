"""The identity of values: `digest` and its forms for many values at once.

Owns the entry points. Two values have the same digest when they have the same types and the same structure.
Knows nothing of code (fingerprints come through one function), of call keys, or of stores.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from xxhash import xxh3_128, xxh3_128_digest

from gristmill.errors import DigestError
from gristmill.identity import tags
from gristmill.identity.arrays import Array, buffer_of, content_hash, header, header_of
from gristmill.identity.classes import identify_code
from gristmill.identity.columns import hash_items, scalar_digests
from gristmill.identity.deep import deep_recursion
from gristmill.identity.dispatch import register_digest, writer_of
from gristmill.identity.dtypes import is_plain, shape_bytes
from gristmill.identity.encoder import PREFIX, Code, Encoder, NoIdentityError
from gristmill.identity.scalars import SCALARS, scalar_head
from gristmill.identity.types import Digest, Root

__all__ = [
    "Digest",
    "checksum",
    "digest",
    "digest_array",
    "digest_block",
    "digest_rows",
    "digest_slabs",
    "merkle",
    "register_digest",
]

ADVICE = (
    "Give its type a `__digest__` method, register one with `register_digest(type)`, "
    "or pass what identifies it instead (for an open file: `File(path)`)."
)


PLAIN_ARRAYS = (np.ndarray, np.memmap)


def refusal(failure: NoIdentityError, name: str) -> DigestError:
    """Say which value has no digest, why, and what to do."""
    return DigestError(f"{name}{failure.path} has no digest: {failure.reason}. {ADVICE}")


def digest(value: object, *, name: str = "value", code: Code = identify_code) -> Digest:
    """Return the identity of a value: the same for the same types and structure, in every process.

    Parameters
    ----------
    value
        Anything but iterators, open resources and locks.
    name
        What an error calls the value.
    code
        Identity of functions and classes inside the value.

    Raises
    ------
    DigestError
        When the value, or something in it, has no stable content.

    Examples
    --------
    >>> digest(1) == digest(1), digest(1) == digest(1.0), digest(1) == digest(True)
    (True, False, False)
    """
    scalar = SCALARS.get(type(value))
    if scalar is not None:
        return Digest(xxh3_128_digest(PREFIX + scalar(value)))
    try:
        return Digest(_compound(value, code))
    except NoIdentityError as failure:
        raise refusal(failure, name) from None


def _compound(value: object, code: Code) -> bytes:
    encoder = Encoder(writer_of, code)
    try:
        encoder.compound(value)
    except RecursionError:
        # Begin again: the first attempt is somewhere in the middle.
        encoder = Encoder(writer_of, code)
        with deep_recursion():
            encoder.compound(value)
    return encoder.digest()


def digest_block(
    values: Sequence[object] | Array, *, name: str = "value", code: Code = identify_code
) -> bytes:
    """Return the digests of many values, one after the other, 16 bytes each.

    Raises
    ------
    DigestError
        As `digest` does; the path starts with the value's position.
    """
    if isinstance(values, np.ndarray):
        return digest_rows(values, name=name, code=code)
    if not isinstance(values, list | tuple):
        values = list(values)
    block = scalar_digests(PREFIX, values)
    return _each(values, name, code) if block is None else block


def _each(values: Sequence[object], name: str, code: Code) -> bytes:
    encoder = Encoder(writer_of, code)
    parts, compound, finish = encoder.parts, encoder.compound, encoder.digest
    scalar_of, hash_ = SCALARS.get, xxh3_128_digest
    digests: list[bytes] = []
    append = digests.append
    try:
        for value in values:
            scalar = scalar_of(type(value))
            if scalar is not None:
                append(hash_(PREFIX + scalar(value)))
            else:
                del parts[1:]
                compound(value)
                append(finish())
    except NoIdentityError as failure:
        raise refusal(failure, f"{name}[{len(digests)}]") from None
    except RecursionError:
        rest = [digest(value, name=f"{name}[{i}]", code=code) for i, value in enumerate(values)]
        return b"".join(rest)
    return b"".join(digests)


def digest_rows(array: Array, *, name: str = "value", code: Code = identify_code) -> bytes:
    """Return the digests of ``array[i]`` for every i, as a function gets them: numpy scalars or sub-arrays.

    Parameters
    ----------
    array
        At least one-dimensional.
    """
    dtype = array.dtype
    if type(array) not in PLAIN_ARRAYS or not is_plain(dtype):
        return _each(list(array), name, code)
    if array.ndim > 1:
        return _sub_arrays(array)
    if dtype.names is not None or dtype.kind in "US":
        return _each(list(array), name, code)
    # An item is in the machine's byte order, whatever its array is in.
    native = dtype.newbyteorder("=")
    return hash_items(PREFIX + scalar_head(native), array.astype(native, copy=False))


def _sub_arrays(array: Array) -> bytes:
    head = PREFIX + header(array[:1].reshape(array.shape[1:])) if len(array) else b""
    if not array.flags.c_contiguous:
        return b"".join([xxh3_128_digest(head + content_hash(row)) for row in array])
    hash_, size, buffer = xxh3_128_digest, array.nbytes // max(1, len(array)), buffer_of(array)
    starts = range(0, len(buffer), size) if size else [0] * len(array)
    return b"".join([hash_(head + hash_(buffer[start : start + size])) for start in starts])


def digest_slabs(slabs: Iterable[Array], count: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return what `digest_rows` does for an array that comes in pieces along the first dimension of its rows.

    Parameters
    ----------
    slabs
        C-contiguous, shape (count, part of the first dimension, ...), in order.
    count
        How many rows there are.
    dtype, shape
        Of a row.
    """
    states = [xxh3_128() for _ in range(count)]
    for slab in slabs:
        for state, row in zip(states, slab, strict=True):
            state.update(buffer_of(row))
    head = PREFIX + header_of(dtype, shape)
    return b"".join([xxh3_128_digest(head + state.digest()) for state in states])


def digest_array(array: Array) -> tuple[Digest, bytes]:
    """Return the digest of an array and the checksum of its content, in one pass over its buffer.

    The checksum of a plain array is that of its bytes in C order, under which a store files them. What no
    buffer holds (objects, padding between fields) is encoded item by item; its checksum names no bytes.
    """
    if type(array) not in PLAIN_ARRAYS or not is_plain(array.dtype):
        identity = digest(array)
        return identity, bytes(identity)
    inner = content_hash(array)
    return Digest(xxh3_128_digest(PREFIX + header(array) + inner)), inner


def checksum(buffer: bytes | bytearray | memoryview) -> bytes:
    """Return the xxh3_128 of raw bytes: what stored bytes are verified by, and no identity of a value."""
    return xxh3_128_digest(buffer)


def merkle(shape: tuple[int, ...], block: bytes) -> Root:
    """Return the root over the digests of a mapped output's elements, in C order, and its shape."""
    return Root(xxh3_128_digest(PREFIX + tags.MERKLE + shape_bytes(shape) + xxh3_128_digest(block)))
