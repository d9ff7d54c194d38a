"""What a map computes: every mapspec of elementwise maps, zips, products and reductions."""

from typing import Any

import numpy as np
import pytest

from gristmill import Pipeline, node


def double(x: int) -> int:
    return 2 * x


def add(x: int, y: int) -> int:
    return x + y


def total(y: Any) -> Any:
    return y.sum(axis=0)


def pair(x: int, y: int) -> tuple[int, int]:
    return (x, y)


# -- elementwise, zip, product


def test_elementwise(executor: str) -> None:
    pipeline = Pipeline([node(double, output_name="y", mapspec="x[i] -> y[i]")])
    result = pipeline.map({"x": [1, 2, 3]}, map_executor=executor)
    assert result["y"].tolist() == [2, 4, 6]
    assert (result["y"].axes, result["y"].shape, len(result["y"])) == (("i",), (3,), 3)


def test_zip_pairs_elements(executor: str) -> None:
    pipeline = Pipeline([node(pair, output_name="z", mapspec="x[i], y[i] -> z[i]")])
    result = pipeline.map({"x": [1, 2, 3], "y": [10, 20, 30]}, map_executor=executor)
    assert result["z"].tolist() == [(1, 10), (2, 20), (3, 30)]


def test_product_takes_every_combination(executor: str) -> None:
    pipeline = Pipeline([node(pair, output_name="z", mapspec="x[i], y[j] -> z[i, j]")])
    result = pipeline.map({"x": [1, 2], "y": [10, 20, 30]}, map_executor=executor)
    assert result["z"].tolist() == [[(1, 10), (1, 20), (1, 30)], [(2, 10), (2, 20), (2, 30)]]
    assert (result["z"].axes, result["z"].extents) == (("i", "j"), (2, 3))


def test_product_has_its_axes_in_the_order_asked(executor: str) -> None:
    pipeline = Pipeline([node(pair, output_name="z", mapspec="x[i], y[j] -> z[j, i]")])
    result = pipeline.map({"x": [1, 2], "y": [10, 20, 30]}, map_executor=executor)
    assert result["z"].tolist() == [[(1, 10), (2, 10)], [(1, 20), (2, 20)], [(1, 30), (2, 30)]]
    assert (result["z"].axes, result["z"].extents) == (("j", "i"), (3, 2))


def test_zip_within_a_product(executor: str) -> None:
    def weigh(x: int, y: int, z: int) -> int:
        return 100 * x + 10 * y + z

    pipeline = Pipeline([node(weigh, output_name="r", mapspec="x[a], y[a], z[b] -> r[a, b]")])
    result = pipeline.map({"x": [1, 2], "y": [3, 4], "z": [5, 6, 7]}, map_executor=executor)
    assert result["r"].tolist() == [[135, 136, 137], [245, 246, 247]]


def test_a_product_of_mapped_outputs(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(double, output_name="a", mapspec="x[i] -> a[i]"),
            node(double, output_name="b", mapspec="y[j] -> b[j]", renames={"x": "y"}),
            node(pair, output_name="c", mapspec="b[j], a[i] -> c[i, j]", renames={"x": "b", "y": "a"}),
        ]
    )
    result = pipeline.map({"x": [1, 2], "y": [5]}, map_executor=executor)
    assert result["c"].tolist() == [[(10, 2)], [(10, 4)]]


def test_the_same_elements_transposed_downstream(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(pair, output_name="p", mapspec="x[i], y[j] -> p[i, j]"),
            node(lambda p: p[0] * p[1], output_name="q", mapspec="p[i, j] -> q[j, i]"),
        ]
    )
    result = pipeline.map({"x": [1, 2], "y": [3, 4, 5]}, map_executor=executor)
    assert result["q"].tolist() == [[3, 6], [4, 8], [5, 10]]


def test_two_dimensional_inputs(executor: str) -> None:
    pipeline = Pipeline([node(double, output_name="y", mapspec="x[i, j] -> y[i, j]")])
    for given in (np.arange(6).reshape(2, 3), [[0, 1, 2], [3, 4, 5]], [range(3), (3, 4, 5)]):
        assert pipeline.map({"x": given}, map_executor=executor)["y"].tolist() == [[0, 2, 4], [6, 8, 10]]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [("x[i, :] -> y[i]", [3, 12]), ("x[:, i] -> y[i]", [3, 5, 7]), ("x[i] -> y[i]", [3, 12])],
)
def test_a_slice_of_an_input_is_one_argument(spec: str, expected: list[int], executor: str) -> None:
    pipeline = Pipeline([node(lambda x: int(np.sum(x)), output_name="y", mapspec=spec)])
    result = pipeline.map({"x": np.arange(6).reshape(2, 3)}, map_executor=executor)
    assert result["y"].tolist() == expected


# -- reductions


