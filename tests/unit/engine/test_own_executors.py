"""Executors that the user made: where they run calls, how many at once, and what happens when they fail."""

import asyncio
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record
from tests.support.executors import Bare, Failing, Healing, Inline, Pickling, made

from gristmill import Engine, InputError, Pipeline, Store, WorkerDiedError, node
from gristmill.engine.guest import Host, Place
from gristmill.errors import GristmillError


@pytest.fixture(scope="module")
def processes() -> Iterator[Any]:
    with made("process-pool") as executor:
        yield executor


def doubled(x: int) -> int:
    return 2 * x


def logging(log: CallLog, *, seconds: float = 0.0) -> Pipeline:
    """Doubles numbers; logs each with the process and the thread that did."""
    path = log.path

    def logged(x: int) -> int:
        time.sleep(seconds)
        record(path, os.getpid(), threading.current_thread().name.partition("_")[0], x)
        return 2 * x

    return Pipeline([node(logged, output_name="y", mapspec="x[i] -> y[i]")])


def places(log: CallLog) -> set[tuple[str, str]]:
    return {(call.split()[0], call.split()[1]) for call in log.calls()}


def test_calls_run_in_the_threads_of_a_pool_of_threads(log: CallLog) -> None:
    with ThreadPoolExecutor(3, thread_name_prefix="mine") as pool:
        for _ in range(2):
            result = logging(log).map({"x": range(20)}, map_executor=pool)
        assert result["y"].tolist() == [2 * x for x in range(20)]
        assert pool.submit(doubled, 4).result() == 8  # it has not been shut down
    assert places(log) == {(str(os.getpid()), "mine")}


def test_coroutine_functions_run_on_a_loop_beside_a_pool_of_threads() -> None:
    async def waits(x: int) -> str:
        await asyncio.sleep(0.001)
        return threading.current_thread().name

    def then(waits: str) -> tuple[str, str]:
        return waits, threading.current_thread().name.partition("_")[0]

    pipeline = Pipeline([node(waits, mapspec="x[i] -> waits[i]"), node(then, mapspec="waits[i] -> then[i]")])
    with ThreadPoolExecutor(2, thread_name_prefix="mine") as pool:
        result = pipeline.map({"x": range(5)}, map_executor=pool)
    assert set(result["then"]) == {("gristmill-loop", "mine")}


def test_calls_run_in_the_thread_that_maps_if_submit_runs_them(log: CallLog) -> None:
    inline = Inline()
    logging(log).map({"x": range(20)}, map_executor=inline)
    assert places(log) == {(str(os.getpid()), threading.current_thread().name)}
    assert inline.tasks > 1


def test_calls_run_in_the_processes_of_a_pool_of_processes(log: CallLog, processes: Any) -> None:
    for _ in range(2):
        result = logging(log).map({"x": range(20)}, map_executor=processes)
    assert (result["y"].tolist(), result.stats.cached) == ([2 * x for x in range(20)], 20)
    assert str(os.getpid()) not in {process for process, _ in places(log)}
    assert processes.submit(doubled, 4).result() == 8


def test_results_do_not_pass_through_an_executor() -> None:
    with made("pickling") as executor:
        large = node(lambda x: np.full(100_000, x), output_name="y", mapspec="x[i] -> y[i]")
        result = Pipeline([large]).map({"x": range(5)}, map_executor=executor)
        assert result["y"][3].sum() == 300_000
        assert 0 < executor.largest < 2_000


def test_nodes_of_a_run_may_be_run_by_an_executor(log: CallLog, processes: Any) -> None:
    path = log.path

    def one() -> int:
        record(path, os.getpid())
        return 1

    assert Pipeline([node(one)]).run(node_executor=processes) == {"one": 1}
    assert log.take() != [str(os.getpid())]


def test_outputs_may_have_an_executor_of_their_own(log: CallLog, processes: Any) -> None:
    path = log.path

    def here(x: int) -> int:
        record(path, "here", os.getpid())
        return x

    def there(here: int) -> int:
        record(path, "there", os.getpid())
        return here

    pipeline = Pipeline([(here, "x[i] -> here[i]"), (there, "here[i] -> there[i]")])
    with ThreadPoolExecutor(1) as threads:
        pipeline.map({"x": range(10)}, map_executor={"there": processes, "": threads})
    where = {tuple(call.split()) for call in log.calls()}
    assert {process for name, process in where if name == "here"} == {str(os.getpid())}
    assert str(os.getpid()) not in {process for name, process in where if name == "there"}


