"""Threads and coroutines: how many calls run at once, and what becomes of those that wait."""

import asyncio
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.support.calls import CallLog, record

from gristmill import Engine, Pipeline, Store, node
from gristmill.engine.coroutines import LoopLanes
from gristmill.engine.lanes import THREADS, ThreadLanes

CONTEXT: ContextVar[str] = ContextVar("context", default="none")


def crowd(path: Path, *, is_async: bool) -> Any:
    """A function that says when it begins and ends."""
    log = str(path)

    def waiting(x: int) -> int:
        record(log, "+")
        time.sleep(0.02)
        record(log, "-")
        return x

    async def awaiting(x: int) -> int:
        record(log, "+")
        await asyncio.sleep(0.02)
        record(log, "-")
        return x

    return node(awaiting if is_async else waiting, output_name="y", mapspec="x[i] -> y[i]")


def greatest(path: Path) -> int:
    """How many calls ran at once."""
    running, most = 0, 0
    for call in CallLog(path).calls():
        running += 1 if call == "+" else -1
        most = max(most, running)
    return most


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("executor", "width"), [("threaded:3", 3), ("async:3", 3), ("threaded:1", 1)])
def test_as_many_calls_run_at_once_as_was_asked_for(
    executor: str, width: int, tmp_path: Path, *, is_async: bool
) -> None:
    log = tmp_path / "log"
    result = Pipeline([crowd(log, is_async=is_async)]).map({"x": range(20)}, map_executor=executor)
    assert result["y"].tolist() == list(range(20))
    assert greatest(log) == width


