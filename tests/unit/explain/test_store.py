"""`explain` and the store: it reads it and nothing else; what was lost is said, and what cannot be known is not."""

import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import Pipeline, Store, node
from gristmill.storage.ledger import Ledger
from gristmill.storage.local import LocalStorage
from gristmill.storage.segment import COLLECTED, encode_tombstone

SIZE = 20_000


def make(x: int) -> Any:
    return np.full(SIZE, x)


def making(store: Any = None) -> Pipeline:
    one = node(make, output_name="y", mapspec="x[i] -> y[i]")
    return Pipeline([one], store=store) if store is not None else Pipeline([one])


def reasons(pipeline: Pipeline, output: str = "y") -> list[tuple[str, str, str]]:
    found = pipeline.explain({"x": [1, 2, 3]})[output]
    return [(one.verdict, one.where, one.reason) for one in found.findings]


def snapshot(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything in a directory but SQLite's own files beside the database, which a reader may make."""
    found = {}
    for path in directory.rglob("*"):
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and not path.name.startswith("cache.db-"):
            found[str(path)] = (status.st_mtime_ns, status.st_size, path.read_bytes())
    return found


def test_nothing_runs(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls.log")
    path = log.path

    def first(x: int) -> int:
        record(path, "first", x)
        return x

    def second(first: int) -> int:
        record(path, "second", first)
        return first

    pipeline = Pipeline([(first, "x[i] -> first[i]"), (second, "first[i] -> second[i]")])
    pipeline.map({"x": [1, 2]})
    log.take()
    assert pipeline.explain({"x": [1, 2, 3]}).misses == 2
    assert pipeline.plan({"x": [1, 2, 3]}).compute == 1
    assert log.take() == []


def test_nothing_is_written(default_store: Path) -> None:
    computed = making()  # whose scratch directory goes with it
    computed.map({"x": [1, 2]})
    before = snapshot(default_store)
    names = {path for path in default_store.rglob("*") if not path.name.startswith("cache.db-")}
    making().explain({"x": [1, 2, 3]})
    making().plan({"x": [1, 2, 3]})
    assert snapshot(default_store) == before
    assert {path for path in default_store.rglob("*") if not path.name.startswith("cache.db-")} == names


def test_a_store_that_does_not_exist_is_not_made(default_store: Path) -> None:
    pipeline = making()
    assert reasons(pipeline) == [("miss", "0–2", "never computed")]
    pipeline.plan({"x": [1]})
    assert not default_store.exists()
    pipeline.map({"x": [1, 2, 3]})  # and the pipeline can still make it
    assert reasons(pipeline) == [("hit", "0–2", "")]


def test_a_read_only_store_is_explained(tmp_path: Path) -> None:
    making(str(tmp_path / "store")).map({"x": [1]})
    with Store(tmp_path / "store", readonly=True) as store:
        assert reasons(making(store))[0] == ("hit", "0", "")


def test_what_another_process_has_added_meanwhile_is_seen(tmp_path: Path) -> None:
    mine, others = making(Store(tmp_path / "store")), making(Store(tmp_path / "store"))
    assert reasons(mine) == [("miss", "0–2", "never computed")]
    others.map({"x": [1, 2, 3]})
    assert reasons(mine) == [("hit", "0–2", "")]


def located(pipeline: Pipeline) -> tuple[LocalStorage, Any, Any]:
    """The storage, the index of the node, and the locators of its calls."""
    from gristmill.explain.survey import Survey
    from gristmill.plan.compile import compile_plan

    assert pipeline.store is not None
    storage = pipeline.store.storage
    plan = compile_plan(pipeline.graph, {"x": [1, 2, 3]})
    step = next(Survey(plan, storage).steps())
    return storage, step.run.indexes[0], step.run.locators[0]


def test_a_result_that_failed_verification_is_said_so() -> None:
    pipeline = making()
    pipeline.map({"x": [1, 2, 3]})
    storage, index, locators = located(pipeline)
    storage.quarantine(index, locators[1:2], 0)
    expected = [("hit", "0, 2", ""), ("miss", "1", "the stored result failed verification")]
    assert reasons(pipeline) == expected
    assert reasons(making()) == expected  # and elsewhere


def test_a_result_that_was_collected_is_said_so(default_store: Path) -> None:
    pipeline = making()
    pipeline.map({"x": [1, 2, 3]})
    _, index, locators = located(pipeline)
    segment, _ = index.locate(int(locators[0]))
    collector = Ledger(default_store / "ledger")
    collector.append([encode_tombstone(index.group, {segment.number: None}, COLLECTED)])
    collector.close()
    assert "the result was collected, to make room" in {reason for _, _, reason in reasons(pipeline)}


def test_a_result_computed_again_after_it_was_lost_is_a_hit() -> None:
    pipeline = making()
    pipeline.map({"x": [1, 2, 3]})
    storage, index, locators = located(pipeline)
    storage.quarantine(index, locators[1:2], 0)
    making().map({"x": [1, 2, 3]})
    assert reasons(making()) == [("hit", "0–2", "")]


def test_a_chunk_that_was_deleted_is_still_a_hit(default_store: Path) -> None:
    """A hit is a record: bytes are looked at when they are read, and made again where they are gone."""
    making().map({"x": [1, 2, 3]})
    for path in (default_store / "chunks").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.unlink()
    assert reasons(making()) == [("hit", "0–2", "")]


def rows(store: Path, letter: bytes) -> list[bytes]:
    import sqlite3

    with sqlite3.connect(store / "ledger" / "cache.db") as connection:
        found = connection.execute("SELECT key FROM Cache").fetchall()
    connection.close()
    return [key for (key,) in found if key[:1] == letter]


def test_the_code_is_recorded_once_however_often_and_wherever_it_runs(default_store: Path) -> None:
    making().map({"x": list(range(5))})
    making().map({"x": list(range(50))}, map_executor="parallel", max_workers=2)
    assert len(rows(default_store, b"c")) == 1


def test_code_that_computed_nothing_is_not_recorded(default_store: Path) -> None:
    def fails(x: int) -> int:
        raise ValueError(x)

    making().map({"x": [1]})
    failing = Pipeline([node(fails, output_name="y", mapspec="x[i] -> y[i]")])
    failing.map({"x": [1]}, on_error="continue")
    assert len(rows(default_store, b"c")) == 1


@pytest.mark.parametrize(
    "damage", ["DELETE FROM Cache WHERE key = ?", "UPDATE Cache SET value = x'00' WHERE key = ?"]
)
def test_without_the_code_record_the_explanation_says_less(default_store: Path, damage: str) -> None:
    import sqlite3

    def first(x: int) -> int:
        return x

    def again(x: int) -> int:
        return x + 1

    again.__qualname__ = first.__qualname__
    Pipeline([node(first, output_name="y", mapspec="x[i] -> y[i]")]).map({"x": [1]})
    with sqlite3.connect(default_store / "ledger" / "cache.db") as connection:
        for key in rows(default_store, b"c"):
            connection.execute(damage, (key,))
    connection.close()
    pipeline = Pipeline([node(again, output_name="y", mapspec="x[i] -> y[i]")])
    assert reasons(pipeline)[0][0] == "miss"
    assert pipeline.map({"x": [1]})["y"].tolist() == [2]


def test_a_store_that_refuses_a_code_record_keeps_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    from gristmill.errors import StoreError

    def refuse(*_: Any) -> None:
        raise StoreError("full")

    monkeypatch.setattr(LocalStorage, "describe", refuse)
    making().map({"x": [1, 2, 3]})
    assert reasons(making()) == [("hit", "0–2", "")]


def test_a_relative_store_is_found_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = making("here")
    pipeline.explain({"x": [1]})
    assert not list(tmp_path.iterdir())


def test_a_store_that_was_deleted_meanwhile_is_empty(default_store: Path) -> None:
    pipeline = making()
    pipeline.map({"x": [1, 2, 3]})
    shutil.rmtree(default_store)
    assert reasons(pipeline) == [("miss", "0–2", "never computed")]
    assert not default_store.exists()
