"""Whatever somebody writes into a store: a miss, a clear StoreError, or the right value; never anything else."""

import json
import os
import pickle
import random
import shutil
import sqlite3
import struct
import warnings
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill import MapResult, Pipeline, Store, StoreError, node
from gristmill.storage.frame import HEADER_SIZE, seal

COUNT = 3
SECRET = "of the house"
OUTPUTS = ["number", "text", "image", "small", "long", "mixed"]


def number(x: int) -> int:
    return x * x


def text(x: int) -> str:
    return f"<{x}>"


def image(x: int) -> Any:
    return np.full(10_000, x + 0.5)


def small(x: int) -> Any:
    return np.array([x, 2 * x])


def long(x: int) -> str:
    return str(x) * 70_000


def mixed(x: int) -> Any:
    return [x, str(x), np.full(9_000 + x, float(x))][x % 3]


def odd(x: int) -> int:
    if x == 1:
        raise ValueError("one is odd")
    return x


FUNCTIONS: list[Callable[..., Any]] = [number, text, image, small, long, mixed]


def run(location: Path, *, checked: bool = True, **options: Any) -> MapResult:
    """Run everything there is on a store, read every value, and say what would run."""
    nodes = [node(f, mapspec=f"x[i] -> {f.__name__}[i]", version="1") for f in (*FUNCTIONS, odd)]
    total = node(lambda number: int(number.sum()), output_name="total", version="1")
    with Store(location, **{"allow_pickle": False, **options}) as store, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of views, which are derived data
        pipeline = Pipeline([*nodes, total], store=store)
        str(pipeline.explain({"x": range(COUNT + 1)}))
        result = pipeline.map(
            {"x": range(COUNT)},
            output_name=[*OUTPUTS, "odd", "total"],
            map_executor="sequential",
            on_error="continue",
        )
        found = {name: result[name].tolist() for name in OUTPUTS}
        if checked:
            assert [error.index for error in result.errors] == [(1,)]
            assert (result["total"], result["odd"].tolist()) == (5, [0, None, 2])
            for f in FUNCTIONS:
                for x, value in enumerate(found[f.__name__]):
                    right = f(x)
                    assert type(value) is type(right)
                    assert np.array_equal(value, right), f.__name__
        str(result["total"])
        return result


def attempt(location: Path, **options: Any) -> str:
    """Return whether everything was right, or the store was refused; nothing else may come of it."""
    try:
        run(location, **options)
    except StoreError:
        return "refused"
    return "right"


@pytest.fixture(autouse=True)
def no_unpickling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle, "loads", lambda *_, **__: pytest.fail("something was unpickled"))
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("something was unpickled"))


