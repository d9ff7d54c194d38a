"""Maps over nothing, over one element, and over equal elements."""

from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import MappedOutput, Pipeline, node


def double(x: int) -> int:
    return 2 * x


def add(x: int, y: int) -> int:
    return x + y


def chain(log: CallLog) -> Pipeline:
    path = log.path

    def first(x: int) -> int:
        record(path, "first", x)
        return x + 1

    def second(first: int) -> int:
        record(path, "second", first)
        return first * 10

    def side(x: int) -> int:
        record(path, "side", x)
        return -x

    return Pipeline(
        [(first, "x[i] -> first[i]"), (second, "first[i] -> second[i]"), (side, "x[i] -> side[i]")]
    )


def test_an_empty_map(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(double, output_name="y", mapspec="x[i] -> y[i]"),
            node(len, output_name="n", renames={"obj": "y"}),
        ]
    )
    result = pipeline.map({"x": []}, output_name=["y", "n"], map_executor=executor)
    assert (result["y"].tolist(), result["y"].shape, len(result["y"]), list(result["y"])) == ([], (0,), 0, [])
    assert np.asarray(result["y"]).shape == (0,)
    assert result["n"] == 0
    assert list(result.rows()) == []


@pytest.mark.parametrize(("x", "y", "expected"), [([], [1, 2], []), ([1, 2], [], [[], []]), ([], [], [])])
def test_a_product_with_an_empty_axis(x: list[int], y: list[int], expected: list[Any], executor: str) -> None:
    pipeline = Pipeline([node(add, output_name="z", mapspec="x[i], y[j] -> z[i, j]")])
    result = pipeline.map({"x": x, "y": y}, map_executor=executor)
    assert result["z"].tolist() == expected
    assert result["z"].extents == np.asarray(result["z"]).shape == (len(x), len(y))


def test_a_partial_reduction_over_an_empty_axis(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(add, output_name="z", mapspec="x[i], y[j] -> z[i, j]"),
            node(lambda z: z.shape, output_name="t", mapspec="z[i, :] -> t[i]"),
        ]
    )
    assert pipeline.map({"x": [1, 2], "y": []}, map_executor=executor)["t"].tolist() == [(0,), (0,)]


def test_extents_of_one(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(add, output_name="z", mapspec="x[i], y[j] -> z[i, j]"),
            node(lambda z: z.tolist(), output_name="t", mapspec="z[i, :] -> t[i]"),
        ]
    )
    result = pipeline.map({"x": [1], "y": [2]}, output_name=["z", "t"], map_executor=executor)
    assert (result["z"].tolist(), result["t"].tolist()) == ([[3]], [[3]])
    assert result["z"].shape == (1, 1)
    assert isinstance(result["z"], MappedOutput)


def test_a_pipeline_without_axes_gives_values(executor: str) -> None:
    result = Pipeline([node(add, output_name="s")]).map({"x": 1, "y": 2}, map_executor=executor)
    assert dict(result) == {"s": 3}


def test_a_node_without_parameters(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(lambda: 7, output_name="seed"),
            node(lambda x, seed: x + seed, output_name="y", mapspec="x[i] -> y[i]"),
        ]
    )
    assert pipeline.map({"x": [1, 2]}, map_executor=executor)["y"].tolist() == [8, 9]


def test_equal_elements_are_computed_once(log: CallLog, executor: str) -> None:
    result = chain(log).map({"x": [3, 1, 3, 3]}, output_name="second", map_executor=executor)
    assert result["second"].tolist() == [40, 20, 40, 40]
    assert log.take() == ["first 1", "first 3", "second 2", "second 4"]
    assert result.stats.computed == 4


def test_equal_results_upstream_are_computed_once_downstream(log: CallLog, executor: str) -> None:
    path = log.path

    def parity(x: int) -> int:
        return x % 2

    def name(parity: int) -> str:
        record(path, parity)
        return "odd" if parity else "even"

    pipeline = Pipeline([(parity, "x[i] -> parity[i]"), (name, "parity[i] -> name[i]")])
    result = pipeline.map({"x": range(100)}, map_executor=executor)
    assert result["name"].tolist() == ["even", "odd"] * 50
    assert log.take() == ["0", "1"]
