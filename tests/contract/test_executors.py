"""One suite for every executor: whatever runs the calls, a user notices no difference but the time."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record
from tests.support.values import VALUES, same

from gristmill import Callback, Engine, MapResult, Pipeline, node
from gristmill.events import FaultEvent, RunEvent, StageEvent

EXECUTORS = (
    *("sequential", "threaded", "threaded:1", "async", "parallel", "parallel:1", "parallel:3", "auto"),
)


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


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


def run(executor: str, x: Any, **options: Any) -> MapResult:
    return Pipeline(NODES, engine=Engine(map_executor=executor)).map({"x": x}, **options)


def test_the_result_is_right(executor: str) -> None:
    result = run(executor, range(30), output_name=EVERYTHING)
    squares = [x * x for x in range(30)]
    assert result["square"].tolist() == squares
    assert result["mean"].tolist() == [s / 2 for s in squares]
    assert np.asarray(result["spread"]).shape == (30, 10_000)
    assert np.asarray(result["spread"])[:, 7].tolist() == [s / 2 for s in squares]
    assert result["total"] == sum(squares) / 2


def test_a_second_run_computes_nothing(executor: str) -> None:
    first, second = run(executor, range(30)), run(executor, range(30))
    assert (first.stats.computed, first.stats.cached) == (91, 0)
    assert (second.stats.computed, second.stats.cached, second["total"]) == (0, 91, first["total"])


@pytest.mark.parametrize("other", EXECUTORS)
def test_keys_do_not_depend_on_the_executor(executor: str, other: str) -> None:
    run(executor, range(10))
    result = run(other, range(12))
    assert (result.stats.computed, result.stats.cached) == (3 * 2 + 1, 3 * 10)
    assert result["total"] == sum(x * x for x in range(12)) / 2


def test_values_keep_their_types(executor: str) -> None:
    pipeline = Pipeline([node(lambda v: v, output_name="kept", mapspec="v[i] -> kept[i]")])
    result = pipeline.map({"v": list(VALUES.values())}, map_executor=executor)
    kept = dict(zip(VALUES, result["kept"], strict=True))
    assert [name for name in VALUES if not same(kept[name], VALUES[name])] == []


def test_every_call_is_made_once(executor: str, log: CallLog) -> None:
    path = log.path

    def logged(x: int) -> int:
        record(path, x)
        return x

    pipeline = Pipeline([node(logged, mapspec="x[i] -> logged[i]")])
    pipeline.map({"x": range(500)}, map_executor=executor)
    assert log.take() == sorted(map(str, range(500)))


def test_a_failure_is_raised_with_its_type_and_a_note(executor: str) -> None:
    def inverse(x: int) -> float:
        return 1 / x

    with pytest.raises(ZeroDivisionError) as caught:
        Pipeline([node(inverse, mapspec="x[i] -> inverse[i]")]).map({"x": [1, 0]}, map_executor=executor)
    assert "in node" in caught.value.__notes__[0]
    assert "(1,)" in caught.value.__notes__[0]


def test_neighbours_of_a_failure_finish(executor: str) -> None:
    def inverse(x: int) -> float:
        return 1 / x

    pipeline = Pipeline([node(inverse, mapspec="x[i] -> inverse[i]")])
    result = pipeline.map({"x": [4, 0, 2, 0]}, on_error="continue", map_executor=executor)
    assert result["inverse"].tolist() == [0.25, None, 0.5, None]
    assert [error.index for error in result.errors] == [(1,), (3,)]


def test_it_works_after_a_failure(executor: str) -> None:
    test_a_failure_is_raised_with_its_type_and_a_note(executor)
    assert run(executor, range(5))["total"] == 15.0


def test_two_maps_at_once_in_two_threads(executor: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda k: run(executor, range(k, k + 20))["total"], [0, 5, 100]))
    assert results == [sum(x * x for x in range(k, k + 20)) / 2 for k in (0, 5, 100)]


def test_one_pipeline_used_by_two_threads(executor: str, log: CallLog) -> None:
    path = log.path

    def logged(x: int) -> int:
        record(path, x)
        return -x

    pipeline = Pipeline([node(logged, mapspec="x[i] -> logged[i]")], engine=Engine(map_executor=executor))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: pipeline.map({"x": range(100)})["logged"].tolist(), range(4)))
    assert results == [[-x for x in range(100)]] * 4
    assert len(log.take()) == 100


def test_a_map_from_a_thread_that_is_not_the_main_one(executor: str) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(run(executor, range(5))["total"]))
    thread.start()
    thread.join()
    assert found == [15.0]


def map_again(executor: str, n: int) -> float:
    pipeline = Pipeline(NODES, engine=Engine(map_executor=executor), store=None)
    return float(pipeline.map({"x": range(n)})["total"])


def test_a_function_may_map_itself(executor: str) -> None:
    def inner(n: int) -> float:
        return map_again(executor, n)

    pipeline = Pipeline([node(inner, mapspec="n[i] -> inner[i]")])
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


def test_empty_maps(executor: str) -> None:
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


def test_callbacks_are_told_how_far_it_is(executor: str) -> None:
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


def test_a_callback_that_raises_is_never_fatal(executor: str) -> None:
    class Broken(Callback):
        def on_stage_progress(self, event: StageEvent) -> None:
            raise RuntimeError("broken callback")

    pipeline = Pipeline(NODES, engine=Engine(map_executor=executor), callbacks=[Broken()])
    assert pipeline.map({"x": range(5)})["total"] == 15.0
