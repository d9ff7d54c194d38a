"""What makes two objects of a user's classes the same."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import attrs
import pydantic
import pytest

from gristmill.errors import DigestError
from gristmill.identity.digest import digest, digest_block, register_digest


@dataclasses.dataclass
class Point:
    x: int
    y: Any = 0
    _hidden: int = dataclasses.field(default=0, compare=False, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    x: int


@attrs.define
class Sample:
    x: int
    _weight: float = 1.0


class Model(pydantic.BaseModel):
    x: int
    tags: list[str] = []


class Pair(NamedTuple):
    a: int
    b: int


class Plain:
    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: int) -> None:
        self.a = a


class WithState:
    def __init__(self, kept: int, dropped: object) -> None:
        self.kept, self.dropped = kept, dropped

    def __getstate__(self) -> dict[str, int]:
        return {"kept": self.kept}


class Reduced:
    def __init__(self, n: int) -> None:
        self.n = n
        self.lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return Reduced, (self.n,)


SAME_KIND: list[tuple[Any, Any, Any]] = [
    (Point(1, 2), Point(1, 2), Point(1, 3)),
    (Point(1, [2]), Point(1, [2]), Point(1, (2,))),
    (Point(1, _hidden=1), Point(1, _hidden=1), Point(1)),
    (Frozen(1), Frozen(1), Frozen(2)),
    (Sample(1), Sample(1), Sample(1, 2.0)),
    (Model(x=1, tags=["a"]), Model(x=1, tags=["a"]), Model(x=1, tags=["b"])),
    (Pair(1, 2), Pair(1, 2), Pair(2, 1)),
    (Plain(a=1, b=2), Plain(b=2, a=1), Plain(a=1)),
    (Slotted(1), Slotted(1), Slotted(2)),
    (WithState(1, threading.Lock()), WithState(1, None), WithState(2, None)),
    (Reduced(1), Reduced(1), Reduced(2)),
]


@pytest.mark.parametrize(
    ("one", "equal", "other"), SAME_KIND, ids=[type(row[0]).__name__ for row in SAME_KIND]
)
def test_class_and_fields_make_an_object(one: Any, equal: Any, other: Any) -> None:
    assert digest(one) == digest(equal)
    assert digest(one) != digest(other)
    assert digest_block([one, equal, other]) == digest(one) + digest(equal) + digest(other)


def test_objects_of_different_classes_differ() -> None:
    values = [Point(1), Frozen(1), Sample(1), Plain(x=1), {"x": 1}, (1,), Pair(1, 0), (1, 0)]
    assert len({digest(value) for value in values}) == len(values)


def test_the_code_of_a_users_class_counts() -> None:
    def variant(factor: int) -> Any:
        class Scaled:
            def value(self) -> int:
                return 10 * factor if factor > 1 else 10

        return Scaled()

    def other() -> Any:
        class Scaled:
            def value(self) -> int:
                return 20

        Scaled.__qualname__ = type(variant(1)).__qualname__
        return Scaled()

    assert digest(variant(1)) == digest(variant(1))
    assert digest(variant(1)) != digest(variant(2))
    assert digest(variant(1)) != digest(other())


def test_functions_are_their_code_and_what_they_are_bound_to() -> None:
    def scale(factor: int) -> Any:
        return lambda x: x * factor

    assert digest(scale(2)) == digest(scale(2))
    assert digest(scale(2)) != digest(scale(3))
    assert digest(functools.partial(scale, 1)) != digest(functools.partial(scale, factor=1))
    assert digest(Point(1).__eq__) == digest(Point(1).__eq__)
    assert digest(Point(1).__eq__) != digest(Point(2).__eq__)
    assert digest(Point) != digest(Frozen)


def test_objects_that_refer_to_each_other_have_a_digest() -> None:
    def family(age: int) -> Plain:
        parent, child = Plain(age=age), Plain()
        parent.child, child.parent = child, parent  # type: ignore[attr-defined]
        return parent

    assert digest(family(1)) == digest(family(1))
    assert digest(family(1)) != digest(family(2))


def test_an_object_may_say_what_identifies_it() -> None:
    class Connection:
        def __init__(self, url: str) -> None:
            self.url, self.lock = url, threading.Lock()

        def __digest__(self) -> object:
            return self.url

    assert digest(Connection("a")) == digest(Connection("a"))
    assert digest(Connection("a")) != digest(Connection("b"))
    assert digest(Connection("a")) != digest("a")


def test_a_cache_key_is_honoured() -> None:
    class Keyed:
        def __init__(self, key: int) -> None:
            self.key, self.lock = key, threading.Lock()

        def __cache_key__(self) -> object:
            return self.key

    assert digest(Keyed(1)) == digest(Keyed(1))
    assert digest(Keyed(1)) != digest(Keyed(2))


def test_what_identifies_an_object_cannot_be_itself() -> None:
    class Selfish:
        def __digest__(self) -> object:
            return self

    with pytest.raises(DigestError, match="itself"):
        digest(Selfish())


def test_an_error_inside_what_identifies_an_object_says_so() -> None:
    class Wrong:
        def __digest__(self) -> object:
            return {"a": (x for x in [1])}

    with pytest.raises(DigestError, match=r"^value\.__digest__\(\)\['a'\] has no digest"):
        digest(Wrong())


def test_a_users_exception_in_its_digest_method_passes_through() -> None:
    class Broken:
        def __digest__(self) -> object:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        digest(Broken())


def test_a_type_may_be_registered_with_its_subclasses() -> None:
    class Handle:
        def __init__(self, number: int) -> None:
            self.number, self.lock = number, threading.Lock()

    class Special(Handle):
        pass

    with pytest.raises(DigestError):
        digest(Handle(1))

    @register_digest(Handle)
    def _(handle: Handle) -> object:
        return handle.number

    assert digest(Handle(1)) == digest(Handle(1))
    assert digest(Handle(1)) != digest(Handle(2))
    assert digest(Handle(1)) != digest(Special(1))
    assert digest(Special(1)) == digest(Special(1))


@pytest.mark.parametrize("kind", [int, str, list, dict])
def test_what_has_a_digest_already_cannot_be_registered(kind: type) -> None:
    with pytest.raises(ValueError, match="a digest of its own"):
        register_digest(kind)


def test_a_users_iterator_is_refused_unless_it_says_what_identifies_it() -> None:
    class Countdown(Iterator[int]):
        def __init__(self, n: int) -> None:
            self.n = n

        def __next__(self) -> int:
            raise StopIteration

    class Named(Countdown):
        def __digest__(self) -> object:
            return self.n

    with pytest.raises(DigestError, match="use it up"):
        digest(Countdown(1))
    assert digest(Named(1)) != digest(Named(2))


def test_an_object_that_only_claims_to_be_a_global_is_refused() -> None:
    class Impostor:
        def __reduce__(self) -> str:
            return "test_an_object_that_only_claims_to_be_a_global_is_refused"

    with pytest.raises(DigestError, match="something else"):
        digest(Impostor())
