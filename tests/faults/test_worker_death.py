"""A worker that dies takes one item with it, names it, and leaves the engine working."""

import ctypes
import os
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest
from tests.support.calls import CallLog, record

from gristmill import Callback, MapResult, Pipeline, WorkerDiedError, node
from gristmill.events import StageEvent


def leave() -> NoReturn:
    os._exit(3)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def segfault() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


class DiesWhenPickled:
    """Kills the process that wants to send or store it."""

    def __digest__(self) -> str:
        return "one"

    def __reduce__(self) -> NoReturn:
        os._exit(4)


class DiesWhenPickledError(Exception):
    """Kills the process that reports it."""

    def __reduce__(self) -> NoReturn:
        os._exit(5)


def return_deadly() -> Any:
    return DiesWhenPickled()


def raise_deadly() -> NoReturn:
    raise DiesWhenPickledError


DEATHS = [leave, kill_itself, segfault, abort, return_deadly, raise_deadly]


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


@pytest.fixture(autouse=True)
def no_core_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def deadly(death: Any, log: CallLog) -> Pipeline:
    """A node that dies at 13, and one after it."""
    path = log.path

    def risky(x: int) -> Any:
        record(path, x)
        return death() if x == 13 else x

    def after(risky: int) -> int:
        return -risky

    return Pipeline([(risky, "x[i] -> risky[i]"), (after, "risky[i] -> after[i]")])


def check_healthy() -> None:
    """The engine works as if nothing had happened."""
    pipeline = Pipeline([node(lambda x: x + 1, output_name="y", mapspec="x[i] -> y[i]")], store=None)
    assert pipeline.map({"x": range(50)}, map_executor="parallel")["y"].tolist() == list(range(1, 51))


@pytest.mark.parametrize("death", DEATHS)
def test_an_item_that_kills_its_worker_fails_alone(death: Any, log: CallLog) -> None:
    result = deadly(death, log).map(
        {"x": range(60)}, on_error="continue", map_executor="parallel", max_workers=2
    )
    assert result["after"].tolist() == [-x if x != 13 else None for x in range(60)]
    (error,) = result.errors
    assert isinstance(error.error, WorkerDiedError)
    assert (error.output_name, error.index) == ("risky", (13,))
    assert "risky" in str(error.error)
    assert "(13,)" in str(error.error)
    assert error.inputs == {"x": 13}
    assert (result.stats.failed, result.stats.skipped) == (1, 1)
    check_healthy()


def test_it_is_tried_again_before_it_fails(log: CallLog) -> None:
    deadly(leave, log).map({"x": range(60)}, on_error="continue", map_executor="parallel", max_workers=2)
    assert log.counts()["13"] > 1


def test_raise_raises_worker_died(log: CallLog) -> None:
    with pytest.raises(WorkerDiedError, match=r"risky.*\(13,\)"):
        deadly(leave, log).map({"x": range(60)}, map_executor="parallel", max_workers=2)
    check_healthy()


def test_an_item_that_dies_once_is_tried_again_and_succeeds(log: CallLog) -> None:
    path = log.path

    def flaky(x: int) -> int:
        record(path, x)
        if x == 7 and Path(path).read_text().count(" 7\n") == 1:
            kill_itself()
        return x

    pipeline = Pipeline([node(flaky, mapspec="x[i] -> flaky[i]")])
    result = pipeline.map({"x": range(20)}, map_executor="parallel", max_workers=2)
    assert result["flaky"].tolist() == list(range(20))
    assert result.errors == []
    assert log.counts()["7"] == 2


def test_several_deadly_items_each_fail_alone() -> None:
    def risky(x: int) -> int:
        if x % 10 == 3:
            leave()
        return x

    pipeline = Pipeline([node(risky, mapspec="x[i] -> risky[i]")])
    result = pipeline.map({"x": range(40)}, on_error="continue", map_executor="parallel", max_workers=2)
    assert result["risky"].tolist() == [x if x % 10 != 3 else None for x in range(40)]
    assert [error.index for error in result.errors] == [(3,), (13,), (23,), (33,)]