STORES: dict[str, dict[str, Any]] = {
    "plain": {},
    "secret": {"secret": SECRET},
    "compressed": {"compressor": "zstd"},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with stores in which everything has been computed."""
    directory = tmp_path_factory.mktemp("hostile")
    for name, options in STORES.items():
        run(directory / name, **options)
        with closing(sqlite3.connect(directory / name / "ledger" / "cache.db")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return directory


class Scene:
    """Copies of a finished store, each to be damaged in another way."""

    def __init__(self, original: Path, directory: Path, options: dict[str, Any]) -> None:
        self._original = original
        self._directory = directory
        self._count = 0
        self.options = options
        self.location = original

    def renew(self) -> Path:
        """Make the next copy."""
        if self._count:
            shutil.rmtree(self.location)
        self._count += 1
        self.location = self._directory / str(self._count)
        shutil.copytree(self._original, self.location)
        self.location.chmod(0o700)
        return self.location

    def execute(self, statement: str, *arguments: object) -> None:
        """Change the database."""
        path = self.location / "ledger" / "cache.db"
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(statement, arguments)

    def rows(self) -> list[tuple[int, bytes, bytes]]:
        """Row ids, keys and inline values of the ledger."""
        with closing(sqlite3.connect(self.location / "ledger" / "cache.db")) as connection:
            found = connection.execute(
                "SELECT rowid, key, value FROM Cache WHERE value IS NOT NULL"
            ).fetchall()
        return [(row, bytes(key), bytes(value)) for row, key, value in found]

    def attempt(self, **options: Any) -> str:
        """What comes of it, now and once more."""
        first = attempt(self.location, **{**self.options, **options})
        again = attempt(self.location, **{**self.options, **options})
        assert again == "right" or first == "refused"
        return first


@pytest.fixture(params=STORES)
def scene(finished: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Scene:
    return Scene(finished / request.param, tmp_path, STORES[request.param])


@pytest.fixture
def plain(finished: Path, tmp_path: Path) -> Scene:
    return Scene(finished / "plain", tmp_path, {})


# -- files


def flip(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) or 1)
    return data[:at] + bytes(byte ^ (1 << chance.randrange(8)) for byte in data[at : at + 1]) + data[at + 1 :]


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    flip,
    flip,
    lambda data, chance: data[: chance.randrange(len(data) or 1)],
    lambda data, chance: data + chance.randbytes(chance.randrange(1, 100)),
    lambda data, chance: chance.randbytes(len(data)),
    lambda data, chance: bytes(len(data)),
    lambda data, chance: b"",
    lambda data, chance: pickle.dumps([1] * chance.randrange(100)),
    lambda data, chance: data.replace(b"<f8", b"|O8").replace(b"float", b"fleat").replace(b"0", b"9"),
]


def mutate_files(scene: Scene, seed: int) -> None:
    chance = random.Random(seed)
    files = sorted(path for path in scene.renew().rglob("*") if path.is_file())
    for path in chance.sample(files, k=chance.choice((1, 1, 2, 5))):
        data = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(chance.choice(MUTATIONS)(data, chance))
    scene.attempt()


@pytest.mark.parametrize("block", range(4))
def test_files_with_anything_in_them(block: int, scene: Scene) -> None:
    for seed in range(6 * block, 6 * block + 6):
        mutate_files(scene, seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(40))
def test_files_with_anything_in_them_at_length(block: int, scene: Scene) -> None:
    for seed in range(1000 + 25 * block, 1025 + 25 * block):
        mutate_files(scene, seed)


def test_anything_but_a_file_in_the_place_of_one(scene: Scene) -> None:
    def pipe(path: Path) -> None:
        os.mkfifo(path)

    def loop(path: Path) -> None:
        path.symlink_to(path)

    def elsewhere(path: Path) -> None:
        path.symlink_to("/dev/zero")

    for pattern in ("chunks/*/*", "ledger/*/*/*.val"):
        for plant in (Path.mkdir, pipe, loop, elsewhere):
            for path in sorted(scene.renew().glob(pattern)):
                path.unlink()
                plant(path)
            assert scene.attempt() in ("right", "refused")


# -- columns of the database

COLUMNS = {
    "Cache": (
        *("key", "raw", "store_time", "expire_time", "access_time", "access_count", "tag"),
        *("size", "mode", "filename", "value"),
    ),
    "Settings": ("key", "value"),
}
ODD: list[Any] = [
    *(None, 0, 1, 2, 4, -1, 2**63 - 1, -(2**63), 1.5, float("inf"), "", "text", "\ud7ff" * 9, "../../x"),
    *(b"", b"\x80\x05N.", b"\xff" * 25, bytes(32), b"GMF1" + b"\xff" * 28, b"GMK1" + bytes(4) + b"\x7f" * 40),
]


@pytest.mark.parametrize(("table", "column"), [(t, c) for t, columns in COLUMNS.items() for c in columns])
def test_columns_with_anything_in_them(table: str, column: str, scene: Scene) -> None:
    chance = random.Random(column)
    for odd_value in chance.sample(ODD, k=3):
        scene.renew()
        some = chance.choice(("1", "rowid % 3 = 0", "rowid % 5 = 1"))
        scene.execute(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {some}", odd_value)
        scene.attempt()


@pytest.mark.slow
@pytest.mark.parametrize(("table", "column"), [(t, c) for t, columns in COLUMNS.items() for c in columns])
def test_columns_with_everything_in_them(table: str, column: str, scene: Scene) -> None:
    for odd_value in ODD:
        for some in ("1", "rowid % 3 = 0", "rowid % 5 = 1"):
            scene.renew()
            scene.execute(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE {some}", odd_value)
            scene.attempt()


SETTINGS = [
    ("sqlite_journal_mode", "off"),
    ("sqlite_writable_schema", 1),
    ("sqlite_locking_mode = exclusive; --", "x"),
    ("sqlite_temp_store_directory", "'/'"),
    ("sqlite_synchronous", "0"),
    ("disk_min_file_size", "text"),
    ("disk_evil", 1),
    ("_disk", None),
    ("_directory", "/"),
    ("eviction_policy", "no such policy"),
    ("size_limit", 0),
    ("cull_limit", 100),
    (b"sqlite_cache_size", 1),
]


@pytest.mark.parametrize(("key", "value"), SETTINGS)
def test_settings_that_diskcache_would_obey_do_nothing(key: Any, value: Any, plain: Scene) -> None:
    plain.renew()
    plain.execute("INSERT OR REPLACE INTO Settings VALUES (?, ?)", key, value)
    for path in plain.location.glob("chunks/*/*"):  # so that something has to be written
        path.unlink()
    assert plain.attempt() == "right"
    with closing(sqlite3.connect(plain.location / "ledger" / "cache.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        kept = dict(connection.execute("SELECT key, value FROM Settings").fetchall())
    assert (kept["cull_limit"], kept["size_limit"]) == (0, 2**62)
    assert kept.get(key, "nothing") != value


SCHEMAS = [
    "CREATE TRIGGER evil AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END",
    "CREATE TRIGGER evil AFTER UPDATE ON Settings BEGIN INSERT INTO Settings VALUES (random(), 1); END",
    "CREATE TABLE more (a)",
    "CREATE VIEW more AS WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n) SELECT k FROM n",
    "CREATE INDEX more ON Cache (abs(size)) WHERE mode > 7",
]


@pytest.mark.parametrize("statement", SCHEMAS)
def test_a_schema_with_more_in_it_is_damage(statement: str, plain: Scene) -> None:
    plain.renew()
    plain.execute(statement)
    assert plain.attempt() == "right"


def test_an_endless_view_in_the_place_of_the_table_is_damage(plain: Scene) -> None:
    plain.renew()
    endless = "WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n)"
    columns = "k AS rowid, k AS key, 1 AS raw, 1 AS mode, NULL AS filename, k AS value"
    plain.execute("DROP TABLE Cache")
    plain.execute(f"CREATE VIEW Cache AS {endless} SELECT {columns} FROM n")
    assert plain.attempt() == "right"


# -- bodies that somebody sealed again

LEAVES: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        7,
        2**40,
        2**63,
        2**70,
        1.5,
        "",
        "O",
        "<f8",
        "chunk",
        "pickle",
        "files",
        "mixed",
        "../x",
    ),
    *([], {}, [1, [2]], {"kind": "array"}, [2**40, 2**40], [-1], ["a"], [10**13], [[0, 1]], "zstd:3", "gzip"),
]


def change_leaf(tree: Any, chance: random.Random) -> Any:
    """Return a JSON value with something else in one place."""
    if isinstance(tree, dict) and tree and chance.random() < 0.9:
        key = chance.choice(list(tree))
        if chance.random() < 0.2:
            return {name: value for name, value in tree.items() if name != key}
        return {**tree, key: change_leaf(tree[key], chance)}
    if isinstance(tree, list) and tree and chance.random() < 0.9:
        at = chance.randrange(len(tree))
        return [*tree[:at], change_leaf(tree[at], chance), *tree[at + 1 :]]
    return chance.choice(LEAVES)


def change_body(key: bytes, body: bytes, chance: random.Random) -> bytes:
    """Return a body that might have been written by somebody who knows the format, and means no good."""
    if chance.random() < 0.3:
        return chance.choice(MUTATIONS)(body, chance)
    if key[:1] == b"i":
        form, kind, count, length = struct.unpack_from("<BBII", body)
        header = change_leaf(json.loads(body[10 : 10 + length]), chance)
        if chance.random() < 0.3:
            kind, header = 1, {"dead": {"1": chance.choice(LEAVES), str(chance.choice(LEAVES)): None}}
        count = chance.choice((count, count, count, 0, count + 1, 2**32 - 1))
        data = json.dumps(header).encode()
        return struct.pack("<BBII", form, kind, count, len(data)) + data + body[10 + length :]
    if key[:1] == b"c":
        return json.dumps(change_leaf(json.loads(body), chance)).encode()
    if key[:1] == b"v":
        at = chance.randrange(16, len(body))
        return body[:at] + struct.pack("<Q", chance.choice((0, 1, 2**31, 2**63, 2**64 - 1))) + body[at + 8 :]
    return chance.choice((b"", b"\xff" * 8, b"\xff" * 7, b"[" * 100_000, b"\x80\x05N.", b"a\x03\xff<f8"))


def forge(scene: Scene, seed: int) -> None:
    chance = random.Random(seed)
    scene.renew()
    rows = scene.rows()
    for row, key, value in chance.sample(rows, k=chance.choice((1, 1, 3, len(rows)))):
        changed = seal(key, change_body(key, value[HEADER_SIZE:], chance))
        scene.execute("UPDATE Cache SET value = ? WHERE rowid = ?", changed, row)
    for path in scene.location.glob("ledger/*/*/*.val"):
        if chance.random() < 0.3:
            path.write_bytes(
                seal(chance.choice(rows)[1], chance.choice(MUTATIONS)(path.read_bytes(), chance))
            )
    # Without a secret a forged value is as good as a right one: then all there is to ask is that nothing breaks.
    scene.attempt(checked="secret" in scene.options)


@pytest.mark.parametrize("block", range(5))
def test_forged_bodies(block: int, scene: Scene) -> None:
    for seed in range(3 * block, 3 * block + 3):
        forge(scene, seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(60))
def test_forged_bodies_at_length(block: int, scene: Scene) -> None:
    for seed in range(1000 + 25 * block, 1025 + 25 * block):
        forge(scene, seed)


@pytest.mark.parametrize("number_", [2**63 - 1, 2**63, 2**64 - 1, 0, 1])
def test_segments_with_odd_numbers(number_: int, plain: Scene) -> None:
    plain.renew()
    for row, key, value in plain.rows():
        if key[:1] in b"iv" and len(key) == 25:
            named = key[:17] + number_.to_bytes(8, "big")
            body = seal(named, value[HEADER_SIZE:])
            plain.execute("UPDATE OR IGNORE Cache SET key = ?, value = ? WHERE rowid = ?", named, body, row)
        if key[:1] == b"n":
            body = seal(key, number_.to_bytes(8, "big"))
            plain.execute("UPDATE Cache SET value = ? WHERE rowid = ?", body, row)
    plain.attempt()


KEYS: list[Any] = [None, 7, "", [], {}, {"salt": 7}, {"salt": "zz", "check": "0"}]
MARKERS: list[Any] = [
    *(None, [], 7, "x", {}, {"gristmill": 1}, {"gristmill": 1.0}, {"gristmill": [1]}, {"gristmill": {}}),
    *({"gristmill": 1, "key": key} for key in KEYS),
]


@pytest.mark.parametrize("told", MARKERS, ids=str)
def test_a_marker_with_anything_in_it_is_refused(told: Any, scene: Scene) -> None:
    scene.renew()
    (scene.location / "store.json").write_text(json.dumps(told))
    assert scene.attempt() == "refused"


def test_a_marker_that_never_ends_is_refused(scene: Scene) -> None:
    scene.renew()
    (scene.location / "store.json").write_text('{"gristmill":' + "[" * 100_000)
    assert scene.attempt() == "refused"
