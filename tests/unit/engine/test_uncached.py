"""`cache=False`: a node runs whenever something that needs it runs, and nothing of it is kept."""

from typing import Any

import numpy as np
from tests.support.calls import CallLog, record

from gristmill import Pipeline, node


def pipeline(log: CallLog, *, cache: bool = False) -> Pipeline:
    path = log.path

    def load(x: int) -> Any:
        record(path, "load", x)
        return np.full(20_000, x)

    def measure(load: Any, k: int = 1) -> int:
        record(path, "measure", load[0])
        return int(load[0]) * k

    return Pipeline(
        [node(load, mapspec="x[i] -> load[i]", cache=cache), node(measure, mapspec="load[i] -> measure[i]")]
    )


def test_the_result_is_right(log: CallLog, executor: str) -> None:
    result = pipeline(log).map({"x": [1, 2]}, map_executor=executor)
    assert result["measure"].tolist() == [1, 2]
    assert log.take() == ["load 1", "load 2", "measure 1", "measure 2"]


def test_it_runs_when_the_caller_asks_for_it(log: CallLog, executor: str) -> None:
    for _ in range(2):
        result = pipeline(log).map({"x": [1, 2]}, output_name="load", map_executor=executor)
        assert [array[0] for array in result["load"]] == [1, 2]
        assert log.take() == ["load 1", "load 2"]


def test_it_runs_when_something_below_it_has_to_run(log: CallLog, executor: str) -> None:
    pipeline(log).map({"x": [1, 2]}, map_executor=executor)
    log.take()
    result = pipeline(log).map({"x": [1, 2], "k": 10}, map_executor=executor)
    assert result["measure"].tolist() == [10, 20]
    assert log.take() == ["load 1", "load 2", "measure 1", "measure 2"]


def test_equal_values_below_it_are_found(log: CallLog, executor: str) -> None:
    pipeline(log).map({"x": [1, 2]}, map_executor=executor)
    log.take()
    pipeline(log).map({"x": [1, 2]}, map_executor=executor)
    assert "measure 1" not in log.take()


def test_nothing_of_it_is_stored(log: CallLog, executor: str) -> None:
    result = pipeline(log).map({"x": [1, 2]}, map_executor=executor)
    assert result.stats.bytes_written < 20_000


def test_run_makes_it_again(log: CallLog) -> None:
    path = log.path

    def now() -> int:
        record(path, "now")
        return len(log.calls())

    one = Pipeline([node(now, cache=False), node(lambda now: 10 * now, output_name="y")])
    assert [one("y"), one("y")] == [10, 20]
