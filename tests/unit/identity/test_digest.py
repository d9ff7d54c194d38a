"""What makes two of Python's own values the same, and what makes them differ."""

from __future__ import annotations

import datetime as dt
import enum
import fractions
import functools
import io
import itertools
import operator
import pathlib
import pickle
import random
import re
import threading
import types
import uuid
import zoneinfo
from array import array
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from gristmill.errors import DigestError
from gristmill.identity.digest import Digest, digest, digest_block, merkle


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Names(list[str]):
    pass


class Length(float):
    pass


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
NOON = dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN)

DIFFERENT: list[Any] = [
    None,
    False,
    True,
    0,
    1,
    -1,
    2**63 - 1,
    2**63,
    -(2**63),
    -(2**63) - 1,
    2**200,
    0.0,
    -0.0,
    1.0,
    float("inf"),
    float("nan"),
    0j,
    1j,
    complex(0, float("nan")),
    "",
    "1",
    "a",
    "ä",
    "\udc80",
    b"",
    b"a",
    bytes(1 << 16),
    bytes((1 << 16) + 1),
    bytearray(b"a"),
    memoryview(b"a"),
    memoryview(array("h", [1])),
    ...,
    NotImplemented,
    (),
    [],
    {},
    set(),
    frozenset(),
    (1,),
    [1],
    {1: 1},
    {1},
    frozenset({1}),
    (1, (2,)),
    ((1, 2),),
    (1, 2),
    [[1], []],
    [[], [1]],
    ["ab", "c"],
    ["a", "bc"],
    {"a": 1, "b": 2},
    {"b": 2, "a": 1},
    {"a": {"b": 2}},
    [1, True],
    [True, 1],
    [1.0, 1],
    [2**70, 1],
    list(range(100)),
    tuple(range(100)),
    [float(i) for i in range(100)],
    range(3),
    range(0, 3, 2),
    range(0, 4, 2),
    slice(1),
    slice(1, None, None),
    slice(None, 1, 2),
    dt.date(2020, 1, 1),
    dt.time(1),
    dt.time(1, fold=1),
    dt.datetime(2020, 1, 1),  # noqa: DTZ001 - without a zone is a value too
    NOON,
    NOON.replace(fold=1),
    dt.datetime(2020, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2020, 1, 1, tzinfo=dt.timezone(dt.timedelta(0), "Z")),
    dt.timedelta(1),
    dt.timedelta(seconds=1),
    dt.UTC,
    BERLIN,
    Decimal(1),
    Decimal("1.0"),
    Decimal("NaN"),
    Decimal("-0"),
    fractions.Fraction(1, 2),
    uuid.UUID(int=1),
    pathlib.PurePosixPath("a"),
    pathlib.PureWindowsPath("a"),
    pathlib.Path("a"),
    pathlib.Path("b"),
    re.compile("a"),
    re.compile("a", re.IGNORECASE),
    re.compile(b"a"),
    Colour.RED,
    Colour.GREEN,
    Access.READ,
    Access.WRITE,
    Access.READ | Access.WRITE,
    Names(["1"]),
    Names(),
    Length(1.0),
    OrderedDict(a=1),
    Counter("a"),
    defaultdict(int, a=1),
    defaultdict(list, a=1),
    deque([1]),
    deque([1], 2),
    types.SimpleNamespace(a=1),
    types.MappingProxyType({}),
    array("b", [1]),
    array("B", [1]),
    io.BytesIO(b"a"),
    io.StringIO("a"),
    len,
    max,
    [].append,
    [1].append,
    "a".join,
    "b".join,
    str.join,
    int,
    float,
    Names,
    functools.partial(max, 1),
    functools.partial(max, 2),
    functools.partial(min, 1),
    operator.itemgetter(1),
    operator.itemgetter(2),
    operator.attrgetter("a"),
    random.Random(1),
    random.Random(2),
    ValueError("a"),
    ValueError("b"),
    KeyError("a"),
    list[int],
    list[str],
    int | str,
    Digest(bytes(16)),
    digest,
    Names.append,
    np.int64(1),
    np.int32(1),
    np.uint64(1),
    np.float64(1),
    np.float32(1),
    np.bool_(True),
    np.array(1),
    np.str_("a"),
    np.bytes_(b"a"),
    np.complex128(1),
    np.longdouble(1),
    np.datetime64(1, "s"),
    np.datetime64(1, "ms"),
    np.timedelta64(1, "s"),
    np.void(b"a"),
    np.add,
    np.subtract,
]


