"""Frames: a body comes back as it was, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import IntegrityError
from gristmill.storage.frame import HEADER_SIZE, seal, unseal


@given(st.binary(max_size=300))
def test_a_sealed_body_comes_back(body: bytes) -> None:
    assert unseal(seal(body)) == body
    assert unseal(memoryview(seal(body))) == body


@pytest.mark.parametrize("body", [b"", b"a", b"grist" * 20])
def test_every_flipped_bit_is_found(body: bytes) -> None:
    frame = seal(body)
    unnoticed = []
    for bit in range(8 * len(frame)):
        torn = bytearray(frame)
        torn[bit // 8] ^= 1 << bit % 8
        try:
            if unseal(bytes(torn)) != body:
                unnoticed.append(bit)
        except IntegrityError:
            continue
    assert unnoticed == []


@pytest.mark.parametrize("body", [b"", b"a", b"grist" * 20])
def test_every_other_length_is_found(body: bytes) -> None:
    frame = seal(body)
    for size in range(len(frame)):
        with pytest.raises(IntegrityError):
            unseal(frame[:size])
    with pytest.raises(IntegrityError):
        unseal(frame + b"\0")
    assert len(frame) == HEADER_SIZE + len(body)


@pytest.mark.parametrize("frame", [b"", b"\0" * 200, b"pickle!" * 30])
def test_what_is_no_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(IntegrityError):
        unseal(frame)
