"""One suite for everything that runs the nodes of one `run`: side by side, each as soon as its inputs are there."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.calls import CallLog, record
from tests.support.executors import ELSEWHERE, OWN, made

from gristmill import Engine, Pipeline, Store, node

WIDE = ("threaded", "async", "parallel:2", *(name for name in OWN if name != "inline"))
"""Those that run calls side by side."""

ALL = ("sequential", "auto", "threaded:1", "async:1", "parallel:1", *OWN)


@pytest.fixture(scope="module")
def executors() -> Iterator[dict[str, Any]]:
    """Executors that were made, by name; kept for the whole module."""
    kept: dict[str, Any] = {}
    yield kept
    for executor in kept.values():
        if hasattr(executor, "shutdown"):
            executor.shutdown()


@pytest.fixture
def executor(request: pytest.FixtureRequest, executors: dict[str, Any]) -> Any:
    name = request.param
    if name in OWN and name not in executors:
        executors[name] = OWN[name]()
    return executors.get(name, name)


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def meet(log: str, mine: str, *others: str) -> None:
    """Say that one is here, and wait until the others have."""
    record(log, mine)
    deadline = time.monotonic() + 30
    while not set(others) <= set(CallLog(Path(log)).calls()):
        assert time.monotonic() < deadline, f"{mine} waits for {others}"
        time.sleep(0.005)


@pytest.mark.parametrize("executor", WIDE, indirect=True)
def test_independent_nodes_run_side_by_side(executor: Any, log: CallLog) -> None:
    path = log.path

    def a(x: int) -> int:
        meet(path, "a", "b")
        return x

    def b(x: int) -> int:
        meet(path, "b", "a")
        return 2 * x

    pipeline = Pipeline([node(a), node(b), node(lambda a, b: a + b, output_name="total")])
    assert pipeline.run({"x": 2}, node_executor=executor, max_workers=2) == {"total": 6}


@pytest.mark.parametrize("executor", WIDE, indirect=True)
def test_a_node_starts_when_its_own_inputs_are_there(executor: Any, log: CallLog) -> None:
    """Not when everything that is as far from the inputs is done: `slow` waits for the end of the other branch."""
    path = log.path

    def slow(x: int) -> int:
        meet(path, "slow", "second")
        return x

    def first(x: int) -> int:
        return x

    def second(first: int) -> int:
        record(path, "second")
        return first

    total = node(lambda slow, second: slow + second, output_name="total")
    pipeline = Pipeline([node(slow), node(first), node(second), total])
    assert pipeline.run({"x": 2}, node_executor=executor, max_workers=2) == {"total": 4}


def test_nodes_may_have_executors_of_their_own(log: CallLog) -> None:
    path = log.path

    def where(name: str) -> Any:
        def tell(x: int) -> int:
            record(path, name, os.getpid())
            return x

        return node(tell, output_name=name, version=name)

    nodes = [where("here"), where("there"), node(lambda here, there: here + there, output_name="total")]
    Pipeline(nodes).run({"x": 1}, node_executor={"there": "parallel", "": "sequential"})
    places = dict(line.split() for line in log.calls())
    assert places["here"] == str(os.getpid()) != places["there"]


def test_either_output_of_a_node_names_its_executor(log: CallLog) -> None:
    path = log.path

    def both(x: int) -> tuple[int, int]:
        record(path, os.getpid())
        return x, x

    pipeline = Pipeline([node(both, output_name=("a", "b"), mapspec="x[i] -> a[i], b[i]")])
    pipeline.map({"x": [1, 2]}, map_executor={"b": "parallel", "": "sequential"})
    assert str(os.getpid()) not in log.calls()


def test_the_nodes_of_a_nested_pipeline_run_where_it_is_said_of_its_output(log: CallLog) -> None:
    path = log.path

    def inside(x: int) -> int:
        record(path, os.getpid())
        return x

    nested = Pipeline([node(inside, output_name="y")]).as_node(name="nested", output_name="y")
    pipeline = Pipeline([nested, node(lambda y: y, output_name="z")])
    assert pipeline.run({"x": 3}, node_executor={"y": "parallel", "": "sequential"}) == {"z": 3}
    assert str(os.getpid()) not in log.calls()


@pytest.mark.parametrize("executor", ALL, indirect=True)
def test_runs_and_maps_inside_a_node_end_at_width_one(executor: Any, request: pytest.FixtureRequest) -> None:
    """The one worker is busy with the node: what waited for another one would wait for ever."""
    name = request.node.callspec.params["executor"]
    inside = "parallel:1" if name in (*ELSEWHERE, "pickling") else executor  # these cannot be sent anywhere

    def again(n: int) -> int:
        double = node(lambda k: 2 * k, output_name="double", mapspec="k[i] -> double[i]")
        total = node(lambda double: int(sum(double)), output_name="total")
        engine = Engine(node_executor=inside, map_executor=inside, max_workers=1)
        with Store.temporary() as store:
            pipeline = Pipeline([double, total], engine=engine, store=store)
            return int(pipeline.map({"k": range(n)})["total"] + pipeline.run({"k": range(n)})["total"])

    nodes = [node(again, output_name=name, renames={"n": f"{name}_n"}, version="1") for name in ("p", "q")]
    pipeline = Pipeline([*nodes, node(lambda p, q: p + q, output_name="sum")])
    assert pipeline.run({"p_n": 3, "q_n": 4}, node_executor=executor, max_workers=1) == {"sum": 12 + 24}


def test_a_coroutine_may_map_on_the_loop_that_runs_it() -> None:
    async def inner(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    async def outer(n: int) -> int:
        mapped = Pipeline([node(inner, output_name="y", mapspec="x[i] -> y[i]")], store=None)
        return sum(mapped.map({"x": range(n)}, map_executor="async")["y"])

    assert Pipeline([node(outer)]).run({"n": 3}, node_executor="async:1") == {"outer": 6}


@pytest.mark.parametrize("outside", ["parallel:1", "process-pool"])
def test_a_map_inside_a_call_here_adds_no_processes_while_others_run(outside: str, log: CallLog) -> None:
    path = log.path

    def far(x: int) -> int:
        record(path, "far", os.getpid())
        meet(path, "far-is-here", "near-is-done")
        return x

    def near(x: int) -> int:
        def inner(k: int) -> int:
            record(path, "inner", os.getpid())
            return k

        meet(path, "near-is-here", "far-is-here")
        with Store.temporary() as store:
            mapped = Pipeline([node(inner, output_name="y", mapspec="k[i] -> y[i]")], store=store)
            total = int(sum(mapped.map({"k": range(5)}, map_executor="parallel:2")["y"]))
        record(path, "near-is-done")
        return total + x

    pipeline = Pipeline([node(far), node(near), node(lambda far, near: far + near, output_name="total")])
    with made(outside) as executor:
        found = pipeline.run({"x": 1}, node_executor={"far": executor, "": "sequential"})
    assert found == {"total": 12}
    assert {call for call in log.calls() if call.startswith("inner")} == {f"inner {os.getpid()}"}
