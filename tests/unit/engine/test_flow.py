"""Stages that take single elements of others run beside them, with the same results as one after the other."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import Pipeline, Store, node

SPLITS: list[dict[str, str]] = [
    {"y": "threaded:2", "": "parallel"},
    {"y": "parallel:1", "": "threaded"},
    {"y": "sequential", "": "parallel:1"},
    {"y": "parallel", "": "sequential"},
    {"y": "async:2", "": "auto"},
]


@pytest.fixture(params=SPLITS, ids=lambda split: f"{split['y']}-{split['']}")
def split(request: pytest.FixtureRequest) -> dict[str, str]:
    found: dict[str, str] = request.param
    return found


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def logged(log: CallLog, *, seconds: float = 0.0) -> Pipeline:
    """Y takes its time; z and w take elements of it, v reduces."""
    path = log.path

    def y(x: int) -> int:
        time.sleep(seconds)
        record(path, "y", x)
        return x

    def z(y: int) -> int:
        record(path, "z", y)
        return y + 1

    def w(z: int, k: int) -> int:
        record(path, "w", z, k)
        return z * k

    def v(w: Any) -> int:
        record(path, "v")
        return int(w.sum())

    return Pipeline(
        [
            node(y, mapspec="x[i] -> y[i]"),
            node(z, mapspec="y[i] -> z[i]"),
            node(w, mapspec="z[i], k[j] -> w[i, j]"),
            node(v),
        ]
    )


def test_the_second_starts_before_the_first_has_ended(log: CallLog, split: dict[str, str]) -> None:
    Pipeline([node(lambda n: n, output_name="m", mapspec="n[i] -> m[i]")]).map(
        {"n": [1]}, map_executor="parallel"
    )  # processes take longer to come up than the calls here
    pipeline = logged(log, seconds=0.05)
    result = pipeline.map({"x": range(30), "k": [1, 2]}, map_executor=split)
    assert result["v"] == 3 * sum(range(1, 31))
    calls = [words.split()[0] for words in log.calls()]
    assert calls.index("z") < len(calls) - 1 - calls[::-1].index("y")
    assert calls[-1] == "v"
    assert log.counts() == dict.fromkeys(set(log.calls()), 1)
    assert (result.stats.computed, result.stats.cached) == (30 + 30 + 60 + 1, 0)


def test_everything_is_found_again(log: CallLog, split: dict[str, str]) -> None:
    pipeline = logged(log)
    pipeline.map({"x": range(20), "k": [1, 2]}, map_executor=split)
    log.take()
    again = pipeline.map({"x": range(25), "k": [1, 2]}, map_executor=split)
    assert (again.stats.computed, again.stats.cached) == (5 + 5 + 10 + 1, 20 + 20 + 40)
    assert log.counts().keys() == {
        *(f"{name} {n}" for name in "yz" for n in range(20, 25)),
        *(f"w {n + 1} {k}" for n in range(20, 25) for k in (1, 2)),
        "v",
    }


def test_calls_that_are_the_same_are_made_once(log: CallLog, split: dict[str, str]) -> None:
    path = log.path

    def y(x: int) -> int:
        time.sleep(0.02)
        return x % 3

    def z(y: int) -> int:
        record(path, y)
        return 10 * y

    pipeline = Pipeline([node(y, mapspec="x[i] -> y[i]"), node(z, mapspec="y[i] -> z[i]")])
    result = pipeline.map({"x": range(24)}, map_executor=split)
    assert result["z"].tolist() == [10 * (x % 3) for x in range(24)]
    assert log.counts() == {"0": 1, "1": 1, "2": 1}


def test_what_failed_is_not_waited_for(split: dict[str, str]) -> None:
    def y(x: int) -> int:
        time.sleep(0.02)
        if x % 4 == 1:
            raise ValueError(x)
        return x

    def z(y: int) -> int:
        if y == 6:
            raise KeyError(y)
        return y

    def rest(z: Any) -> list[int]:
        return [int(one) for one in z]

    pipeline = Pipeline(
        [node(y, mapspec="x[i] -> y[i]"), node(z, mapspec="y[i] -> z[i]"), node(rest, errors="drop")]
    )
    result = pipeline.map(
        {"x": range(20)}, map_executor=split, on_error="continue", output_name=["z", "rest"]
    )
    good = [x for x in range(20) if x % 4 != 1 and x != 6]
    assert result["z"].tolist() == [x if x in good else None for x in range(20)]
    assert result["rest"] == good
    assert (result.stats.failed, result.stats.skipped) == (6, 5)


def test_the_first_failure_ends_both(split: dict[str, str], log: CallLog) -> None:
    path = log.path

    def y(x: int) -> int:
        time.sleep(0.02)
        record(path, x)
        return x

    def z(y: int) -> int:
        raise ValueError(y)

    pipeline = Pipeline([node(y, mapspec="x[i] -> y[i]"), node(z, mapspec="y[i] -> z[i]")])
    with pytest.raises(ValueError, match=r"[0-9]"):
        pipeline.map({"x": range(200)}, map_executor=split)
    assert len(log.calls()) < 200


def test_two_arguments_of_two_stages(split: dict[str, str]) -> None:
    def y(x: int) -> int:
        time.sleep(0.01 * (x % 3))
        return x

    def u(q: int) -> Any:
        return np.full(2_000, q)  # a chunk

    def z(y: int, u: Any, x: int) -> tuple[int, int, int]:
        return y, int(u[-1]), x

    pipeline = Pipeline(
        [
            node(y, mapspec="x[i] -> y[i]"),
            node(u, mapspec="q[j] -> u[j]"),
            node(z, mapspec="y[i], u[j], x[i] -> z[i, j]"),
        ]
    )
    result = pipeline.map({"x": range(8), "q": range(5)}, map_executor={**split, "u": "threaded:2"})
    assert result["z"].tolist() == [[(i, j, i) for j in range(5)] for i in range(8)]


@pytest.mark.parametrize("executor", ["parallel", "threaded"])
def test_what_is_lost_meanwhile_is_made_again(tmp_path: Path, executor: str) -> None:
    location, once = tmp_path / "store", tmp_path / "once"

    def y(x: int) -> Any:
        time.sleep(0.03)
        if x == 12 and not once.exists():
            once.touch()
            for path in location.glob("chunks/*/*"):
                path.unlink()
        return np.full(50_000, x)

    def z(y: Any) -> int:
        time.sleep(0.02)
        return int(y[-1])

    pipeline = Pipeline(
        [node(y, mapspec="x[i] -> y[i]"), node(z, mapspec="y[i] -> z[i]")], store=Store(location)
    )
    result = pipeline.map({"x": range(30)}, map_executor={"y": "threaded:2", "": executor})
    assert result["z"].tolist() == list(range(30))
    assert once.exists()


def test_a_worker_that_dies_between_two_stages(tmp_path: Path) -> None:
    once = tmp_path / "once"

    def y(x: int) -> int:
        time.sleep(0.02)
        return x

    def z(y: int) -> int:
        if y == 5 and not once.exists():
            once.touch()
            os._exit(1)
        return y

    pipeline = Pipeline([node(y, mapspec="x[i] -> y[i]"), node(z, mapspec="y[i] -> z[i]")])
    result = pipeline.map({"x": range(20)}, map_executor={"y": "threaded:2", "": "parallel"})
    assert result["z"].tolist() == list(range(20))


def test_many_short_calls(split: dict[str, str]) -> None:
    pipeline = Pipeline(
        [
            node(lambda x: x + 1, output_name="y", mapspec="x[i] -> y[i]"),
            node(lambda y: 2 * y, output_name="z", mapspec="y[i] -> z[i]"),
        ]
    )
    result = pipeline.map({"x": range(3_000)}, map_executor=split)
    assert result["z"].tolist() == [2 * (x + 1) for x in range(3_000)]
