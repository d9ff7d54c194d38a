"""One suite for every executor: whatever runs the calls, a user notices no difference but the time."""

import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record
from tests.support.executors import ELSEWHERE, OWN
from tests.support.programs import running
from tests.support.values import VALUES, same

from gristmill import Callback, Engine, MapResult, Pipeline, node
from gristmill.events import FaultEvent, RunEvent, StageEvent

EXECUTORS = (
    *("sequential", "threaded", "threaded:1", "async", "parallel", "parallel:1", "parallel:3", "auto"),
    *OWN,
)

ONE_OF_EACH = ("sequential", "threaded", "async", "parallel", *OWN)
"""Without those that only differ in width, for what takes longer."""


@pytest.fixture(params=EXECUTORS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def executor(name: str, kept: Mapping[str, Any]) -> Any:
    return kept[name]


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def square(x: int) -> int:
    return x * x


def spread(square: int) -> Any:
    return np.full(10_000, square / 2)  # 80 kB: a chunk


def mean(spread: Any) -> float:
    return float(spread.mean())


def total(mean: Any) -> float:
    return float(mean.sum())


NODES = [
    node(square, mapspec="x[i] -> square[i]"),
    node(spread, mapspec="square[i] -> spread[i]"),
    node(mean, mapspec="spread[i] -> mean[i]"),
    node(total),
]
EVERYTHING = ["square", "spread", "mean", "total"]


def run(executor: Any, x: Any, **options: Any) -> MapResult:
    return Pipeline(NODES, engine=Engine(map_executor=executor)).map({"x": x}, **options)


def test_the_result_is_right(executor: Any) -> None:
    result = run(executor, range(30), output_name=EVERYTHING)
    squares = [x * x for x in range(30)]
    assert result["square"].tolist() == squares
    assert result["mean"].tolist() == [s / 2 for s in squares]
    assert np.asarray(result["spread"]).shape == (30, 10_000)
    assert np.asarray(result["spread"])[:, 7].tolist() == [s / 2 for s in squares]
    assert result["total"] == sum(squares) / 2


def test_a_second_run_computes_nothing(executor: Any) -> None:
    first, second = run(executor, range(30)), run(executor, range(30))
    assert (first.stats.computed, first.stats.cached) == (91, 0)
    assert (second.stats.computed, second.stats.cached, second["total"]) == (0, 91, first["total"])


@pytest.mark.parametrize("other", ["sequential", "parallel"])
def test_keys_do_not_depend_on_the_executor(executor: Any, other: str) -> None:
    run(executor, range(10))
    result = run(other, range(12))
    assert (result.stats.computed, result.stats.cached) == (3 * 2 + 1, 3 * 10)
    assert result["total"] == sum(x * x for x in range(12)) / 2


def test_values_keep_their_types(executor: Any) -> None:
    pipeline = Pipeline([node(lambda v: v, output_name="kept", mapspec="v[i] -> kept[i]")])
    result = pipeline.map({"v": list(VALUES.values())}, map_executor=executor)
    kept = dict(zip(VALUES, result["kept"], strict=True))
    assert [name for name in VALUES if not same(kept[name], VALUES[name])] == []


def test_every_call_is_made_once(executor: Any, log: CallLog) -> None:
    path = log.path

    def logged(x: int) -> int:
        record(path, x)
        return x

    pipeline = Pipeline([node(logged, mapspec="x[i] -> logged[i]")])
    pipeline.map({"x": range(500)}, map_executor=executor)
    assert log.take() == sorted(map(str, range(500)))


def test_a_failure_is_raised_with_its_type_and_a_note(executor: Any) -> None:
    def inverse(x: int) -> float:
        return 1 / x

    with pytest.raises(ZeroDivisionError) as caught:
        Pipeline([node(inverse, mapspec="x[i] -> inverse[i]")]).map({"x": [1, 0]}, map_executor=executor)
    assert "in node" in caught.value.__notes__[0]
    assert "(1,)" in caught.value.__notes__[0]


def test_neighbours_of_a_failure_finish(executor: Any) -> None:
    def inverse(x: int) -> float:
        return 1 / x

    pipeline = Pipeline([node(inverse, mapspec="x[i] -> inverse[i]")])
    result = pipeline.map({"x": [4, 0, 2, 0]}, on_error="continue", map_executor=executor)
    assert result["inverse"].tolist() == [0.25, None, 0.5, None]
    assert [error.index for error in result.errors] == [(1,), (3,)]


def test_it_works_after_a_failure(executor: Any) -> None:
    test_a_failure_is_raised_with_its_type_and_a_note(executor)
    assert run(executor, range(5))["total"] == 15.0


def test_two_maps_at_once_in_two_threads(executor: Any) -> None:
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda k: run(executor, range(k, k + 20))["total"], [0, 5, 100]))
    assert results == [sum(x * x for x in range(k, k + 20)) / 2 for k in (0, 5, 100)]


