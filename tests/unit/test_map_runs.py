"""Maps in the background: waited for, watched, ended, taken item by item, several at once."""

import asyncio
import concurrent.futures
import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import (
    InputError,
    Item,
    MapProgress,
    MapResult,
    MapRun,
    MapRuns,
    Pipeline,
    gather_maps,
    launch_maps,
    node,
)
from gristmill.engine.feed import AHEAD
from gristmill.observe import progress

EXECUTORS = ("sequential", "threaded:2", "async:2", "parallel:2", "auto")


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def square(x: int) -> int:
    return x * x


def inverse(x: int) -> float:
    return 1 / x


def nap(x: int, log: str) -> int:
    record(log, x)
    time.sleep(0.02)
    return x


def total(square: Any) -> int:
    return int(np.sum(square))


def squares() -> Pipeline:
    return Pipeline([node(square, mapspec="x[i] -> square[i]"), node(total, output_name="t")])


def inverses() -> Pipeline:
    return Pipeline([node(inverse, mapspec="x[i] -> inverse[i]")])


def naps() -> Pipeline:
    return Pipeline([node(nap, mapspec="x[i] -> nap[i]")])


BOTH = ["square", "t"]


class Gates:
    """Calls that wait until they are let go, each known by its number."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def pipeline(self) -> Pipeline:
        def gated(x: int) -> int:
            with self._lock:
                self.running += 1
                self.most = max(self.most, self.running)
            try:
                assert self.open.wait(20)
            finally:
                with self._lock:
                    self.running -= 1
            return x

        return Pipeline([node(gated, mapspec="x[i] -> gated[i]", version="1")], store=None)


# -- one map ------------------------------------------------------------------------------------------------------


def test_it_is_awaited(executor: str) -> None:
    async def main() -> MapResult:
        return await squares().map_async({"x": range(20)}, map_executor=executor)

    result = asyncio.run(main())
    assert (result["t"], result.stats.computed) == (sum(x * x for x in range(20)), 21)


def test_it_is_waited_for_without_an_event_loop(executor: str) -> None:
    run = squares().map_async({"x": range(20)}, map_executor=executor)
    assert run.result()["t"] == run.result(0)["t"] == sum(x * x for x in range(20))
    assert run.done
    assert not run.cancel()


def test_the_event_loop_goes_on_meanwhile() -> None:
    gates = Gates()

    async def main() -> list[int]:
        run = gates.pipeline().map_async({"x": [1, 2]}, map_executor="threaded")
        asyncio.get_running_loop().call_later(0.01, gates.open.set)
        result: list[int] = (await run)["gated"].tolist()
        return result

    assert asyncio.run(main()) == [1, 2]


def test_an_event_loop_is_not_needed_while_one_runs() -> None:
    async def main() -> int:
        return int(squares().map_async({"x": [1, 2]}).result()["t"])  # as in a cell of a notebook

    assert asyncio.run(main()) == 5


def test_it_may_be_awaited_more_than_once_and_by_several() -> None:
    async def main() -> list[int]:
        run = squares().map_async({"x": range(9)})
        results = await asyncio.gather(*(asyncio.ensure_future(_wait(run)) for _ in range(3)))
        return [result["t"] for result in [*results, await run]]

    async def _wait(run: MapRun) -> MapResult:
        return await run

    assert asyncio.run(main()) == [204] * 4


def test_it_starts_when_it_is_told_to(log: CallLog) -> None:
    run = naps().map_async({"x": [1], "log": log.path}, start=False)
    assert (run.started, run.done, log.calls()) == (False, False, [])
    assert run.start() is run
    assert run.result()["nap"].tolist() == [1]
    other = naps().map_async({"x": [2], "log": log.path}, start=False)
    assert other.result()["nap"].tolist() == [2]  # whoever waits for it starts it


def test_an_exception_is_that_of_map(executor: str) -> None:
    run = inverses().map_async({"x": [1, 0]}, map_executor=executor)
    waits: list[Callable[[], MapResult]] = [run.result, lambda: asyncio.run(_awaited(run))]
    for wait in waits:
        with pytest.raises(ZeroDivisionError) as caught:
            wait()
        assert "at index (1,)" in caught.value.__notes__[0]
    result = inverses().map_async({"x": [1, 0]}, on_error="continue", map_executor=executor).result()
    assert result["inverse"].tolist() == [1.0, None]


async def _awaited(run: MapRun) -> MapResult:
    return await run


def test_bad_inputs_are_refused_at_the_call() -> None:
    with pytest.raises(InputError, match="'x'"):
        squares().map_async({"z": 1}, start=False)
    with pytest.raises(TypeError, match="no option"):
        squares().map_async({"x": [1]}, order=True)


def test_waiting_may_end_before_the_map_does() -> None:
    gates = Gates()
    run = gates.pipeline().map_async({"x": [1]}, map_executor="threaded")
    with pytest.raises(TimeoutError):
        run.result(timeout=0.05)
    assert not run.done
    gates.open.set()
    assert run.result()["gated"].tolist() == [1]


def test_cancelling_keeps_what_is_done_and_starts_no_more(executor: str, log: CallLog) -> None:
    given = {"x": range(300), "log": log.path}
    run = naps().map_async(given, map_executor=executor)
    wait_for(lambda: len(log.lines()) > 5)
    assert run.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        run.result(20)
    assert (run.done, run.cancelled) == (True, True)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(_awaited(run))
    made = log.take()
    assert 5 < len(made) < 200
    assert naps().map(given).stats.cached == len(set(made))


def test_one_that_has_not_been_started_is_cancelled_for_good(log: CallLog) -> None:
    run = naps().map_async({"x": [1], "log": log.path}, start=False)
    assert run.cancel()
    assert not run.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        run.result()
    assert log.calls() == []


def test_giving_up_waiting_cancels_the_map(log: CallLog) -> None:
    async def main() -> MapRun:
        run = naps().map_async({"x": range(500), "log": log.path}, map_executor="sequential")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run, 0.1)
        return run

    run = asyncio.run(main())
    with pytest.raises(concurrent.futures.CancelledError):
        run.result(20)
    assert len(log.take()) < 500


def test_progress_says_how_far_it_is() -> None:
    gates = Gates()
    run = gates.pipeline().map_async({"x": range(4)}, map_executor="threaded:2", start=False)
    assert run.progress == MapProgress(0, 4, 0, run.progress.stages)
    assert repr(run) == "<MapRun not started, 0 of 4>"
    run.start()
    wait_for(lambda: gates.running == 2)
    assert (run.progress.done, repr(run)) == (0, "<MapRun running, 0 of 4>")
    gates.open.set()
    run.result()
    assert (run.progress.done, run.progress.total, run.progress.failed) == (4, 4, 0)
    failed = inverses().map_async({"x": [0, 1, 0]}, on_error="continue")
    failed.result()
    assert (failed.progress.done, failed.progress.failed) == (3, 2)
    assert [(stage.title, stage.total) for stage in failed.progress.stages] == [("inverse", 3)]


def test_outputs_without_a_common_space_have_a_result_but_no_items() -> None:
    other = node(square, mapspec="y[j] -> square[j]", renames={"x": "y"})
    run = Pipeline([(abs, "x[i] -> abs[i]"), other]).map_async({"x": [-1], "y": [2, 3]})
    assert (run.result()["abs"].tolist(), run.result()["square"].tolist()) == ([1], [4, 9])
    with pytest.raises(InputError, match="one space"):
        asyncio.run(_items(run))


# -- items --------------------------------------------------------------------------------------------------------


async def _items(run: MapRun) -> list[Item]:
    return [item async for item in run]


def test_items_are_taken_as_they_are_completed(executor: str) -> None:
    async def main() -> tuple[list[Item], MapResult]:
        run = squares().map_async({"x": range(100)}, output_name=BOTH, map_executor=executor)
        return await _items(run), await run

    items, result = asyncio.run(main())
    assert {item.index: item.outputs for item in items[:-1]} == {(k,): {"square": k * k} for k in range(100)}
    assert items[-1].outputs == {"t": result["t"]}


def test_items_of_a_map_that_has_ended_are_still_there() -> None:
    run = squares().map_async({"x": range(100)}, output_name=BOTH)
    run.result()
    assert len(asyncio.run(_items(run))) == 101


def test_items_end_with_the_exception_of_the_map() -> None:
    seen: list[Item] = []

    async def main() -> None:
        async for item in inverses().map_async({"x": [1, 2, 0]}, map_executor="sequential"):
            seen.append(item)  # noqa: PERF401 - the exception must not lose what came before

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    assert [item.outputs["inverse"] for item in seen] == [1.0, 0.5][: len(seen)]


def test_leaving_the_items_leaves_the_map_running() -> None:
    async def main() -> MapResult:
        run = squares().map_async({"x": range(4 * AHEAD)}, output_name=BOTH, map_executor="sequential")
        async for item in run:
            assert item.outputs
            break
        return await run

    assert asyncio.run(main()).stats.computed == 4 * AHEAD + 1


def test_waiting_for_the_result_needs_nobody_to_take_items() -> None:
    async def main() -> MapResult:
        run = squares().map_async({"x": range(4 * AHEAD)}, output_name=BOTH, map_executor="sequential")
        items = aiter(run)
        await anext(items)
        result = await run
        await anext(items)
        return result

    assert asyncio.run(main()).stats.computed == 4 * AHEAD + 1


def test_items_that_are_not_taken_hold_the_map_back(log: CallLog) -> None:
    path = log.path

    def logged(x: int) -> int:
        record(path, x)
        return x

    async def main() -> int:
        pipeline = Pipeline([node(logged, mapspec="x[i] -> logged[i]")], store=None)
        run = pipeline.map_async({"x": range(6 * AHEAD)}, map_executor="sequential", start=False)
        items = aiter(run)
        await anext(items)
        feed = run._run.feed  # noqa: SLF001 - whether it waits is what is tested
        await asyncio.to_thread(wait_for, lambda: feed._is_held)  # noqa: SLF001
        made = len(log.lines())
        assert made <= 2 * AHEAD
        return 1 + len([item async for item in items])

    assert asyncio.run(main()) == 6 * AHEAD
    assert len(log.take()) == 6 * AHEAD


def test_waiting_for_one_item_may_be_given_up_without_losing_it() -> None:
    gates = Gates()

    async def main() -> list[int]:
        items = aiter(gates.pipeline().map_async({"x": [7]}, map_executor="threaded"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(items), 0.05)
        gates.open.set()
        return [item.outputs["gated"] async for item in items]

    assert asyncio.run(main()) == [7]


def test_cancelling_ends_the_items() -> None:
    gates = Gates()

    async def main() -> None:
        run = gates.pipeline().map_async({"x": [7]}, map_executor="threaded")
        asyncio.get_running_loop().call_later(0.05, run.cancel)
        async for _ in run:
            raise AssertionError("nothing was finished")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    gates.open.set()


# -- several maps -------------------------------------------------------------------------------------------------


def several(gates: Gates, count: int = 4) -> list[MapRun]:
    pipeline = gates.pipeline()
    return [pipeline.map_async({"x": [k]}, map_executor="sequential", start=False) for k in range(count)]


def gathered(*runs: MapRun, **options: Any) -> list[MapResult]:
    return asyncio.run(gather_maps(*runs, **options))


@pytest.mark.parametrize(("max_concurrent", "most"), [(1, 1), (2, 2), (None, 4), (9, 4)])
def test_at_most_so_many_run_at_once(max_concurrent: int | None, most: int) -> None:
    gates = Gates()
    runs = several(gates)
    launched = launch_maps(*runs, max_concurrent=max_concurrent)
    assert isinstance(launched, MapRuns)
    wait_for(lambda: gates.running == most)
    assert (launched.done, sum(run.started for run in runs)) == (False, most)
    gates.open.set()
    assert [result["gated"].tolist() for result in launched.result(20)] == [[0], [1], [2], [3]]
    assert (launched.done, gates.most) == (True, most)


def test_they_are_gathered_in_order() -> None:
    runs = [squares().map_async({"x": range(k)}, start=False) for k in (5, 1, 3)]
    assert [result["t"] for result in gathered(*runs, max_concurrent=2)] == [30, 0, 5]
    assert gathered() == []
    launched = launch_maps()
    assert isinstance(launched, MapRuns)
    assert launched.result() == []


def test_maps_that_have_been_started_are_accepted() -> None:
    gates = Gates()
    runs = several(gates)
    runs[1].start()
    launched = launch_maps(*runs, max_concurrent=2)
    assert isinstance(launched, MapRuns)
    wait_for(lambda: gates.running == 2)
    assert [run.started for run in runs] == [True, True, False, False]
    gates.open.set()
    assert len(launched.result(20)) == 4
    assert gates.most == 2
    assert [result["gated"].tolist() for result in gathered(runs[2], runs[2])] == [[2], [2]]


def test_launching_within_a_running_loop_makes_a_task() -> None:
    gates = Gates()

    async def main() -> list[list[int]]:
        task = launch_maps(*several(gates), max_concurrent=2)
        assert isinstance(task, asyncio.Task)
        await asyncio.to_thread(wait_for, lambda: gates.running == 2)
        gates.open.set()
        return [result["gated"].tolist() for result in await task]

    assert asyncio.run(main()) == [[0], [1], [2], [3]]


def test_what_was_launched_without_a_loop_may_be_awaited_in_one() -> None:
    launched = launch_maps(squares().map_async({"x": [2]}, start=False))
    assert isinstance(launched, MapRuns)

    async def main() -> list[MapResult]:
        return await launched

    assert [result["t"] for result in asyncio.run(main())] == [4]


def test_one_that_fails_leaves_the_others_running() -> None:
    runs = [inverses().map_async({"x": x}, start=False) for x in ([1], [0], [2])]
    with pytest.raises(ZeroDivisionError):
        gathered(*runs, max_concurrent=1)
    assert (runs[0].result()["inverse"].tolist(), runs[2].result()["inverse"].tolist()) == ([1.0], [0.5])


def test_cancelling_all_starts_no_more(log: CallLog) -> None:
    runs = [naps().map_async({"x": range(k, k + 100), "log": log.path}, start=False) for k in (0, 100, 200)]
    launched = launch_maps(*runs, max_concurrent=1)
    assert isinstance(launched, MapRuns)
    wait_for(lambda: len(log.lines()) > 2)
    launched.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        launched.result(20)
    assert [run.cancelled for run in runs] == [True] * 3
    assert all(int(x) < 100 for x in log.take())


def test_giving_up_gathering_cancels_all(log: CallLog) -> None:
    given = [{"x": range(k, k + 100), "log": log.path} for k in (0, 100)]
    runs = [naps().map_async(one, map_executor="sequential", start=False) for one in given]

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gather_maps(*runs, max_concurrent=1), 0.2)

    asyncio.run(main())
    wait_for(lambda: all(run.done for run in runs))
    assert all(run.cancelled for run in runs)


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "2"])
def test_a_wrong_width_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="max_concurrent"):
        launch_maps(max_concurrent=wrong)
    with pytest.raises(InputError, match="map_async"):
        launch_maps(squares().map_async({"x": [1]}, start=False).result())  # type: ignore[arg-type]


def test_one_display_shows_all(monkeypatch: pytest.MonkeyPatch) -> None:
    import rich.console

    shown, text = [], io.StringIO()
    make = progress._new_progress  # noqa: SLF001 - how many displays there are is what is tested

    def counted() -> Any:
        console = rich.console.Console(file=text, width=100)
        monkeypatch.setattr(rich.console, "Console", lambda **_: console)
        shown.append(make())
        return shown[-1]

    monkeypatch.setattr(progress, "_new_progress", counted)
    names = ("ones", "twos", "threes")
    pipelines = [Pipeline([node(square, output_name=name, mapspec=f"x[i] -> {name}[i]")]) for name in names]
    runs = [pipeline.map_async({"x": range(5)}, start=False) for pipeline in pipelines]
    gathered(*runs, max_concurrent=1, progress=True)
    assert len(shown) == 1
    assert [task.description for task in shown[0].tasks] == list(names)
    assert [task.completed for task in shown[0].tasks] == [5, 5, 5]
    assert "ones" in text.getvalue()
