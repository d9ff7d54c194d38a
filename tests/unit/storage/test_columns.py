"""Columns: any sequence of stored forms comes back with its types and bits, or as damage, never as something else."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from tests.support.values import same

from gristmill.errors import IntegrityError
from gristmill.storage.columns import Packed, as_array, pack, unpack
from gristmill.storage.elements import ChunkRef, ObjectRef, Pickled

CHECKSUMS = st.binary(min_size=16, max_size=16)
TEXT = st.text(st.characters(codec=None))
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "big int": st.integers(),
    "float": st.floats(),
    "bool": st.booleans(),
    "complex": st.complex_numbers(),
    "none": st.none(),
    "str": TEXT,
    "bytes": st.binary(),
}
DTYPES = (
    hn.scalar_dtypes()
    .filter(lambda dtype: dtype.char not in "gG")
    .flatmap(lambda dtype: st.sampled_from([dtype, dtype.newbyteorder(">")]))
)
ARRAYS = hn.arrays(DTYPES, hn.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=3))
REFERENCES: dict[str, st.SearchStrategy[Any]] = {
    "pickle": st.builds(Pickled, st.binary()),
    "object": st.builds(ObjectRef, CHECKSUMS),
    "chunk": st.builds(
        ChunkRef,
        CHECKSUMS,
        st.sampled_from(["<f8", "|u1"]),
        st.lists(st.integers(0, 5), max_size=3).map(tuple),
    ),
}
NUMPY = {
    "array": ARRAYS,
    "scalar": ARRAYS.filter(lambda array: array.size > 0).map(lambda array: array.reshape(-1)[0]),
}
KINDS = {**SCALARS, **REFERENCES, **NUMPY}


def round_trip(items: list[Any]) -> list[Any]:
    return unpack(pack(items), len(items))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_a_column_of_one_kind(kind: str, data: st.DataObject) -> None:
    items = data.draw(st.lists(KINDS[kind], min_size=1, max_size=6))
    assert same(round_trip(items), items)


@given(st.lists(st.one_of(*KINDS.values()), min_size=1, max_size=8))
def test_a_column_of_many_kinds(items: list[Any]) -> None:
    assert same(round_trip(items), items)


@given(DTYPES, hn.array_shapes(min_dims=0, min_side=0, max_side=3), st.integers(1, 5), st.data())
def test_a_column_of_equal_arrays_is_one_buffer(
    dtype: np.dtype[Any], shape: tuple[int, ...], count: int, data: st.DataObject
) -> None:
    items = [data.draw(hn.arrays(dtype, shape)) for _ in range(count)]
    packed = pack(items)
    assert packed.codec["kind"] == "array"
    assert len(packed.payload) == sum(item.nbytes for item in items)
    assert same(unpack(packed, count), items)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
def test_numbers_can_be_read_as_one_array(items: list[int]) -> None:
    array = as_array(pack(items), len(items))
    assert array is not None
    assert same(array.tolist(), items)


@pytest.mark.parametrize("items", [[1, True], [True, 1], [0.0, 0], [1, None], ["a", b"a"], [1, 2**64]])
def test_types_that_python_mixes_up_stay_apart(items: list[Any]) -> None:
    assert same(round_trip(items), items)


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order_does_not_matter(order: Any) -> None:
    array = np.arange(6).reshape(2, 3)
    assert same(round_trip([np.array(array, order=order)] * 2), [array] * 2)
    assert same(round_trip([array[:, ::-1], array.T]), [array[:, ::-1].copy(), array.T.copy()])


def test_what_was_unpacked_is_private() -> None:
    packed = pack([np.zeros(3), np.zeros(3)])
    unpack(packed, 2)[0][:] = 1
    assert unpack(packed, 2)[0].max() == 0


DAMAGED: dict[str, Any] = {
    "truncated": lambda payload: payload[:-1],
    "halved": lambda payload: payload[: len(payload) // 2],
    "empty": lambda payload: b"",
    "longer": lambda payload: payload + b"\0",
}
COLUMNS: dict[str, list[Any]] = {
    "ints": [1, 2, 3],
    "bools": [True, False, True],
    "strings": ["a", "bc", ""],
    "bytes": [b"a", b"bc", b""],
    "pickles": [Pickled(b"ab"), Pickled(b"c")],
    "scalars": [np.int16(1), np.int16(2)],
    "arrays": [np.zeros((2, 2)), np.ones((2, 2))],
    "mixed": [1, "a", None, np.arange(3), ObjectRef(b"x" * 16)],
}


@pytest.mark.parametrize("how", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("items", COLUMNS.values(), ids=COLUMNS)
def test_a_payload_of_another_length_is_damage(items: list[Any], how: Any) -> None:
    packed = pack(items)
    with pytest.raises(IntegrityError):
        unpack(Packed(packed.codec, how(packed.payload), packed.checksums), len(items))


@pytest.mark.parametrize("items", COLUMNS.values(), ids=COLUMNS)
def test_a_wrong_count_is_damage(items: list[Any]) -> None:
    for count in (len(items) - 1, len(items) + 1):
        with pytest.raises(IntegrityError):
            unpack(pack(items), count)


def test_an_unknown_codec_is_damage() -> None:
    with pytest.raises(IntegrityError):
        unpack(Packed({"kind": "brotli"}, b"abc"), 1)


@given(st.lists(st.one_of(*KINDS.values()), min_size=1, max_size=4), st.data())
def test_flipped_bits_never_raise_anything_else(items: list[Any], data: st.DataObject) -> None:
    """Checksums come first; this is for what has one and is wrong all the same."""
    packed = pack(items)
    if not packed.payload:
        return
    payload = bytearray(packed.payload)
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = unpack(Packed(packed.codec, bytes(payload), packed.checksums), len(items))
    except IntegrityError:
        return
    assert len(found) == len(items)


def test_what_is_no_stored_form_is_refused() -> None:
    with pytest.raises(TypeError, match="no stored form"):
        pack([object(), 1])