def test_one_pipeline_used_by_two_threads(executor: Any, log: CallLog) -> None:
    path = log.path

    def logged(x: int) -> int:
        record(path, x)
        return -x

    pipeline = Pipeline([node(logged, mapspec="x[i] -> logged[i]")], engine=Engine(map_executor=executor))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: pipeline.map({"x": range(100)})["logged"].tolist(), range(4)))
    assert results == [[-x for x in range(100)]] * 4
    assert len(log.take()) == 100


def test_a_map_from_a_thread_that_is_not_the_main_one(executor: Any) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(run(executor, range(5))["total"]))
    thread.start()
    thread.join()
    assert found == [15.0]


def map_again(executor: Any, n: int) -> float:
    pipeline = Pipeline(NODES, engine=Engine(map_executor=executor), store=None)
    return float(pipeline.map({"x": range(n)})["total"])


def test_a_function_may_map_itself(name: str, executor: Any) -> None:
    inside = (
        "parallel" if name in (*ELSEWHERE, "pickling") else executor
    )  # these cannot be sent to another process

    def inner(n: int) -> float:
        return map_again(inside, n)

    pipeline = Pipeline([node(inner, mapspec="n[i] -> inner[i]", version="1")])
    assert pipeline.map({"n": [1, 2, 3, 4]}, map_executor=executor)["inner"].tolist() == [0.0, 0.5, 2.5, 7.0]


def test_workers_are_at_most_as_many_as_asked(log: CallLog) -> None:
    path = log.path

    def who(x: int) -> int:
        record(path, os.getpid())
        return x

    for width in (1, 2):
        Pipeline([node(who, mapspec="x[i] -> who[i]")], store=None).map(
            {"x": range(200)}, map_executor="parallel", max_workers=width
        )
        assert 1 <= len(set(log.take())) <= width


def test_outputs_may_have_executors_of_their_own(log: CallLog) -> None:
    path = log.path

    def here(x: int) -> int:
        record(path, "here", os.getpid())
        return x

    def there(here: int) -> int:
        record(path, "there", os.getpid())
        return here

    pipeline = Pipeline([(here, "x[i] -> here[i]"), (there, "here[i] -> there[i]")])
    pipeline.map({"x": range(10)}, map_executor={"there": "parallel", "": "sequential"})
    places = {tuple(line.split()) for line in log.take()}
    assert {pid for name, pid in places if name == "here"} == {str(os.getpid())}
    assert str(os.getpid()) not in {pid for name, pid in places if name == "there"}


def test_run_uses_the_node_executor(log: CallLog) -> None:
    path = log.path

    def who() -> int:
        record(path, os.getpid())
        return 1

    pipeline = Pipeline([node(who)], store=None)
    pipeline.run()
    assert log.take() == [str(os.getpid())]
    pipeline.run(node_executor="parallel")
    assert log.take() != [str(os.getpid())]


def test_nothing_but_small_reports_passes_the_pipe() -> None:
    result = run("parallel", range(100))
    assert 0 < result.stats.bytes_piped < 100 * 16 + 20_000
    assert result.stats.bytes_written > 100 * 80_000


@pytest.mark.parametrize("name", ONE_OF_EACH, indirect=True)
def test_the_first_failure_starts_no_more_calls(executor: Any, log: CallLog) -> None:
    path = log.path

    def fails(x: int) -> int:
        record(path, x)
        if x == 3:
            raise ValueError("three")
        time.sleep(0.002)
        return x

    pipeline = Pipeline([node(fails, mapspec="x[i] -> fails[i]")])
    with pytest.raises(ValueError, match="three"):
        pipeline.map({"x": range(1500)}, map_executor=executor, max_workers=2)
    made = [int(x) for x in log.take()]
    assert len(made) < 750
    again = pipeline.map({"x": [x for x in made if x != 3]}, map_executor="sequential")
    assert again.stats.computed == 0  # all that had ended was kept


