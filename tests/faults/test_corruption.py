"""Damage anywhere in a finished store is never wrong data and never an exception: computed again, and healed."""

import contextlib
import itertools
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record
from tests.support.values import same

from gristmill import Callback, MapResult, Pipeline, Store, node
from gristmill.events import FaultEvent

COUNT = 6


class Tracked:
    """A value that is stored as an object once it is large."""

    def __init__(self, x: int) -> None:
        self.items = [f"{x}-{k}" for k in range(10_000)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tracked) and self.items == other.items

    __hash__ = None  # type: ignore[assignment]


def make_pipeline(log: str, store: Store, callbacks: tuple[Callback, ...] = ()) -> Pipeline:
    """Chunks, objects and packed values, in a chain, beside each other and reduced."""

    def number(x: int) -> int:
        record(log, "number", x)
        return x * x

    def image(number: int) -> Any:
        record(log, "image", number)
        return np.full(20_000, number + 0.5)

    def big(number: int) -> Any:
        record(log, "big", number)
        return Tracked(number)

    def text(number: int) -> tuple[str, dict[str, int]]:
        record(log, "text", number)
        return str(number) * 50, {"n": number}

    def summed(image: Any, text: list[Any]) -> tuple[float, str]:
        record(log, "summed")
        return float(image.sum()), "".join(text)

    nodes = [
        node(number, mapspec="x[i] -> number[i]"),
        node(image, mapspec="number[i] -> image[i]"),
        node(big, mapspec="number[i] -> big[i]"),
        node(text, output_name=("text", "note"), mapspec="number[i] -> text[i], note[i]"),
        node(summed),
    ]
    return Pipeline(nodes, store=store, callbacks=callbacks)


OUTPUTS = ["number", "image", "big", "text", "note", "summed"]


def expected() -> dict[str, Any]:
    squares = [x * x for x in range(COUNT)]
    return {
        "number": squares,
        "image": [np.full(20_000, n + 0.5) for n in squares],
        "big": [Tracked(n) for n in squares],
        "text": [str(n) * 50 for n in squares],
        "note": [{"n": n} for n in squares],
        "summed": (20_000 * (sum(squares) + COUNT / 2), "".join(str(n) * 50 for n in squares)),
    }


def check(result: MapResult) -> None:
    """Every value is there, and right."""
    for name, values in expected().items():
        found = result[name] if name == "summed" else result[name].tolist()
        assert same(found, values), name


class Scene:
    """A finished store, and what runs on it."""

    def __init__(self, location: Path, log: Path) -> None:
        self.location = location
        self.log = CallLog(log)

    def map(self, executor: str = "sequential", callbacks: tuple[Callback, ...] = ()) -> MapResult:
        with Store(self.location) as store:
            return self.run(store, executor, callbacks)

    def open(self, store: Store) -> MapResult:
        """A result whose values have not been read."""
        return self.run(store, "sequential")

    def run(self, store: Store, executor: str, callbacks: tuple[Callback, ...] = ()) -> MapResult:
        pipeline = make_pipeline(self.log.path, store, callbacks)
        result = pipeline.map({"x": range(COUNT)}, output_name=OUTPUTS, map_executor=executor, max_workers=2)
        assert result.errors == []
        return result

    def files(self, pattern: str) -> list[Path]:
        return sorted(path for path in self.location.glob(pattern) if path.is_file())

    def rows(self, prefix: bytes) -> list[tuple[int, bytes]]:
        """Row ids and inline values of the ledger's rows whose keys start with `prefix`."""
        with self.database() as connection:
            query = "SELECT rowid, key, value FROM Cache WHERE value IS NOT NULL ORDER BY key"
            return [
                (row, value) for row, key, value in connection.execute(query) if bytes(key).startswith(prefix)
            ]

    def database(self) -> Any:
        from contextlib import closing

        return closing(sqlite3.connect(self.location / "ledger" / "cache.db", isolation_level=None))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a store in which everything has been computed."""
    directory = tmp_path_factory.mktemp("finished")
    check(Scene(directory / "store", directory / "calls.log").map())
    return directory


@pytest.fixture
def scene(finished: Path, tmp_path: Path) -> Scene:
    """A copy of the finished store; the log's path is a part of the functions, so it stays."""
    shutil.copytree(finished / "store", tmp_path / "store")
    made = Scene(tmp_path / "store", finished / "calls.log")
    made.log.take()
    return made


# -- ways to damage bytes


def flip(data: bytes, place: float) -> bytes:
    """Flip one bit at a place between 0 (the first byte) and 1 (the last)."""
    at = int(place * (len(data) - 1))
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "first bit": lambda data: flip(data, 0.0),
    "early bit": lambda data: flip(data, 0.1),
    "middle bit": lambda data: flip(data, 0.5),
    "last bit": lambda data: flip(data, 1.0),
    "truncated": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
}


