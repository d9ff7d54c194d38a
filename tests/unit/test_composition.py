"""Pipelines made of pipelines: every change is a new one, and what it gave before stays found."""

import inspect
from typing import Any

import pytest

from gristmill import Pipeline, Store, node
from gristmill.errors import GraphError, InputError


def start(x: int) -> int:
    return x + 1


def double(y: int) -> int:
    return 2 * y


def total(z: int, k: int = 10) -> int:
    return z + k


START = node(start, output_name="y")
DOUBLE = node(double, output_name="z")
TOTAL = node(total)


@pytest.fixture
def chain() -> Pipeline:
    return Pipeline([START, DOUBLE, TOTAL], name="chain", versions="exact")


def test_pipelines_are_joined(chain: Pipeline) -> None:
    for joined in (Pipeline([START]) | Pipeline([DOUBLE, TOTAL]), Pipeline([START]).join(DOUBLE, TOTAL)):
        assert joined("total", x=1) == 14
    assert (Pipeline([START], name="first") | Pipeline([DOUBLE], name="second")).name == "first"
    with pytest.raises(TypeError):
        chain | 3
    with pytest.raises(GraphError, match="y"):
        chain | Pipeline([START])


def test_options_stay(chain: Pipeline) -> None:
    for changed in (
        chain.drop("y"),
        chain.bind(k=1),
        chain.rename({"x": "a"}),
        chain | DOUBLE.with_(output_name="d"),
    ):
        assert (changed.name, changed.versions) == ("chain", "exact")
        assert changed.nodes[0].policy.versions == "exact"
    assert chain.inputs == ("x", "k")


def test_nodes_are_added_dropped_and_replaced(chain: Pipeline) -> None:
    assert chain.add(node(lambda total: -total, output_name="minus"))("minus", x=1) == -14
    assert chain.drop("y").inputs == ("y", "k")
    assert chain.drop("y")("total", y=5) == 20
    tripled = chain.replace(node(lambda y: 3 * y, output_name="z"))
    assert (tripled("total", x=1), chain("total", x=1)) == (16, 14)
    with pytest.raises(GraphError, match="did you mean"):
        chain.drop("totl")
    with pytest.raises(GraphError, match="no output"):
        chain.replace(node(lambda q: q, output_name="other"))
    both = Pipeline([node(lambda x: (x, x), output_name=("a", "b"))])
    with pytest.raises(GraphError, match="'b' would not be made any more"):
        both.replace(node(lambda x: x, output_name="a"))
    assert both.drop("a").outputs == ()


def test_a_part_is_what_is_needed(chain: Pipeline) -> None:
    assert chain.subpipeline(output_names=["z"]).outputs == ("y", "z")
    assert chain.subpipeline(inputs=["z"]).outputs == ("total",)
    assert chain.subpipeline(inputs="y", output_names="z").outputs == ("z",)
    assert chain.subpipeline(inputs=["y"])("total", y=5) == 20
    assert chain.subpipeline().outputs == chain.outputs
    with pytest.raises(GraphError, match="no name of this graph"):
        chain.subpipeline(inputs=["q"])


def test_names_are_changed_and_mapspecs_follow(chain: Pipeline) -> None:
    renamed = chain.rename({"x": "a", "z": "b"})
    assert (renamed.inputs, renamed.outputs) == (("a", "k"), ("y", "b", "total"))
    mapped = Pipeline([node(start, output_name="y", mapspec="x[i] -> y[i]")]).rename({"x": "a", "y": "b"})
    assert mapped.mapspecs == {"b": "a[i] -> b[i]"}
    with pytest.raises(GraphError, match="no name of this graph"):
        chain.rename({"q": "r"})
    with pytest.raises(GraphError):
        chain.rename({"y": "z"})


def test_a_renamed_output_hides_the_original(chain: Pipeline) -> None:
    renamed = chain.rename({"y": "first"})
    assert "y" not in renamed.outputs
    assert renamed("first", x=1) == 2


def test_inputs_are_bound_and_unbound(chain: Pipeline) -> None:
    fixed = chain.bind(x=1, k=0)
    assert (fixed.inputs, fixed("total")) == ((), 4)
    assert fixed.unbind("x").inputs == ("x",)
    assert fixed.unbind().inputs == ("x", "k")
    with pytest.raises(GraphError, match="'y' cannot be bound, as a node makes it"):
        chain.bind(y=1)
    with pytest.raises(GraphError, match="'k' is not bound"):
        chain.unbind("k")


def test_an_axis_is_added(chain: Pipeline) -> None:
    mapped = chain.add_axis("x", axis="run")
    assert mapped.mapspecs["total"] == "z[run] -> total[run]"
    assert mapped.map({"x": [1, 2]})["total"].tolist() == [14, 16]
    both = chain.add_axis("x", "k", axis="run")
    assert both.map({"x": [1, 2], "k": [0, 1]})["total"].tolist() == [4, 7]
    grid = mapped.add_axis("k", axis="offset")
    assert grid.map({"x": [1, 2], "k": [0, 1, 2]})["total"].tolist() == [[4, 6], [5, 7], [6, 8]]
    with pytest.raises(InputError, match="'run' already"):
        mapped.add_axis("k", axis="run")


def test_a_function_of_its_inputs(chain: Pipeline) -> None:
    function = chain.func("total")
    assert str(inspect.signature(function)) == "(*, x, k=10)"
    assert (function(x=1), function(x=1, k=0)) == (14, 4)
    assert chain.func("y")(x=1) == 2
    with pytest.raises(InputError, match="x"):
        function()
    with pytest.raises(GraphError, match="no output"):
        chain.func("nothing")


def test_what_was_computed_is_found_under_any_composition(chain: Pipeline) -> None:
    with Store.temporary() as store:
        chain.with_(store=store).add_axis("x", axis="i").map({"x": [1, 2, 3]})
        other: Any = (
            Pipeline([TOTAL.renamed({"z": "w"})], store=store) | DOUBLE.with_(output_name="w") | START
        )
        again = other.map({"x": [3, 2, 1]}, map_over="x")
        assert (again["total"].tolist(), again.stats.computed) == ([18, 16, 14], 0)
