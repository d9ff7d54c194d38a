"""Composition: graphs made of other graphs.

Every function returns nodes for a new graph to be made of; what they are given stays as it is. Whether the nodes fit
together is checked when the graph is built.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from gristmill.errors import GraphError
from gristmill.graph.graph import Graph
from gristmill.graph.names import check_name
from gristmill.graph.node import Node
from gristmill.graph.wording import did_you_mean, joined


def dropped(graph: Graph, names: Iterable[str]) -> list[Node]:
    """The nodes without those that make any of `names`.

    Raises
    ------
    GraphError
        No node makes one of them.
    """
    gone = {graph.producer(name) for name in names}
    return [node for node in graph.nodes if node not in gone]


def replaced(graph: Graph, nodes: Sequence[Node]) -> list[Node]:
    """The nodes with others in the place of those that made the same outputs.

    Raises
    ------
    GraphError
        Nothing made one of the outputs, or only a part of a node would be replaced.
    """
    made = {name for node in nodes for name in node.output_names}
    old = {graph.producer(name) for name in made}
    left = sorted({name for node in old for name in node.output_names} - made)
    if left:
        raise GraphError(
            f"{joined(left)} would not be made any more: one node makes it together with what is replaced; "
            "replace all of its outputs"
        )
    return [*(node for node in graph.nodes if node not in old), *nodes]


def part(graph: Graph, inputs: Collection[str] | None, outputs: Collection[str] | None) -> list[Node]:
    """The nodes that are needed for `outputs` when `inputs` are given; without `outputs`, all that inputs lead to.

    Raises
    ------
    GraphError
        There is no such name.
    """
    known = (*graph.inputs, *graph.outputs)
    for name in inputs or ():
        if name not in known:
            raise GraphError(
                f"{name!r} is no name of this graph{did_you_mean(name, known)}; it has {joined(known)}"
            )
    if outputs is not None:
        return list(graph.prune(outputs, inputs or ()).nodes)
    if inputs is None:
        return list(graph.nodes)
    reached, kept = set(inputs), []
    for node in graph.nodes:
        if reached.intersection(node.parameters) and not set(node.output_names) <= set(inputs):
            kept.append(node)
            reached.update(node.output_names)
    return kept


def renamed(graph: Graph, names: Mapping[str, str]) -> list[Node]:
    """The nodes with other names for inputs and outputs.

    Raises
    ------
    GraphError
        There is no such name.
    """
    known = (*graph.inputs, *graph.outputs)
    for name in names:
        if name not in known:
            raise GraphError(
                f"{name!r} is no name of this graph{did_you_mean(name, known)}; it has {joined(known)}"
            )
    return [node.renamed(names) for node in graph.nodes]


def scoped(graph: Graph, scope: str, keep: Collection[str]) -> list[Node]:
    """The nodes with `scope` and a dot before every name that has no dot, except those to `keep`.

    Raises
    ------
    GraphError
        The scope is no name, or there is no such name to keep.
    """
    known = (*graph.inputs, *graph.outputs)
    check_name("a pipeline", "scope", scope)
    for name in keep:
        if name not in known:
            raise GraphError(
                f"{name!r} is no name of this graph{did_you_mean(name, known)}; it has {joined(known)}"
            )
    return renamed(graph, {name: f"{scope}.{name}" for name in known if "." not in name and name not in keep})


def bound(graph: Graph, values: Mapping[str, Any]) -> list[Node]:
    """The nodes with values for some inputs, which are no inputs any more.

    Raises
    ------
    GraphError
        A name is no input.
    """
    for name in values:
        if name not in graph.inputs:
            what = "a node makes it" if name in graph.outputs else "there is no such name"
            raise GraphError(
                f"{name!r} cannot be bound, as {what}{did_you_mean(name, graph.inputs)}; the inputs are "
                f"{joined(graph.inputs)}"
            )
    found = []
    for node in graph.nodes:
        own = {name: value for name, value in values.items() if name in node.parameters}
        found.append(node.with_(bound={**node.bound, **own}) if own else node)
    return found


def unbound(graph: Graph, names: Collection[str]) -> list[Node]:
    """The nodes without their own values for some names, or for any where `names` is empty.

    Raises
    ------
    GraphError
        No node has a value of its own for a name.
    """
    known = tuple(dict.fromkeys(name for node in graph.nodes for name in node.bound))
    for name in names:
        if name not in known:
            raise GraphError(
                f"{name!r} is not bound{did_you_mean(name, known)}; bound are {joined(known) or 'none'}"
            )
    chosen = names or known
    return [
        node.with_(bound={name: value for name, value in node.bound.items() if name not in chosen})
        if set(chosen) & set(node.bound)
        else node
        for node in graph.nodes
    ]
