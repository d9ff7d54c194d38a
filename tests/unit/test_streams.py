"""Streams: the items of a map, as they are completed."""

import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record
from tests.support.values import same

from gristmill import InputError, Item, ItemError, ItemStream, MappedOutput, Pipeline, Store, node
from gristmill.engine.feed import AHEAD

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


def total(square: Any) -> int:
    return int(np.sum(square))


SQUARES = [node(square, mapspec="x[i] -> square[i]"), node(total)]


def stream(x: Any, **options: Any) -> ItemStream:
    return Pipeline(SQUARES).map_stream({"x": x}, output_name=["square", "total"], **options)


def values(items: Iterator[Item]) -> dict[tuple[int, ...], Any]:
    return {item.index: dict(item.outputs) for item in items}


def inverse(x: int) -> float:
    return 1 / int(x)


def maybe_inverse(**options: Any) -> Any:
    return node(inverse, mapspec="x[i] -> inverse[i]", **options)


# -- what comes ---------------------------------------------------------------------------------------------------


def test_every_index_comes_once_and_what_is_not_mapped_comes_last(executor: str) -> None:
    items = list(stream(range(200), map_executor=executor))
    assert sorted(item.index for item in items[:-1]) == [(k,) for k in range(200)]
    assert all(item.outputs == {"square": item.index[0] ** 2} for item in items[:-1])
    assert (items[-1].index, items[-1].outputs) == ((), {"total": sum(k * k for k in range(200))})
    assert not any(item.cached or item.error for item in items)


def test_in_order_they_come_in_order(executor: str) -> None:
    def uneven(x: int) -> int:
        time.sleep(0.03 if x % 5 == 0 else 0)
        return x

    pipeline = Pipeline([node(uneven, mapspec="x[i] -> uneven[i]")])
    items = list(pipeline.map_stream({"x": range(30)}, ordered=True, map_executor=executor))
    assert [item.outputs["uneven"] for item in items] == list(range(30))


def test_without_order_a_slow_one_does_not_keep_the_others_back() -> None:
    gate = threading.Event()

    def gated(x: int) -> int:
        assert x > 0 or gate.wait(20)
        return x

    pipeline = Pipeline([node(gated, mapspec="x[i] -> gated[i]", version="1")], store=None)
    items = pipeline.map_stream({"x": range(1, -1, -1)}, map_executor="threaded:2")
    assert next(items).index == (0,)
    gate.set()
    assert [item.index for item in items] == [(1,)]


def test_what_is_found_comes_too_and_says_so(executor: str) -> None:
    Pipeline(SQUARES).map({"x": range(5)})
    items = list(stream(range(8), map_executor=executor, ordered=True))
    assert [item.cached for item in items] == [True] * 5 + [False] * 4
    assert [item.seconds > 0 for item in items] == [False] * 5 + [True] * 4
    again = list(stream(range(8), map_executor=executor, ordered=True))
    assert all(item.cached for item in again)
    assert [item.outputs for item in again] == [item.outputs for item in items]


def test_equal_calls_run_once_and_come_each(executor: str) -> None:
    items = list(stream([3] * 10, map_executor=executor))
    assert [item.outputs for item in items] == [{"square": 9}] * 10 + [{"total": 90}]
    assert [item.cached for item in items].count(False) == 2


def test_seconds_are_about_what_a_call_takes(executor: str) -> None:
    def slow(x: int) -> int:
        time.sleep(0.02)
        return x

    pipeline = Pipeline([node(slow, mapspec="x[i] -> slow[i]")])
    seconds = sorted(item.seconds for item in pipeline.map_stream({"x": range(12)}, map_executor=executor))
    assert seconds[3] >= 0.02


def test_values_are_exactly_what_the_function_returned() -> None:
    given: list[Any] = [1, True, 2.5, "a", None, (1, [2]), np.float32(3), np.arange(20_000)]
    pipeline = Pipeline([node(lambda v: v, output_name="kept", mapspec="v[i] -> kept[i]")])
    for item in pipeline.map_stream({"v": given}):
        value, expected = item.outputs["kept"], given[item.index[0]]
        assert same(value, expected)