def test_many_more_coroutines_than_threads_are_under_way(tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = Pipeline([crowd(log, is_async=True)]).map({"x": range(300)}, map_executor="async")
    assert result["y"].tolist() == list(range(300))
    assert greatest(log) > 100


def test_max_workers_is_the_width_of_both(tmp_path: Path) -> None:
    for executor in ("threaded", "async"):
        for is_async in (False, True):
            log = tmp_path / f"{executor}{is_async}"
            engine = Engine(map_executor=executor, max_workers=2)
            Pipeline([crowd(log, is_async=is_async)], engine=engine).map({"x": range(10)})
            assert greatest(log) == 2


@pytest.mark.parametrize("executor", ["threaded", "async"])
def test_independent_nodes_of_a_run_run_side_by_side(executor: str) -> None:
    meeting = threading.Barrier(3, timeout=20)  # each waits until the others have come, too

    def make(name: str) -> Any:
        def meet(x: int) -> int:
            BARRIERS[key].wait()
            return x

        key = id(meeting)
        return node(meet, output_name=name, ignore_globals=["BARRIERS"], version=name)

    BARRIERS[id(meeting)] = meeting
    total = node(lambda a, b, c: a + b + c, output_name="total")
    pipeline = Pipeline([make("a"), make("b"), make("c"), total])
    assert pipeline.run({"x": 2}, node_executor=executor) == {"total": 6}


BARRIERS: dict[int, threading.Barrier] = {}


@pytest.mark.parametrize("is_async", [False, True])
def test_the_first_failure_starts_no_more_calls(tmp_path: Path, *, is_async: bool) -> None:
    path = str(tmp_path / "log")

    def fails(x: int) -> int:
        record(path, f"{x}")
        if x == 0:
            raise ValueError("zero")
        time.sleep(0.05)
        return x

    async def fails_too(x: int) -> int:
        return await asyncio.to_thread(fails, x)

    made = node(fails_too if is_async else fails, output_name="y", mapspec="x[i] -> y[i]")
    with pytest.raises(ValueError, match="zero"):
        Pipeline([made]).map({"x": range(200)}, map_executor="async:4")
    assert len(CallLog(tmp_path / "log").take()) < 50


@pytest.mark.parametrize("executor", ["threaded", "async"])
def test_failures_are_those_of_single_items(executor: str) -> None:
    async def odd(x: int) -> int:
        if x % 2 == 0:
            raise SystemExit(3) if x % 4 else KeyError(x)
        return x

    def even(x: int) -> int:
        if x % 2:
            raise KeyboardInterrupt
        return x

    for function, left in ((odd, [1, 3, 5, 7]), (even, [0, 2, 4, 6])):
        made = node(function, output_name="y", mapspec="x[i] -> y[i]")
        result = Pipeline([made]).map({"x": range(8)}, map_executor=executor, on_error="continue")
        assert [one for one in result["y"].tolist() if one is not None] == left
        assert [error.index for error in result.errors] == [(x,) for x in range(8) if x not in left]


@pytest.mark.parametrize("executor", ["threaded:4", "async:4"])
def test_maps_inside_calls_add_no_threads(executor: str) -> None:
    def inner(x: int) -> int:
        time.sleep(0.01)
        return x + 1

    def outer(n: int) -> tuple[int, int]:
        with Store.temporary() as store:
            made = Pipeline([node(inner, output_name="y", mapspec="x[i] -> y[i]")], store=store)
            result = made.map({"x": range(n)}, map_executor="threaded:50")
            return sum(result["y"]), sum(one.name == "gristmill-lane" for one in threading.enumerate())

    before = sum(one.name == "gristmill-lane" for one in threading.enumerate())
    made = node(outer, output_name=("sum", "threads"), mapspec="n[i] -> sum[i], threads[i]")
    result = Pipeline([made]).map({"n": [5] * 8}, map_executor=executor)
    assert result["sum"].tolist() == [15] * 8
    assert max(result["threads"].tolist()) <= before + 4 + 3  # and those that drive the batches


def test_contexts_are_those_of_the_caller() -> None:
    def read(x: int) -> str:
        return CONTEXT.get()

    async def read_too(x: int) -> str:
        return CONTEXT.get()

    token = CONTEXT.set("mine")
    try:
        for executor in ("threaded", "async"):
            for function in (read, read_too):
                made = node(function, output_name="y", mapspec="x[i] -> y[i]", ignore_globals=["CONTEXT"])
                result = Pipeline([made], store=None).map({"x": range(3)}, map_executor=executor)
                assert result["y"].tolist() == ["mine"] * 3
    finally:
        CONTEXT.reset(token)


def test_threads_are_used_again() -> None:
    lanes = ThreadLanes(2)
    used: set[int] = set()
    for _ in range(5):
        done = threading.Semaphore(0)

        def job(done: threading.Semaphore) -> None:
            used.add(threading.get_ident())
            done.release()

        lanes.start([partial(job, done)] * 4)
        for _ in range(4):
            assert done.acquire(timeout=10)
        time.sleep(0.01)  # until they have come back
    assert len(used) <= 4


def test_a_loop_that_is_closed_cancels_what_runs_and_lets_the_rest_say_so() -> None:
    lanes, told = LoopLanes(2), []

    async def job(number: int) -> None:
        try:
            await asyncio.sleep(30 if number < 2 else 0)
            told.append(f"{number} ran")
        except asyncio.CancelledError:
            told.append(f"{number} cancelled")
            raise

    lanes.start([partial(job, number) for number in range(4)])
    deadline = time.monotonic() + 10
    while len(lanes._tasks) < 2 and time.monotonic() < deadline:  # noqa: SLF001 - until they have begun
        time.sleep(0.001)
    lanes.close()
    assert sorted(told) == ["0 cancelled", "1 cancelled", "2 ran", "3 ran"]


def test_a_task_may_come_at_any_time() -> None:
    results: list[int] = []
    done = threading.Semaphore(0)

    def task(number: int) -> None:
        results.append(number)
        done.release()

    for number in range(200):
        THREADS.run(partial(task, number))
    for _ in range(200):
        assert done.acquire(timeout=10)
    assert sorted(results) == list(range(200))


@pytest.mark.parametrize("executor", ["threaded", "async"])
def test_a_call_that_never_returns_does_not_keep_the_interpreter(executor: str, tmp_path: Path) -> None:
    """After Ctrl-C, which a program may catch."""
    script = f"""
import os, signal, threading, time
from gristmill import Pipeline, node

def stuck(x):
    if x == 3:
        threading.Event().wait()
    return x

pipeline = Pipeline([node(stuck, output_name="y", mapspec="x[i] -> y[i]")], store={str(tmp_path / "store")!r})
threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    pipeline.map({{"x": range(6)}}, map_executor={executor!r}, progress=False)
except KeyboardInterrupt:
    print("interrupted")
print(pipeline.map({{"x": [0, 1, 2, 4, 5]}}, map_executor="sequential").stats.computed)
"""
    path = tmp_path / "script.py"
    path.write_text(script)
    done = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert (done.stdout.split(), done.returncode) == (["interrupted", "0"], 0), done.stderr
