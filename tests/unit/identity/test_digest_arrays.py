"""What makes two numpy values the same: dtype, shape and content, never how they lie in memory."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from xxhash import xxh3_128_digest

from gristmill.errors import DigestError
from gristmill.identity.digest import checksum, digest, digest_array, digest_block, digest_rows
from gristmill.identity.libraries import zarr as zarr_writers

Array = np.ndarray[Any, Any]

STRUCTURED = np.dtype([("a", "<i4"), ("b", "<f8")])
PADDED = np.dtype([("a", "<i4"), ("b", "<f8")], align=True)

DIFFERENT: list[Any] = [
    np.zeros(4),
    np.zeros((2, 2)),
    np.zeros((4, 1)),
    np.zeros(4, "<f4"),
    np.zeros(4, ">f8"),
    np.zeros(4, "<i8"),
    np.zeros(4, "<u8"),
    np.zeros(4, "<c16"),
    np.zeros(4, bool),
    np.zeros(4, "<M8[s]"),
    np.zeros(4, "<M8[ms]"),
    np.zeros(4, "<m8[s]"),
    np.zeros(4, "U1"),
    np.zeros(4, "U2"),
    np.zeros(4, "S1"),
    np.zeros(4, "V1"),
    np.zeros(4, "V2"),
    np.zeros(4, STRUCTURED),
    np.zeros(4, PADDED),
    np.zeros(4, np.longdouble),
    np.zeros(4, "<f2"),
    np.zeros(4, [("a", "<i4"), ("c", "<f8")]),
    np.zeros(4, [("a", "<f8"), ("b", "<i4")]),
    np.zeros(4, object),
    np.zeros(4, [("a", "<i4", (2,)), ("b", "<f8")]),
    np.array([0, 0, 0, 0.0], object),
    np.array([0.0, -0.0, 0, 0]),
    np.array(0.0),
    np.float64(0),
    0.0,
    [0.0] * 4,
    np.zeros(0),
    np.zeros((0, 2)),
    np.zeros((2, 0)),
    np.zeros(0, object),
    np.array(None),
    np.array([None]),
    np.array([[1, 2], [3, None]], object),
    np.array([1, 2, 3, None], object),
    np.array(["a", "b"], np.dtypes.StringDType()),
    np.array(["a", "b"], object),
    np.array(["ab", ""], np.dtypes.StringDType()),
    np.ma.array([1, 2], mask=[False, True]),
    np.ma.array([1, 2]),
    np.ma.array([1, 2], mask=[True, False]),
    np.ma.array([1, 2], mask=[False, True], fill_value=7),
    np.array([1, 2]),
    np.ma.masked,
    np.array([[1, 2]]),
    np.rec.array([(1, 2.0)], dtype=STRUCTURED),
    np.dtype("i4"),
    np.array([(1, 2.0)], STRUCTURED),
    np.zeros(1, STRUCTURED)[0],
    np.dtype(">i4"),
    np.dtype(STRUCTURED),
    np.random.default_rng(1),
    np.random.default_rng(2),
    np.random.PCG64(1),
    np.random.MT19937(1),
    np.random.RandomState(1),
    np.random.SeedSequence(1),
    np.array([np.zeros(2), [1]], object),
]


def test_arrays_of_different_dtype_shape_or_content_differ() -> None:
    digests = [digest(value) for value in DIFFERENT]
    same = [
        (DIFFERENT[i], DIFFERENT[k])
        for i, k in itertools.combinations(range(len(digests)), 2)
        if digests[i] == digests[k]
    ]
    assert same == []
    assert digest_block(DIFFERENT) == b"".join(digests)


def layouts(array: Array, tmp_path: Path) -> list[Array]:
    wide = np.zeros((array.shape[0] * 2, *array.shape[1:]), array.dtype)
    wide[::2] = array
    backwards = array[::-1].copy()[::-1]
    readonly = array.copy()
    readonly.flags.writeable = False
    unaligned = np.frombuffer(b"x" + array.tobytes(), array.dtype, offset=1).reshape(array.shape)
    mapped = np.memmap(tmp_path / "mapped", array.dtype, "w+", shape=array.shape)
    mapped[...] = array
    return [np.asfortranarray(array), wide[::2], backwards, readonly, unaligned, mapped]


@pytest.mark.parametrize("dtype", ["<f8", ">i2", "U3", "<M8[us]", STRUCTURED, np.longdouble, "V3", bool])
def test_layout_does_not_count(dtype: Any, tmp_path: Path) -> None:
    plain = np.zeros((4, 3, 2), dtype)
    plain[1, 2, 0] = (
        np.ones((), "u1").astype(dtype) if np.dtype(dtype).kind != "V" else np.frombuffer(b"x" * 12, dtype, 1)
    )
    plain[3, 0, 1] = plain[1, 2, 0]
    for other in layouts(plain, tmp_path):
        assert digest(other) == digest(plain)
        assert digest_array(other)[0] == digest(plain)
        assert digest_rows(other) == digest_rows(plain)


def test_large_arrays_in_any_order_of_memory_are_the_same() -> None:
    array = np.random.default_rng(0).random((300, 40, 50))
    expected = digest(array)
    for order in itertools.permutations(range(3)):
        moved = np.ascontiguousarray(array.transpose(order)).transpose(np.argsort(order))
        assert digest(moved) == expected


@pytest.mark.parametrize(
    "array", [np.arange(6.0).reshape(2, 3), np.zeros(0), np.array(1), np.zeros(3, STRUCTURED)]
)
def test_an_array_is_digested_and_checked_in_one_pass(array: Array) -> None:
    identity, inner = digest_array(array)
    assert identity == digest(array)
    assert inner == checksum(array.tobytes()) == xxh3_128_digest(array.tobytes())


def test_the_checksum_of_an_array_in_fortran_order_is_that_of_its_c_order() -> None:
    array = np.arange(12).reshape(3, 4)
    assert digest_array(np.asfortranarray(array)) == digest_array(array)


@pytest.mark.parametrize("shape", [(300, 1100), (127, 1025), (1, 2000), (129, 4000)])
def test_a_wide_matrix_laid_out_by_columns_is_the_same(shape: tuple[int, int]) -> None:
    array = np.random.default_rng(0).random(shape)
    assert digest(np.asfortranarray(array)) == digest(array)
    assert digest(np.asfortranarray(array)[::-1, ::-1]) == digest(array[::-1, ::-1])
    assert digest(np.asfortranarray(array)[::2, 1:]) == digest(array[::2, 1:].copy())


def test_padding_between_fields_does_not_count() -> None:
    one, other = np.zeros(3, PADDED), np.zeros(3, PADDED)
    other.view("u1").reshape(3, -1)[:, 4:8] = 255
    assert one.tobytes() != other.tobytes()
    assert digest(one) == digest(other)
    assert digest(one[0]) == digest(other[0])
    other["a"] = 1
    assert digest(one) != digest(other)


def test_padding_of_extended_precision_does_not_count() -> None:
    one, other = np.ones(3, np.longdouble), np.ones(3, np.longdouble)
    if np.finfo(np.longdouble).nmant != 63:
        pytest.skip("no 80-bit numbers here")
    other.view("u1").reshape(3, -1)[:, 10:] = 255
    assert digest(one) == digest(other)
    assert digest(one[0]) == digest(other[0])
    assert digest_rows(one) == digest_block(list(other))


def test_what_lies_under_a_mask_does_not_count() -> None:
    one = np.ma.array([1, 2, 3], mask=[False, True, False])
    other = np.ma.array([1, 9, 3], mask=[False, True, False])
    assert digest(one) == digest(other)
    assert digest(one) != digest(np.ma.array([1, 2, 9], mask=[False, True, False]))


def test_digesting_a_masked_array_leaves_its_data_alone() -> None:
    array = np.ma.array([1, 2, 3], mask=[False, True, False])
    digest(array)
    assert array.data.tolist() == [1, 2, 3]


def test_object_arrays_are_their_elements() -> None:
    def make(last: Any) -> Array:
        array = np.empty(2, object)
        array[:] = [{"a": [1]}, last]
        return array

    assert digest(make("x")) == digest(make("x"))
    assert digest(make("x")) != digest(make("y"))
    assert digest(np.asfortranarray(np.array([[1, 2], [3, "a"]], object))) == digest(
        np.array([[1, 2], [3, "a"]], object)
    )
    with pytest.raises(DigestError, match="generator"):
        digest(make(x for x in [1]))


def test_an_object_array_may_contain_itself() -> None:
    def make(label: str) -> Array:
        array = np.empty(2, object)
        array[:] = [array, label]
        return array

    assert digest(make("a")) == digest(make("a"))
    assert digest(make("a")) != digest(make("b"))


def test_attributes_of_an_array_subclass_count() -> None:
    class Tagged(np.ndarray[Any, Any]):
        unit: str

    def make(unit: str) -> Tagged:
        array = np.arange(3).view(Tagged)
        array.unit = unit
        return array

    assert digest(make("m")) == digest(make("m"))
    assert digest(make("m")) != digest(make("s"))
    assert digest(make("m")) != digest(np.arange(3))


ROWS: list[Array] = [
    np.arange(5),
    np.arange(5, dtype=">i4"),
    np.linspace(0, 1, 5),
    np.array([np.nan, -np.nan, 0.0, -0.0]),
    np.array([True, False]),
    np.array(["a", "bcd", ""]),
    np.array([b"a", b"bcd"]),
    np.array([1, "a", None], object),
    np.arange(6).reshape(3, 2),
    np.arange(24).reshape(4, 3, 2)[:, ::-1],
    np.asfortranarray(np.ones((3, 4))),
    np.zeros(3, STRUCTURED),
    np.zeros((2, 2), STRUCTURED),
    np.zeros(3, PADDED),
    np.zeros((0, 3)),
    np.zeros((2, 0)),
    np.zeros(0),
    np.array(["2020", "2021"], "M8[D]"),
    np.ones(3, np.longdouble),
    np.ones((3, 2), np.longdouble),
    np.ma.array([1, 2, 3], mask=[False, True, False]),
    np.array(["a", "b"], np.dtypes.StringDType()),
    np.zeros((2, 2), "U3"),
    np.arange(6, dtype=">f8").reshape(2, 3),
    np.zeros(3, "V3"),
    np.arange(3, dtype=np.int8),
    np.ones(2, "<f2"),
]


@pytest.mark.parametrize("array", ROWS, ids=lambda array: f"{array.dtype}-{array.shape}")
def test_the_rows_of_an_array_are_what_a_map_hands_to_a_function(array: Array) -> None:
    assert digest_rows(array) == b"".join(digest(array[i]) for i in range(len(array)))
    assert digest_block(array) == digest_rows(array)


@pytest.mark.parametrize(
    "kind", [int, float, bool, np.int64, np.float32, np.bool_, np.complex128, np.float64, np.uint8]
)
@pytest.mark.parametrize("n", [0, 1, 15, 16, 100])
def test_many_scalars_of_one_type_are_digested_like_one_after_the_other(kind: Any, n: int) -> None:
    values = [kind(i) for i in range(n)]
    assert digest_block(values) == b"".join(map(digest, values))
    assert digest_block(tuple(values)) == digest_block(values)
    assert digest(values) == digest([*values])


def test_a_list_of_numbers_is_encoded_the_same_however_long_it_is_and_whatever_joins_it() -> None:
    numbers = list(range(100))
    assert digest_block([numbers, numbers[:5]]) == digest(numbers) + digest(numbers[:5])
    assert digest([*numbers, 2**70]) == digest([*numbers, 2**70])
    assert digest([*numbers, True]) != digest([*numbers, 1])
    assert digest_block([*numbers, 2**70]) == b"".join(map(digest, [*numbers, 2**70]))


def test_the_state_of_a_numpy_generator_is_its_identity() -> None:
    one, other = np.random.default_rng(7), np.random.default_rng(7)
    assert digest(one) == digest(other)
    one.random()
    assert digest(one) != digest(other)
    other.random()
    assert digest(one) == digest(other)
    one.spawn(1)
    assert digest(one) != digest(other)


def test_a_ufunc_that_only_shares_a_name_is_refused() -> None:
    with pytest.raises(DigestError, match="something else"):
        digest(np.frompyfunc(lambda x: x, 1, 1))


@pytest.mark.parametrize("slab", [1, 300, 5_000, 1 << 26])
@pytest.mark.parametrize("shape", [(13, 8, 7), (7,), (1, 200), (0, 3)])
def test_a_zarr_array_is_the_equal_numpy_array(
    shape: tuple[int, ...], slab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zarr_writers, "SLAB", slab)
    array = np.random.default_rng(1).random(shape)
    stored = zarr.create_array(
        {}, shape=shape, chunks=tuple(max(1, extent // 3) for extent in shape), dtype="f8"
    )
    stored[...] = array
    assert digest(stored) == digest(array)


def test_a_zarr_group_is_refused() -> None:
    with pytest.raises(DigestError, match="pass its arrays"):
        digest(zarr.open_group({}))


def test_long_rows_in_fortran_order_are_put_together_a_few_at_a_time() -> None:
    array = np.random.default_rng(0).random((21, 200_000))
    assert digest(np.asfortranarray(array)) == digest(array)