def test_values_of_different_type_or_structure_have_different_digests() -> None:
    digests = [digest(value) for value in DIFFERENT]
    same = [
        (DIFFERENT[i], DIFFERENT[k])
        for i, k in itertools.combinations(range(len(digests)), 2)
        if digests[i] == digests[k]
    ]
    assert same == []


def test_a_block_is_the_digests_of_its_values_one_after_the_other() -> None:
    assert digest_block(DIFFERENT) == b"".join(map(digest, DIFFERENT))


PICKLABLE = [value for value in DIFFERENT if not isinstance(value, memoryview | types.MappingProxyType)]


@pytest.mark.parametrize("value", PICKLABLE, ids=lambda value: type(value).__name__)
def test_a_copy_through_pickle_has_the_same_digest(value: Any) -> None:
    try:
        copied = pickle.loads(pickle.dumps(value))
    except (TypeError, AttributeError):
        pytest.skip("does not pickle")
    assert digest(copied) == digest(value)


EQUAL: list[tuple[Any, Any]] = [
    ({3, 1, 2}, {2, 3, 1}),
    ({"a", "b", "c"}, {"c", "b", "a"}),
    (frozenset({(1, 2), (3,)}), frozenset({(3,), (1, 2)})),
    (float("nan"), -float("nan")),
    ([float("nan")] * 20, [-float("nan")] * 20),
    (np.float64("nan").item(), float("nan")),
    (memoryview(bytes(range(10)))[::2], memoryview(bytes([0, 2, 4, 6, 8]))),
    (dt.timedelta(hours=24), dt.timedelta(days=1)),
    (uuid.UUID(int=5), uuid.UUID(int=5)),
    (re.compile("a+"), re.compile("a+")),
    (types.SimpleNamespace(a=1, b=2), types.SimpleNamespace(b=2, a=1)),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_what_only_looks_different_is_the_same(one: Any, other: Any) -> None:
    assert digest(one) == digest(other)


def test_a_digest_reads_back_from_its_text() -> None:
    value = digest([1, "a"])
    assert str(value).startswith("x3:")
    assert len(str(value)) == 35
    assert repr(value) == f"Digest('{value}')"
    assert Digest.parse(str(value)) == value
    assert pickle.loads(pickle.dumps(value)) == value
    assert type(pickle.loads(pickle.dumps(value))) is Digest


@pytest.mark.parametrize("text", ["", "x3:", "x2:" + "0" * 32, "x3:" + "0" * 31, "x3:" + "g" * 32, "0" * 32])
def test_text_that_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|non-hexadecimal"):
        Digest.parse(text)


def test_a_shared_part_is_the_same_as_copies_of_it() -> None:
    part = [1, {"a": 2}]
    assert digest([part, part]) == digest([[1, {"a": 2}], [1, {"a": 2}]])


def test_values_that_contain_themselves_have_a_digest() -> None:
    def loop(n: int) -> list[Any]:
        outer: list[Any] = [n]
        outer.append({"self": outer})
        return outer

    assert digest(loop(1)) == digest(loop(1))
    assert digest(loop(1)) != digest(loop(2))
    mutual: tuple[Any, ...] = ([], 1)
    mutual[0].append(mutual)
    assert digest(mutual) != digest(([], 1))


def test_nesting_may_be_deeper_than_the_recursion_limit() -> None:
    def nest(levels: int) -> list[Any]:
        value: list[Any] = []
        for _ in range(levels):
            value = [value]
        return value

    assert digest(nest(5_000)) == digest(nest(5_000))
    assert digest(nest(5_000)) != digest(nest(5_001))
    assert digest_block([nest(5_000), 1]) == digest(nest(5_000)) + digest(1)


def test_the_attributes_of_a_subclass_of_a_builtin_count() -> None:
    one, other = Names(["a"]), Names(["a"])
    one.note = 1  # type: ignore[attr-defined]
    assert digest(one) != digest(other)
    other.note = 1  # type: ignore[attr-defined]
    assert digest(one) == digest(other)


def test_a_subclass_cannot_hide_its_content_behind_its_methods() -> None:
    class Shy(dict[str, int]):
        def items(self) -> Any:
            return []

        def __iter__(self) -> Any:
            return iter(())

    assert digest(Shy(a=1)) != digest(Shy(a=2))


def test_named_tuples_differ_by_their_fields() -> None:
    def point(*fields: str) -> Any:
        make: Any = namedtuple  # noqa: PYI024 - the untyped kind is what is tested
        return make("Point", fields)(1, 2)

    assert digest(point("x", "y")) == digest(point("x", "y"))
    assert digest(point("x", "y")) != digest(point("a", "b"))


def test_the_state_of_a_random_generator_is_its_identity() -> None:
    one, other = random.Random(7), random.Random(7)
    assert digest(one) == digest(other)
    one.random()
    assert digest(one) != digest(other)
    other.random()
    assert digest(one) == digest(other)


def test_a_digest_leaves_its_value_as_it_is() -> None:
    value = {"generator": random.Random(1), "stream": io.BytesIO(b"abc"), "names": Names(["a"])}
    before = pickle.dumps(value)
    digest(value)
    assert pickle.dumps(value) == before


def generator() -> Any:
    yield 1


async def coroutine() -> None:
    pass


REFUSED: list[tuple[str, Callable[[], Any]]] = [
    ("generator", generator),
    ("list_iterator", lambda: iter([1])),
    ("map", lambda: map(str, [1])),
    ("TextIOWrapper", lambda: open(__file__)),  # noqa: PTH123, SIM115 - an open file is what is refused
    ("lock", threading.Lock),
    ("Thread", threading.Thread),
    ("module", lambda: random),
    ("SystemRandom", random.SystemRandom),
    ("dict_keys", {}.keys),
]


@pytest.mark.parametrize(("name", "make"), REFUSED, ids=[name for name, _ in REFUSED])
def test_what_has_no_stable_content_is_refused_with_advice(name: str, make: Callable[[], Any]) -> None:
    value = make()
    with pytest.raises(
        DigestError, match=r"^value.* has no digest: .*__digest__.*register_digest.*File\(path\)"
    ):
        digest(value)
    if hasattr(value, "close"):
        value.close()


def test_a_coroutine_is_refused() -> None:
    waiting = coroutine()
    with pytest.raises(DigestError, match="coroutine"):
        digest(waiting)
    waiting.close()


class Holder:
    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)


