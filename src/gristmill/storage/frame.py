"""Frames: the envelope of every row and object that the ledger stores.

A frame knows its name, and the length and the checksum of its body, and nothing about what the body means. The
checksum covers the name, because a damaged index may lead to the row of another name.
The checksum is xxh3_128 (https://github.com/Cyan4973/xxHash): it finds accidents, not attacks.
"""

import struct

from xxhash import xxh3_128

from gristmill.errors import IntegrityError

MAGIC = b"GMF1"
_HEADER = struct.Struct("<4s4xQ16s")
HEADER_SIZE = _HEADER.size


def _checksum(name: bytes, body: bytes) -> bytes:
    hashed = xxh3_128(name)
    hashed.update(body)
    return hashed.digest()


def seal(name: bytes, body: bytes) -> bytes:
    """Return `body` in a frame that `unseal` can verify."""
    return _HEADER.pack(MAGIC, len(body), _checksum(name, body)) + body


def unseal(name: bytes, frame: bytes | memoryview) -> bytes:
    """Return the body of `frame`.

    Raises
    ------
    IntegrityError
        The frame is empty, truncated, too long, or its body does not match the checksum.
    """
    if len(frame) < HEADER_SIZE:
        raise IntegrityError(f"a stored frame has {len(frame)} bytes, fewer than its header of {HEADER_SIZE}")
    magic, length, checksum = _HEADER.unpack_from(frame)
    if magic != MAGIC or length != len(frame) - HEADER_SIZE:
        raise IntegrityError(f"a stored frame is torn: {len(frame) - HEADER_SIZE} bytes follow its header")
    body = bytes(frame[HEADER_SIZE:])
    if _checksum(name, body) != checksum:
        raise IntegrityError(
            f"a stored frame of {length} bytes does not match its checksum, or has another name"
        )
    return body
