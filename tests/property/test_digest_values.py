"""Equal structure if and only if equal digest, and many at once like one after the other."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gristmill.identity.digest import checksum, digest, digest_array, digest_block, digest_rows
from gristmill.identity.keys import call_keys

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 3),
    st.integers(2**62, 2**66),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1.0, 2.0]),
    st.complex_numbers(),
    st.text(st.characters(codec=None), max_size=5),
    st.sampled_from(["", "1", "a"]),
    st.binary(max_size=5),
)
HASHABLE = st.recursive(
    SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5
)
VALUES = st.recursive(
    SCALARS
    | st.lists(st.integers(), min_size=14, max_size=20)
    | st.lists(st.floats(), min_size=14, max_size=20),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(HASHABLE, inner, max_size=4),
        st.sets(HASHABLE, max_size=4),
        st.frozensets(HASHABLE, max_size=4),
    ),
    max_leaves=12,
)


def structure(value: Any) -> Any:
    """Describe a value such that descriptions are equal exactly when types and structure are."""
    if isinstance(value, float):
        return "float", "nan" if math.isnan(value) else value.hex()
    if isinstance(value, complex):
        return "complex", structure(value.real), structure(value.imag)
    if isinstance(value, list | tuple):
        return type(value).__name__, tuple(map(structure, value))
    if isinstance(value, dict):
        return "dict", tuple((structure(key), structure(item)) for key, item in value.items())
    if isinstance(value, set | frozenset):
        return type(value).__name__, tuple(sorted(map(repr, map(structure, value))))
    return type(value).__name__, value


@given(VALUES, VALUES)
def test_two_values_have_one_digest_exactly_when_they_have_one_structure(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (structure(one) == structure(other))


@given(st.lists(VALUES, max_size=30))
def test_values_differ_exactly_as_their_structures_do(values: list[Any]) -> None:
    digests = [digest(value) for value in values]
    described = [repr(structure(value)) for value in values]
    assert len(set(digests)) == len(set(described))
    assert digest_block(values) == b"".join(digests)


@given(VALUES)
def test_a_copy_has_the_same_digest(value: Any) -> None:
    assert digest(copy.deepcopy(value)) == digest(value)
    assert digest(pickle.loads(pickle.dumps(value))) == digest(value)


@given(st.data())
def test_inserting_removing_or_moving_an_element_changes_the_digest(data: st.DataObject) -> None:
    values = data.draw(st.lists(SCALARS, min_size=1, max_size=40))
    place = data.draw(st.integers(0, len(values) - 1))
    assert digest(values[:place] + values[place + 1 :]) != digest(values)
    assert digest([*values[:place], [values[place]], *values[place + 1 :]]) != digest(values)


@given(
    st.one_of(
        *(st.lists(kind, max_size=60) for kind in (st.integers(), st.floats(), st.booleans(), st.text()))
    )
)
def test_a_block_of_one_type_is_its_digests_one_after_the_other(values: list[Any]) -> None:
    assert digest_block(values) == b"".join(map(digest, values))
    assert digest(values) == digest(copy.copy(values))


DTYPES = st.one_of(
    hnp.scalar_dtypes(),
    hnp.unicode_string_dtypes(max_len=4),
    hnp.byte_string_dtypes(max_len=4),
    hnp.array_dtypes(hnp.scalar_dtypes(), max_size=3),
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5))
)


@given(ARRAYS, st.data())
def test_how_an_array_lies_in_memory_does_not_count(array: Any, data: st.DataObject) -> None:
    axes = data.draw(st.permutations(range(array.ndim)))
    moved = np.ascontiguousarray(array.transpose(axes)).transpose(np.argsort(axes))
    flipped = array[::-1].copy()[::-1]
    assert digest(moved) == digest(array) == digest(flipped)
    assert digest_array(moved) == digest_array(array)
    assert digest_array(array)[0] == digest(array)
    assert digest_rows(moved) == digest_rows(array)


@given(ARRAYS)
def test_the_rows_of_an_array_are_digested_as_a_function_gets_them(array: Any) -> None:
    assert digest_rows(array) == b"".join(digest(array[i]) for i in range(len(array)))


@given(
    hnp.arrays(st.sampled_from(["<f8", ">i4", "?", "<c8"]), hnp.array_shapes(min_side=0), fill=st.nothing())
)
def test_the_checksum_of_an_array_is_that_of_its_bytes(array: Any) -> None:
    assert digest_array(array)[1] == checksum(array.tobytes())


@given(ARRAYS, ARRAYS)
def test_two_arrays_have_one_digest_exactly_when_dtype_shape_and_bytes_agree(one: Any, other: Any) -> None:
    same = one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if same:
        assert digest(one) == digest(other)
    elif digest(one) == digest(other):
        # Bytes that are no content (padding of extended precision) are the only ones that may differ.
        np.testing.assert_array_equal(one, other)


@settings(max_examples=30)
@given(st.integers(0, 40), st.lists(st.booleans(), max_size=4))
def test_keys_are_made_call_by_call_however_many_there_are(n: int, mapped: list[bool]) -> None:
    columns = [
        digest_block(list(range(m, m + n))) if is_mapped else digest(m) for m, is_mapped in enumerate(mapped)
    ]
    keys = call_keys(bytes(16), columns, n)
    assert len(keys) == 16 * n
    for k in range(n):
        alone = [
            column[16 * k : 16 * k + 16] if is_mapped else column
            for column, is_mapped in zip(columns, mapped, strict=True)
        ]
        assert call_keys(bytes(16), alone, 1) == keys[16 * k : 16 * k + 16]
