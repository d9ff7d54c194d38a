"""What runs a stage, and why, as the run record says."""

import asyncio
import json
import math
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.executors import Inline

from gristmill import Pipeline, StageRecord, Store, node
from gristmill.engine import choosing, worker
from gristmill.engine.executors.warm import WARM
from gristmill.runs import decode_head, encode_head


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def busy(x: int) -> int:
    end = time.thread_time() + 0.002
    while time.thread_time() < end:
        pass
    return x


def very_busy(x: int) -> int:
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass
    return x


def idle(x: int) -> int:
    time.sleep(0.01)
    return x


async def waits(x: int) -> int:
    await asyncio.sleep(0.001)
    return x


def stage(store: Store, function: Any, count: int, **options: Any) -> StageRecord:
    """The record of a stage that calls a function."""
    Pipeline([node(function, output_name="y", mapspec="x[i] -> y[i]")], store=store).map(
        {"x": range(count)}, **options
    )
    return store.runs()[0].stages[0]


@pytest.mark.parametrize(
    ("function", "count", "executor", "reason"),
    [
        (busy, 10, "sequential", r"starting anything takes longer: [\d.]+ ms each, \d+ left"),
        (very_busy, 30, "parallel", r"calls compute: [\d.]+ ms each, \d+ left"),
        (idle, 30, "threaded", r"calls wait: 0% CPU of [\d.]+ ms each, \d+ left"),
        (waits, 30, "async", "a coroutine function"),
        (busy, 1, "sequential", "a single call is left"),
    ],
    ids=["busy", "very-busy", "idle", "coroutines", "one-call"],
)
def test_auto_says_what_it_chose_and_why(
    function: Any, count: int, executor: str, reason: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a thread used of a CPU, and waited for one, depends on what else runs on the machine.
    clock = (lambda: 0.0) if function is idle else time.perf_counter
    monkeypatch.setattr(worker, "busy_seconds", clock)
    if function is busy:  # and so does how long that takes
        monkeypatch.setattr(choosing, "PROCESS_SECONDS", math.inf)
        WARM.end()
    record = stage(store, function, count, map_executor="auto", max_workers=2)
    assert record.executor == executor
    assert re.fullmatch(reason, record.reason), record.reason


def test_processes_that_are_there_pay_sooner(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "busy_seconds", time.perf_counter)
    monkeypatch.setattr(choosing, "PROCESS_SECONDS", math.inf)
    WARM.end()
    assert stage(store, very_busy, 9, map_executor="auto", max_workers=2).executor == "sequential"
    stage(store, idle, 4, map_executor="parallel", max_workers=2)
    assert len(WARM) == 2
    assert stage(store, very_busy, 19, map_executor="auto", max_workers=2).executor == "parallel"
    assert stage(store, very_busy, 29, map_executor="auto", max_workers=1).executor == "sequential"


def test_what_cannot_be_sent_to_a_process_says_so(store: Store) -> None:
    lock = threading.Lock()

    def locked(x: int) -> int:
        with lock:
            return very_busy(x)

    made = node(locked, output_name="y", mapspec="x[i] -> y[i]", version="1")
    Pipeline([made], store=store).map({"x": range(15)})
    record = store.runs()[0].stages[0]
    assert (record.executor, record.reason) == (
        "sequential",
        "what it needs cannot be sent to another process",
    )


def test_what_the_user_chose_needs_no_reason(store: Store) -> None:
    record = stage(store, idle, 5, map_executor="threaded:2")
    assert (record.executor, record.reason) == ("threaded", "")
    record = stage(store, idle, 10, map_executor=Inline())
    assert (record.executor, record.reason) == ("Inline", "")


def test_nothing_ran_what_was_found(store: Store) -> None:
    for _ in range(2):
        record = stage(store, idle, 5)
    assert (record.cached, record.executor, record.reason) == (5, "", "")


def test_records_of_earlier_versions_are_read(store: Store) -> None:
    stage(store, idle, 5)
    (record,) = store.runs()
    body = json.loads(encode_head(record))
    for one in body["stages"]:
        del one["executor"], one["reason"]
    (old,) = decode_head(json.dumps(body).encode()).stages
    assert (old.executor, old.reason, old.computed) == ("", "", 5)


def napping(x: int) -> int:
    time.sleep(0.03)
    return x


def test_nodes_that_wait_run_side_by_side_once_one_of_them_has_been_measured(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "busy_seconds", lambda: 0.0)
    nodes = [node(napping, output_name=name, renames={"x": f"x_{name}"}) for name in "abcd"]
    total = node(lambda a, b, c, d: a + b + c + d, output_name="total")
    given = dict.fromkeys(("x_a", "x_b", "x_c", "x_d"), 1)
    made = Pipeline([*nodes, total], store=store).run(given, node_executor="auto", record=True)
    assert made == {"total": 4}
    assert [stage.executor for stage in store.runs()[0].stages] == [
        *("sequential", "threaded", "threaded", "threaded"),
        "sequential",
    ]
