"""Segments: an immutable block of call records, the unit of appending and of look-up.

A segment is stored as two bodies. The *index* holds what a look-up reads: keys, output digests and, for
outputs kept as chunks, their checksums: 32 bytes a call where values are packed. The *values* hold the packed
values and the provenance that `explain` reads, behind a hash of the keys they belong to. A *tombstone* is an
index that takes calls of earlier segments back, because their bytes were lost.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from xxhash import xxh3_128_digest

from gristmill.errors import IntegrityError
from gristmill.storage.columns import DAMAGE, Codec, Packed, check_codec, pack
from gristmill.storage.spool import Block

FORMAT = 1
KEY_SIZE = 16
"""Bytes of a call key, of a digest and of a checksum."""

TIME_SHIFT = 21
"""Bits of a segment's number below its time in milliseconds; they are random."""

_HEAD = struct.Struct("<BBII")
_CALLS, _TOMBSTONE = 0, 1

DAMAGED, COLLECTED, EDITED = "damaged", "collected", "edited"
"""Why calls were taken back: their bytes were lost, or deleted to make room, or a file they returned changed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One segment, ready to be appended."""

    group: bytes
    """The 16-byte call prefix under which segments are numbered."""
    index: bytes
    """Keys, digests and locators: what a look-up reads."""
    values: bytes
    """The packed values and what `explain` reads; never touched by a look-up."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the calls of a segment were given: for `explain`, never for a look-up."""

    node: str
    """Module and qualified name of the function."""
    constants: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Parameter to (digest in hex, short repr), where all calls share one value."""
    columns: Mapping[str, bytes] = field(default_factory=dict)
    """Parameter to the 16-byte digests of what each call was given."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The index of one segment."""

    number: int
    count: int
    codecs: tuple[Codec, ...]
    """For each output, how its column is packed."""
    block: Block
    """Columns of `count` items of 16 bytes: the keys, the digests of each output, then checksums of chunks."""

    @property
    def keys(self) -> bytes:
        """`count` call keys of 16 bytes."""
        return self._column(0)

    @property
    def digests(self) -> tuple[bytes, ...]:
        """For each output, `count` digests of 16 bytes."""
        return tuple(map(self.digests_of, range(len(self.codecs))))

    @property
    def checksums(self) -> tuple[bytes, ...]:
        """For each output, the chunk checksums, empty where it is packed."""
        return tuple(map(self.checksums_of, range(len(self.codecs))))

    def keys_between(self, start: int, stop: int) -> bytes:
        """Return the keys of some neighbours."""
        return self.block[start * KEY_SIZE : stop * KEY_SIZE]

    def digests_of(self, output: int) -> bytes:
        """Return the digests of one output."""
        return self._column(1 + output)

    def checksums_of(self, output: int) -> bytes:
        """Return the chunk checksums of one output, empty where it is packed."""
        kept = [codec["kind"] == "chunk" for codec in self.codecs]
        return self._column(1 + len(kept) + sum(kept[:output])) if kept[output] else b""

    def packed(self, output: int, payload: bytes) -> Packed:
        """Return the column of `output`, given its payload from the values."""
        return Packed(self.codecs[output], payload, self.checksums_of(output))

    def _column(self, place: int) -> bytes:
        width = self.count * KEY_SIZE
        return self.block[place * width : (place + 1) * width]


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Calls of earlier segments that must not be found any more."""

    number: int
    dead: Mapping[int, tuple[int, ...] | None]
    """Segment number to the positions taken back; None takes back all of them."""
    why: str = DAMAGED


def encode_segment(
    group: bytes,
    keys: bytes,
    digests: Sequence[bytes],
    columns: Sequence[Sequence[object]],
    provenance: Provenance,
) -> tuple[Entry, Segment]:
    """Return the two bodies of a segment, and its index as `decode_index` would return it (number 0)."""
    count = len(keys) // KEY_SIZE
    packed = [pack(column) for column in columns]
    header = json.dumps({"codecs": [p.codec for p in packed]}, separators=(",", ":")).encode()
    block = b"".join((keys, *digests, *(p.checksums for p in packed)))
    index = _HEAD.pack(FORMAT, _CALLS, count, len(header)) + header + block
    values = xxh3_128_digest(keys) + _encode_sections([p.payload for p in packed], provenance)
    return Entry(group, index, values), Segment(0, count, tuple(p.codec for p in packed), block)


def encode_tombstone(group: bytes, dead: Mapping[int, tuple[int, ...] | None], why: str = DAMAGED) -> Entry:
    """Return the entry that takes the calls `dead` of `group` back."""
    header = json.dumps(
        {"dead": {str(number): positions for number, positions in dead.items()}, "why": why}
    ).encode()
    return Entry(group, _HEAD.pack(FORMAT, _TOMBSTONE, 0, len(header)) + header, b"")


def decode_index(number: int, body: bytes) -> Segment | Tombstone:
    """Return the segment or tombstone that `body` holds.

    Raises
    ------
    IntegrityError
        The body is not an index of this format.
    """
    try:
        form, kind, count, length = _HEAD.unpack_from(body)
        if form != FORMAT:
            raise IntegrityError(f"segment format {form} is not known here")
        start = _HEAD.size + length
        header = json.loads(body[_HEAD.size : start])
        if kind == _TOMBSTONE:
            dead = {int(n): _checked_positions(p) for n, p in header["dead"].items()}
            return Tombstone(number, dead, str(header.get("why", DAMAGED)))
        codecs = [check_codec(codec) for codec in header["codecs"]]
        return _decode_calls(number, count, codecs, body, start)
    except DAMAGE as error:
        raise IntegrityError(f"segment {number} cannot be decoded: {error}") from error


def time_of(number: int) -> float:
    """Return when a segment was appended, in seconds since the epoch, by the clock of who did it."""
    return (number >> TIME_SHIFT) / 1000


def _checked_positions(positions: Any) -> tuple[int, ...] | None:
    if positions is None:
        return None
    if not all(type(position) is int and 0 <= position < 2**32 for position in positions):
        raise ValueError("a position is none")
    return tuple(positions)


def _decode_calls(number: int, count: int, codecs: list[Codec], body: bytes, start: int) -> Segment:
    width = count * KEY_SIZE
    kept = [codec["kind"] == "chunk" for codec in codecs]
    if len(body) != start + width * (1 + len(codecs) + sum(kept)):
        raise IntegrityError(f"segment {number} has {len(body)} bytes, which its header does not explain")
    return Segment(number, count, tuple(codecs), body[start:])


def _encode_sections(payloads: Sequence[bytes], provenance: Provenance) -> bytes:
    names = sorted(provenance.columns)
    notes = json.dumps({"node": provenance.node, "constants": dict(provenance.constants), "columns": names})
    sections = [*payloads, notes.encode(), *(provenance.columns[name] for name in names)]
    lengths = struct.pack(f"<I{len(sections)}Q", len(sections), *map(len, sections))
    return b"".join((lengths, *sections))


def _section_bounds(body: bytes) -> list[tuple[int, int]]:
    try:
        (count,) = struct.unpack_from("<I", body, KEY_SIZE)
        lengths = struct.unpack_from(f"<{count}Q", body, KEY_SIZE + 4)
    except (struct.error, MemoryError, OverflowError) as error:
        raise IntegrityError(f"the values of a segment cannot be decoded: {error}") from error
    bounds, at = [], KEY_SIZE + 4 + 8 * count
    for length in lengths:
        bounds.append((at, at + length))
        at += length
    if at != len(body):
        raise IntegrityError(f"the values of a segment have {len(body)} bytes instead of {at}")
    return bounds


def payload_of(body: bytes, output: int, keys: bytes) -> bytes:
    """Return the packed payload of one output out of the values of the segment that has `keys`.

    Raises
    ------
    IntegrityError
        They are damaged, or the values of other calls.
    """
    if body[:KEY_SIZE] != xxh3_128_digest(keys):
        raise IntegrityError("the values of a segment belong to other calls")
    bounds = _section_bounds(body)
    if output >= len(bounds):
        raise IntegrityError("the values of a segment lack an output")
    start, end = bounds[output]
    return body[start:end]


def provenance_of(body: bytes, outputs: int) -> Provenance:
    """Return what the calls of a segment were given.

    Raises
    ------
    IntegrityError
        It cannot be decoded.
    """
    bounds = _section_bounds(body)
    try:
        notes, *columns = (body[start:end] for start, end in bounds[outputs:])
        decoded: dict[str, Any] = json.loads(notes)
        constants = {name: (digest, text) for name, (digest, text) in decoded["constants"].items()}
        return Provenance(
            str(decoded["node"]), constants, dict(zip(decoded["columns"], columns, strict=True))
        )
    except DAMAGE as error:
        raise IntegrityError(f"what the calls of a segment were given cannot be decoded: {error}") from error
