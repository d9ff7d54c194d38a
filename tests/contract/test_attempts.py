"""Retries and time limits: the same with every executor, and counted across the deaths of processes."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.schedules import DIE, RAISE, Schedule, ScheduledError, attempt

from gristmill import Engine, GraphError, ItemTimeoutError, Node, Pipeline, Retry, WorkerDiedError, node

EXECUTORS = ("sequential", "threaded", "async", "parallel", "auto", "thread-pool", "process-pool")
NEVER = 60.0
"""Seconds that no test waits for."""
SLOW = 0.06
"""Seconds after which the call before is committed: what ended just before a death is made again."""


@pytest.fixture(params=EXECUTORS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def executor(name: str, kept: Mapping[str, Any]) -> Any:
    return kept[name]


@pytest.fixture
def schedule(tmp_path: Path) -> Callable[..., Schedule]:
    return lambda **outcomes: Schedule(
        tmp_path / "schedule", {int(item[1:]): row for item, row in outcomes.items()}
    )


def tried(plan: Schedule, **options: Any) -> Pipeline:
    """A pipeline whose one node does what a schedule says."""
    folder = plan.folder

    def y(x: int) -> int:
        attempt(folder, x)
        return 10 * x

    return Pipeline([node(y, mapspec="x[i] -> y[i]", **options)])


def tried_async(plan: Schedule, **options: Any) -> Pipeline:
    folder = plan.folder

    async def y(x: int) -> int:
        attempt(folder, x)
        return 10 * x

    return Pipeline([node(y, mapspec="x[i] -> y[i]", **options)])


# -- retries


@pytest.mark.parametrize("made", [tried, tried_async])
def test_a_call_is_tried_again_as_often_as_its_node_says(
    executor: Any, schedule: Callable[..., Schedule], made: Callable[..., Pipeline]
) -> None:
    plan = schedule(_1=[RAISE, RAISE], _3=[RAISE, RAISE, RAISE], _4=[RAISE])
    result = made(plan, retries=2).map({"x": range(6)}, map_executor=executor, on_error="continue")
    assert result["y"].tolist() == [0, 10, 20, None, 40, 50]
    assert [plan.attempts(item) for item in range(6)] == [1, 3, 1, 3, 2, 1]
    (error,) = result.errors
    assert (error.index, error.attempts, str(error.error)) == ((3,), 3, "attempt 3 at item 3")
    assert (result.stats.computed, result.stats.failed) == (5, 1)


def test_the_last_exception_is_raised_with_its_traceback(
    executor: Any, schedule: Callable[..., Schedule]
) -> None:
    plan = schedule(_1=[RAISE, RAISE])
    with pytest.raises(ScheduledError, match="attempt 2 at item 1") as caught:
        tried(plan, retries=1).map({"x": range(3)}, map_executor=executor)
    notes = "\n".join(caught.value.__notes__)
    assert "at index (1,)" in notes
    assert "tried 2 times" in notes
    assert plan.attempts(1) == 2


def test_what_failed_is_tried_again_by_the_next_run(executor: Any, schedule: Callable[..., Schedule]) -> None:
    plan = schedule(_2=[RAISE, RAISE])
    pipeline = tried(plan, retries=1)
    first = pipeline.map({"x": range(4)}, map_executor=executor, on_error="continue")
    second = pipeline.map({"x": range(4)}, map_executor=executor)
    assert (first.stats.failed, second.stats.computed, second.stats.cached) == (1, 1, 3)
    assert [plan.attempts(item) for item in range(4)] == [1, 1, 3, 1]


def test_other_exceptions_fail_at_once(executor: Any, schedule: Callable[..., Schedule]) -> None:
    plan = schedule(_0=[RAISE, RAISE], _1=[RAISE])
    retries = Retry(attempts=5, on=(OSError,))
    result = tried(plan, retries=retries).map({"x": [0, 1]}, map_executor=executor, on_error="continue")
    assert [error.attempts for error in result.errors] == [1, 1]
    assert [plan.attempts(item) for item in (0, 1)] == [1, 1]


def test_each_attempt_has_arguments_of_its_own(executor: Any) -> None:
    def y(x: list[int]) -> list[int]:
        x.append(1)
        if not hasattr(threading, f"_tried_{x[0]}"):
            setattr(threading, f"_tried_{x[0]}", True)
            raise ValueError(x)
        delattr(threading, f"_tried_{x[0]}")
        return x

    pipeline = Pipeline([node(y, mapspec="x[i] -> y[i]", retries=3)])
    result = pipeline.map({"x": [[5], [6]]}, map_executor=executor)
    assert result["y"].tolist() == [[5, 1], [6, 1]]


def test_waits_grow(schedule: Callable[..., Schedule]) -> None:
    plan = schedule(_0=[RAISE, RAISE, RAISE])
    started = time.perf_counter()
    tried(plan, retries=Retry(attempts=4, wait=0.05, backoff=2)).run({"x": [0]})
    assert time.perf_counter() - started > 0.05 + 0.1 + 0.2


def test_a_process_that_dies_is_an_attempt_of_nobody(schedule: Callable[..., Schedule]) -> None:
    plan = schedule(_2=[RAISE, DIE, RAISE, 0])
    result = tried(plan, retries=2).map({"x": range(4)}, map_executor="parallel")
    assert result["y"].tolist() == [0, 10, 20, 30]
    assert [plan.attempts(item) for item in (0, 1, 3)] == [1, 1, 1]


# -- time limits


def test_a_call_that_takes_too_long_fails_and_no_other(
    executor: Any, schedule: Callable[..., Schedule]
) -> None:
    plan = schedule(_2=[NEVER])
    started = time.perf_counter()
    result = tried(plan, timeout=0.5).map({"x": range(8)}, map_executor=executor, on_error="continue")
    assert time.perf_counter() - started < NEVER / 2
    assert result["y"].tolist() == [None if x == 2 else 10 * x for x in range(8)]
    (error,) = result.errors
    assert type(error.error) is ItemTimeoutError
    assert "longer than its timeout of 0.5 s" in str(error.error)
    assert [plan.attempts(item) for item in range(8)] == [1] * 8


def test_a_coroutine_is_cancelled(executor: Any, tmp_path: Path) -> None:
    cancelled = tmp_path / "cancelled"

    async def y(x: int) -> int:
        try:
            await asyncio.sleep(NEVER if x == 1 else 0)
        except asyncio.CancelledError:
            cancelled.touch()
            raise
        return x

    pipeline = Pipeline([node(y, mapspec="x[i] -> y[i]", timeout=0.3)])
    result = pipeline.map({"x": range(3)}, map_executor=executor, on_error="continue")
    assert result["y"].tolist() == [0, None, 2]
    assert type(result.errors[0].error) is ItemTimeoutError
    assert cancelled.exists()


def test_a_call_that_took_too_long_is_tried_again(executor: Any, schedule: Callable[..., Schedule]) -> None:
    plan = schedule(_1=[NEVER, 0], _2=[RAISE, NEVER, 0], _3=[NEVER, NEVER, NEVER])
    pipeline = tried(plan, timeout=0.3, retries=2)
    result = pipeline.map({"x": range(5)}, map_executor=executor, on_error="continue")
    assert result["y"].tolist() == [0, 10, 20, None, 40]
    assert [plan.attempts(item) for item in range(5)] == [1, 2, 3, 3, 1]
    assert [(error.index, error.attempts) for error in result.errors] == [((3,), 3)]


def test_the_users_own_timeout_error_is_not_ours(executor: Any) -> None:
    async def y(x: int) -> int:
        raise TimeoutError("of the user")

    pipeline = Pipeline([node(y, mapspec="x[i] -> y[i]", timeout=30)])
    with pytest.raises(TimeoutError, match="of the user") as caught:
        pipeline.map({"x": [1]}, map_executor=executor)
    assert type(caught.value) is TimeoutError


def test_a_time_limit_holds_in_a_run(executor: Any) -> None:
    def slow(x: int) -> int:
        time.sleep(NEVER)
        return x

    started = time.perf_counter()
    with pytest.raises(ItemTimeoutError):
        Pipeline([node(slow, timeout=0.2)]).run({"x": 1}, node_executor=executor)
    assert time.perf_counter() - started < NEVER / 2


def test_a_process_that_holds_the_interpreter_is_ended() -> None:
    def y(x: int) -> int:
        if x == 1:
            pattern = b"a" * 60
            __import__("re").match(rb"(a*)*b", pattern)  # does not let go of the interpreter for ages
        return x

    pipeline = Pipeline([node(y, mapspec="x[i] -> y[i]", timeout=0.5)])
    result = pipeline.map({"x": range(4)}, map_executor="parallel", on_error="continue")
    assert result["y"].tolist() == [0, None, 2, 3]
    assert "its process was ended" in str(result.errors[0].error)


def test_what_was_finished_before_is_kept(schedule: Callable[..., Schedule]) -> None:
    plan = schedule(_39=[NEVER], **{f"_{item}": [0.006, 0.006] for item in range(39)})  # recorded one by one
    pipeline = tried(plan, timeout=0.5)
    pipeline.map({"x": range(40)}, map_executor="parallel:1", on_error="continue")
    assert [plan.attempts(item) for item in range(40)] == [1] * 40


# -- the deaths of processes


def test_a_death_is_blamed_on_the_call_that_was_made(schedule: Callable[..., Schedule]) -> None:
    plan = schedule(**{f"_{item}": [DIE, DIE, DIE] if item == 15 else [SLOW, SLOW] for item in range(20)})
    result = tried(plan).map({"x": range(20)}, map_executor="parallel", on_error="continue")
    assert [type(error.error) for error in result.errors] == [WorkerDiedError]
    assert [error.index for error in result.errors] == [(15,)]
    assert plan.attempts(15) in (2, 3)  # twice alone, and once among others if it was
    assert (
        sum(plan.attempts(item) for item in range(20) if item != 15) <= 20
    )  # only the one before is made again


def test_a_death_may_fail_its_call_at_once(schedule: Callable[..., Schedule]) -> None:
    plan = schedule(**{f"_{item}": [DIE] if item == 15 else [SLOW, SLOW] for item in range(20)})
    engine = Engine(map_executor="parallel", on_worker_death="fail")
    result = tried(plan).with_(engine=engine).map({"x": range(20)}, on_error="continue")
    assert [(error.index, type(error.error)) for error in result.errors] == [((15,), WorkerDiedError)]
    assert plan.attempts(15) == 1
    assert sum(plan.attempts(item) for item in range(20)) <= 21


def test_the_index_that_killed_is_never_run_in_this_process(schedule: Callable[..., Schedule]) -> None:
    me = os.getpid()

    def y(x: int) -> int:
        until = time.thread_time() + 0.03  # not asleep, or threads would run it
        while time.thread_time() < until:
            pass
        if x == 39 and os.getpid() != me:
            os._exit(1)
        return x

    pipeline = Pipeline([node(y, mapspec="x[i] -> y[i]")])
    result = pipeline.map({"x": range(40)}, map_executor="auto", on_error="continue", max_workers=2)
    assert [type(error.error) for error in result.errors] == [WorkerDiedError]


# -- what is given


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retries": -1}, "retries of <lambda> is -1; use a number of retries, 0 or more, or a Retry"),
        ({"retries": True}, "retries of <lambda> is True"),
        ({"retries": 1.5}, "retries of <lambda> is 1.5"),
        ({"timeout": 0}, "timeout of <lambda> is 0; use a number of seconds above 0, or None"),
        ({"timeout": float("inf")}, "timeout of <lambda> is inf"),
        ({"timeout": "1 s"}, "timeout of <lambda> is '1 s'"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError) as caught:
        node(lambda x: x, output_name="y", **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"attempts": 0},
        {"attempts": 1.0},
        {"wait": -1},
        {"wait": "1"},
        {"backoff": 0.5},
        {"jitter": -0.1},
        {"on": ()},
        {"on": ("OSError",)},
    ],
)
def test_retries_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match=f"{next(iter(options))} of Retry is"):
        Retry(**options)


def test_a_lone_exception_type_is_enough() -> None:
    assert Retry(on=OSError).on == (OSError,)  # type: ignore[arg-type]


def test_how_often_and_how_long_is_no_part_of_what_is_computed() -> None:
    def y(x: int) -> int:
        return x

    def made(**options: Any) -> Node:
        return node(y, mapspec="x[i] -> y[i]", **options)

    Pipeline([made()]).map({"x": range(3)})
    again = Pipeline([made(retries=3, timeout=5)]).map({"x": range(3)})
    assert (again.stats.computed, again.stats.cached) == (0, 3)
