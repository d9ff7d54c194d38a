"""References: which chunks and objects the calls of a segment name."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.storage.columns import holds_files, unpack
from gristmill.storage.elements import ChunkRef, Filed, KeptFile, ObjectRef
from gristmill.storage.segment import KEY_SIZE, Segment, payload_of

Array = np.ndarray[Any, Any]
NAME = np.dtype(f"S{KEY_SIZE}")
"""Of checksums in arrays: unlike void it sorts, but an item of it loses trailing zero bytes; see `as_bytes`."""


@dataclass(frozen=True, slots=True)
class References:
    """Aligned columns, one entry for each time that a call names bytes outside its segment."""

    names: Array
    """Checksums."""
    positions: Array
    """Of the calls in the segment."""
    objects: Array
    """Mask of those that are objects; the others are chunks."""
    sizes: Array
    """Bytes, as far as the segment tells; 0 where it does not."""


def references(segment: Segment, read_values: Callable[[], bytes]) -> References:
    """Return what the calls of `segment` name.

    Parameters
    ----------
    segment
        Its index.
    read_values
        Reads its values; only called where they are needed for that.

    Raises
    ------
    IntegrityError
        The values are damaged or missing.
    """
    parts = [_none()]
    for output, codec in enumerate(segment.codecs):
        if codec["kind"] == "chunk":
            parts.append(_chunks(segment, output))
        elif codec["kind"] == "mixed" or holds_files(codec):
            parts.append(_mixed(segment, output, read_values()))
    if len(parts) == 1:
        return parts[0]
    return References(
        np.concatenate([part.names for part in parts]),
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.objects for part in parts]),
        np.concatenate([part.sizes for part in parts]),
    )


def as_bytes(names: Array) -> list[bytes]:
    """Return the checksums in an array one by one."""
    data = names.tobytes()
    return [data[at : at + KEY_SIZE] for at in range(0, len(data), KEY_SIZE)]


def _none() -> References:
    nothing = np.zeros(0, dtype=np.int64)
    return References(np.zeros(0, dtype=NAME), nothing, np.zeros(0, dtype=bool), nothing)


def _chunks(segment: Segment, output: int) -> References:
    codec = segment.codecs[output]
    size = math.prod(codec["shape"]) * np.dtype(codec["dtype"]).itemsize
    names = np.frombuffer(segment.checksums_of(output), dtype=NAME)
    count = len(names)
    return References(names, np.arange(count), np.zeros(count, dtype=bool), np.full(count, size))


def _mixed(segment: Segment, output: int, values: bytes) -> References:
    column = unpack(segment.packed(output, payload_of(values, output, segment.keys)), segment.count)
    found = [(position, *named) for position, form in enumerate(column) for named in _named(form)]
    if not found:
        return _none()
    positions, names, objects, sizes = zip(*found, strict=True)
    return References(
        np.frombuffer(b"".join(names), dtype=NAME),
        np.array(positions),
        np.array(objects, dtype=bool),
        np.array(sizes),
    )


def _named(form: object) -> Iterator[tuple[bytes, bool, int]]:
    match form:
        case ChunkRef(checksum, dtype, shape):
            yield checksum, False, math.prod(shape) * np.dtype(dtype).itemsize
        case ObjectRef(checksum):
            yield checksum, True, 0
        case Filed(_, places):
            for place in places:
                for file in (place,) if isinstance(place, KeptFile) else place.files:
                    yield file.name, False, 0