def test_outputs_with_fewer_axes_repeat() -> None:
    pipeline = Pipeline(
        [
            node(lambda a: -a, output_name="m", mapspec="a[i] -> m[i]"),
            node(lambda m, b: m * b, output_name="p", mapspec="m[i], b[j] -> p[j, i]"),
            node(lambda p: int(p.sum()), output_name="s"),
        ]
    )
    given = {"a": [1, 2], "b": [3, 4, 5]}
    found = values(pipeline.map_stream(given, output_name=["m", "p", "s"]))
    expected: dict[Any, Any] = {
        (j, i): {"m": -a, "p": -a * b} for i, a in enumerate([1, 2]) for j, b in enumerate([3, 4, 5])
    }
    assert found == {**expected, (): {"s": -36}}
    permuted = values(pipeline.map_stream(given, output_name=["m", "p"], map_executor={"p": "sequential"}))
    assert permuted == expected


def test_axes_that_calls_make(executor: str) -> None:
    nodes = [
        node(lambda n: list(range(n)), output_name="part", mapspec="n[i] -> part[i, *j]"),
        node(lambda part: 10 * part, output_name="tens", mapspec="part[i, j] -> tens[i, j]"),
        node(lambda tens: sum(tens), output_name="row", mapspec="tens[i, :] -> row[i]"),
    ]
    pipeline, n = Pipeline(nodes), [2, 0, 3]
    indices = [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]
    for names in (["part"], ["tens"], ["part", "tens"], ["part", "tens", "row"]):
        items = list(pipeline.map_stream({"n": n}, output_name=names, ordered=True, map_executor=executor))
        assert [item.index for item in items] == indices
        made: dict[str, Callable[[int, int], int]] = {
            "part": lambda i, j: j,
            "tens": lambda i, j: 10 * j,
            "row": lambda i, j: 10 * sum(range(n[i])),
        }
        assert [item.outputs for item in items] == [
            {name: made[name](*at) for name in names} for at in indices
        ]
    assert [i.outputs["row"] for i in pipeline.map_stream({"n": n}, ordered=True)] == [10, 0, 30]


def test_dense_axes_that_calls_make() -> None:
    pipeline = Pipeline([node(lambda n: np.arange(3) + n, output_name="part", mapspec="n[i] -> part[i, j]")])
    items = list(pipeline.map_stream({"n": [0, 10]}, ordered=True))
    assert [int(item.outputs["part"]) for item in items] == [0, 1, 2, 10, 11, 12]
    assert not any(item.cached for item in items)
    assert all(item.cached for item in pipeline.map_stream({"n": [0, 10]}))


def test_zero_items_and_no_axes() -> None:
    assert values(stream([])) == {(): {"total": 0}}
    assert values(Pipeline(SQUARES).map_stream({"square": [1, 2]})) == {(): {"total": 3}}


def test_map_over_and_several_outputs_of_a_node() -> None:
    both = node(lambda x, k: (x + k, x * k), output_name=("plus", "times"))
    found = values(
        Pipeline([both]).map_stream({"x": [1, 2], "k": [3, 4]}, map_over=["x", "k"], map_mode="product")
    )
    assert found == {
        (i, j): {"plus": x + k, "times": x * k} for i, x in enumerate([1, 2]) for j, k in enumerate([3, 4])
    }


def test_a_part_of_the_space() -> None:
    assert values(stream(range(9), fixed_indices={"i": slice(2, 4)})) == {
        (2,): {"square": 4},
        (3,): {"square": 9},
    }


def test_tree_reductions_come_last() -> None:
    nodes = [SQUARES[0], node(sum, output_name="all", reduce="square", fan_in=3)]
    items = list(Pipeline(nodes).map_stream({"x": range(20)}, output_name=["square", "all"]))
    assert (len(items), items[-1].outputs) == (21, {"all": sum(k * k for k in range(20))})