def test_full_reduction_gets_all_of_it(executor: str) -> None:
    pipeline = Pipeline([node(double, output_name="y", mapspec="x[i] -> y[i]"), node(total, output_name="t")])
    result = pipeline.map({"x": [1, 2, 3]}, map_executor=executor)
    assert result["t"] == 12


@pytest.mark.parametrize(
    ("spec", "expected"), [("z[i, :] -> t[i]", [36, 39]), ("z[:, j] -> t[j]", [13, 25, 37])]
)
def test_partial_reduction_gets_the_slice(spec: str, expected: list[int], executor: str) -> None:
    pipeline = Pipeline(
        [
            node(add, output_name="z", mapspec="x[i], y[j] -> z[i, j]"),
            node(lambda z: int(z.sum()), output_name="t", mapspec=spec),
        ]
    )
    result = pipeline.map({"x": [1, 2], "y": [5, 11, 17]}, map_executor=executor)
    assert result["t"].tolist() == expected


def test_a_partial_reduction_can_be_reduced_further(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(add, output_name="z", mapspec="x[i], y[j] -> z[i, j]"),
            node(lambda z: int(z.sum()), output_name="row", mapspec="z[i, :] -> row[i]"),
            node(lambda row: row.tolist(), output_name="rows"),
        ]
    )
    assert pipeline.map({"x": [1, 2], "y": [5, 11]}, map_executor=executor)["rows"] == [18, 20]


def test_a_reduction_can_be_spread_over_a_map_again(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(double, output_name="y", mapspec="x[i] -> y[i]"),
            node(lambda y: int(y.max()), output_name="top"),
            node(lambda y, top: y / top, output_name="share", mapspec="y[i] -> share[i]"),
        ]
    )
    result = pipeline.map({"x": [1, 2, 4]}, map_executor=executor)
    assert result["share"].tolist() == [0.25, 0.5, 1.0]


def test_a_reduction_over_two_axes_at_once(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(add, output_name="z", mapspec="x[i], y[j] -> z[i, j]"),
            node(lambda z: (z.shape, z.tolist()), output_name="t"),
        ]
    )
    result = pipeline.map({"x": [1, 2], "y": [5, 11, 17]}, map_executor=executor)
    assert result["t"] == ((2, 3), [[6, 12, 18], [7, 13, 19]])


# -- several outputs


def divide(x: int) -> tuple[int, int]:
    return divmod(x, 3)


def test_several_outputs(executor: str) -> None:
    pipeline = Pipeline([node(divide, output_name=("q", "r"), mapspec="x[i] -> q[i], r[i]")])
    result = pipeline.map({"x": [1, 5, 9]}, map_executor=executor)
    assert (result["q"].tolist(), result["r"].tolist()) == ([0, 1, 3], [1, 2, 0])


def test_one_of_several_outputs_goes_on(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(divide, output_name=("q", "r"), mapspec="x[i] -> q[i], r[i]"),
            node(lambda r: -r, output_name="m", mapspec="r[i] -> m[i]"),
            node(lambda q: int(q.sum()), output_name="s"),
        ]
    )
    result = pipeline.map({"x": [1, 5, 9]}, map_executor=executor)
    assert (result["m"].tolist(), result["s"]) == ([-1, -2, 0], 4)


def test_an_output_picker_names_what_is_returned(executor: str) -> None:
    def measure(x: int) -> dict[str, int]:
        return {"high": x + 1, "low": x - 1}

    pipeline = Pipeline(
        [
            node(
                measure,
                output_name=("low", "high"),
                mapspec="x[i] -> low[i], high[i]",
                output_picker=lambda result, name: result[name],
            )
        ]
    )
    result = pipeline.map({"x": [1, 5]}, map_executor=executor)
    assert (result["low"].tolist(), result["high"].tolist()) == ([0, 4], [2, 6])


def test_several_outputs_of_several_kinds(executor: str) -> None:
    def describe(x: int) -> tuple[str, Any, list[int]]:
        return str(x), np.full(2, x), [x]

    pipeline = Pipeline([node(describe, output_name=("s", "a", "o"), mapspec="x[i] -> s[i], a[i], o[i]")])
    for _ in range(2):
        result = pipeline.map({"x": [1, 2]}, map_executor=executor)
        assert (result["s"].tolist(), result["o"].tolist()) == (["1", "2"], [[1], [2]])
        assert np.asarray(result["a"]).tolist() == [[1, 1], [2, 2]]


def test_axes_of_one_name_in_parts_that_do_not_meet_may_differ_in_length(executor: str) -> None:
    halves = node(lambda a: a / 2, output_name="half", mapspec="a[i] -> half[i]")
    names = node(lambda b: str(b), output_name="name", mapspec="b[i] -> name[i]")
    longer = node(lambda name: len(name), output_name="long", mapspec="name[i] -> long[i]")
    given = {"a": [2, 4], "b": [1, 10, 100]}
    result = Pipeline([halves, names, longer]).map(given, map_executor=executor)
    assert (result["half"].tolist(), result["long"].tolist()) == ([1.0, 2.0], [1, 2, 3])
