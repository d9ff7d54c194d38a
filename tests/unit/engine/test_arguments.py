"""Where the arguments of a mapped function come from."""

from typing import Any

import numpy as np
import pytest

from gristmill import Pipeline, node


def double(x: int) -> int:
    return 2 * x


def add(x: int, y: int) -> int:
    return x + y


def scale(x: int, factor: int = 10, *, offset: int = 0) -> int:
    return factor * x + offset


def test_a_default_is_used_unless_something_is_given(executor: str) -> None:
    pipeline = Pipeline([node(scale, output_name="y", mapspec="x[i] -> y[i]")])
    assert pipeline.map({"x": [1, 2]}, map_executor=executor)["y"].tolist() == [10, 20]
    assert pipeline.map({"x": [1, 2], "factor": 3}, map_executor=executor)["y"].tolist() == [3, 6]
    assert pipeline.map({"x": [1, 2], "offset": 5}, map_executor=executor)["y"].tolist() == [15, 25]


def test_a_default_of_the_node_comes_before_the_functions(executor: str) -> None:
    pipeline = Pipeline([node(scale, output_name="y", mapspec="x[i] -> y[i]", defaults={"factor": 2})])
    assert pipeline.map({"x": [1, 2]}, map_executor=executor)["y"].tolist() == [2, 4]


def test_a_bound_value_belongs_to_one_node(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(scale, output_name="y", mapspec="x[i] -> y[i]", bound={"factor": 2}),
            node(scale, output_name="z", mapspec="x[i] -> z[i]", bound={"factor": 3, "offset": 1}),
        ]
    )
    result = pipeline.map({"x": [1, 2]}, map_executor=executor)
    assert (result["y"].tolist(), result["z"].tolist()) == ([2, 4], [4, 7])


def test_a_parameter_that_no_mapspec_indexes_is_broadcast(executor: str) -> None:
    pipeline = Pipeline([node(lambda x, table: table[x], output_name="y", mapspec="x[i] -> y[i]")])
    result = pipeline.map({"x": ["b", "a"], "table": {"a": 1, "b": [2]}}, map_executor=executor)
    assert result["y"].tolist() == [[2], 1]


def test_a_whole_array_may_be_mapped_for_one_node_and_whole_for_another(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(lambda x: float(x.mean()), output_name="mean"),
            node(lambda x, mean: float(x - mean), output_name="y", mapspec="x[i] -> y[i]"),
        ]
    )
    assert pipeline.map({"x": np.array([1.0, 3.0])}, map_executor=executor)["y"].tolist() == [-1.0, 1.0]


def test_renamed_parameters(executor: str) -> None:
    pipeline = Pipeline([node(add, output_name="z", mapspec="a[i] -> z[i]", renames={"x": "a", "y": "b"})])
    assert pipeline.map({"a": [1, 2], "b": 10}, map_executor=executor)["z"].tolist() == [11, 12]


def test_positional_only_and_keyword_only_parameters(executor: str) -> None:
    def odd(a: int, /, b: int, *, c: int) -> tuple[int, int, int]:
        return (a, b, c)

    pipeline = Pipeline([node(odd, output_name="y", mapspec="a[i], c[i] -> y[i]")])
    result = pipeline.map({"a": [1, 2], "b": 5, "c": [8, 9]}, map_executor=executor)
    assert result["y"].tolist() == [(1, 5, 8), (2, 5, 9)]


def test_an_async_function_is_awaited(executor: str) -> None:
    async def fetch(x: int) -> int:
        return x + 1

    pipeline = Pipeline([node(fetch, output_name="y", mapspec="x[i] -> y[i]")])
    assert pipeline.map({"x": [1, 2]}, map_executor=executor)["y"].tolist() == [2, 3]


@pytest.mark.parametrize(
    "given", [[3, 1], (3, 1), range(3, 0, -2), np.array([3, 1])], ids=lambda g: type(g).__name__
)
def test_any_sized_sequence_can_be_mapped(given: Any, executor: str) -> None:
    pipeline = Pipeline([node(double, output_name="y", mapspec="x[i] -> y[i]")])
    assert pipeline.map({"x": given}, map_executor=executor)["y"].tolist() == [6, 2]


def test_a_series_can_be_mapped(executor: str) -> None:
    import pandas as pd

    pipeline = Pipeline([node(double, output_name="y", mapspec="x[i] -> y[i]")])
    for series in (pd.Series([3, 1]), pd.Series(["a", "b"]), pd.Series([3, 1], index=[7, 9])):
        assert pipeline.map({"x": series}, map_executor=executor)["y"].tolist() == [2 * v for v in series]


def test_one_function_may_make_two_outputs_in_one_pipeline(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(double, output_name="a", mapspec="x[i] -> a[i]"),
            node(double, output_name="b", mapspec="x[i] -> b[i]"),
            node(double, output_name="c", mapspec="b[i] -> c[i]", renames={"x": "b"}),
        ]
    )
    result = pipeline.map({"x": [1, 2, 4]}, map_executor=executor, output_name=["a", "b", "c"])
    assert [result[name].tolist() for name in "abc"] == [[2, 4, 8], [2, 4, 8], [4, 8, 16]]
