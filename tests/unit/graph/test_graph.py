"""Graphs: wired by name, checked when built, pruned to what is asked."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gristmill.errors import GraphError, InputError, MapSpecError
from gristmill.graph.graph import Graph
from gristmill.graph.node import Node, node


def load(path: str) -> Any: ...
def clean(raw: Any, strict: bool = True) -> Any: ...  # noqa: FBT001, FBT002 - a user's function
def stats(table: Any) -> Any: ...
def report(table: Any, mean: Any, std: Any, strict: bool = True) -> Any: ...  # noqa: FBT001, FBT002


@pytest.fixture
def graph() -> Graph:
    return Graph(
        [
            node(report),
            node(stats, output_name=("mean", "std")),
            node(clean, output_name="table"),
            node(load, output_name="raw"),
        ]
    )


def some(*parameters: str) -> Callable[..., Any]:
    """A function with these parameters."""
    scope: dict[str, Any] = {}
    exec(f"def some({', '.join(parameters)}): ...", scope)
    return scope["some"]  # type: ignore[no-any-return]


def mapped(spec: str) -> Node:
    """A node with the parameters and outputs of a mapspec."""
    left, _, right = spec.partition(" -> ")
    names = [part.split("[")[0].strip() for part in left.split("], ")] if left != "..." else []
    return node(some(*names), output_name=right.split("[")[0], mapspec=spec)


# -- wiring


def test_nodes_are_wired_by_name_in_whatever_order_they_come(graph: Graph) -> None:
    assert [made.output_names for made in graph.nodes] == [("raw",), ("table",), ("mean", "std"), ("report",)]
    assert graph.inputs == ("path", "strict")
    assert graph.outputs == ("raw", "table", "mean", "std", "report")
    assert graph.leaves == ("report",)


def test_independent_nodes_keep_the_order_they_came_in() -> None:
    names = ["d", "a", "c", "b"]
    assert Graph(node(some("x"), output_name=name) for name in names).outputs == tuple(names)


def test_the_wiring_can_be_asked_for(graph: Graph) -> None:
    assert graph.producer("std").name == "stats"
    assert [made.name for made in graph.consumers("table")] == ["stats", "report"]
    assert [made.name for made in graph.dependencies(graph.producer("report"))] == ["clean", "stats"]


def test_an_input_with_a_default_in_every_node_need_not_be_given(graph: Graph) -> None:
    assert graph.required_inputs == ("path",)
    assert dict(graph.defaults) == {"strict": True}
    both = Graph([node(some("x=1"), output_name="a"), node(some("x"), output_name="b")])
    assert both.required_inputs == ("x",)


def test_bound_parameters_are_no_inputs() -> None:
    assert Graph([node(clean, bound={"strict": False})]).inputs == ("raw",)


def test_a_graph_survives_pickling(graph: Graph) -> None:
    back = pickle.loads(pickle.dumps(graph.prune("std", supplied=["table"])))
    assert (back.inputs, back.outputs) == (("table",), ("mean", "std"))


def test_an_empty_graph_is_a_graph() -> None:
    assert (Graph([]).nodes, Graph([]).inputs, Graph([]).leaves) == ((), (), ())


# -- what is refused


def test_a_name_made_twice_is_refused_with_both_functions() -> None:
    with pytest.raises(GraphError, match="'y' is made twice: by load and by stats"):
        Graph([node(load, output_name="y"), node(stats, output_name=("x", "y"))])


def test_a_cycle_is_shown_as_a_path() -> None:
    nodes = [node(some(take), output_name=make) for take, make in [("c", "a"), ("a", "b"), ("b", "c")]]
    with pytest.raises(GraphError, match=r"a → b → c → a|b → c → a → b|c → a → b → c"):
        Graph(nodes)


def test_a_node_that_takes_what_it_makes_is_refused() -> None:
    with pytest.raises(GraphError, match=r"takes and makes 'raw'"):
        Graph([node(clean, output_name="raw")])
    assert Graph([node(clean, output_name="raw", renames={"raw": "given"})]).inputs == ("given", "strict")


@pytest.mark.parametrize(
    ("one", "other"), [("1", "2"), ("1", "True"), ("1", "1.0"), ("None", "0"), ("[1]", "[2]")]
)
def test_two_defaults_of_one_input_are_refused(one: str, other: str) -> None:
    with pytest.raises(GraphError, match=r"input 'x' has two defaults: .* in some, .* in some"):
        Graph([node(some(f"x={one}"), output_name="a"), node(some(f"x={other}"), output_name="b")])


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1), ([1, {2}], [1, {2}]), (np.arange(3), np.arange(3)), (float("nan"), float("nan"))],
)
def test_equal_defaults_of_one_input_are_one_default(one: Any, other: Any) -> None:
    nodes = [node(some("x"), output_name=n, defaults={"x": value}) for n, value in [("a", one), ("b", other)]]
    assert Graph(nodes).defaults["x"] is one


def test_what_is_no_node_is_refused() -> None:
    with pytest.raises(GraphError, match=r"make one with node"):
        Graph([load])  # type: ignore[list-item]


# -- axes


def test_every_mapped_name_has_its_axes() -> None:
    made = Graph(
        [mapped("x[i, :], w[j] -> y[i, j]"), mapped("y[:, j] -> z[j]"), node(some("z"), output_name="t")]
    )
    assert dict(made.axes) == {"x": ("i", "x_1"), "w": ("j",), "y": ("i", "j"), "z": ("j",)}


def test_nodes_together_name_the_dimensions_of_an_input() -> None:
    made = Graph([mapped("x[i, :] -> y[i]"), mapped("x[:, j] -> z[j]")])
    assert made.axes["x"] == ("i", "j")


def test_a_ragged_axis_is_declared_once_and_inherited() -> None:
    made = Graph([mapped("x[i] -> y[i, *j]"), mapped("y[i, j] -> z[i, j]"), mapped("z[i, :] -> s[i]")])
    assert dict(made.ragged) == {"y": {"j"}, "z": {"j"}}
    assert made.axes["z"] == ("i", "j")


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (["x[i] -> y[i]", "y[i, j] -> z[i, j]"], r"'y' is y\[i\] in some, but y\[i, j\] in some"),
        (["x[i] -> y[i]", "y[j] -> z[j]"], r"'y' is y\[i\] in some, but y\[j\] in some"),
        (["x[i] -> y[i]", "x[i, :] -> z[i]"], r"'x' is x\[i\] in some, but x\[i, :\] in some"),
        (["x[i] -> y[i]", "x[j] -> z[j]"], r"'x' is x\[i\] in some, but x\[j\] in some"),
        (["x[i] -> y[i, *j]", "y[:, j] -> z[j]"], "is ragged .* depends on 'i'"),
        (["x[i] -> y[i, *j]", "y[i, j] -> z[j, i]"], "is ragged .* put it after 'i' in the outputs"),
        (["x[i] -> y[i, *j]", "y[i, j], w[j] -> z[i, j]"], "'w' has one length, but another .* ragged"),
    ],
)
def test_mapspecs_that_contradict_each_other_are_refused(specs: list[str], message: str) -> None:
    with pytest.raises(MapSpecError, match=message):
        Graph(map(mapped, specs))


def test_mapping_over_what_a_node_makes_whole_says_which_mapspec_to_give() -> None:
    with pytest.raises(MapSpecError, match=r"made by load, .* give load mapspec='\.\.\. -> raw\[i\]'"):
        Graph([node(load, output_name="raw"), mapped("raw[i] -> y[i]")])


# -- pruning


def test_pruning_keeps_what_an_output_needs(graph: Graph) -> None:
    assert graph.prune("mean").outputs == ("raw", "table", "mean", "std")
    assert graph.prune(["table"]).inputs == ("path", "strict")
    assert graph.prune().outputs == graph.outputs


def test_a_supplied_intermediate_cuts_what_is_above_it(graph: Graph) -> None:
    pruned = graph.prune("report", supplied={"table", "path"})
    assert pruned.outputs == ("mean", "std", "report")
    assert pruned.inputs == ("table", "strict")


def test_a_supplied_output_of_several_does_not_come_from_its_node(graph: Graph) -> None:
    pruned = graph.prune("report", supplied={"mean"})
    assert "mean" in pruned.inputs
    assert pruned.outputs == ("raw", "table", "std", "report")
    with pytest.raises(GraphError, match="'mean' is an input"):
        pruned.producer("mean")


def test_a_supplied_mapped_name_takes_its_axes_from_those_who_map_it() -> None:
    made = Graph([mapped("x[i] -> y[i]"), mapped("y[i] -> z[i]")])
    assert dict(made.prune("z", supplied={"y"}).axes) == {"y": ("i",), "z": ("i",)}


def test_an_output_that_is_supplied_needs_nothing(graph: Graph) -> None:
    assert graph.prune("table", supplied={"table"}).nodes == ()


def test_an_unknown_output_is_refused_with_close_matches(graph: Graph) -> None:
    with pytest.raises(GraphError, match=r"'maen' is no output of this graph \(did you mean 'mean'\?\)"):
        graph.prune("maen")
    with pytest.raises(GraphError, match="'path' is an input, no node makes it"):
        graph.prune("path")


# -- inputs


def test_enough_inputs_pass(graph: Graph) -> None:
    graph.check_inputs({"path": "a"})
    graph.check_inputs({"table": 1}, "std")
    graph.check_inputs({"path": "a", "strict": False, "mean": 1}, ["report", "table"])


def test_all_that_is_wrong_with_inputs_is_said_at_once(graph: Graph) -> None:
    with pytest.raises(InputError) as caught:
        graph.check_inputs({"pth": 1, "speed": 2})
    assert str(caught.value).split("\n") == [
        "'pth' is no input (did you mean 'path'?)",
        "'speed' is no input; the graph has 'path' and 'strict'",
        "'path' is missing: needed by load; give it a value",
    ]


def test_a_missing_input_says_who_has_a_default_for_it() -> None:
    made = Graph([node(some("x=1"), output_name="a"), node(report, renames={"table": "x"})])
    with pytest.raises(InputError, match=r"'x' is missing: needed by report \(some has a default for it\)"):
        made.check_inputs({"mean": 1, "std": 2})


def test_a_bound_name_says_where_it_is_bound() -> None:
    made = Graph([node(clean, bound={"strict": False})])
    with pytest.raises(InputError, match="'strict' is no input: it is bound in clean"):
        made.check_inputs({"raw": 1, "strict": True})
