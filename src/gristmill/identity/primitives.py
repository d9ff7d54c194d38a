"""The smallest encodings, which all others are made of.

Owns how lengths, ints, text and bytes are written, each so that it tells where it ends.
"""

from __future__ import annotations

from struct import Struct, error

from xxhash import xxh3_128_digest

from gristmill.identity import tags

LONG = 1 << 16
"""From this many bytes on, `bytes` enter the encoding by their checksum, so that they are not copied."""

_LENGTHS = tuple(n.to_bytes(8, "little") for n in range(256))
_INT = Struct("<cq").pack


def length(n: int) -> bytes:
    """Eight bytes for a length; the small ones come from a table, they are most of what is asked."""
    return _LENGTHS[n] if n < 256 else n.to_bytes(8, "little")


def integer(value: int) -> bytes:
    """Encode an int: nine bytes if it fits int64, so that columns can be encoded at once."""
    try:
        return _INT(tags.INT, value)
    except error:
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return tags.BIG_INT + length(len(data)) + data


def text(value: str) -> bytes:
    """Encode a str as UTF-8."""
    try:
        data = value.encode()
    except UnicodeEncodeError:
        # Lone surrogates are legal in str: os.fsdecode makes them of undecodable file names.
        data = value.encode("utf-8", "surrogatepass")
    return tags.STR + length(len(data)) + data


def octets(value: bytes) -> bytes:
    """Encode bytes; long ones by their checksum."""
    if len(value) < LONG:
        return tags.BYTES + length(len(value)) + value
    return tags.LONG_BYTES + length(len(value)) + xxh3_128_digest(value)
