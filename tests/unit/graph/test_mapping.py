"""Mapping a whole graph over some of its inputs."""

import pytest

from gristmill.errors import InputError
from gristmill.graph.graph import Graph
from gristmill.graph.node import node


def specs(graph: Graph) -> list[str]:
    return [str(made.mapspec or "") for made in graph.nodes]


@pytest.fixture
def graph() -> Graph:
    """Two branches that meet, and one that is apart."""
    return Graph(
        [
            node(lambda x: x, output_name="a"),
            node(lambda y: y, output_name="b"),
            node(lambda a, b, k=1: a + b + k, output_name="c"),
            node(lambda w: w, output_name="d"),
        ]
    )


def test_one_input_maps_every_node_below_it(graph: Graph) -> None:
    assert specs(graph.map_over("x")) == ["x[i] -> a[i]", "", "a[i] -> c[i]", ""]


def test_zip_shares_one_axis(graph: Graph) -> None:
    made = graph.map_over(["x", "y"])
    assert specs(made) == ["x[i] -> a[i]", "y[i] -> b[i]", "a[i], b[i] -> c[i]", ""]
    assert made.axes["c"] == ("i",)


def test_product_gives_each_name_its_axis_in_the_order_of_the_names(graph: Graph) -> None:
    assert specs(graph.map_over(["y", "x"], "product")) == [
        "x[j] -> a[j]",
        "y[i] -> b[i]",
        "a[j], b[i] -> c[i, j]",
        "",
    ]


def test_what_was_reduced_is_reduced_at_each_position() -> None:
    graph = Graph(
        [
            node(lambda x: x, output_name="y", mapspec="x[i] -> y[i]"),
            node(lambda y, x: y, output_name="total"),
            node(lambda y, total: y, output_name="share", mapspec="y[i] -> share[i]"),
        ]
    )
    assert specs(graph.map_over("x")) == [
        "x[j, i] -> y[j, i]",
        "y[j, :], x[j, :] -> total[j]",
        "y[j, i], total[j] -> share[j, i]",
    ]


def test_a_broadcast_input_that_is_mapped_is_added_to_the_specs() -> None:
    graph = Graph(
        [
            node(lambda x, k: x, output_name="y", mapspec="x[i], k -> y[i]"),
            node(lambda y, q: y, output_name="z", mapspec="y[i] -> z[i]"),
        ]
    )
    assert specs(graph.map_over("k")) == ["x[i], k[j] -> y[j, i]", "y[j, i] -> z[j, i]"]
    assert specs(graph.map_over("q")) == ["x[i], k -> y[i]", "y[i], q[j] -> z[j, i]"]


def test_axes_that_calls_make_stay_inner_and_ragged() -> None:
    graph = Graph(
        [
            node(lambda n: n, output_name="y", mapspec="... -> y[*i]"),
            node(lambda y: y, output_name="z", mapspec="y[i] -> z[i]"),
        ]
    )
    made = graph.map_over("n")
    assert specs(made) == ["n[j] -> y[j, *i]", "y[j, i] -> z[j, i]"]
    assert made.ragged["z"] == {"i"}


def test_new_axes_have_names_that_nothing_else_has() -> None:
    graph = Graph([node(lambda i, x: i, output_name="j", mapspec="x[k] -> j[k]")])
    assert specs(graph.map_over("i")) == ["x[k], i[l] -> j[l, k]"]


def test_a_graph_can_be_mapped_again(graph: Graph) -> None:
    assert specs(graph.map_over("x").map_over("x"))[0] == "x[j, i] -> a[j, i]"


def test_a_supplied_intermediate_can_be_mapped_over(graph: Graph) -> None:
    assert specs(graph.prune("c", supplied={"a"}).map_over("a")) == ["", "a[i] -> c[i]"]


@pytest.mark.parametrize(
    ("names", "mode", "message"),
    [
        ("x", "zipp", r"map_mode is 'zipp' \(did you mean 'zip'\?\); use 'zip' or 'product'"),
        ("X", "zip", r"cannot map over 'X': it is no input \(did you mean 'x'\?\)"),
        ("a", "zip", "cannot map over 'a': .* makes it"),
        ([], "zip", "names no input"),
        (["x", "x"], "zip", "has 'x' twice"),
    ],
)
def test_what_cannot_be_mapped_over_is_refused(
    graph: Graph, names: str | list[str], mode: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        graph.map_over(names, mode)  # type: ignore[arg-type]
