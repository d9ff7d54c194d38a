"""Levels find what a dictionary finds, in memory and in files, whatever is merged when."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import StoreError
from gristmill.storage.levels import MISSING, Level, Levels
from gristmill.storage.spool import Spool

EDGES = st.sampled_from([0, 1, 2**63, 2**64 - 2, 2**64 - 1])
HALVES = EDGES | st.integers(0, 2**64 - 1)


def level(rows: dict[tuple[int, int], int]) -> Level:
    keys = np.array(list(rows), dtype=np.uint64).reshape(-1, 2)
    return Level.of(keys[:, 0], keys[:, 1], np.array(list(rows.values()), dtype=np.int64))


def looked_up(levels: Levels, keys: list[tuple[int, int]]) -> list[int]:
    found: list[int] = levels.find(np.array(keys, dtype=np.uint64).reshape(-1, 2)).tolist()
    return found


@given(st.lists(st.dictionaries(HALVES, st.integers(0, 2**40), min_size=1, max_size=400), max_size=12))
def test_what_is_in_files_is_found(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[dict[int, int]]
) -> None:
    directory = tmp_path_factory.mktemp("spool", numbered=True)
    levels = Levels(Spool(lambda: directory), most=300)
    known: dict[tuple[int, int], int] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gristmill.storage.levels._RANGE_CALLS", 100)
        patch.setattr("gristmill.storage.levels._QUERIES", 50)
        for rows in rounds:
            new = {(half, half ^ 1): at for half, at in rows.items()}
            levels.add(level(new))
            known = new | known  # the oldest wins
            strangers = [(half, half) for half, _ in list(new)[:5]]
            assert looked_up(levels, [*known, *strangers]) == [*known.values()] + [MISSING] * len(strangers)


def test_many_calls_leave_memory(tmp_path: Path) -> None:
    levels = Levels(Spool(lambda: tmp_path), most=1000)
    chance = np.random.default_rng(0)
    keys = chance.integers(0, 2**64, (20_000, 2), dtype=np.uint64)
    for start in range(0, len(keys), 900):
        part = keys[start : start + 900]
        levels.add(Level.of(part[:, 0], part[:, 1], np.arange(start, start + len(part))))
    order = chance.permutation(len(keys))
    assert np.array_equal(levels.find(keys[order]), order)
    assert (levels.find(keys ^ np.uint64(1)) == MISSING).all()
    assert levels.in_memory <= 1000
    assert not list(tmp_path.iterdir())


def test_a_disk_that_takes_nothing_leaves_everything_in_memory(tmp_path: Path) -> None:
    def refuse() -> Path:
        raise StoreError("no room")

    levels = Levels(Spool(refuse), most=10)
    rows = {(k, k + 1): k for k in range(100)}
    levels.add(level(rows))
    assert looked_up(levels, list(rows)) == list(range(100))
    assert levels.in_memory == 100


def test_nothing_is_found_after_clearing(tmp_path: Path) -> None:
    levels = Levels(Spool(lambda: tmp_path), most=1)
    levels.add(level({(1, 2): 3, (2, 2): 4}))
    levels.clear()
    assert looked_up(levels, [(1, 2)]) == [MISSING]
