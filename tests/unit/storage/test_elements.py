"""Stored forms: which value is packed, chunked or an object, and that none is shared with who made it."""

from typing import Any

import numpy as np
import pytest
from tests.support.values import VALUES, same

from gristmill.errors import StoreError
from gristmill.storage.elements import PACK_LIMIT, is_chunkable, pickle_value, to_packed

PACKED = [
    "true",
    "int",
    "int beyond 64 bits",
    "float",
    "complex",
    "str",
    "carriage return",
    "bytes",
    "np.int64",
    "np.bool",
    "not a time",
    "np.str that ends in nul",
    "0-d array",
    "empty array",
    "big-endian array",
    "F-ordered array",
    "array of strings",
    "array of dates",
]
PICKLED = [
    "int of 100 kB",
    "str of 100 kB",
    "bytes of 100 kB",
    "list",
    "dict",
    "int enum",
    "subclass of str",
    "namedtuple",
    "dataclass",
    "record",
    "structured array",
    "object array",
    "masked array",
    "array of long doubles",
    "dates of 800 kB",
]


@pytest.mark.parametrize("name", PACKED)
def test_small_plain_values_are_packed_as_they_are(name: str) -> None:
    assert same(to_packed(VALUES[name]), VALUES[name])


@pytest.mark.parametrize("name", PICKLED)
def test_everything_else_is_not(name: str) -> None:
    assert to_packed(VALUES[name]) is None


@pytest.mark.parametrize("size", [PACK_LIMIT - 1, PACK_LIMIT, PACK_LIMIT + 1])
def test_the_limit_is_in_bytes(size: int) -> None:
    array = np.zeros(size, dtype="u1")
    assert (to_packed(array) is not None) == (size <= PACK_LIMIT)
    assert is_chunkable(array) == (size > PACK_LIMIT)


@pytest.mark.parametrize("dtype", ["f8", "u1", "?", "c8", "f2"])
def test_large_arrays_that_zarr_expresses_are_chunks(dtype: str) -> None:
    assert is_chunkable(np.zeros(PACK_LIMIT + 1, dtype=dtype))


@pytest.mark.parametrize("dtype", [">f8", "M8[s]", "S4", "U4", "O", "g", [("a", "f8")]])
def test_large_arrays_that_it_does_not_are_no_chunks(dtype: Any) -> None:
    assert not is_chunkable(np.zeros(PACK_LIMIT + 1, dtype=dtype))


def test_a_packed_array_is_a_copy() -> None:
    array = np.zeros(3)
    packed = to_packed(array)
    array[:] = 1
    assert same(packed, np.zeros(3))


def test_lambdas_and_local_classes_are_pickled_by_value() -> None:
    import pickle

    assert pickle.loads(pickle_value(lambda x: x + 1))(1) == 2


def test_what_cannot_be_pickled_names_its_type() -> None:
    import threading

    with pytest.raises(StoreError, match="a lock cannot be stored"):
        pickle_value(threading.Lock())
