"""The key index finds what a dictionary would find: any order, duplicates, tombstones, other processes' segments."""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.storage.index import MISSING, KeyIndex
from gristmill.storage.ledger import Ledger
from gristmill.storage.segment import Provenance, Tombstone, encode_segment, encode_tombstone
from gristmill.storage.spool import Spool

GROUP = b"g" * 16


class MemoryLedger(Ledger):
    """Bodies in a list."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))
        self.bodies: list[bytes | None] = []

    def scan(self, group: bytes, after: int):  # type: ignore[no-untyped-def]  # noqa: ANN201 - as its parent's
        yield from [(n, body) for n, body in enumerate(self.bodies, start=1) if n > after]


def key(number: int) -> bytes:
    """Keys whose first halves collide in pairs, and whose order is not that of the numbers."""
    return (number * 0x9E3779B97F4A7C15 % 2**62 // (1 + number % 2)).to_bytes(8, "little") + number.to_bytes(
        8, "little"
    )


def digest(number: int, version: int) -> bytes:
    return number.to_bytes(8, "little") + version.to_bytes(8, "little")


class World:
    """A ledger, two indexes over it, one of them with little memory, and a dictionary that knows better."""

    def __init__(self) -> None:
        self.ledger = MemoryLedger()
        self.own = KeyIndex(self.ledger, GROUP)
        self.other = KeyIndex(self.ledger, GROUP, Spool(lambda: Path(tempfile.gettempdir())), most=10)
        self.segments: dict[int, list[int]] = {}
        self.dead: set[tuple[int, int]] = set()

    def append(self, numbers: Sequence[int], *, local: bool) -> None:
        version = len(self.ledger.bodies) + 1
        keys = b"".join(map(key, numbers))
        digests = b"".join(digest(n, version) for n in numbers)
        entry, segment = encode_segment(GROUP, keys, [digests], [list(numbers)], Provenance("f"))
        self.ledger.bodies.append(entry.index)
        self.segments[version] = list(numbers)
        if local:
            self.own.add(type(segment)(version, *[getattr(segment, f) for f in segment.__slots__[1:]]))

    def bury(self, number: int, positions: tuple[int, ...] | None, *, local: bool) -> None:
        dead = {number: positions}
        self.ledger.bodies.append(encode_tombstone(GROUP, dead).index)
        every = range(len(self.segments.get(number, [])))
        self.dead |= {(number, position) for position in (every if positions is None else positions)}
        if local:
            self.own.bury(Tombstone(len(self.ledger.bodies), dead))

    def damage(self) -> None:
        self.ledger.bodies.append(None)

    def living(self, number: int) -> set[bytes | None]:
        """All rows of a call that may be found; None where there is none."""
        rows: set[bytes | None] = {
            digest(number, version)
            for version, numbers in self.segments.items()
            for position, candidate in enumerate(numbers)
            if candidate == number and (version, position) not in self.dead
        }
        return rows or {None}

    def check(self, numbers: Sequence[int]) -> None:
        possible = [self.living(number) for number in numbers]
        for index in (self.own, self.other):
            index.refresh()
            locators = index.find(b"".join(map(key, numbers)))
            there = np.flatnonzero(locators != MISSING)
            found: list[bytes | None] = [None] * len(numbers)
            for place, item in zip(there, index.digests(locators[there], 0), strict=True):
                found[place] = item.tobytes()
            assert all(row in rows for row, rows in zip(found, possible, strict=True))
            again = index.locators(index.portable(locators))
            assert np.array_equal(again, locators)


NUMBERS = st.integers(0, 60)
DEAD = st.one_of(st.none(), st.sets(st.integers(0, 11), max_size=4))
STEPS = st.one_of(
    st.tuples(st.just("append"), st.lists(NUMBERS, max_size=12, unique=True), st.booleans()),
    st.tuples(st.just("bury"), st.integers(1, 12), DEAD, st.booleans()),
    st.tuples(st.just("damage")),
    st.tuples(st.just("find"), st.lists(NUMBERS, max_size=20)),
    st.tuples(st.just("find in order")),
)


@given(st.lists(STEPS, max_size=14))
def test_it_finds_what_a_dictionary_finds(steps: list[tuple[object, ...]]) -> None:
    world = World()
    for step in steps:
        match step:
            case ("append", list(numbers), bool(local)) if numbers:
                world.own.refresh()
                world.append(numbers, local=local)
            case ("bury", int(number), None | set() as positions, bool(local)) if number in world.segments:
                size = len(world.segments[number])
                world.own.refresh()
                chosen = None if positions is None else tuple(sorted(p for p in positions if p < size))
                world.bury(number, chosen, local=local)
            case ("damage",):
                world.damage()
            case ("find", list(numbers)):
                world.check(numbers)
            case ("find in order",):
                world.check([number for numbers in world.segments.values() for number in numbers])
    world.check(range(62))


@pytest.mark.parametrize(
    "order", ["as appended", "reversed", "shuffled", "with gaps", "with strangers", "twice"]
)
def test_large_look_ups_in_any_order(order: str) -> None:
    world = World()
    for start in range(0, 3000, 100):
        world.append(range(start, start + 100), local=False)
    numbers = list(range(3000))
    chance = random.Random(0)
    if order == "reversed":
        numbers.reverse()
    elif order == "shuffled":
        chance.shuffle(numbers)
    elif order == "with gaps":
        numbers = [number for number in numbers if number % 7]
    elif order == "with strangers":
        numbers = sorted([*numbers, *range(3000, 4000)], key=lambda number: number % 1000)
    elif order == "twice":
        numbers *= 2
    world.own.refresh()
    locators = world.own.find(b"".join(map(key, numbers)))
    assert (locators != MISSING).tolist() == [number < 3000 for number in numbers]
    there = locators[locators != MISSING]
    found = [int.from_bytes(item.tobytes()[:8], "little") for item in world.own.digests(there, 0)]
    assert found == [number for number in numbers if number < 3000]


def test_the_first_of_two_rows_for_one_key_wins() -> None:
    world = World()
    world.append([1, 2], local=False)
    world.append([2, 1], local=False)
    world.check([1, 2])
    world.bury(1, (0,), local=False)
    world.check([1, 2])


def test_everything_may_be_taken_back() -> None:
    world = World()
    world.append([1, 2], local=True)
    world.bury(1, None, local=True)
    world.check([1, 2, 3])
    world.append([2], local=True)
    world.check([1, 2, 3])


def test_a_damaged_segment_is_reported_and_missed() -> None:
    world = World()
    world.append([1], local=False)
    world.damage()
    world.append([2], local=False)
    world.check([1, 2])
    assert world.own.damaged == [2]


def test_nothing_is_found_in_nothing() -> None:
    world = World()
    assert world.own.find(b"").tolist() == []
    assert world.own.find(key(1)).tolist() == [MISSING]