def test_what_is_not_kept_comes_too() -> None:
    pipeline = Pipeline([node(square, mapspec="x[i] -> square[i]", cache=False)])
    assert values(pipeline.map_stream({"x": [2, 3]})) == {(0,): {"square": 4}, (1,): {"square": 9}}


def test_without_a_store_values_are_readable_as_long_as_the_stream_is_there() -> None:
    items = Pipeline([SQUARES[0]], store=None).map_stream({"x": range(100)}, ordered=True)
    first = next(items)
    gc.collect()
    assert [first.outputs["square"], *(item.outputs["square"] for item in items)] == [
        k * k for k in range(100)
    ]


def test_without_a_store_what_was_completed_before_an_exception_is_still_there() -> None:
    def late(x: int) -> int:
        return x // (19 - x)

    pipeline = Pipeline([node(late, mapspec="x[i] -> late[i]")], store=None)
    items = pipeline.map_stream({"x": range(20)}, map_executor="sequential", ordered=True)
    run = items._run  # noqa: SLF001 - it has failed before anything is taken
    wait_for(run.outcome.done)
    gc.collect()
    assert [next(items).outputs["late"] for _ in range(9)] == [0] * 9
    with pytest.raises(ZeroDivisionError):
        list(items)


def test_two_streams_at_once_share_the_work(executor: str, log: CallLog) -> None:
    path = log.path

    def logged(x: int) -> int:
        record(path, x)
        return -x

    pipeline = Pipeline([node(logged, mapspec="x[i] -> logged[i]")])
    streams = [pipeline.map_stream({"x": range(60)}, ordered=True, map_executor=executor) for _ in range(2)]
    pairs = list(zip(*streams, strict=True))
    assert [a.outputs["logged"] for a, _ in pairs] == [b.outputs["logged"] for _, b in pairs]
    assert len(log.take()) == 60


# -- what fails ---------------------------------------------------------------------------------------------------


def test_the_first_exception_is_raised_as_map_raises_it(executor: str) -> None:
    pipeline = Pipeline([maybe_inverse()])
    items = pipeline.map_stream({"x": [1, 2, 0, 4]}, map_executor=executor)
    seen: list[Item] = []
    with pytest.raises(ZeroDivisionError) as caught:
        seen.extend(items)
    assert "in node inverse (output 'inverse') at index (2,)" in caught.value.__notes__[0]
    assert all(item.error is None and item.index != (2,) for item in seen)
    assert list(items) == []


def test_going_on_past_failures_yields_what_failed(executor: str) -> None:
    after = node(lambda inverse: inverse + 1, output_name="after", mapspec="inverse[i] -> after[i]")
    pipeline = Pipeline([maybe_inverse(), after, node(lambda after: 1, output_name="end")])
    items = list(
        pipeline.map_stream(
            {"x": [1, 0, 2, 0]},
            output_name=["inverse", "after", "end"],
            ordered=True,
            on_error="continue",
            map_executor=executor,
        )
    )
    assert [item.outputs for item in items] == [
        {"inverse": 1.0, "after": 2.0},
        {"inverse": None, "after": None},
        {"inverse": 0.5, "after": 1.5},
        {"inverse": None, "after": None},
        {"end": None},
    ]
    errors = [item.error for item in items]
    assert [error and error.index for error in errors] == [None, (1,), None, (3,), (1,)]
    assert isinstance(errors[1], ItemError)
    assert errors[1].inputs == {"x": 0}
    assert isinstance(errors[1].error, ZeroDivisionError)


