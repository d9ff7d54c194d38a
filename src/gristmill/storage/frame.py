"""Frames: the envelope of every row and object that the ledger stores.

A frame knows its name, and the length and the checksum of its body, and nothing about what the body means. The
checksum covers the name, because a damaged index may lead to the row of another name.
In a store with a secret, frames have another magic number and an authentication code for a checksum.
"""

import hmac
import struct

from gristmill.errors import IntegrityError
from gristmill.storage.seal import NO_KEY, frame_checksum

MAGIC = b"GMF1"
KEYED_MAGIC = b"GMK1"
_HEADER = struct.Struct("<4s4xQ16s")
HEADER_SIZE = _HEADER.size


def seal(name: bytes, body: bytes, key: bytes = NO_KEY) -> bytes:
    """Return `body` in a frame that `unseal` can verify."""
    return _HEADER.pack(_magic(key), len(body), frame_checksum(name, body, key)) + body


def unseal(name: bytes, frame: bytes | memoryview, key: bytes = NO_KEY) -> bytes:
    """Return the body of `frame`.

    Raises
    ------
    IntegrityError
        The frame is empty, truncated, too long, made with another key or none, or its body does not match the
        checksum.
    """
    if len(frame) < HEADER_SIZE:
        raise IntegrityError(f"a stored frame has {len(frame)} bytes, fewer than its header of {HEADER_SIZE}")
    magic, length, checksum = _HEADER.unpack_from(frame)
    if magic != _magic(key) or length != len(frame) - HEADER_SIZE:
        raise IntegrityError(f"a stored frame is torn: {len(frame) - HEADER_SIZE} bytes follow its header")
    body = bytes(frame[HEADER_SIZE:])
    if not hmac.compare_digest(frame_checksum(name, body, key), checksum):
        raise IntegrityError(
            f"a stored frame of {length} bytes does not match its checksum, or has another name"
        )
    return body


def framed_size(header: bytes) -> int:
    """Return the length of the frame that begins with `header`, or -1 where no frame does."""
    if len(header) < HEADER_SIZE:
        return -1
    magic, length, _ = _HEADER.unpack_from(header)
    return HEADER_SIZE + int(length) if magic in (MAGIC, KEYED_MAGIC) else -1


def _magic(key: bytes) -> bytes:
    return KEYED_MAGIC if key else MAGIC