def most_at_once(executor: Any, **options: Any) -> int:
    running, most, lock = 0, 0, threading.Lock()

    def crowd(x: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return x

    crowded = node(crowd, output_name="y", mapspec="x[i] -> y[i]", version="1")
    Pipeline([crowded], store=None).map({"x": range(30)}, map_executor=executor, **options)
    return most


def test_the_width_is_that_of_the_executor_or_max_workers_if_that_is_less() -> None:
    with ThreadPoolExecutor(5) as pool:
        assert most_at_once(pool) == 5
        assert most_at_once(pool, max_workers=2) == 2
        assert most_at_once(pool, max_workers=50) == 5


def test_the_width_of_an_executor_that_does_not_say_it_is_max_workers() -> None:
    submitted: list[int] = []

    class Counting(Bare):
        def submit(self, function: Any, /, *arguments: Any) -> Any:
            submitted.append(1)
            future = super().submit(function, *arguments)
            future.add_done_callback(lambda _: submitted.append(-1))
            return future

    executor = Counting()
    most_at_once(executor, max_workers=2)
    executor.shutdown()
    assert max(np.cumsum(submitted)) <= 2


def test_an_executor_that_was_shut_down_is_an_error_before_anything_runs(log: CallLog) -> None:
    pool = ThreadPoolExecutor(1)
    pipeline = Pipeline([logging(log), node(lambda y: y, output_name="z", mapspec="y[i] -> z[i]")])
    pipeline.map({"x": [1]}, map_executor=pool)
    log.take()
    for closed in (pool, ThreadPoolExecutor(1)):  # one that is known, and one that is not
        closed.shutdown()
        with pytest.raises(InputError, match=r"takes no tasks .*after shutdown"):
            pipeline.map({"x": [2]}, map_executor={"z": closed, "": "sequential"})
    assert log.calls() == []


@pytest.mark.parametrize("cancels", [False, True], ids=["refused", "cancelled"])
@pytest.mark.parametrize("width", [1, 2])
def test_an_executor_that_takes_no_more_ends_the_map_and_what_was_finished_is_kept(
    width: int, log: CallLog, *, cancels: bool
) -> None:
    failing = Failing(6, cancels=cancels)
    pipeline = logging(log)
    with pytest.raises(GristmillError, match=r"took no more calls .*what was finished is kept") as caught:
        pipeline.map({"x": range(20)}, map_executor=failing, max_workers=width)
    assert ("no room for another task" in str(caught.value)) != cancels
    failing.shutdown()
    made = len(log.take())
    assert 0 < made <= 5  # the first task has asked where it runs
    assert pipeline.map({"x": range(20)}).stats.cached == made


def test_a_task_that_an_executor_runs_twice_is_one_call(log: CallLog) -> None:
    class Twice(Bare):
        def submit(self, function: Any, /, *arguments: Any) -> Any:
            super().submit(function, *arguments).result()
            return super().submit(function, *arguments)

    executor = Twice()
    result = logging(log).map({"x": range(10)}, map_executor=executor)
    executor.shutdown()
    assert result["y"].tolist() == [2 * x for x in range(10)]
    assert len(log.calls()) == 10


def lose(*_: Any) -> None:
    """Stands in for a task that is never run."""


def test_a_task_that_an_executor_loses_ends_the_map(log: CallLog) -> None:
    class Losing(Bare):
        def submit(self, function: Any, /, *arguments: Any) -> Any:
            return super().submit(function if len(log.calls()) < 4 else lose, *arguments)

    executor = Losing()
    pipeline = logging(log)
    with pytest.raises(GristmillError, match=r"took no more calls .*it did not run them"):
        pipeline.map({"x": range(10)}, map_executor=executor, max_workers=1)
    executor.shutdown()
    assert len(log.take()) == 4
    assert pipeline.map({"x": range(10)}).stats.cached == 4


def test_a_batch_that_is_cancelled_ends_the_map(log: CallLog) -> None:
    class Cancelling(Pickling):
        tasks = 0

        def submit(self, function: Any, /, *arguments: Any) -> "Future[Any]":
            self.tasks += 1
            if self.tasks < 5:
                return super().submit(function, *arguments)
            future: Future[Any] = Future()
            future.cancel()
            future.set_running_or_notify_cancel()
            return future

    executor = Cancelling()
    pipeline = logging(log)
    with pytest.raises(GristmillError, match=r"did not run a batch of 'y'.*CancelledError") as caught:
        pipeline.map({"x": range(2000)}, map_executor=executor, max_workers=1)
    executor.shutdown()
    assert isinstance(caught.value, GristmillError)
    assert not isinstance(caught.value, CancelledError)
    done = len(log.take())
    assert 0 < done < 2000
    assert pipeline.map({"x": range(2000)}).stats.cached == done


def test_submit_that_raises_for_batches_ends_the_map(log: CallLog) -> None:
    class Full(Pickling):
        tasks = 0

        def submit(self, function: Any, /, *arguments: Any) -> "Future[Any]":
            self.tasks += 1
            if self.tasks > 4:
                raise OSError("no room for another task")
            return super().submit(function, *arguments)

    executor = Full()
    pipeline = logging(log)
    with pytest.raises(GristmillError, match=r"took no more tasks .*no room.*what was finished is kept"):
        pipeline.map({"x": range(2000)}, map_executor=executor, max_workers=1)
    executor.shutdown()
    done = len(log.take())
    assert 0 < done < 2000
    assert pipeline.map({"x": range(2000)}).stats.cached == done


def deadly(log: CallLog) -> Pipeline:
    path = log.path

    def risky(x: int) -> int:
        record(path, x)
        if x == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * x

    return Pipeline([node(risky, output_name="y", mapspec="x[i] -> y[i]")])


def test_a_pool_that_breaks_ends_the_map_and_what_was_finished_is_kept(log: CallLog) -> None:
    pipeline = deadly(log)
    with made("process-pool") as pool:
        with pytest.raises(
            WorkerDiedError, match=r"a process of ProcessPoolExecutor died with a batch of 'y'"
        ):
            pipeline.map({"x": range(200)}, map_executor=pool)
        with pytest.raises(InputError, match=r"takes no tasks .BrokenProcessPool"):
            pipeline.map({"x": range(200)}, map_executor=pool)
    again = pipeline.map({"x": [x for x in range(200) if x != 7]}, map_executor="sequential")
    assert again.stats.cached > 0
    assert again["y"].tolist() == [2 * x for x in range(200) if x != 7]


def test_a_pool_that_heals_loses_only_the_calls_that_kill() -> None:
    """A death fails what runs beside it, too: nobody is blamed for that, however often it happens."""

    def risky(x: int) -> int:
        time.sleep(0.05)  # others run meanwhile
        if x % 3 == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * x

    healing = Healing()
    mapped = Pipeline([node(risky, output_name="y", mapspec="x[i] -> y[i]")])
    try:
        result = mapped.map({"x": range(9)}, map_executor=healing, on_error="continue")
    finally:
        healing.shutdown()
    assert [error.index for error in result.errors] == [(1,), (4,), (7,)]
    assert {type(error.error) for error in result.errors} == {WorkerDiedError}
    assert [y for y in result["y"].tolist() if y is not None] == [2 * x for x in range(9) if x % 3 != 1]


def test_a_map_in_a_process_of_a_pool_adds_no_processes(log: CallLog, processes: Any) -> None:
    path = log.path

    def outer(n: int) -> int:
        def inner(x: int) -> int:
            record(path, "inner", os.getpid())
            return x

        record(path, "outer", os.getpid())

        with Store.temporary() as store:
            mapped = Pipeline([node(inner, output_name="y", mapspec="x[i] -> y[i]")], store=store)
            return sum(mapped.map({"x": range(n)}, map_executor="parallel:3")["y"])

    made = node(outer, output_name="total", mapspec="n[i] -> total[i]")
    result = Pipeline([made]).map({"n": [3, 4, 5]}, map_executor=processes)
    assert result["total"].tolist() == [3, 6, 10]
    where = {tuple(call.split()) for call in log.calls()}
    outside = {process for name, process in where if name == "outer"}
    assert {process for name, process in where if name == "inner"} == outside
    assert str(os.getpid()) not in outside


def test_a_failure_starts_no_more_calls_in_other_processes(log: CallLog) -> None:
    path = log.path

    def fails(x: int) -> int:
        record(path, x)
        if x == 0:
            time.sleep(0.3)
            raise ValueError("zero")
        time.sleep(0.01)
        return x

    with made("process-pool") as pool:
        mapped = Pipeline([node(fails, output_name="y", mapspec="x[i] -> y[i]")])
        with pytest.raises(ValueError, match="zero"):
            mapped.map({"x": range(2000)}, map_executor=pool)
    assert len(log.calls()) < 500


def test_signal_handlers_of_a_process_are_as_they_were(processes: Any) -> None:
    before = processes.submit(_handler).result()
    Pipeline([node(doubled, output_name="y", mapspec="x[i] -> y[i]")]).map(
        {"x": range(5)}, map_executor=processes
    )
    assert processes.submit(_handler).result() == before


def _handler() -> str:
    return repr(signal.getsignal(signal.SIGINT)) + repr(signal.getsignal(signal.SIGTERM))


class _Elsewhere:
    """Says that it runs tasks on another machine."""

    def submit(self, function: Any, /, *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(Place("another-machine", 1, 1, is_direct=False))
        return future


class _Odd:
    """Returns what is no future."""

    def submit(self, function: Any, /, *arguments: Any) -> int:
        return 3


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        (_Elsewhere(), "runs tasks on 'another-machine'"),
        (_Odd(), "did not run a first task .*add_done_callback"),
        (ThreadPoolExecutor, "map_executor is the class ThreadPoolExecutor; make one"),
        (3, "map_executor is 3; use one of .*or an object with a method submit"),
        ({"y": object()}, r"map_executor\['y'\] is <object"),
    ],
    ids=["another-machine", "no-future", "class", "number", "in-a-mapping"],
)
def test_what_is_no_executor_is_refused(executor: Any, message: str) -> None:
    pipeline = Pipeline([node(doubled, output_name="y", mapspec="x[i] -> y[i]")])
    with pytest.raises(InputError, match=message):
        pipeline.map({"x": [1]}, map_executor=executor)


