"""Damage to what calls have made along axes: healed like any other, whatever row of the ledger it hits."""

import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill import MappedOutput, Pipeline, Store, node

INPUTS = {"text": ["a b c", "", "d e", "x y z w", "one"]}
NAMES = ["word", "upper", "line", "frame", "first", "total"]


def words(text: str) -> list[str]:
    return text.split()


def upper(word: str) -> str:
    return word.upper()


def line(upper: Any) -> str:
    return "-".join(upper)


def frame(text: str) -> Any:
    return np.full((2, 9_000), float(len(text)))


def first(frame: MappedOutput) -> float:
    return float(sum(one[0] for row in frame.tolist() for one in row))


def add(items: list[Any]) -> Any:
    return sum(one[0] for one in items) if isinstance(items[0], np.ndarray) else sum(items)


def pipeline(store: Store) -> Pipeline:
    return Pipeline(
        [
            node(words, output_name="word", mapspec="text[i] -> word[i, *j]"),
            node(upper, mapspec="word[i, j] -> upper[i, j]"),
            node(line, mapspec="upper[i, :] -> line[i]"),
            node(frame, mapspec="text[i] -> frame[i, k]"),
            first,
            node(add, output_name="total", reduce="frame", axis="k", fan_in=2),
        ],
        store=store,
    )


def values(location: Path, executor: str = "sequential") -> list[Any]:
    with Store(location) as store:
        made = pipeline(store)
        made.explain(INPUTS)
        result = made.map(INPUTS, output_name=NAMES, map_executor=executor)
        found = [result[name] for name in NAMES]
        return [one.tolist() if isinstance(one, MappedOutput) else one for one in found]


def same(one: list[Any], other: list[Any]) -> bool:
    return repr(one) == repr(other) and all(
        np.array_equal(a, b) for a, b in zip(one[3][0], other[3][0], strict=True)
    )


@pytest.fixture
def location(tmp_path: Path) -> Path:
    values(tmp_path / "store")
    with sqlite3.connect(tmp_path / "store" / "ledger" / "cache.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return tmp_path / "store"


def rows(location: Path, kind: bytes) -> list[int]:
    with sqlite3.connect(location / "ledger" / "cache.db") as connection:
        found = connection.execute("SELECT rowid, key FROM Cache").fetchall()
    connection.close()
    return [rowid for rowid, key in found if bytes(key)[:1] == kind]


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("how", ["torn", "gone"])
@pytest.mark.parametrize("kind", [b"v", b"i"])
def test_every_row_may_be_lost(kind: bytes, how: str, executor: str, location: Path, tmp_path: Path) -> None:
    expected = values(location)
    chosen = rows(location, kind)
    assert len(chosen) > 5
    for rowid in chosen if executor == "sequential" else chosen[:3]:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(location, copy)
        with sqlite3.connect(copy / "ledger" / "cache.db") as connection:
            if how == "gone":
                connection.execute("DELETE FROM Cache WHERE rowid = ?", (rowid,))
            else:
                connection.execute(
                    "UPDATE Cache SET value = substr(value, 1, length(value) - 1) WHERE rowid = ?", (rowid,)
                )
        connection.close()
        assert same(values(copy, executor), expected)
        assert same(values(copy, executor), expected)


@pytest.mark.parametrize(
    "seed", [*range(2), *(pytest.param(k, marks=pytest.mark.slow) for k in range(2, 40))]
)
def test_a_flipped_bit_anywhere_is_healed(seed: int, location: Path, tmp_path: Path) -> None:
    expected, chance = values(location), random.Random(seed)
    for _ in range(25):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(location, copy)
        files = [path for path in copy.rglob("*") if path.is_file() and path.stat().st_size]
        path = copy / "ledger" / "cache.db" if chance.random() < 0.7 else chance.choice(sorted(files))
        data = bytearray(path.read_bytes())
        bit = chance.randrange(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.chmod(0o600)
        path.write_bytes(data)
        assert same(values(copy), expected), (path.name, bit)
        assert same(values(copy), expected), (path.name, bit)