def test_an_error_names_the_place_inside_the_value() -> None:
    value = Holder(cfg={"a": [1, 2, 3, generator()]})
    with pytest.raises(
        DigestError, match=r"^x\.cfg\['a'\]\[3\] has no digest: reading a generator would use it up"
    ):
        digest(value, name="x")
    with pytest.raises(DigestError, match=r"^y\[1\]\.args\[0\] has"):
        digest_block([1, functools.partial(max, generator())], name="y")
    with pytest.raises(DigestError, match=r"^value\.first\.second has"):
        digest(Holder(first=Holder(second=generator())))


def test_the_path_of_an_error_in_a_deep_value_stays_readable() -> None:
    value: Any = generator()
    for _ in range(3_000):
        value = [value]
    with pytest.raises(DigestError) as caught:
        digest(value)
    assert len(str(caught.value)) < 500


def test_a_root_stands_for_the_elements_of_a_mapped_output() -> None:
    block = digest_block([1, 2, 3, 4])
    root = merkle((4,), block)
    assert root == merkle((4,), block)
    assert root != merkle((2, 2), block)
    assert root != merkle((4,), block[::-1])
    assert digest(root) == root
    assert digest([root]) != digest([digest(1)])


def test_an_object_whose_digest_is_a_root_is_that_root() -> None:
    root = merkle((2,), digest_block([1, 2]))

    class Output:
        def __digest__(self) -> Digest:
            return root

    assert digest(Output()) == root
    assert digest_block([Output(), 1]) == root + digest(1)
    assert digest([Output()]) == digest([root])