def test_failures_of_an_earlier_stage_are_the_cause_of_later_ones() -> None:
    nodes = [
        node(inverse, mapspec="x[i, j] -> inverse[i, j]"),
        node(lambda inverse: float(inverse.sum()), output_name="row", mapspec="inverse[i, :] -> row[i]"),
    ]
    items = list(
        Pipeline(nodes).map_stream(
            {"x": np.array([[1, 2], [0, 4], [5, 0]])}, ordered=True, on_error="continue"
        )
    )
    assert [item.error and (item.error.output_name, item.error.index) for item in items] == [
        None,
        ("inverse", (1, 0)),
        ("inverse", (2, 1)),
    ]


def test_errors_that_are_passed_on() -> None:
    def count(inverse: Any) -> int:
        return sum(isinstance(one, ItemError) for one in inverse)

    pipeline = Pipeline([maybe_inverse(), node(count, errors="pass")])
    items = pipeline.map_stream({"x": [0, 1, 0]}, output_name=["inverse", "count"], on_error="continue")
    assert [item.outputs for item in items][-1] == {"count": 2}


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ({"y": [1]}, {}, "'x'"),
        ({"x": 3}, {}, "x"),
        ({"x": [1]}, {"on_error": "stop"}, "on_error"),
        ({"x": [1]}, {"map_executor": "paralel"}, "parallel"),
        ({"x": [1]}, {"fixed_indices": {"k": 1}}, "'k'"),
    ],
)
def test_bad_inputs_are_refused_at_the_call(given: Any, options: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Pipeline(SQUARES).map_stream(given, **options)
    with pytest.raises(TypeError, match="no option"):
        Pipeline(SQUARES).map_stream({"x": [1]}, order=True)


def test_outputs_without_a_common_space_are_refused_at_the_call() -> None:
    pipeline = Pipeline(
        [(abs, "x[i] -> abs[i]"), node(square, mapspec="y[j] -> square[j]", renames={"x": "y"})]
    )
    with pytest.raises(InputError, match=r"one space.*output_name="):
        pipeline.map_stream({"x": [1, 2], "y": [1, 2]})
    assert len(list(pipeline.map_stream({"x": [1, 2], "y": [1, 2]}, output_name="square"))) == 2


def test_what_is_damaged_while_it_waits_is_computed_again(tmp_path: Path) -> None:
    def large(x: int) -> Any:
        return np.full(20_000, x)

    pipeline = Pipeline([node(large, mapspec="x[i] -> large[i]")], store=Store(tmp_path / "store"))
    for ordered in (False, True):
        items = pipeline.map_stream({"x": range(5)}, ordered=ordered)
        wait_for(lambda: len(list((tmp_path / "store" / "chunks").glob("*/*"))) >= 5)
        for chunk in (tmp_path / "store" / "chunks").glob("*/*"):
            chunk.unlink()
        found = [(item.index[0], int(item.outputs["large"][7])) for item in items]
        assert sorted(found) == [(k, k) for k in range(5)]
        assert not ordered or found == sorted(found)


# -- ending early -------------------------------------------------------------------------------------------------


def nap(x: int, log: str) -> int:
    record(log, x)
    time.sleep(0.02)
    return x


NAPS = [node(nap, mapspec="x[i] -> nap[i]")]


def leave(items: ItemStream) -> None:
    for item in items:
        if item.index:
            break


def close(items: ItemStream) -> None:
    next(items)
    items.close()


def with_block(items: ItemStream) -> None:
    with items:
        next(items)


@pytest.mark.parametrize("end", [close, with_block, leave])
def test_ending_early_keeps_what_is_done_and_starts_no_more(
    end: Callable[[ItemStream], None], executor: str, log: CallLog
) -> None:
    pipeline, given = Pipeline(NAPS), {"x": range(100), "log": log.path}
    items = pipeline.map_stream(given, map_executor=executor)
    run = items._run  # noqa: SLF001 - to wait for what has no handle any more
    end(items)
    assert end is leave or list(items) == []
    del items
    gc.collect()
    run.wait(20)
    made = log.take()
    assert 0 < len(made) < 50
    result = pipeline.map(given, map_executor=executor)
    assert result["nap"].tolist() == list(range(100))
    assert result.stats.cached == len(set(made))
    assert len(log.take()) == 100 - len(set(made))


def test_a_stream_that_is_a_part_of_a_cycle_is_ended_by_the_collector(log: CallLog) -> None:
    items = Pipeline(NAPS).map_stream({"x": range(300), "log": log.path}, map_executor="sequential")
    run, cycle = items._run, [items]  # noqa: SLF001 - as above
    cycle.append(cycle)  # type: ignore[arg-type]
    del items, cycle
    gc.collect()
    run.wait(20)
    assert run.outcome.cancelled()
    assert len(log.take()) < 300


def test_closing_twice_or_at_the_end_does_nothing() -> None:
    items = stream(range(3))
    assert len(list(items)) == 4
    items.close()
    items.close()
    assert next(items, None) is None


def test_a_map_goes_no_further_than_a_bounded_way_ahead(executor: str, log: CallLog) -> None:
    path = log.path

    def logged(x: int) -> int:
        record(path, x)
        return x

    count = 5 * AHEAD
    pipeline = Pipeline([node(logged, mapspec="x[i] -> logged[i]")], store=None)
    items = pipeline.map_stream({"x": range(count)}, map_executor=executor)
    taken = list(itertools.islice(items, 10))
    feed = items._run.feed  # noqa: SLF001 - whether it waits is what is tested
    # What has been sent may still be under way when it is held.
    wait_for(lambda: feed._is_held and len(log.lines()) >= AHEAD // 2)  # noqa: SLF001
    time.sleep(0.1)
    assert len(log.lines()) <= 2 * AHEAD
    taken += items
    assert sorted(item.outputs["logged"] for item in taken) == list(range(count))
    assert len(log.take()) == count


def test_in_order_a_map_does_not_wait_for_itself() -> None:
    gate = threading.Event()

    def gated(x: int) -> int:
        if x == 2 * AHEAD:
            gate.set()
        assert x != 1 or gate.wait(20)
        return x

    pipeline = Pipeline([node(gated, mapspec="x[i] -> gated[i]", version="1")], store=None)
    count = 3 * AHEAD
    items = pipeline.map_stream({"x": range(count)}, ordered=True, map_executor="threaded:4")
    assert [item.outputs["gated"] for item in items] == list(range(count))


def test_what_waits_holds_no_values() -> None:
    pipeline = Pipeline([node(lambda x: np.full(50_000, x), output_name="y", mapspec="x[i] -> y[i]")])
    items = pipeline.map_stream({"x": range(50)}, map_executor="sequential")
    items._run.outcome.result(20)  # noqa: SLF001 - everything is done and nothing taken
    gc.collect()
    held = [a for a in gc.get_objects() if isinstance(a, np.ndarray) and a.size >= 50_000]
    assert held == []
    assert sum(int(item.outputs["y"][0]) for item in items) == sum(range(50))


def test_a_stream_within_a_call(executor: str) -> None:
    def inner(n: int) -> int:
        pipeline = Pipeline([node(lambda k: 2 * k, output_name="d", mapspec="k[i] -> d[i]")], store=None)
        return sum(item.outputs["d"] for item in pipeline.map_stream({"k": range(n)}, map_executor=executor))

    pipeline = Pipeline([node(inner, mapspec="n[i] -> inner[i]")])
    assert pipeline.map({"n": [1, 2, 5]}, map_executor=executor)["inner"].tolist() == [0, 2, 20]


def test_a_mapped_output_of_a_finished_map_may_be_streamed_over() -> None:
    first = Pipeline([SQUARES[0]]).map({"x": range(4)})["square"]
    assert isinstance(first, MappedOutput)
    pipeline = Pipeline([node(lambda s: s + 1, output_name="t", mapspec="s[i] -> t[i]")])
    assert [item.outputs["t"] for item in pipeline.map_stream({"s": first}, ordered=True)] == [1, 2, 5, 10]
