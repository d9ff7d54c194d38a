"""Run records: what every map leaves in the store, and the result that is loaded from it."""

import sys
import threading
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.programs import running

from gristmill import Callback, GristmillError, IntegrityError, Pipeline, Store, StoreError, digest, node
from gristmill.engine import recording
from gristmill.events import StageEvent
from gristmill.runs import Calls, decode_head, encode_head
from gristmill.storage.ledger import Ledger


def square(x: int) -> int:
    return x * x


def image(square: int) -> Any:
    return np.full(10_000, float(square))


def total(square: Any) -> int:
    return int(square.sum())


def odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


NODES = [node(square, mapspec="x[i] -> square[i]"), node(image, mapspec="square[i] -> image[i]"), node(total)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def pipeline(store: Store, *nodes: Any) -> Pipeline:
    return Pipeline(nodes or NODES, store=store, name="squares")


# -- what is recorded


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_a_map_leaves_a_record(executor: str, store: Store) -> None:
    before = time.time()
    result = pipeline(store).map({"x": range(4)}, map_executor=executor, max_workers=2)
    (record,) = store.runs()
    assert (record.run_id, record.name, record.state) == (result.run_id, "squares", "done")
    assert before <= record.started <= record.refreshed <= time.time()
    assert record.ended is not None
    assert record.outputs == ("image", "total")
    assert [(stage.title, stage.axes, stage.shape) for stage in record.stages] == [
        ("square → image", ("i",), (4,)),
        ("total", (), ()),
    ]
    assert (record.computed, record.cached, record.failed, record.skipped) == (9, 0, 0, 0)
    assert record.bytes_written == result.stats.bytes_written > 0
    assert record.views == result.views
    assert record.versions["python"] == sys.version.split()[0]


def test_the_newest_run_is_first(store: Store) -> None:
    ids = [pipeline(store).map({"x": range(3)}).run_id for _ in range(3)]
    records = store.runs()
    assert [record.run_id for record in records] == ids[::-1]
    assert [record.computed for record in records] == [0, 0, 7]
    assert records[0].cached == 7


def test_run_leaves_a_record_where_it_is_asked_to(store: Store) -> None:
    one = Pipeline([square], store=store)
    one.run({"x": 3})
    assert store.runs() == []
    one.run({"x": 3}, record=True)
    assert [stage.shape for stage in store.runs()[0].stages] == [()]
    assert store.load(store.runs()[0].run_id)["square"] == 9


def test_failures_are_counted_and_described(store: Store) -> None:
    pipeline(store, node(odd, mapspec="x[i] -> odd[i]")).map({"x": range(4)}, on_error="continue")
    (record,) = store.runs()
    assert (record.state, record.computed, record.failed) == ("done", 2, 2)
    assert record.failures == (("odd", (1,), "ValueError: 1 is odd"), ("odd", (3,), "ValueError: 3 is odd"))


def test_a_run_that_raises_has_failed(store: Store) -> None:
    with pytest.raises(ValueError, match="1 is odd"):
        pipeline(store, node(odd, mapspec="x[i] -> odd[i]")).map({"x": range(4)})
    (record,) = store.runs()
    assert (record.state, record.error) == ("failed", "ValueError: 1 is odd")
    assert record.failed >= 1


def test_a_map_inside_a_node_belongs_to_the_outer_one(store: Store) -> None:
    def outer(x: int, where: str) -> list[int]:
        inner = Pipeline([node(square, mapspec="x[i] -> square[i]")], store=where)
        found: list[int] = inner.map({"x": range(x)})["square"].tolist()
        return found

    given = {"x": [2, 3], "where": str(store.location)}
    result = pipeline(store, node(outer, mapspec="x[i] -> outer[i]")).map(given)
    assert result["outer"].tolist() == [[0, 1], [0, 1, 4]]
    assert [record.run_id for record in store.runs()] == [result.run_id]


def test_without_a_store_nothing_is_recorded(tmp_path: Path) -> None:
    result = Pipeline([node(square, mapspec="x[i] -> square[i]")], store=None).map({"x": range(3)})
    assert result["square"].tolist() == [0, 1, 4]
    assert not (tmp_path / "default-store").exists()


def test_a_read_only_store_records_nothing(store: Store) -> None:
    pipeline(store).map({"x": range(3)})
    with Store(store.location, readonly=True) as frozen:
        assert pipeline(frozen).map({"x": range(3)})["total"] == 5
        assert len(frozen.runs()) == 1


def test_a_record_that_cannot_be_written_is_no_failure(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(Ledger, "put_all", refuse)
    assert pipeline(store).map({"x": range(3)})["total"] == 5
    assert store.runs() == []


def test_what_is_damaged_is_left_out(store: Store) -> None:
    run_id = pipeline(store).map({"x": range(3)}).run_id
    pipeline(store).map({"x": range(3)})
    store.storage.ledger.put(b"r" + bytes.fromhex(run_id), b'{"format": 1}')
    assert run_id not in [record.run_id for record in store.runs()]
    assert len(store.runs()) == 1


def test_a_record_survives_its_encoding(store: Store) -> None:
    pipeline(store).map({"x": range(3)})
    (record,) = store.runs()
    assert decode_head(encode_head(record)) == record
    assert record.to_dict()["computed"] == 7


# -- while it runs

SLOW = dedent(
    """
    import sys, time
    from gristmill import Pipeline

    def slow(x):
        time.sleep(0.0 if x < 50 else 60.0)
        return 2 * x

    if __name__ == "__main__":
        print("ready", flush=True)
        Pipeline([(slow, "x[i] -> slow[i]")]).map({"x": range(60)}, map_executor=sys.argv[1], max_workers=2)
    """
)


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_a_killed_run_is_said_to_be_killed_and_loads_what_it_had(
    executor: str, tmp_path: Path, default_store: Path
) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    with Store(default_store) as store, running(script, executor, store=default_store) as program:
        assert program.line() == "ready"
        while not (there := store.runs()) or not there[0].computed:
            assert program.process.poll() is None
            time.sleep(0.05)
        assert there[0].state == "running"
        program.kill()
        (record,) = store.runs()
        assert record.state == "killed"
        assert record.ended is None
        loaded = store.load(record.run_id)["slow"]
        assert loaded.shape == (60,)
        there_now = np.flatnonzero(~loaded.missing)
        assert len(there_now) == record.computed
        assert [loaded[k] for k in there_now.tolist()] == [2 * k for k in there_now.tolist()]
        with pytest.raises(GristmillError, match="missing"):
            np.asarray(loaded)


def test_a_record_is_refreshed_while_the_run_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(recording, "_DUTY", 0)
    seen: list[int] = []

    class Look(Callback):
        def on_stage_progress(self, event: StageEvent) -> None:
            seen.append(store.runs()[0].computed)

    watched = pipeline(store, node(square, mapspec="x[i] -> square[i]")).with_(callbacks=[Look()])
    watched.map({"x": range(1000)}, map_executor="sequential")
    assert seen == sorted(seen)
    assert 0 < seen[0] < seen[-1] <= 1000


def test_a_record_says_what_was_given(store: Store) -> None:
    def scaled(x: int, factor: int, token: str) -> int:
        return factor * x

    nodes = [node(scaled, mapspec="x[i] -> scaled[i]", defaults={"factor": 3}, private=("token",))]
    inputs = {"x": [1, 2], "token": "secret"}
    pipeline(store, *nodes).map(inputs)
    pipeline(store, *nodes).map({**inputs, "x": [1, 3]})
    second, first = (record.inputs for record in store.runs())
    assert first.keys() == second.keys() == {"x", "factor"}
    assert first["factor"] == second["factor"] == str(digest(3))
    assert first["x"] != second["x"]


def test_a_record_says_that_the_run_is_alive(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "HEARTBEAT_SECONDS", 0.1)

    def slow(x: int) -> int:
        time.sleep(0.6)
        return x

    def watch() -> None:
        while not done.is_set():
            seen.update(record.refreshed for record in store.runs())
            time.sleep(0.02)

    seen: set[float] = set()
    done = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    pipeline(store, node(slow, mapspec="x[i] -> slow[i]")).map({"x": [1]}, map_executor="parallel")
    done.set()
    watcher.join()
    assert len(seen) >= 4


def test_a_record_says_where_the_time_went(store: Store) -> None:
    def busy(x: int) -> int:
        until = time.thread_time() + 0.03
        while time.thread_time() < until:
            pass
        return x

    def waits(busy: int) -> int:
        time.sleep(0.03)
        return busy

    nodes = [node(busy, mapspec="x[i] -> busy[i]"), node(waits, mapspec="busy[i] -> waits[i]")]
    pipeline(store, *nodes).map({"x": range(4)}, map_executor="sequential")
    (stage,) = store.runs()[0].stages
    first, second = stage.nodes
    assert first.cpu_seconds >= 4 * 0.03
    assert second.seconds >= 4 * 0.03
    assert second.cpu_seconds < second.seconds / 2
    assert stage.seconds >= first.seconds + second.seconds
    pipeline(store, *nodes).map({"x": range(4)}, map_executor="sequential")
    (stage,) = store.runs()[0].stages
    assert (stage.seconds, [one.seconds for one in stage.nodes]) == (0.0, [0.0, 0.0])


# -- loading


def test_a_loaded_result_is_the_result(store: Store) -> None:
    result = pipeline(store).map({"x": range(5)}, output_name=["square", "image", "total"])
    loaded = store.load(result.run_id)
    assert list(loaded) == list(result)
    assert loaded["square"].tolist() == [0, 1, 4, 9, 16]
    assert np.array_equal(np.asarray(loaded["image"]), np.asarray(result["image"]))
    assert loaded["total"] == 30
    assert loaded["image"].axes == ("i",)
    assert loaded.stats.computed == result.stats.computed
    assert loaded.views == result.views


def test_the_first_characters_of_an_id_are_enough(store: Store) -> None:
    run_id = pipeline(store).map({"x": range(3)}).run_id
    assert store.load(run_id[:5]).run_id == run_id


def test_a_run_that_is_not_there_is_an_error(store: Store) -> None:
    with pytest.raises(StoreError, match="there is no run 'nothing'"):
        store.load("nothing")
    pipeline(store).map({"x": range(3)})
    with pytest.raises(StoreError, match="it has 1 run record"):
        store.load("")


def test_failed_elements_are_missing(store: Store) -> None:
    pipeline(store, node(odd, mapspec="x[i] -> odd[i]")).map({"x": range(4)}, on_error="continue")
    loaded = store.load(store.runs()[0].run_id)["odd"]
    assert loaded.missing.tolist() == [False, True, False, True]
    assert loaded.tolist() == [0, None, 2, None]


def test_what_is_not_kept_cannot_be_loaded(store: Store) -> None:
    pipeline(store, node(square, cache=False)).run({"x": 2}, record=True)
    with pytest.raises(GristmillError, match="cache=False"):
        store.load(store.runs()[0].run_id)["square"]


def test_damage_in_a_loaded_result_says_what_to_do_and_then_loads(store: Store) -> None:
    run_id = pipeline(store).map({"x": range(4)}).run_id
    chunk = sorted((store.location / "chunks").glob("*/*"))[1]
    chunk.chmod(0o600)
    chunk.write_bytes(b"\1" * 80_000)
    loaded = store.load(run_id)
    with pytest.raises(IntegrityError, match="map the same inputs again"):
        np.asarray(loaded["image"])
    again = pipeline(store).map({"x": range(4)})
    assert again.stats.computed == 1
    healed = store.load(run_id)
    assert np.asarray(healed["image"])[:, 0].tolist() == [0, 1, 4, 9]


def test_another_process_loads_the_same(store: Store) -> None:
    result = pipeline(store).map({"x": range(1000)}, output_name="square")
    with Store(store.location) as other:
        assert other.load(result.run_id)["square"].tolist() == result["square"].tolist()


# -- ranges


@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)) | st.none(), max_size=40),
    block=st.integers(1, 50),
)
def test_calls_mean_the_same_elsewhere(rows: list[tuple[int, int] | None], block: int) -> None:
    numbers = [7, 1 << 60, 12, (1 << 62) + 5]

    class Index:
        def portable(self, locators: Any) -> Any:
            found = [(numbers[k >> 32], k & 0xFFFFFFFF) if k >= 0 else (-1, -1) for k in locators.tolist()]
            return np.array(found, dtype=np.int64).reshape(-1, 2)

    locators = np.array([-1 if row is None else (row[0] << 32) + row[1] for row in rows], dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:  # what is longer than a block is the same
        patch.setattr("gristmill.runs._BLOCK", block)
        body = Calls.of(Index(), locators).encode()  # type: ignore[arg-type]
    calls = Calls.decode(body + b"rest of a longer one")
    assert calls.size == len(rows)
    assert calls.rows().tolist() == [[-1, -1] if row is None else [numbers[row[0]], row[1]] for row in rows]


def test_calls_in_order_are_few_bytes(store: Store) -> None:
    run_id = Pipeline([node(square, mapspec="x[i] -> square[i]")], store=store).map({"x": range(5000)}).run_id
    rows = store.storage.ledger.under(b"s" + bytes.fromhex(run_id), 4)
    assert sum(len(body or b"") for _, body in rows) < 500