def test_a_process_that_cannot_see_the_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot see .*where the store is"):
        Host.here().check(str(tmp_path / "nowhere" / "a.job"))
    with pytest.raises(InputError, match=r"runs tasks on .* and the store is on 'another-machine'"):
        Host("another-machine", 1).check(str(tmp_path))


class Picklable(Inline):
    """Can be sent to another process, unlike a pool."""


def test_engines_with_an_executor_are_values() -> None:
    pool = Picklable()
    engine = Engine(map_executor={"y": pool, "": "auto"}, node_executor=pool)
    assert engine == Engine(map_executor={"y": pool, "": "auto"}, node_executor=pool)
    assert engine != Engine(map_executor={"y": Picklable(), "": "auto"}, node_executor=pool)
    assert repr(pool) in repr(engine)
    again = pickle.loads(pickle.dumps(engine))
    pipeline = Pipeline([node(doubled, output_name="y", mapspec="x[i] -> y[i]")], engine=again)
    assert pipeline.map({"x": [1, 2]})["y"].tolist() == [2, 4]
    assert again.map_executor["y"].tasks > 0


def test_functions_that_go_by_value_reach_the_processes(processes: Any) -> None:
    factor = 3
    pipeline = Pipeline([node(lambda x: factor * x, output_name="y", mapspec="x[i] -> y[i]")])
    assert pipeline.map({"x": [1, 2]}, map_executor=processes)["y"].tolist() == [3, 6]


def test_what_cannot_be_sent_is_an_error_that_says_what(processes: Any) -> None:
    lock = threading.Lock()
    locked = node(lambda x: (lock, x)[1], output_name="y", mapspec="x[i] -> y[i]", version="1")
    with pytest.raises(InputError, match="cannot be sent to a worker process"):
        Pipeline([locked]).map({"x": [1]}, map_executor=processes)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # Python 3.12
def test_forked_processes_work_too(log: CallLog) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        for _ in range(2):
            result = logging(log).map({"x": range(50)}, map_executor=pool)
    assert (result["y"].tolist(), result.stats.cached) == ([2 * x for x in range(50)], 50)
    assert str(os.getpid()) not in {process for process, _ in places(log)}
