"""What users of other map libraries expect of a map: order, lengths, products, broadcasting, growing."""

from typing import Any

import numpy as np
import pytest
from tests.support.values import same

from gristmill import Pipeline, node
from gristmill.errors import InputError, MapSpecError


def plus(x: int, y: int) -> int:
    return x + y


def test_results_are_in_the_order_of_the_inputs_however_long_calls_take(executor: str) -> None:
    def slow_first(x: int) -> int:
        for _ in range(1000 * (50 - x)):
            pass
        return x

    pipeline = Pipeline([node(slow_first, output_name="y", mapspec="x[i] -> y[i]")])
    result = pipeline.map({"x": range(50)}, map_executor=executor, max_workers=2)
    assert result["y"].tolist() == list(range(50))
    assert [row["y"] for row in result.rows()] == list(range(50))


@pytest.mark.parametrize("mapped", ["mapspec", "map_over"])
def test_a_zip_of_unequal_lengths_names_both_and_runs_nothing(mapped: str, executor: str) -> None:
    called: list[int] = []

    def add(x: int, y: int) -> int:
        called.append(x)
        return x + y

    spec = "x[i], y[i] -> z[i]" if mapped == "mapspec" else None
    over = None if spec else ["x", "y"]
    pipeline = Pipeline([node(add, output_name="z", mapspec=spec)])
    with pytest.raises(InputError, match=r"'x' has length 3 but 'y'|'x' has length 3.*'y' has length 2"):
        pipeline.map({"x": [1, 2, 3], "y": [1, 2]}, map_over=over, map_executor=executor)
    assert not called


def test_a_product_goes_fastest_along_the_last_axis(executor: str) -> None:
    pipeline = Pipeline([node(lambda x, y: (x, y), output_name="z")])
    given: dict[str, Any] = {"x": ["a", "b"], "y": [1, 2, 3]}
    result = pipeline.map(given, map_over=["x", "y"], map_mode="product", map_executor=executor)
    expected = [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2), ("b", 3)]
    assert [row["z"] for row in result.rows()] == expected
    assert result["z"].tolist() == [expected[:3], expected[3:]]
    turned = Pipeline([node(lambda x, y: (x, y), output_name="z", mapspec="x[i], y[j] -> z[j, i]")])
    assert turned.map(given, map_executor=executor)["z"].tolist() == [
        [("a", k), ("b", k)] for k in given["y"]
    ]


def test_a_parameter_that_is_not_mapped_is_given_whole_to_every_call(executor: str) -> None:
    def among(x: int, allowed: list[int]) -> bool:
        return x in allowed

    pipeline = Pipeline([node(among, output_name="ok", mapspec="x[i] -> ok[i]")])
    result = pipeline.map({"x": [1, 2, 3], "allowed": [3, 1]}, map_executor=executor)
    assert result["ok"].tolist() == [True, False, True]


def test_elements_of_different_types_are_kept_as_they_are(executor: str) -> None:
    values = [1, 2.5, "three", None, [4], {"five": 5}, (6,), True, np.float32(8)]
    identity = node(lambda k, values: values[k], output_name="y", mapspec="k[i] -> y[i]")
    gathered = node(lambda y: (y.dtype == object, list(y)), output_name="all")
    result = Pipeline([identity, gathered]).map(
        {"k": range(len(values)), "values": values}, output_name=["y", "all"], map_executor=executor
    )
    assert same(result["y"].tolist(), values)
    assert result["y"].dtype == object
    assert same(result["all"], (True, values))


def test_an_axis_that_grows_computes_what_is_new(executor: str) -> None:
    total = node(lambda z: int(z.sum()), output_name="total")
    pipeline = Pipeline([node(plus, output_name="z", mapspec="x[i], y[j] -> z[i, j]"), total])
    counts = []
    for x, y in ([[1, 2], [10]], [[1, 2, 3], [10]], [[1, 2, 3], [10, 20]], [[0, 1, 2, 3], [10, 20]]):
        result = pipeline.map({"x": x, "y": y}, map_executor=executor)
        assert result["total"] == sum(a + b for a in x for b in y)
        counts.append(result.stats.computed)
    assert counts == [2 + 1, 1 + 1, 3 + 1, 2 + 1]


def test_an_axis_name_may_be_used_again_for_another_axis(executor: str) -> None:
    nodes = [
        node(lambda a: 2 * a, output_name="b", mapspec="a[i] -> b[i]"),
        node(lambda b: int(b.sum()), output_name="c"),
        node(lambda d, c: d + c, output_name="e", mapspec="d[i] -> e[i]"),
        node(lambda e: e + 1, output_name="f", mapspec="e[i] -> f[i]"),
    ]
    result = Pipeline(nodes).map(
        {"a": [1, 2, 3], "d": [10, 20]}, output_name=["b", "f"], map_executor=executor
    )
    assert (result["b"].tolist(), result["f"].tolist()) == ([2, 4, 6], [23, 33])
    with pytest.raises(MapSpecError, match=r"'e' is e\[i\] in .*, but e\[k\] in"):
        Pipeline([*nodes[:3], nodes[3].with_(mapspec="e[k] -> f[k]")])


def test_a_bound_value_is_no_input_of_a_map(executor: str) -> None:
    def scaled(x: int, k: int, table: dict[str, int]) -> int:
        return x * k + table["offset"]

    bound = node(scaled, output_name="y", mapspec="x[i] -> y[i]", bound={"k": 10, "table": {"offset": 1}})
    pipeline = Pipeline([bound])
    assert pipeline.inputs == ("x",)
    assert pipeline.map({"x": [1, 2]}, map_executor=executor)["y"].tolist() == [11, 21]
    with pytest.raises(InputError, match="'k' is no input: it is bound"):
        pipeline.map({"x": [1, 2], "k": 3})


@pytest.mark.parametrize("on_error", ["raise", "continue"])
@pytest.mark.parametrize("empty", [[], (), range(0), np.zeros(0), np.zeros((0, 3))])
def test_empty_inputs_give_empty_outputs(empty: Any, on_error: Any, executor: str) -> None:
    nodes = [
        node(lambda x: x, output_name="y", mapspec="x[i] -> y[i]"),
        node(lambda y: y, output_name="z", mapspec="y[i] -> z[i]"),
        node(len, output_name="count", renames={"obj": "z"}),
    ]
    result = Pipeline(nodes).map(
        {"x": empty}, output_name=["y", "z", "count"], on_error=on_error, map_executor=executor
    )
    assert (result["y"].tolist(), result["z"].tolist(), result["count"]) == ([], [], 0)
    assert (result["z"].shape, result["z"].missing.tolist(), result.errors) == ((0,), [], [])
    product = Pipeline([node(plus, output_name="z", mapspec="x[i], y[j] -> z[i, j]")])
    nothing = product.map({"x": [1, 2], "y": empty}, on_error=on_error, map_executor=executor)["z"]
    assert (nothing.tolist(), nothing.shape) == ([[], []], (2, 0))
