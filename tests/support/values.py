"""Values of many types, and what it means that one came back as it was."""

import datetime as dt
import decimal
import enum
import fractions
import struct
import uuid
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import PurePosixPath
from types import UnionType
from typing import Any

import numpy as np


class Colour(enum.Enum):
    """An enum of the user's."""

    RED = 1


class Level(enum.IntEnum):
    """An int that is more than an int."""

    LOW = 1


class Name(str):
    """A subclass of a builtin."""

    __slots__ = ()


Pair = namedtuple("Pair", ["left", "right"])  # noqa: PYI024 - the untyped kind is what many people have


@dataclass
class Point:
    """A mutable dataclass."""

    x: float
    tags: list[str]


@dataclass(frozen=True)
class Frozen:
    """A frozen dataclass that holds an array."""

    data: Any


NUMPY_RECORD = np.dtype([("a", "<i4"), ("b", "<f8", (2,))])

VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "int": 7,
    "negative int": -(2**63),
    "int beyond 64 bits": 2**64 + 1,
    "negative beyond 64 bits": -(2**200),
    "int of 100 kB": 3**500_000,
    "float": 0.1,
    "negative zero": -0.0,
    "nan": float("nan"),
    "infinity": float("-inf"),
    "complex": complex(-0.0, 2.5),
    "str": "grist",
    "empty str": "",
    "non-ascii str": "Mühle ☃ \U0001f33e",
    "lone surrogate": "\udcff",
    "carriage return": "a\r\nb\rc\0",
    "str of 100 kB": "x" * 100_000,
    "str of 40 000 wide characters": "☃" * 40_000,
    "bytes": b"\0\xff",
    "empty bytes": b"",
    "bytes of 100 kB": b"\xfe" * 100_000,
    "bytearray": bytearray(b"ab"),
    "tuple": (1, "a", None),
    "empty tuple": (),
    "list": [1, [2.0, [True]]],
    "dict": {"b": 1, "a": (2, {"c": [None]})},
    "ordered dict": OrderedDict(b=1, a=2),
    "set": {1, 2, 3},
    "frozenset": frozenset({"a", "b"}),
    "range": range(0, 10, 3),
    "slice": slice(1, None, 2),
    "ellipsis": ...,
    "class": Point,
    "builtin": len,
    "enum": Colour.RED,
    "int enum": Level.LOW,
    "subclass of str": Name("n"),
    "namedtuple": Pair(1, [2]),
    "dataclass": Point(1.5, ["a"]),
    "frozen dataclass with an array": Frozen(np.arange(3)),
    "date": dt.date(2024, 2, 29),
    "aware datetime": dt.datetime(2024, 1, 1, tzinfo=dt.UTC),
    "decimal": decimal.Decimal("1.10"),
    "fraction": fractions.Fraction(1, 3),
    "uuid": uuid.UUID(int=5),
    "path": PurePosixPath("a/b"),
    "exception": ValueError("as a value"),
    "np.int64": np.int64(7),
    "np.int8": np.int8(-7),
    "np.float32": np.float32(0.1),
    "np.float64": np.float64(0.1),
    "np.bool": np.True_,
    "np.complex64": np.complex64(1 + 2j),
    "np.longdouble": np.longdouble(1) / 3,
    "np.str": np.str_("abc"),
    "empty np.str": np.str_(""),
    "np.str that ends in nul": np.str_("a\0"),
    "np.bytes": np.bytes_(b"abc"),
    "np.bytes that ends in nul": np.bytes_(b"a\0"),
    "np.datetime64": np.datetime64("2024-01-01T12:00", "ns"),
    "np.datetime64 of a day": np.datetime64("2024-01-01"),
    "not a time": np.datetime64("NaT", "s"),
    "np.timedelta64": np.timedelta64(3, "ms"),
    "np.void": np.void(b"abc"),
    "record": np.zeros(1, NUMPY_RECORD)[0],
    "0-d array": np.array(7),
    "0-d array of floats": np.array(7.5, dtype="f4"),
    "empty array": np.zeros((0, 3)),
    "array": np.arange(6, dtype="u2").reshape(2, 3),
    "big-endian array": np.arange(3, dtype=">i4"),
    "F-ordered array": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided array": np.arange(20)[::3],
    "array of bools": np.array([True, False]),
    "array of strings": np.array(["a", "bcd", ""]),
    "array of empty strings": np.array(["", ""]),
    "array of bytes": np.array([b"a\0", b"b"]),
    "array of dates": np.array(["2024-01-01", "NaT"], dtype="M8[D]"),
    "array of durations": np.array([1, 2], dtype="m8[us]"),
    "array of long doubles": np.ones(3, dtype=np.longdouble) / 3,
    "structured array": np.zeros(3, NUMPY_RECORD),
    "object array": np.array([{"a": 1}, None, "x"], dtype=object),
    "masked array": np.ma.MaskedArray([1, 2, 3], mask=[False, True, False]),
    "array of 800 kB": np.arange(100_000.0),
    "F-ordered array of 800 kB": np.asfortranarray(np.arange(100_000.0).reshape(100, 1000)),
    "big-endian array of 800 kB": np.arange(100_000, dtype=">f8"),
    "dates of 800 kB": np.arange(100_000).astype("M8[s]"),
    "structured array of 800 kB": np.zeros(40_000, NUMPY_RECORD),
    "bools of 100 kB": np.arange(100_000) % 3 == 0,
    "halves of 200 kB": np.arange(100_000, dtype="f2"),
    "complex array of 1.6 MB": np.arange(100_000) * 1j,
    "list of a large array": [np.arange(100_000.0)],
    "dict of arrays": {"a": np.arange(3), "b": [np.ones(2)]},
}


def same(one: Any, other: Any) -> bool:
    """Whether two values agree in type, structure and every bit: `1` is not `True`, `0.0` is not `-0.0`."""
    if type(one) is not type(other):
        return False
    for kind, compare in _COMPARISONS:
        if isinstance(one, kind):
            return compare(one, other)
    if is_dataclass(one) and not isinstance(one, type):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return bool(one == other)


def _same_arrays(one: Any, other: Any) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.hasobject:
        return _same_items(one.ravel().tolist(), other.ravel().tolist())
    if one.dtype.char in "gG":  # six of their sixteen bytes are padding, which holds anything
        return bool(np.array_equal(one, other, equal_nan=True))
    return bool(one.tobytes() == other.tobytes())


def _same_items(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(map(same, one, other))


_COMPARISONS: tuple[tuple[type | UnionType, Callable[[Any, Any], bool]], ...] = (
    (
        np.ma.MaskedArray,
        lambda a, b: same(np.ma.getmaskarray(a), np.ma.getmaskarray(b)) and same(a.filled(), b.filled()),
    ),
    (np.ndarray, _same_arrays),
    (
        np.generic,
        lambda a, b: a.dtype == b.dtype and _same_arrays(np.array(a), np.array(b)),
    ),
    (float, lambda a, b: struct.pack("<d", a) == struct.pack("<d", b)),
    (complex, lambda a, b: same(a.real, b.real) and same(a.imag, b.imag)),
    (list | tuple, _same_items),
    (dict, lambda a, b: _same_items(list(a.items()), list(b.items()))),
    (BaseException, lambda a, b: _same_items(a.args, b.args)),
)
