"""Digests pinned for ever, and the same in every process.

A change here is a change of scheme: all stores that exist become misses. Run as a script, this prints them.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import io
import json
import operator
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gristmill.identity.digest import digest, digest_array, digest_block, digest_rows, merkle
from gristmill.identity.files import Dir, File
from gristmill.identity.keys import call_keys, call_prefix
from gristmill.identity.primitives import text

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "digests.json"


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int
    y: object = None


class Names(list[str]):
    pass


class Slotted:
    __slots__ = ("a", "b")


class Named:
    def __digest__(self) -> object:
        return ("name", 1)


def slotted() -> Slotted:
    value = Slotted()
    value.a = 1  # type: ignore[attr-defined]
    return value


def loop() -> list[Any]:
    value: list[Any] = [1]
    value.append({"again": value})
    return value


def filled(dtype: Any) -> Any:
    value = np.zeros(2, dtype)
    for n, name in enumerate(value.dtype.names):
        value[name] = n + 1
    return value


def file(content: bytes) -> File:
    path = pathlib.Path(tempfile.mkdtemp()) / "data.bin"
    path.write_bytes(content)
    return File(path)


def folder() -> Dir:
    root = pathlib.Path(tempfile.mkdtemp()) / "data"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a").write_text("1")
    (root / "link").symlink_to("nowhere")
    (root / "loop").symlink_to(".")
    return Dir(root)


def masked() -> Any:
    return np.ma.array([1, 2, 3], mask=[False, True, False])


def numeric_frame(module: str) -> Any:
    library = __import__(module)
    if module == "pandas":
        # Labels that are text are of another dtype since pandas 3.
        return library.DataFrame({0: [1, 2], 1: [0.5, float("nan")]}, columns=library.RangeIndex(2))
    return library.DataFrame({"a": [1, 2], "b": [0.5, float("nan")]})


def arrow(values: list[Any]) -> Any:
    return __import__("pyarrow").array(values)


def polars(values: list[Any]) -> Any:
    return __import__("polars").Series("s", values)


def timestamp() -> Any:
    return __import__("pandas").Timestamp("2020-01-01T00:00:00.5", tz="UTC").as_unit("ns")


def data_array() -> Any:
    return __import__("xarray").DataArray([[1.0, 2.0]], dims=("x", "y"), name="q", attrs={"unit": "m"})


STAMP = dt.datetime(2024, 10, 27, 2, 30, 1, 5, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1)

VALUES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "False": lambda: False,
    "True": lambda: True,
    "Ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "int 0": lambda: 0,
    "int -1": lambda: -1,
    "int max": lambda: 2**63 - 1,
    "int big": lambda: 2**63,
    "int -big": lambda: -(2**100),
    "float 0": lambda: 0.0,
    "float -0": lambda: -0.0,
    "float 1.5": lambda: 1.5,
    "float nan": lambda: float("nan"),
    "float -inf": lambda: -float("inf"),
    "complex": lambda: complex(1, float("nan")),
    "str": lambda: "gristmill",
    "str empty": lambda: "",
    "str umlaut": lambda: "Mühle",
    "str surrogate": lambda: "\udc80",
    "bytes": lambda: b"gristmill",
    "bytes long": lambda: bytes(1 << 16),
    "bytearray": lambda: bytearray(b"a"),
    "memoryview": lambda: memoryview(array.array("i", [1, 2])),
    "range": lambda: range(1, 9, 2),
    "slice": lambda: slice(1, None, 2),
    "tuple": lambda: (1, "a", None),
    "tuple empty": tuple,
    "list": lambda: [1, [2]],
    "list of ints": lambda: list(range(100)),
    "list of floats": lambda: [i / 2 for i in range(100)],
    "dict": lambda: {"b": 1, "a": {"c": (2,)}, 3: None},
    "set": lambda: {1, "a", (2,)},
    "frozenset": lambda: frozenset({1, "a"}),
    "loop": loop,
    "date": lambda: dt.date(2020, 2, 29),
    "time": lambda: dt.time(1, 2, 3, 4, fold=1),
    "datetime": lambda: STAMP,
    "timedelta": lambda: dt.timedelta(-1, 5),
    "timezone": lambda: dt.timezone(dt.timedelta(hours=2)),
    "utc": lambda: dt.UTC,
    "Decimal": lambda: decimal.Decimal("-1.20"),
    "Decimal nan": lambda: decimal.Decimal("NaN"),
    "Fraction": lambda: fractions.Fraction(1, 3),
    "UUID": lambda: uuid.UUID(int=7),
    "PurePosixPath": lambda: pathlib.PurePosixPath("a/b"),
    "PureWindowsPath": lambda: pathlib.PureWindowsPath("a\\b"),
    "Pattern": lambda: re.compile("a+", re.IGNORECASE),
    "Enum": lambda: Colour.RED,
    "deque": lambda: collections.deque([1], 3),
    "OrderedDict": lambda: collections.OrderedDict(a=1),
    "Counter": lambda: collections.Counter("aab"),
    "defaultdict": lambda: collections.defaultdict(list, a=[1]),
    "SimpleNamespace": lambda: types.SimpleNamespace(b=1, a=2),
    "MappingProxyType": lambda: types.MappingProxyType({"a": 1}),
    "array": lambda: array.array("d", [1.0]),
    "BytesIO": lambda: io.BytesIO(b"a"),
    "StringIO": lambda: io.StringIO("a"),
    "Random": lambda: random.Random(1),
    "partial": lambda: functools.partial(max, 1, key=len),
    "len": lambda: len,
    "int class": lambda: int,
    "itemgetter": lambda: operator.itemgetter(1, "a"),
    "bound method": lambda: "a".join,
    "exception": lambda: ValueError("a", 1),
    "list[int]": lambda: list[int],
    "dataclass": lambda: Point(1, [2]),
    "list subclass": lambda: Names(["a"]),
    "slots": slotted,
    "__digest__": Named,
    "root": lambda: merkle((2, 1), digest_block([1, 2])),
    "root in list": lambda: [merkle((2, 1), digest_block([1, 2]))],
    "Digest": lambda: digest(1),
    "np.int64": lambda: np.int64(1),
    "np.float32": lambda: np.float32(1.5),
    "np.bool": lambda: np.bool_(True),
    "np.complex128": lambda: np.complex128(1j),
    "np.str": lambda: np.str_("a"),
    "np.bytes": lambda: np.bytes_(b"a"),
    "np.datetime64": lambda: np.datetime64("2020-01-01", "ms"),
    "np.timedelta64": lambda: np.timedelta64(1, "s"),
    "np.void": lambda: np.void(b"ab"),
    "structured scalar": lambda: filled([("a", "<i4"), ("b", "<f8")])[0],
    "array f8": lambda: np.arange(6.0).reshape(2, 3),
    "array f8 Fortran": lambda: np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "array >i4": lambda: np.arange(3, dtype=">i4"),
    "array 0-d": lambda: np.array(1),
    "array empty": lambda: np.zeros((0, 3)),
    "array U": lambda: np.array(["a", "bc"]),
    "array S": lambda: np.array([b"a", b"bc"]),
    "array bool": lambda: np.array([True]),
    "array M8": lambda: np.array(["2020-01-01"], "M8[ns]"),
    "array V": lambda: np.zeros(2, "V3"),
    "array structured": lambda: filled([("a", "<i4"), ("b", "<f8")]),
    "array subarray": lambda: filled([("a", "<i4", (2,))]),
    "array padded": lambda: filled(
        {"names": ["a", "b"], "formats": ["<i4", "<f8"], "offsets": [0, 8], "itemsize": 16}
    ),
    "array nested": lambda: np.zeros(2, [("a", [("b", "<i4"), ("c", "O")])]),
    "array object": lambda: np.array([1, "a", None], object),
    "array masked": masked,
    "np.ma.masked": lambda: np.ma.masked,
    "dtype": lambda: np.dtype("<i4"),
    "dtype structured": lambda: np.dtype([("a", "<i4"), ("b", ">f8", (2,))]),
    "Generator": lambda: np.random.default_rng(1),
    "MT19937": lambda: np.random.MT19937(1),
    "SeedSequence": lambda: np.random.SeedSequence(5),
    "RandomState": lambda: np.random.RandomState(1),
    "ufunc": lambda: np.add,
    "File": lambda: file(b"abc"),
    "Dir": folder,
    "pandas frame": lambda: numeric_frame("pandas"),
    "pandas timestamp": timestamp,
    "polars frame": lambda: numeric_frame("polars"),
    "polars strings": lambda: polars(["a", None, "bc"]),
    "polars lists": lambda: polars([[1], None, []]),
    "arrow ints": lambda: arrow([1, None, 3]),
    "arrow strings": lambda: arrow(["a", None, "bc"]),
    "arrow structs": lambda: arrow([{"a": [1]}, None]),
    "xarray": data_array,
}

BLOCKS: dict[str, Callable[[], bytes]] = {
    "rows i8": lambda: digest_rows(np.arange(3)),
    "rows 2-d": lambda: digest_rows(np.arange(6.0).reshape(3, 2)),
    "checksum": lambda: digest_array(np.arange(6.0))[1],
    "prefix": lambda: call_prefix(bytes(16), b"1", [("y", "list"), ("x", "ndarray")]),
    "keys": lambda: call_keys(bytes(16), [digest_block([1, 2]), digest(None)], 2),
}


def by_name(thing: Any) -> bytes:
    """Identify code by name alone: what code is, is pinned elsewhere, and follows the Python version."""
    return text(thing.__qualname__)


def current() -> dict[str, str]:
    found = {name: str(digest(make(), code=by_name)) for name, make in VALUES.items()}
    return found | {name: make().hex() for name, make in BLOCKS.items()}


@pytest.fixture(scope="module")
def pinned() -> dict[str, str]:
    found: dict[str, str] = json.loads(GOLDEN.read_text())
    return found


@pytest.mark.parametrize("name", VALUES)
def test_the_digest_of_each_kind_of_value_is_pinned(name: str, pinned: dict[str, str]) -> None:
    try:
        value = VALUES[name]()
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    assert str(digest(value, code=by_name)) == pinned[name]


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_checksums_and_keys_are_pinned(name: str, pinned: dict[str, str]) -> None:
    assert BLOCKS[name]().hex() == pinned[name]


def test_nothing_that_is_pinned_is_forgotten(pinned: dict[str, str]) -> None:
    assert pinned.keys() == VALUES.keys() | BLOCKS.keys()


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_digests_are_the_same_in_every_process(seed: str, pinned: dict[str, str]) -> None:
    for module in ("pandas", "polars", "pyarrow", "xarray"):
        pytest.importorskip(module)
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(
        [sys.executable, __file__], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == pinned


if __name__ == "__main__":
    sys.stdout.write(json.dumps(current(), indent=1) + "\n")
