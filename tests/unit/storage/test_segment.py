"""Segments: what was encoded is decoded, and damage is told from it."""

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import IntegrityError
from gristmill.storage.columns import unpack
from gristmill.storage.elements import ChunkRef
from gristmill.storage.segment import (
    Provenance,
    Segment,
    Tombstone,
    decode_index,
    encode_segment,
    encode_tombstone,
    payload_of,
    provenance_of,
)

GROUP = b"g" * 16


def block(count: int) -> bytes:
    return os.urandom(16 * count)


def encoded(columns: list[list[Any]]) -> Any:
    count = len(columns[0])
    digests = [block(count) for _ in columns]
    provenance = Provenance("m:f", {"k": ("00ff", "7")}, {"x": block(count), "y": block(count)})
    entry, segment = encode_segment(GROUP, block(count), digests, columns, provenance)
    return entry, segment, provenance


COLUMNS: dict[str, list[list[Any]]] = {
    "one output": [[1, 2, 3]],
    "two outputs": [[1, 2, 3], ["a", "b", "c"]],
    "chunks": [[ChunkRef(block(1), "<f8", (3,)) for _ in range(3)]],
    "chunks beside values": [
        [1],
        [ChunkRef(block(1), "<f8", (3,))],
        ["a"],
        [ChunkRef(block(1), "|u1", (9,))],
    ],
    "chunks of several shapes": [[ChunkRef(block(1), "<f8", (k,)) for k in range(3)]],
    "one call": [[None]],
}


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
def test_a_segment_comes_back(columns: list[list[Any]]) -> None:
    entry, segment, provenance = encoded(columns)
    found = decode_index(7, entry.index)
    assert isinstance(found, Segment)
    assert (found.number, found.count, found.keys) == (7, len(columns[0]), segment.keys)
    assert (found.digests, found.codecs, found.checksums) == (
        segment.digests,
        segment.codecs,
        segment.checksums,
    )
    for output, column in enumerate(columns):
        payload = (
            b"" if found.codecs[output]["kind"] == "chunk" else payload_of(entry.values, output, found.keys)
        )
        assert unpack(found.packed(output, payload), found.count) == column
    assert provenance_of(entry.values, len(columns)) == provenance


def test_a_look_up_reads_thirty_two_bytes_a_call() -> None:
    entry, _, _ = encoded([list(range(1000))])
    assert len(entry.index) < 32 * 1000 + 200


@pytest.mark.parametrize("dead", [{1: None}, {1: (0, 2), 5: None}, {3: ()}])
def test_a_tombstone_comes_back(dead: dict[int, tuple[int, ...] | None]) -> None:
    found = decode_index(9, encode_tombstone(GROUP, dead).index)
    assert isinstance(found, Tombstone)
    assert (found.number, dict(found.dead)) == (9, dead)


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)
def test_an_index_of_another_length_is_damage(columns: list[list[Any]]) -> None:
    index = encoded(columns)[0].index
    for size in range(len(index)):
        with pytest.raises(IntegrityError):
            decode_index(1, index[:size])
    with pytest.raises(IntegrityError):
        decode_index(1, index + b"\0")


def test_values_of_another_length_are_damage() -> None:
    entry, segment, _ = encoded([[1, 2], ["a", "b"]])
    for torn in (*(entry.values[:size] for size in range(len(entry.values))), entry.values + b"\0"):
        with pytest.raises(IntegrityError):
            payload_of(torn, 0, segment.keys)


def test_values_of_other_calls_are_damage() -> None:
    entry, _, _ = encoded([[1, 2]])
    other, _, _ = encoded([[1, 2]])
    keys = decode_index(1, other.index)
    assert isinstance(keys, Segment)
    with pytest.raises(IntegrityError, match="other calls"):
        payload_of(entry.values, 0, keys.keys)


@given(st.data())
def test_flipped_bits_never_raise_anything_else(data: st.DataObject) -> None:
    index = bytearray(encoded([[1, 2], [ChunkRef(block(1), "<f8", (3,))] * 2])[0].index)
    index[data.draw(st.integers(0, len(index) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = decode_index(1, bytes(index))
    except IntegrityError:
        return
    assert isinstance(found, Segment | Tombstone)


@pytest.mark.parametrize("body", [b"", b"\0" * 50, b"\x01\x07" + b"\0" * 50, b"\xff" * 50])
def test_what_is_no_index_is_damage(body: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode_index(1, body)
