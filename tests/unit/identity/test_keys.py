"""Call keys: the same calls have the same keys, any difference that counts changes them."""

from __future__ import annotations

import itertools

import pytest
from xxhash import xxh3_128_digest

from gristmill.identity.digest import digest, digest_block
from gristmill.identity.keys import call_keys, call_prefix

CODE = bytes(range(16))
PREFIX = call_prefix(CODE, b"1", [("x", "ndarray"), ("y", "list")])


def test_the_order_in_which_parameters_are_given_does_not_count() -> None:
    assert call_prefix(CODE, b"1", [("y", "list"), ("x", "ndarray")]) == PREFIX
    assert len(PREFIX) == 16


def test_everything_else_about_a_node_counts() -> None:
    prefixes = [
        PREFIX,
        call_prefix(CODE[::-1], b"1", [("x", "ndarray"), ("y", "list")]),
        call_prefix(CODE, b"2", [("x", "ndarray"), ("y", "list")]),
        call_prefix(CODE, b"1", [("x", "list"), ("y", "ndarray")]),
        call_prefix(CODE, b"1", [("x", "ndarray"), ("z", "list")]),
        call_prefix(CODE, b"1", [("x", "ndarray")]),
        call_prefix(CODE, b"1", []),
        call_prefix(CODE, b"1", [("xn", "darray"), ("y", "list")]),
        call_prefix(CODE + b"1", b"", [("x", "ndarray"), ("y", "list")]),
    ]
    assert len(set(prefixes)) == len(prefixes)


def test_a_key_is_the_hash_of_the_prefix_and_the_arguments_digests() -> None:
    mapped, broadcast = digest_block([1, 2, 3]), digest("a")
    expected = [
        xxh3_128_digest(PREFIX + mapped[16 * k : 16 * k + 16] + broadcast + mapped[16 * k : 16 * k + 16])
        for k in range(3)
    ]
    assert call_keys(PREFIX, [mapped, broadcast, mapped], 3) == b"".join(expected)


def test_a_call_has_the_key_it_has_alone_wherever_it_is_in_a_map() -> None:
    values = list(range(50))
    keys = call_keys(PREFIX, [digest_block(values), digest(None)], 50)
    for k in values:
        alone = call_keys(PREFIX, [digest(k), digest(None)], 1)
        assert keys[16 * k : 16 * k + 16] == alone
        assert call_keys(PREFIX, [digest(k), digest(None)], 2) == alone * 2


def test_swapped_arguments_make_another_key() -> None:
    orders = {
        call_keys(PREFIX, list(order), 1)
        for order in itertools.permutations([digest(1), digest(2), digest(3)])
    }
    assert len(orders) == 6


def test_a_node_without_arguments_has_one_key() -> None:
    assert call_keys(PREFIX, [], 1) == xxh3_128_digest(PREFIX)
    assert call_keys(PREFIX, [], 0) == b""
    assert call_keys(PREFIX, [b""], 0) == b""


@pytest.mark.parametrize("size", [0, 15, 17, 32, 64])
def test_a_column_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"a column holds {size} bytes"):
        call_keys(PREFIX, [bytes(size)], 3)
