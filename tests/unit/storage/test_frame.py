"""Frames: a body comes back as it was, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import IntegrityError
from gristmill.storage.frame import HEADER_SIZE, seal, unseal

NAME = b"i" + bytes(range(24))


@given(st.binary(max_size=300))
def test_a_sealed_body_comes_back(body: bytes) -> None:
    assert unseal(NAME, seal(NAME, body)) == body
    assert unseal(NAME, memoryview(seal(NAME, body))) == body


@pytest.mark.parametrize("body", [b"", b"a", b"grist" * 20])
def test_every_flipped_bit_is_found(body: bytes) -> None:
    frame = seal(NAME, body)
    unnoticed = []
    for bit in range(8 * len(frame)):
        torn = bytearray(frame)
        torn[bit // 8] ^= 1 << bit % 8
        try:
            if unseal(NAME, bytes(torn)) != body:
                unnoticed.append(bit)
        except IntegrityError:
            continue
    assert unnoticed == []


@pytest.mark.parametrize("body", [b"", b"a", b"grist" * 20])
def test_every_other_length_is_found(body: bytes) -> None:
    frame = seal(NAME, body)
    for size in range(len(frame)):
        with pytest.raises(IntegrityError):
            unseal(NAME, frame[:size])
    with pytest.raises(IntegrityError):
        unseal(NAME, frame + b"\0")
    assert len(frame) == HEADER_SIZE + len(body)


@pytest.mark.parametrize("frame", [b"", b"\0" * 200, b"pickle!" * 30])
def test_what_is_no_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(IntegrityError):
        unseal(NAME, frame)


@pytest.mark.parametrize("name", [b"", b"v" + NAME[1:], NAME + b"\0", NAME[:-1]])
def test_the_body_of_another_name_is_refused(name: bytes) -> None:
    with pytest.raises(IntegrityError, match="another name"):
        unseal(name, seal(NAME, b"grist"))


def test_name_and_body_are_told_apart() -> None:
    with pytest.raises(IntegrityError):
        unseal(b"ab", seal(b"a", b"bc")[:-2] + b"c")
