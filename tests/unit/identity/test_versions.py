"""`version=` stands for code: for nothing else of what is called."""

import functools
import threading
from collections.abc import Callable

from gristmill import fingerprint, node


class Scaler:
    """A callable instance, and the owner of a method."""

    def __init__(self, factor: object) -> None:
        self.factor = factor

    def __call__(self, x: object) -> object:
        return x

    def method(self, x: object) -> object:
        return x


def test_a_version_does_not_make_different_things_the_same() -> None:
    def scale(x: int, k: int) -> int:
        return x * k

    def shift(x: int, k: int) -> int:
        return x + k

    things: list[Callable[..., object]] = [
        *(functools.partial(scale, k=1), functools.partial(scale, k=2), functools.partial(shift, k=1)),
        *(Scaler(1), Scaler(2), Scaler(1).method, Scaler(2).method),
    ]
    found = [fingerprint(thing, version="1") for thing in things]
    assert len(set(found)) == len(things)
    again = functools.partial(scale, k=1), Scaler(1), Scaler(1).method
    assert [fingerprint(thing, version="1") for thing in again] == [found[0], found[3], found[5]]


def test_a_version_stands_for_what_has_no_identity() -> None:
    locked = Scaler(threading.Lock())
    assert fingerprint(locked, version="1") == fingerprint(Scaler(threading.Lock()), version="1")
    assert fingerprint(locked, version="1") != fingerprint(locked, version="2")


def test_lambdas_with_a_version_go_by_their_outputs() -> None:
    one = node(lambda x: x, output_name="one", version="1")
    two = node(lambda x: x, output_name="two", version="1")
    same = node(lambda x: x + 1, output_name="one", version="1")
    assert (one.fingerprint == same.fingerprint, one.fingerprint == two.fingerprint) == (True, False)