@pytest.mark.parametrize("name", ONE_OF_EACH, indirect=True)
def test_the_nodes_of_a_run(executor: Any) -> None:
    def fails(total: float) -> float:
        raise ValueError(f"{total:.1f}")

    engine = Engine(node_executor=executor, map_executor=executor)
    for _ in range(2):
        assert Pipeline(NODES, engine=engine).run({"x": range(6)}) == {"total": 27.5}
    with pytest.raises(ValueError, match=r"27\.5") as caught:
        Pipeline([*NODES, node(fails)], engine=engine).run({"x": range(6)})
    assert "in node" in caught.value.__notes__[0]


PROGRAM = """
import os, signal, sys, time
from gristmill import Pipeline, node
from tests.support.calls import record
from tests.support.executors import made

signal.signal(signal.SIGINT, signal.default_int_handler)


def slow(x):
    time.sleep(0.02 if x < 20 or "again" in sys.argv else 60)
    record({log!r}, x)
    return 2 * x


if __name__ == "__main__":
    slow_node = node(slow, output_name="y", mapspec="x[i] -> y[i]", version="1")
    with made(sys.argv[1]) as executor:
        try:
            result = Pipeline([slow_node]).map({{"x": range(24)}}, map_executor=executor, max_workers=2, progress=False)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            os._exit(0)  # what sleeps in an executor of its own is not waited for
    assert result["y"].tolist() == [2 * x for x in range(24)]
    print(result.stats.cached)
"""


@pytest.mark.parametrize("how", ["ctrl-c", "killed"])
@pytest.mark.parametrize("own", ["thread-pool", "process-pool", "loky"])  # for the others, see tests/faults
def test_what_had_ended_is_kept_when_the_program_is_stopped(
    own: str, how: str, log: CallLog, tmp_path: Path, default_store: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(log=log.path))
    with running(program, own, store=default_store) as stopped:
        deadline = time.monotonic() + 60
        while len(log.calls()) < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)  # several times as long as a finished call waits for company
        if how == "killed":
            stopped.kill()
        else:
            stopped.interrupt()
            assert stopped.line() == "interrupted"
    assert len(log.take()) == 20
    with running(program, "sequential", "again", store=default_store) as again:
        assert again.finish().strip() == "20"


def test_empty_maps(executor: Any) -> None:
    result = run(executor, [], output_name=EVERYTHING)
    assert (result["square"].tolist(), result["total"]) == ([], 0.0)


class Recorder(Callback):
    """Remembers everything it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def on_run_start(self, event: RunEvent) -> None:
        self.told.append(("run start", event))

    def on_run_end(self, event: RunEvent) -> None:
        self.told.append(("run end", event))

    def on_stage_start(self, event: StageEvent) -> None:
        self.told.append(("start", event))

    def on_stage_progress(self, event: StageEvent) -> None:
        self.told.append(("progress", event))

    def on_stage_end(self, event: StageEvent) -> None:
        self.told.append(("end", event))

    def on_store_fault(self, event: FaultEvent) -> None:
        self.told.append(("fault", event))


def test_callbacks_are_told_how_far_it_is(executor: Any) -> None:
    recorder = Recorder()
    pipeline = Pipeline(NODES, engine=Engine(map_executor=executor), callbacks=[recorder])
    result = pipeline.map({"x": range(50)})
    assert [kind for kind, _ in recorder.told][:1] == ["run start"]
    assert recorder.told[-1][0] == "run end"
    stages = {event.stage for kind, event in recorder.told if kind == "start"}
    for stage in stages:
        told = [(kind, event) for kind, event in recorder.told if getattr(event, "stage", None) == stage]
        assert [kind for kind, _ in told if kind in ("start", "end")] == ["start", "end"]
        done = [event.done for _, event in told]
        assert done == sorted(done)
        assert done[-1] == told[-1][1].total
    assert {event.run_id for _, event in recorder.told} == {result.run_id}


def test_a_callback_that_raises_is_never_fatal(executor: Any) -> None:
    class Broken(Callback):
        def on_stage_progress(self, event: StageEvent) -> None:
            raise RuntimeError("broken callback")

    pipeline = Pipeline(NODES, engine=Engine(map_executor=executor), callbacks=[Broken()])
    assert pipeline.map({"x": range(5)})["total"] == 15.0
