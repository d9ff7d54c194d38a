"""Callbacks of calls: the same events, in the same order for each index, whatever runs the calls."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.schedules import DIE, RAISE, Schedule, attempt

from gristmill import Callback, ItemTimeoutError, Pipeline, WorkerDiedError, node
from gristmill.events import NodeEvent

EXECUTORS = ("sequential", "threaded", "async", "parallel", "auto", "thread-pool", "process-pool")
SLOW = 0.6


@pytest.fixture(params=EXECUTORS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def executor(name: str, kept: Mapping[str, Any]) -> Any:
    return kept[name]


class Heard(Callback):
    """Keeps what it hears, with the time."""

    def __init__(self) -> None:
        self.events: list[tuple[str, NodeEvent]] = []
        self.times: list[float] = []
        self.threads: set[int] = set()

    def _hear(self, what: str, event: NodeEvent) -> None:
        self.events.append((what, event))
        self.times.append(time.time())
        self.threads.add(threading.get_ident())

    def on_node_start(self, event: NodeEvent) -> None:
        self._hear("start", event)

    def on_node_end(self, event: NodeEvent) -> None:
        self._hear("end", event)

    def on_node_cached(self, event: NodeEvent) -> None:
        self._hear("cached", event)

    def on_node_error(self, event: NodeEvent) -> None:
        self._hear("error", event)

    def on_map_start(self, event: NodeEvent) -> None:
        self._hear("map start", event)

    def on_map_item_start(self, event: NodeEvent) -> None:
        self._hear("start", event)

    def on_map_item_end(self, event: NodeEvent) -> None:
        self._hear("end", event)

    def on_map_item_cached(self, event: NodeEvent) -> None:
        self._hear("cached", event)

    def on_map_item_error(self, event: NodeEvent) -> None:
        self._hear("error", event)

    def on_map_end(self, event: NodeEvent) -> None:
        self._hear("map end", event)

    def of(self, name: str) -> dict[tuple[int, ...], list[str]]:
        """By index of an output, what was heard, in order."""
        found = defaultdict(list)
        for what, event in self.events:
            if name in event.output_names and not what.startswith("map"):
                found[event.index].append(what)
        return dict(found)

    def event(self, what: str, index: tuple[int, ...] = ()) -> NodeEvent:
        return next(event for heard, event in self.events if (heard, event.index) == (what, index))


def y(x: int) -> int:
    if x == 2:
        raise ValueError(x)
    return x


def z(y: int) -> int:
    return y + 1


def total(z: Any) -> int:
    return int(sum(z))


NODES = [
    node(y, mapspec="x[i] -> y[i]"),
    node(z, mapspec="y[i] -> z[i]"),
    node(total, errors="drop"),
]


def test_every_index_starts_and_ends_once(executor: Any) -> None:
    heard = Heard()
    pipeline = Pipeline(NODES, callbacks=[heard])
    result = pipeline.map({"x": range(5)}, map_executor=executor, on_error="continue")
    good = {(k,): ["start", "end"] for k in (0, 1, 3, 4)}
    assert heard.of("y") == {**good, (2,): ["start", "error"]}
    assert heard.of("z") == good
    assert heard.of("total") == {(): ["start", "end"]}
    error = heard.event("error", (2,))
    assert (error.node, error.output_names, error.total, type(error.error)) == ("y", ("y",), 5, ValueError)
    assert {event.run_id for _, event in heard.events} == {result.run_id}
    assert heard.threads == {threading.get_ident()}


def test_a_map_is_announced_before_its_indices_and_after(executor: Any) -> None:
    heard = Heard()
    Pipeline(NODES[:1], callbacks=[heard]).map({"x": [0, 1]}, map_executor=executor)
    heard_of = [what for what, _ in heard.events]
    assert (heard_of[0], heard_of[-1]) == ("map start", "map end")
    assert [event.total for what, event in heard.events if what.startswith("map")] == [2, 2]


def test_what_was_found_is_never_started(executor: Any) -> None:
    pipeline = Pipeline(NODES)
    pipeline.map({"x": [0, 1]}, map_executor=executor)
    heard = Heard()
    pipeline.with_(callbacks=[heard]).map({"x": [0, 1, 3]}, map_executor=executor)
    assert heard.of("y") == {(0,): ["cached"], (1,): ["cached"], (2,): ["start", "end"]}
    assert heard.of("z") == heard.of("y")
    again = Heard()
    pipeline.with_(callbacks=[again]).map({"x": [0, 1, 3]}, map_executor=executor)
    assert {what for what, _ in again.events} == {"map start", "cached", "map end"}
    assert again.of("total") == {(): ["cached"]}


def test_a_start_is_told_while_the_call_goes_on(name: str, executor: Any) -> None:
    if name == "process-pool":
        pytest.skip("what runs in a process of somebody else's pool is seen when it has ended")
    heard = Heard()

    def slow(x: int) -> float:
        before = time.time()
        time.sleep(SLOW)
        return before

    pipeline = Pipeline([node(slow, mapspec="x[i] -> slow[i]")], callbacks=[heard])
    began = pipeline.map({"x": [1, 2]}, map_executor=executor)["slow"].tolist()
    for k, before in enumerate(began):
        told = next(
            when
            for when, (what, event) in zip(heard.times, heard.events, strict=True)
            if (what, event.index) == ("start", (k,))
        )
        assert told < before + SLOW  # it still ran
        end = heard.event("end", (k,))
        assert SLOW <= end.seconds < SLOW + 30
        assert abs(end.started - before) < SLOW / 2


def test_a_run_tells_of_its_nodes(executor: Any) -> None:
    heard = Heard()
    chain = [node(lambda x: x + 1, output_name="a"), node(lambda a: 2 * a, output_name="b")]
    pipeline = Pipeline(chain, callbacks=[heard])
    assert pipeline.run({"x": 1}, node_executor=executor) == {"b": 4}
    assert heard.of("a") == heard.of("b") == {(): ["start", "end"]}
    assert pipeline.run({"x": 1}, node_executor=executor) == {"b": 4}
    assert heard.of("a")[()] == ["start", "end", "cached"]


def test_a_nested_node_says_where_it_is(executor: Any) -> None:
    heard = Heard()
    inner = Pipeline([node(lambda x: x + 1, output_name="a")], name="inner", store=None)
    middle = Pipeline([inner.as_node(map_over="x")], name="middle", store=None)
    outer = Pipeline([middle.as_node()], callbacks=[heard])
    outer.map({"x": [1, 2]}, map_executor=executor)
    paths = {(event.path, event.depth) for what, event in heard.events if what == "end"}
    assert paths == {(("middle", "inner"), 2)}


def test_retries_are_one_start_and_one_end(executor: Any, tmp_path: Path) -> None:
    plan = Schedule(tmp_path / "schedule", {1: [RAISE], 2: [RAISE, RAISE]})
    folder, heard = plan.folder, Heard()

    def tried(x: int) -> int:
        attempt(folder, x)
        return x

    pipeline = Pipeline([node(tried, mapspec="x[i] -> tried[i]", retries=1)], callbacks=[heard])
    pipeline.map({"x": range(3)}, map_executor=executor, on_error="continue")
    assert heard.of("tried") == {(0,): ["start", "end"], (1,): ["start", "end"], (2,): ["start", "error"]}
    assert heard.event("error", (2,)).attempts == 2


def test_a_call_that_takes_too_long_is_an_error(executor: Any) -> None:
    heard = Heard()

    def slow(x: int) -> int:
        time.sleep(30 if x == 1 else 0)
        return x

    pipeline = Pipeline([node(slow, mapspec="x[i] -> slow[i]", timeout=0.4)], callbacks=[heard])
    pipeline.map({"x": range(3)}, map_executor=executor, on_error="continue")
    assert heard.of("slow")[1,] == ["start", "error"]
    assert type(heard.event("error", (1,)).error) is ItemTimeoutError


def test_a_death_is_an_error_of_the_index_that_died(tmp_path: Path) -> None:
    plan = Schedule(tmp_path / "schedule", {3: [DIE, DIE, DIE]})
    folder, heard = plan.folder, Heard()

    def dies(x: int) -> int:
        attempt(folder, x)
        return os.getpid()

    pipeline = Pipeline([node(dies, mapspec="x[i] -> dies[i]")], callbacks=[heard])
    pipeline.map({"x": range(6)}, map_executor="parallel", on_error="continue")
    assert heard.of("dies")[3,] == ["start", "error"]
    assert all(
        events in (["start", "end"], ["cached"]) or k == (3,) for k, events in heard.of("dies").items()
    )
    assert type(heard.event("error", (3,)).error) is WorkerDiedError


def test_only_what_is_wanted_is_timed() -> None:
    class Ends(Callback):
        def __init__(self) -> None:
            self.count = 0

        def on_map_item_end(self, event: NodeEvent) -> None:
            self.count += event.seconds > 0

    ends = Ends()
    Pipeline(NODES[:1], callbacks=[ends]).map({"x": [0, 1]})
    assert ends.count == 2


@pytest.mark.parametrize("method", ["on_map_start", "on_map_item_start", "on_map_item_end", "on_map_end"])
def test_one_that_raises_stops_nothing(executor: Any, method: str, caplog: Any) -> None:
    def bad(self: Callback, event: NodeEvent) -> None:
        raise RuntimeError("a bad callback")

    callback: Callable[[], Callback] = type("Bad", (Callback,), {method: bad})
    result = Pipeline(NODES[:1], callbacks=[callback()]).map({"x": [0, 1]}, map_executor=executor)
    assert result["y"].tolist() == [0, 1]
    assert f"Bad.{method} raised; the run goes on" in caplog.text
