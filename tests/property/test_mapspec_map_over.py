"""Mapping a graph over inputs gives, at each position, what the graph gives for the inputs at that position.

Graphs are drawn, and run by the plainest interpreter of mapspecs: nested lists and a loop over indices.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gristmill.graph.graph import Graph
from gristmill.graph.mapspec import ArraySpec, MapSpec
from gristmill.graph.node import Node, node

EXTENT = 2
INPUTS: dict[str, Any] = {"s": "s", "t": "t", "v": ["v0", "v1"]}
"""Two plain inputs and one that is mapped."""


def symbol(name: str, parameters: Sequence[str], inner: int) -> Callable[..., Any]:
    """A function whose result spells out how it was called, as nested lists where it makes axes."""
    scope: dict[str, Any] = {"nested": lambda given: nested((name, given), inner)}
    exec(f"def made({', '.join(parameters)}): return nested(({', '.join(parameters)},))", scope)
    return scope["made"]  # type: ignore[no-any-return]


def nested(value: Any, depth: int) -> Any:
    return [nested((value, i), depth - 1) for i in range(EXTENT)] if depth else value


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    axes: dict[str, tuple[str, ...]] = {"s": (), "t": (), "v": ("i",)}
    nodes = []
    for number in range(draw(st.integers(1, 5))):
        name = f"n{number}"
        parameters = draw(st.lists(st.sampled_from(list(axes)), unique=True, min_size=1, max_size=3))
        inputs = []
        for parameter in parameters:
            kept = {axis for axis in axes[parameter] if draw(st.booleans())}
            if len(kept) > 0 or draw(st.booleans()):
                spec = tuple(axis if axis in kept else None for axis in axes[parameter])
                inputs.append(ArraySpec(parameter, spec))
        outer = draw(st.permutations(list(dict.fromkeys(axis for array in inputs for axis in array.named))))
        inner = [f"a{number}"] if draw(st.booleans()) else []
        axes[name] = (*outer, *inner)
        spec_ = MapSpec(tuple(inputs), (ArraySpec(name, axes[name]),)) if axes[name] else None
        nodes.append(node(symbol(name, parameters, len(inner)), output_name=name, mapspec=spec_))
    return Graph(nodes)


def evaluate(graph: Graph, inputs: dict[str, Any]) -> dict[str, Any]:
    values = dict(inputs)
    for made in graph.nodes:
        values[made.output_names[0]] = call(made, values)
    return values


def call(made: Node, values: dict[str, Any]) -> Any:
    """Every call of a node, as nested lists over its axes."""
    spec = made.mapspec or MapSpec((), (ArraySpec("unmapped", ("none",)),))

    def over(remaining: tuple[str, ...], positions: dict[str, int]) -> Any:
        if remaining:
            return [over(remaining[1:], {**positions, remaining[0]: i}) for i in range(EXTENT)]
        return made(*(take(values[n], spec.input(n).select(positions)) for n in made.parameters))

    return over(spec.axes, {})


def take(value: Any, index: Sequence[int | slice]) -> Any:
    if not index:
        return value
    first, *rest = index
    return [take(part, rest) for part in value] if isinstance(first, slice) else take(value[first], rest)


def depends(graph: Graph, name: str, on: str) -> bool:
    if name == on:
        return True
    return name in graph.outputs and any(depends(graph, n, on) for n in graph.producer(name).parameters)


def several(value: Any) -> list[Any]:
    """Different values of an input, all of the same form."""
    if isinstance(value, list):
        return [[f"{part}.{i}" for part in value] for i in range(EXTENT)]
    return [f"{value}.{i}" for i in range(EXTENT)]


@given(graphs(), st.data())
def test_zip_gives_at_each_position_what_the_inputs_there_give(graph: Graph, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(graph.inputs), unique=True, min_size=1))
    many = {name: several(INPUTS[name]) for name in names}
    mapped = evaluate(graph.map_over(names), {**INPUTS, **many})
    for i in range(EXTENT):
        once = evaluate(graph, {**INPUTS, **{name: many[name][i] for name in names}})
        for output in graph.outputs:
            changes = any(depends(graph, output, name) for name in names)
            assert (mapped[output][i] if changes else mapped[output]) == once[output]


@given(graphs(), st.data())
def test_product_gives_at_each_index_what_the_inputs_there_give(graph: Graph, data: st.DataObject) -> None:
    names = data.draw(st.permutations(graph.inputs))
    many = {name: several(INPUTS[name]) for name in names}
    mapped = evaluate(graph.map_over(names, "product"), {**INPUTS, **many})
    for index in itertools.product(range(EXTENT), repeat=len(names)):
        at = dict(zip(names, index, strict=True))
        once = evaluate(graph, {**INPUTS, **{name: many[name][at[name]] for name in names}})
        for output in graph.outputs:
            own = [at[name] for name in names if depends(graph, output, name)]
            assert take(mapped[output], own) == once[output]


@given(graphs(), st.data())
def test_a_mapped_graph_can_be_pruned_in_either_order(graph: Graph, data: st.DataObject) -> None:
    output = data.draw(st.sampled_from(graph.outputs))
    pruned = graph.prune(output)
    name = data.draw(st.sampled_from(pruned.inputs))
    one, other = graph.map_over(name).prune(output), pruned.map_over(name)
    assert one.inputs == other.inputs
    assert len(one.axes.get(output, ())) == len(other.axes.get(output, ()))