def damage_file(path: Path, how: Callable[[bytes], bytes]) -> None:
    """Write what is damaged under the same name and inode, as a bad disk would."""
    data = path.read_bytes()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(how(data))
        file.truncate(len(how(data)))


def damage_rows(scene: Scene, prefix: bytes, how: Callable[[bytes], bytes]) -> int:
    rows = scene.rows(prefix)
    with scene.database() as connection:
        for row, value in rows:
            connection.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (how(bytes(value)), row))
    return len(rows)


def heal(scene: Scene, executor: str) -> list[str]:
    """A run on the damaged store is right, and the one after it finds everything; return the repeated calls."""
    check(scene.map(executor))
    again = scene.log.take()
    result = scene.map(executor)
    check(result)
    assert scene.log.take() == []
    assert result.stats.computed == 0
    return again


def settle(scene: Scene, executor: str) -> None:
    """Every run on the damaged store is right, and before long one finds everything.

    What is put behind one wrong entry of SQLite's index may be found by the process that put it, and not by the next.
    """
    for _ in range(4):
        result = scene.map(executor)
        check(result)
        if not scene.log.take():
            assert result.stats.computed == 0
            return
    pytest.fail("it does not heal")


# -- chunks


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("how", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_chunk_is_computed_again(
    how: Callable[[bytes], bytes], executor: str, scene: Scene
) -> None:
    chunks = scene.files("chunks/*/*")
    assert len(chunks) == COUNT
    damage_file(chunks[2], how)
    assert [call.split()[0] for call in heal(scene, executor)] == ["image"]
    assert len(scene.files("chunks/*/*")) == COUNT


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_deleted_chunks_are_computed_again(executor: str, scene: Scene) -> None:
    for path in scene.files("chunks/*/*")[:3]:
        path.unlink()
    assert [call.split()[0] for call in heal(scene, executor)] == ["image"] * 3


def test_all_chunks_may_go(scene: Scene) -> None:
    shutil.rmtree(scene.location / "chunks")
    (scene.location / "chunks").mkdir()
    assert [call.split()[0] for call in heal(scene, "sequential")] == ["image"] * COUNT


def test_the_chunks_directory_itself_may_go(scene: Scene) -> None:
    shutil.rmtree(scene.location / "chunks")
    assert [call.split()[0] for call in heal(scene, "sequential")] == ["image"] * COUNT


@pytest.mark.parametrize("how", DAMAGE.values(), ids=DAMAGE)
def test_a_chunk_damaged_under_an_open_result_is_computed_again(
    how: Callable[[bytes], bytes], scene: Scene
) -> None:
    with Store(scene.location) as store:
        result = scene.open(store)
        damage_file(scene.files("chunks/*/*")[3], how)
        check(result)
        assert [call.split()[0] for call in scene.log.take()] == ["image"]
        check(scene.open(store))
    assert heal(scene, "sequential") == []


# -- rows and files of the ledger

INLINE = {"segment indexes": b"i", "segment values": b"v", "counters": b"n"}
ROWS = {**INLINE, "objects": b"o"}


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("how", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("prefix", INLINE.values(), ids=INLINE)
def test_damaged_rows_are_computed_again(
    prefix: bytes, how: Callable[[bytes], bytes], executor: str, scene: Scene
) -> None:
    assert damage_rows(scene, prefix, how) > 0
    heal(scene, executor)


@pytest.mark.parametrize("prefix", [b"i", b"v"], ids=["segment indexes", "segment values"])
@pytest.mark.parametrize(
    "first", [0, 4, *(pytest.param(k, marks=pytest.mark.slow) for k in range(len(DAMAGE)) if k not in (0, 4))]
)
def test_one_damaged_row_at_a_time(first: int, prefix: bytes, scene: Scene) -> None:
    """Each row in another way, beginning with the `first`: all rows in all ways are for who has the time."""
    ways = itertools.cycle([*DAMAGE.values()][first:] + [*DAMAGE.values()][:first])
    for (row, value), how in zip(scene.rows(prefix), ways, strict=False):
        with scene.database() as connection:
            connection.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (how(bytes(value)), row))
        heal(scene, "sequential")


@pytest.mark.parametrize("how", DAMAGE.values(), ids=DAMAGE)
def test_rows_damaged_under_an_open_result_are_computed_again(
    how: Callable[[bytes], bytes], scene: Scene
) -> None:
    with Store(scene.location) as store:
        result = scene.open(store)
        damage_rows(scene, b"v", how)
        check(result)
    heal(scene, "sequential")


@pytest.mark.parametrize("prefix", ROWS.values(), ids=ROWS)
def test_deleted_rows_are_computed_again(prefix: bytes, scene: Scene) -> None:
    with scene.database() as connection:
        for row, key in connection.execute("SELECT rowid, key FROM Cache").fetchall():
            if bytes(key).startswith(prefix):
                connection.execute("DELETE FROM Cache WHERE rowid = ?", (row,))
    heal(scene, "sequential")


def test_every_row_may_go(scene: Scene) -> None:
    with scene.database() as connection:
        connection.execute("DELETE FROM Cache")
    heal(scene, "sequential")


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("how", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_of_the_ledger_are_computed_again(
    how: Callable[[bytes], bytes], executor: str, scene: Scene
) -> None:
    files = scene.files("ledger/**/*.val")
    assert len(files) >= COUNT
    for path in files[:3]:
        damage_file(path, how)
    assert {call.split()[0] for call in heal(scene, executor)} == {"big"}


def test_deleted_files_of_the_ledger_are_computed_again(scene: Scene) -> None:
    for path in scene.files("ledger/**/*.val"):
        path.unlink()
    assert [call.split()[0] for call in heal(scene, "sequential")] == ["big"] * COUNT


def test_files_deleted_under_an_open_result_are_computed_again(scene: Scene) -> None:
    with Store(scene.location) as store:
        result = scene.open(store)
        for path in scene.files("ledger/**/*.val"):
            path.unlink()
        check(result)


# -- the database file


def damage_database(scene: Scene, place: float) -> None:
    """Overwrite 200 bytes of the database file, at a place between 0 (its start) and 1 (its end)."""
    path = scene.location / "ledger" / "cache.db"
    with scene.database() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    at = int(place * len(data))
    data[at : at + 200] = random.Random(place).randbytes(len(data[at : at + 200]))
    path.write_bytes(data)


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("place", [0.0, 0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99])
def test_a_damaged_database_is_never_wrong(place: float, executor: str, scene: Scene) -> None:
    damage_database(scene, place)
    heal(scene, executor)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("place", [k / 400 for k in range(400)])
def test_a_database_damaged_anywhere_is_never_wrong(place: float, executor: str, scene: Scene) -> None:
    damage_database(scene, place)
    heal(scene, executor)


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_truncated_database_is_never_wrong(size: int, scene: Scene) -> None:
    with scene.database() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(scene.location / "ledger" / "cache.db", size)
    check(scene.map())


def test_a_database_that_is_gone_is_made_again(scene: Scene) -> None:
    shutil.rmtree(scene.location / "ledger")
    heal(scene, "sequential")


# -- everything else in the store


@pytest.mark.parametrize("name", ["claims", "arrays", "tmp", "quarantine"])
def test_derived_directories_may_go(name: str, scene: Scene) -> None:
    shutil.rmtree(scene.location / name, ignore_errors=True)
    heal(scene, "sequential")


def test_a_damaged_claim_table_stops_nobody(scene: Scene) -> None:
    with Store(scene.location) as store:
        pipeline = make_pipeline(scene.log.path, store)
        pipeline.map({"x": range(100, 103)}, map_executor="sequential")
    for path in scene.files("claims/**/table"):
        with path.open("r+b") as file:
            file.write(b"\x07\0\0\0" * (path.stat().st_size // 8))
    with Store(scene.location) as store:
        pipeline = make_pipeline(scene.log.path, store)
        assert pipeline.map({"x": range(200, 203)}, map_executor="sequential", output_name="number")[
            "number"
        ].tolist()


# -- what is told


def test_an_event_tells_of_a_lost_element(scene: Scene) -> None:
    faults: list[FaultEvent] = []

    class Watcher(Callback):
        def on_store_fault(self, event: FaultEvent) -> None:
            faults.append(event)

    scene.files("chunks/*/*")[0].unlink()
    check(scene.map(callbacks=(Watcher(),)))
    assert [(fault.output, len(fault.index)) for fault in faults] == [("image", 1)]


def test_a_downstream_call_that_needs_a_lost_element_gets_the_right_one(scene: Scene) -> None:
    damage_file(scene.files("chunks/*/*")[1], DAMAGE["middle bit"])
    scene.files("ledger/**/*.val")[0].unlink()

    def extra(image: Any, big: Any) -> float:
        return float(image[0]) + len(big.items)

    for executor in ("sequential", "parallel"):
        with Store(scene.location) as store:
            below = node(extra, mapspec="image[i], big[i] -> extra[i]", version=executor)
            nodes = [*make_pipeline(scene.log.path, store).nodes, below]
            result = Pipeline(nodes, store=store).map(
                {"x": range(COUNT)}, output_name="extra", map_executor=executor
            )
            assert result["extra"].tolist() == [x * x + 10_000.5 for x in range(COUNT)]


def test_values_of_another_call_are_not_taken_for_these(scene: Scene) -> None:
    """Two rows whose values have been exchanged each match a checksum, but not that of their own segment."""
    rows = scene.rows(b"v")
    with scene.database() as connection:
        for (row, _), (_, value) in zip(rows, rows[1:] + rows[:1], strict=True):
            connection.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (value, row))
    check(scene.map())


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_a_store_that_is_deleted_under_a_living_process_is_made_again(executor: str, scene: Scene) -> None:
    with Store(scene.location) as store:
        check(scene.run(store, executor))
        shutil.rmtree(scene.location)
        check(scene.run(store, executor))
    shutil.rmtree(scene.location)
    check(scene.map(executor))
    scene.log.take()
    assert heal(scene, executor) == []


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("byte", [0, 1, 16, 17, 18, 24])
def test_a_damaged_key_in_the_index_of_the_database_hides_nothing_that_is_new(
    byte: int, executor: str, scene: Scene
) -> None:
    """SQLite takes what its index says for true; a number that is too high must not pass for the last one there is."""
    with scene.database() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        keys = [
            bytes(key) for (key,) in connection.execute("SELECT key FROM Cache") if bytes(key)[:1] == b"i"
        ]
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'Cache_key_raw'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    path = scene.location / "ledger" / "cache.db"
    data = bytearray(path.read_bytes())
    index = data[(page - 1) * size : page * size]
    assert index[0] == 10, "the index is one leaf"
    for key in sorted(keys)[1::4]:
        index[index.index(key) + byte] ^= 0x40
    data[(page - 1) * size : page * size] = index
    path.write_bytes(data)
    settle(scene, executor)


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("at", [0, 5, 11])
def test_an_index_out_of_order_is_made_anew(at: int, executor: str, scene: Scene) -> None:
    """What is put after the wrong entry is not found before it."""
    with scene.database() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'Cache_key_raw'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    path = scene.location / "ledger" / "cache.db"
    data = bytearray(path.read_bytes())
    start = (page - 1) * size
    count = int.from_bytes(data[start + 3 : start + 5], "big")
    cells = [bytes(data[start + 8 + 2 * k : start + 10 + 2 * k]) for k in range(count)]
    cells[at], cells[at + 1] = cells[at + 1], cells[at]
    data[start + 8 : start + 8 + 2 * count] = b"".join(cells)
    path.write_bytes(data)
    settle(scene, executor)


def _one() -> int:
    return 1


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("kept_open", [True, False])
def test_a_backup_put_back_under_living_processes_is_another_store(
    executor: str, scene: Scene, tmp_path: Path, *, kept_open: bool
) -> None:
    """Its marker may be the same file, written at the same time: what is left to tell it is when it was put there."""
    place, backup = tmp_path / "other", tmp_path / "backup"
    with Store(place) as store:
        Pipeline([node(_one, output_name="one")], store=store).run()
    shutil.copytree(place, backup)
    with contextlib.ExitStack() as stack:
        store = Store(place)
        stack.callback(store.close)
        check(scene.run(store, executor))
        was = place.joinpath("store.json").stat()
        for path in place.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        shutil.copytree(backup, place, dirs_exist_ok=True)
        now = place.joinpath("store.json").stat()
        assert (now.st_ino, now.st_mtime_ns) == (was.st_ino, was.st_mtime_ns)
        if not kept_open:  # only the workers have seen what was there
            stack.close()
            store = stack.enter_context(Store(place))
        check(scene.run(store, executor))
    scene.log.take()
    with Store(place) as store:
        check(scene.run(store, executor))
    assert scene.log.take() == [], "what was computed did not reach the store that is there"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_random_damage_anywhere_is_never_wrong(seed: int, scene: Scene) -> None:
    chance = random.Random(seed)
    with scene.database() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files = [path for path in scene.files("**/*") if path.stat().st_size and path.name != "store.json"]
    for path in chance.sample(files, k=min(3, len(files))):
        kind = chance.choice(("flip", "flip", "flip", "truncate", "delete"))
        if kind == "delete":
            path.unlink()
        elif kind == "truncate":
            os.truncate(path, chance.randrange(path.stat().st_size))
        else:
            place = chance.random()
            damage_file(path, lambda data, place=place: flip(data, place))  # type: ignore[misc]
    heal(scene, chance.choice(("sequential", "parallel")))
