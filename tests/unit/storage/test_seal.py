"""Secrets and seals: what a secret makes of names and frames, and where it never shows."""

import pickle
import traceback

import pytest

from gristmill.engine.stores import StoresSpec
from gristmill.errors import IntegrityError, StoreError
from gristmill.storage.frame import seal, unseal
from gristmill.storage.local import StoreSpec
from gristmill.storage.seal import (
    NO_KEY,
    SIZE,
    Secret,
    check_value,
    content_checksum,
    content_hasher,
    frame_checksum,
)

SALT = bytes(range(16))
KEY = Secret(b"house").key(SALT)
NAME = b"i" + bytes(24)


def test_text_and_bytes_are_the_same_secret() -> None:
    assert Secret.given("häuser") == Secret.given("häuser".encode())
    assert Secret.given(None) is None


@pytest.mark.parametrize("secret", ["", b"", 7, ["text"], b"text".decode])
def test_what_is_no_secret_is_refused(secret: object) -> None:
    with pytest.raises(StoreError, match="secret is"):
        Secret.given(secret)  # type: ignore[arg-type]


def test_a_key_belongs_to_one_secret_and_one_store() -> None:
    keys = {Secret(text).key(salt) for text in (b"house", b"home") for salt in (SALT, SALT[::-1])}
    assert len(keys) == 4
    assert Secret(b"house").key(SALT) == KEY


def test_the_key_is_the_one_that_the_format_describes() -> None:
    assert KEY.hex() == "23eb45df90f3732515693235a703f3a07aefcfa7915328d3213d9e11b98cea77"
    assert check_value(KEY).hex() == "72b846e95e193a158c97b2c80c6aa46f"
    assert content_checksum(b"grist", KEY).hex() == "bfa787a79761e08139b5833969a8fc2e"
    assert frame_checksum(b"name", b"body", KEY).hex() == "67455150eb73d285998fbc66ee8eb4f6"


def test_a_secret_shows_nowhere() -> None:
    secret = Secret(b"of the house")
    spec = StoreSpec("/somewhere", secret=secret)
    shown = [repr(secret), str(secret), f"{secret}", repr(spec), repr(StoresSpec(spec, None))]
    try:
        pickle.dumps(spec)
    except TypeError as error:
        shown += traceback.format_exception(error)
    assert len(shown) > 5
    assert not [text for text in shown if "house" in text]


def test_a_secret_is_pickled_for_the_pipe_and_for_nothing_else() -> None:
    spec = StoreSpec("/somewhere", secret=Secret(b"house"))
    for value in (spec.secret, spec, [spec]):
        with pytest.raises(TypeError, match="GRISTMILL_SECRET"):
            pickle.dumps(value)
    for specs in (StoresSpec(spec, None), StoresSpec(spec, StoreSpec("/there"))):
        assert pickle.loads(pickle.dumps(specs)) == specs


def test_the_checksum_of_contents_depends_on_the_key() -> None:
    made = {content_checksum(b"grist", key) for key in (NO_KEY, KEY, KEY[::-1])}
    assert {len(checksum) for checksum in made} == {SIZE}
    assert len(made) == 3
    for key in (NO_KEY, KEY):
        hasher = content_hasher(key)
        hasher.update(b"gri")
        hasher.update(b"st")
        assert hasher.digest() == content_checksum(b"grist", key)


def test_a_frame_opens_with_its_own_key_only() -> None:
    for key in (NO_KEY, KEY):
        assert unseal(NAME, seal(NAME, b"grist", key), key) == b"grist"
        for other in {NO_KEY, KEY, KEY[::-1]} - {key}:
            with pytest.raises(IntegrityError):
                unseal(NAME, seal(NAME, b"grist", key), other)


def test_a_forger_cannot_move_bytes_between_name_and_body() -> None:
    frame = seal(b"ab", b"cd", KEY)
    longer = frame[:8] + (3).to_bytes(8, "little") + frame[16:32] + b"bcd"
    with pytest.raises(IntegrityError):
        unseal(b"a", longer, KEY)
    assert frame_checksum(b"ab", b"cd", KEY) != frame_checksum(b"a", b"bcd", KEY)
    assert content_checksum(b"abcd", KEY) != frame_checksum(b"", b"abcd", KEY)


def test_every_flipped_bit_of_a_sealed_frame_is_found() -> None:
    frame = seal(NAME, b"grist", KEY)
    unnoticed = []
    for bit in range(8 * len(frame)):
        torn = bytearray(frame)
        torn[bit // 8] ^= 1 << bit % 8
        try:
            if unseal(NAME, bytes(torn), KEY) != b"grist":
                unnoticed.append(bit)
        except IntegrityError:
            continue
    assert unnoticed == []
