"""Plans: what runs together, after what, and keys that depend on nothing but code and arguments."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gristmill import InputError, Node, node
from gristmill.graph.graph import Graph
from gristmill.plan.compile import Plan, compile_plan


def a(x: int) -> int:
    return x + 1


def b(a: int) -> int:
    return a * 2


def c(b: Any) -> int:
    return int(b.sum())


def d(a: int, c: int) -> int:
    return a + c


A = node(a, mapspec="x[i] -> a[i]")
B = node(b, mapspec="a[i] -> b[i]")
C = node(c)
D = node(d, mapspec="a[i] -> d[i]")


def plan(*nodes: Node, inputs: Any = None, **options: Any) -> Plan:
    return compile_plan(Graph(nodes), {"x": [1, 2, 3]} if inputs is None else inputs, **options)


def stages(made: Plan) -> list[tuple[str, ...]]:
    return [stage.outputs for stage in made.stages]


def after(made: Plan) -> list[set[int]]:
    return [set(stage.after) for stage in made.stages]


def prefixes(made: Plan) -> dict[str, bytes]:
    return {name: step.prefix for stage in made.stages for step in stage.steps for name in step.outputs}


# -- stages


def test_a_chain_over_one_axis_runs_together() -> None:
    made = plan(A, B)
    assert (stages(made), after(made)) == ([("a", "b")], [set()])


def test_a_reduction_ends_a_stage() -> None:
    made = plan(A, B, C, D)
    assert stages(made) == [("a", "b"), ("c",), ("d",)]
    assert after(made) == [set(), {0}, {0, 1}]


def test_what_is_broadcast_comes_first() -> None:
    seed = node(lambda k: k + 1, output_name="seed")
    use = node(lambda x, seed: x + seed, output_name="y", mapspec="x[i] -> y[i]")
    made = plan(use, seed, inputs={"x": [1], "k": 1})
    assert (stages(made), after(made)) == ([("seed",), ("y",)], [set(), {0}])


def test_another_order_of_axes_is_another_stage() -> None:
    z = node(lambda x, y: x + y, output_name="z", mapspec="x[i], y[j] -> z[i, j]")
    t = node(lambda z: -z, output_name="t", mapspec="z[i, j] -> t[j, i]")
    made = plan(z, t, inputs={"x": [1, 2], "y": [1]})
    assert stages(made) == [("z",), ("t",)]
    assert made.shapes == {"z": (2, 1), "t": (1, 2)}


def test_another_executor_is_another_stage() -> None:
    def executors(outputs: Sequence[str], is_mapped: bool) -> str:  # noqa: FBT001 - as it is called
        return "parallel" if is_mapped and outputs == ["b"] else "sequential"

    assert stages(plan(A, B, executors=executors)) == [("a",), ("b",)]


def test_nodes_without_axes_share_a_stage_unless_they_are_to_run_side_by_side() -> None:
    nodes = [node(lambda k: k, output_name=name) for name in ("p", "q", "r")]
    assert stages(plan(*nodes, inputs={"k": 1})) == [("p", "q", "r")]
    assert stages(plan(*nodes, inputs={"k": 1}, fuse=False)) == [("p",), ("q",), ("r",)]


def test_nodes_of_a_chain_share_a_stage_whatever_runs_them() -> None:
    chain = [node(lambda k: k, output_name="p"), node(lambda p: p, output_name="q")]
    assert stages(plan(*chain, inputs={"k": 1}, fuse=False)) == [("p", "q")]


def test_every_stage_comes_after_those_it_reads() -> None:
    for nodes in itertools.permutations([A, B, C, D]):
        made = plan(*nodes)
        for stage in made.stages:
            assert all(number < stage.number for number in stage.after)


def test_what_is_not_needed_is_not_planned() -> None:
    assert stages(plan(A, B, C, D, outputs=["b"])) == [("a", "b")]
    assert stages(plan(A, B, C, D, outputs=["c"])) == [("a", "b"), ("c",)]


def test_a_supplied_intermediate_is_an_input() -> None:
    made = plan(A, B, inputs={"a": [1, 2]}, outputs=["b"])
    assert stages(made) == [("b",)]
    assert made.shapes["b"] == (2,)


def test_supplied_intermediates_need_not_be_outputs() -> None:
    made = plan(A, B, inputs={"a": [1, 2], "x": [3, 4]}, outputs=["a", "b"])
    assert stages(made) == [("b",)]


@pytest.mark.parametrize("x", [[], [1], np.arange(5), range(7)])
def test_shapes_follow_the_inputs(x: Sequence[int]) -> None:
    assert plan(A, B, C, inputs={"x": x}).shapes == {"a": (len(x),), "b": (len(x),), "c": ()}


def test_unequal_lengths_name_both() -> None:
    pair = node(lambda x, y: x, output_name="z", mapspec="x[i], y[i] -> z[i]")
    with pytest.raises(InputError, match="'x' has length 1 and 'y' has length 2"):
        plan(pair, inputs={"x": [1], "y": [1, 2]})


# -- keys


def test_prefixes_do_not_depend_on_the_order_of_nodes_or_inputs() -> None:
    k = node(lambda d, k: d + k, output_name="e", mapspec="d[i] -> e[i]")
    expected = prefixes(plan(A, B, C, D, k, inputs={"x": [1], "k": 2}))
    for nodes in itertools.permutations([A, B, C, D, k]):
        assert prefixes(plan(*nodes, inputs={"k": 2, "x": [1]})) == expected


def test_prefixes_do_not_depend_on_names_in_the_graph() -> None:
    renamed = node(a, output_name="q", mapspec="p[k] -> q[k]", renames={"x": "p"})
    assert prefixes(plan(renamed, inputs={"p": [1]}))["q"] == prefixes(plan(A))["a"]


def test_prefixes_do_not_depend_on_inputs_or_extents() -> None:
    assert prefixes(plan(A, inputs={"x": [1]})) == prefixes(plan(A, inputs={"x": np.arange(9)}))


def test_prefixes_do_not_depend_on_how_a_value_comes() -> None:
    def f(x: int, k: int = 5) -> int:
        return x + k

    given = node(f, output_name="y", mapspec="x[i] -> y[i]")
    made = [
        plan(given),
        plan(given, inputs={"x": [1], "k": 5}),
        plan(given.with_(bound={"k": 7})),
        plan(given.with_(mapspec="x[i], k[i] -> y[i]"), inputs={"x": [1], "k": [2]}),
    ]
    assert len({prefixes(one)["y"] for one in made}) == 1


def test_the_function_counts() -> None:
    assert (
        prefixes(plan(A))["a"]
        != prefixes(plan(node(lambda x: x + 2, output_name="a", mapspec="x[i] -> a[i]")))["a"]
    )


def test_the_number_of_outputs_counts() -> None:
    def two(x: int) -> tuple[int, int]:
        return (x, x)

    one = node(two, output_name="p", mapspec="x[i] -> p[i]")
    both = node(two, output_name=("p", "q"), mapspec="x[i] -> p[i], q[i]")
    assert prefixes(plan(one))["p"] != prefixes(plan(both))["p"]


def test_the_form_of_a_reductions_argument_counts() -> None:
    def as_list(b: list[int]) -> int:
        return sum(b)

    def as_array(b: Any) -> int:
        return sum(b)

    forms = [prefixes(plan(A, B, node(f, output_name="t")))["t"] for f in (as_list, as_array)]
    assert forms[0] != forms[1]


def test_a_version_stands_for_the_code() -> None:
    nodes = [
        node(function, output_name="a", mapspec="x[i] -> a[i]", version="1")
        for function in (lambda x: x, lambda x: x + 1)
    ]
    made = {prefixes(plan(one))["a"] for one in nodes}
    other = prefixes(plan(nodes[0].with_(version="2")))["a"]
    assert other not in made