@pytest.mark.parametrize("end", ["death", "timeout"])
def test_what_waits_behind_a_batch_whose_process_ends_is_called_once(end: str, log: CallLog) -> None:
    path = log.path

    def brisk(x: int) -> int:
        record(path, x)
        time.sleep(60 if x == 31 and end == "timeout" else 0.02)
        if x == 31:
            kill_itself()
        return x

    limit = 0.5 if end == "timeout" else None
    pipeline = Pipeline([node(brisk, mapspec="x[i] -> brisk[i]", timeout=limit)])
    result = pipeline.map({"x": range(80)}, on_error="continue", map_executor="parallel", max_workers=2)
    assert [error.index for error in result.errors] == [(31,)]
    assert [x for x in result["brisk"].tolist() if x is not None] == [x for x in range(80) if x != 31]
    calls = log.counts()
    batch = 8  # 0.15 s of calls; those that had ended, but were not committed, are made again
    assert {x for x, made in calls.items() if made > 1} <= {str(x) for x in range(32 - batch, 32)}


def test_what_was_finished_before_a_death_is_kept(log: CallLog) -> None:
    deadly(leave, log).map({"x": range(60)}, on_error="continue", map_executor="parallel", max_workers=2)
    log.take()
    result = deadly(leave, log).map(
        {"x": range(60)}, on_error="continue", map_executor="parallel", max_workers=2
    )
    assert set(log.take()) == {"13"}
    assert (result.stats.computed, result.stats.failed) == (0, 1)


def test_a_deadly_reduction_fails_alone() -> None:
    def total(square: Any) -> NoReturn:
        leave()

    square = node(lambda x: x * x, output_name="square", mapspec="x[i] -> square[i]")
    side = node(lambda square: int(square.max()), output_name="top")
    pipeline = Pipeline([square, node(total), side])
    result = pipeline.map({"x": range(5)}, on_error="continue", map_executor="parallel", max_workers=2)
    assert result["top"] == 16
    (error,) = result.errors
    assert isinstance(error.error, WorkerDiedError)
    assert error.index == ()


class DiesOnArrival:
    """Kills the process that unpickles it."""

    def __digest__(self) -> str:
        return "arrival"

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (6,)


def test_an_input_that_kills_on_arrival_fails_alone() -> None:
    def take(x: Any) -> int:
        return 0 if isinstance(x, DiesOnArrival) else int(x)

    pipeline = Pipeline([node(take, mapspec="x[i] -> take[i]")])
    given: list[Any] = [1, 2, DiesOnArrival(), 4]
    result = pipeline.map({"x": given}, on_error="continue", map_executor="parallel", max_workers=2)
    assert result["take"].tolist() == [1, 2, None, 4]
    assert isinstance(result.errors[0].error, WorkerDiedError)
    check_healthy()


def test_a_function_that_kills_on_arrival_ends_the_map() -> None:
    deadly_object = DiesOnArrival()

    def use(x: int) -> Any:
        return (x, deadly_object)[0]

    def run() -> MapResult:
        pipeline = Pipeline([node(use, mapspec="x[i] -> use[i]")])
        return pipeline.map({"x": range(3)}, on_error="continue", map_executor="parallel", max_workers=1)

    assert [type(error.error) for error in run().errors] == [WorkerDiedError] * 3
    check_healthy()


def workers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "LokyProcess" in " ".join(p.cmdline())]


def test_workers_killed_while_idle_are_replaced() -> None:
    check_healthy()
    for worker in workers():
        worker.kill()
    check_healthy()


class Killer(Callback):
    """Kills a worker after every fifty calls, three times."""

    def __init__(self, log: CallLog) -> None:
        self.killed = 0
        self._log = log

    def on_stage_progress(self, event: StageEvent) -> None:
        pids = self._log.calls()
        if self.killed < 3 and len(pids) > 50 * (self.killed + 1):
            self.killed += 1
            psutil.Process(int(pids[-1])).kill()


def test_workers_killed_from_outside_while_they_work_lose_nothing(log: CallLog) -> None:
    path = log.path

    def slow(x: int) -> int:
        record(path, os.getpid())
        time.sleep(0.005)
        return x

    killer = Killer(log)
    pipeline = Pipeline([node(slow, mapspec="x[i] -> slow[i]")], callbacks=[killer])
    result = pipeline.map({"x": range(400)}, map_executor="parallel", max_workers=2)
    assert result["slow"].tolist() == list(range(400))
    assert result.errors == []
    assert killer.killed == 3


def test_dead_workers_leave_no_zombies() -> None:
    def risky(x: int) -> int:
        if x == 1:
            leave()
        return x

    pipeline = Pipeline([node(risky, mapspec="x[i] -> risky[i]")])
    pipeline.map({"x": range(3)}, on_error="continue", map_executor="parallel", max_workers=2)
    check_healthy()
    assert [p for p in psutil.Process().children() if p.status() == psutil.STATUS_ZOMBIE] == []
