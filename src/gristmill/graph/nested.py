"""Nested graphs: a graph that takes part in another one as a node.

Owns what such a node is and which options it has. What becomes of it when the outer graph is compiled is in
`flattening`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from gristmill.errors import GraphError
from gristmill.graph.graph import Graph
from gristmill.graph.mapping import MODES
from gristmill.graph.names import Names
from gristmill.graph.node import Node
from gristmill.graph.options import check_names
from gristmill.graph.signature import Signature
from gristmill.graph.wording import did_you_mean, joined


class Nested:
    """What the node of a nested graph has in the place of a function.

    Parameters
    ----------
    graph
        What is evaluated.
    name
        What messages call it.
    outputs
        The outputs of `graph` that are given back.
    evaluate
        Evaluates a node that has this in it, given the inputs by name: what a call of it outside a pipeline does.
    is_mapped
        Whether `graph` is one node that is mapped over lists: then outputs are lists too.
    """

    def __init__(
        self,
        graph: Graph,
        name: str,
        outputs: tuple[str, ...],
        evaluate: Callable[["Nested", Mapping[str, Any]], Any],
        *,
        is_mapped: bool = False,
    ) -> None:
        self.graph = graph
        self.outputs = outputs
        self.is_mapped = is_mapped
        self.evaluate = evaluate
        self.__name__ = self.__qualname__ = name
        self.__doc__ = f"Make {joined(outputs)} by {len(graph.nodes)} nodes: {', '.join(graph.outputs)}."

    def __call__(self, **inputs: Any) -> Any:
        """Evaluate the graph, outside any pipeline."""
        return self.evaluate(self, inputs)

    def __digest__(self) -> object:
        return [(one, str(one.mapspec), one.output_names) for one in self.graph.nodes], self.outputs


def nested(
    graph: Graph,
    evaluate: Callable[[Nested, Mapping[str, Any]], Any],
    *,
    name: str | None = None,
    outputs: str | Iterable[str] | None = None,
    map_over: str | Iterable[str] | None = None,
    map_mode: str = "zip",
) -> Node:
    """Return a node that evaluates `graph`; its parameters and outputs have the names that they have there.

    Raises
    ------
    GraphError
        An output or input does not exist.
    InputError
        `map_over` names what is no input.
    """
    given = [outputs] if isinstance(outputs, str) else outputs
    wanted = graph.leaves if given is None else check_names("as_node", "output_name", given)
    if not wanted:
        raise GraphError("as_node needs an output; the pipeline has none")
    pruned = graph.prune(wanted)
    title = name or "_".join(wanted)
    made = in_graph(Nested(pruned, title, wanted, evaluate))
    if map_over is None:
        if map_mode not in MODES:
            raise GraphError(
                f"map_mode is {map_mode!r}{did_you_mean(map_mode, MODES)}; use {joined(MODES, 'or')}"
            )
        return made
    mapped = Graph([made]).map_over(map_over, map_mode)  # type: ignore[arg-type]
    return in_graph(Nested(mapped, title, wanted, evaluate, is_mapped=True))


def with_mappings(node: Node, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Node:
    """Return the node with other names: inputs as `{outer: inner}`, outputs as `{inner: outer}`.

    Raises
    ------
    GraphError
        A name does not exist, or one inner input would have two outer names.
    """
    inner = {own: outer for outer, own in inputs.items()}
    if len(inner) != len(inputs):
        twice = sorted({own for own in inputs.values() if list(inputs.values()).count(own) > 1})
        raise GraphError(
            f"input_mapping gives {joined(twice)} several names; each inner input has one outer name"
        )
    for what, given, known in (
        ("input_mapping", inner, node.names.own_parameters),
        ("output_mapping", outputs, node.names.own_outputs),
    ):
        for own in given:
            if own not in known:
                raise GraphError(
                    f"{what} has {own!r}, which the pipeline does not have{did_you_mean(own, known)}; "
                    f"it has {joined(known)}"
                )
    return node.with_(renames={**inner, **outputs})


def nested_in(node: Node) -> Nested | None:
    """Return the nested graph that a node stands for, or None if it is a function's."""
    return node.function if isinstance(node.function, Nested) else None


def in_graph(function: Nested) -> Node:
    """Return the node that a nested graph is in another one, under its own names."""
    graph = function.graph
    signature = Signature(graph.inputs, MappingProxyType(dict(graph.defaults)), ())
    names = Names.of(function.__qualname__, graph.inputs, function.outputs)
    return Node(function, signature, names)


# -- what carries values across the border: nodes without code of the user's


def opened(values: list[Any], **_others: Any) -> Any:
    """Make axes of a list, or of lists in a list, that a nested graph is mapped over."""
    return values


def listed(values: list[Any], **_others: Any) -> Any:
    """Make a list of what a nested graph has made along axes."""
    return values


def gathered(values: Any, **_others: Any) -> Any:
    """Make an array of what a nested graph has made along axes; what has none goes on as it is."""
    return values


CARRIERS = (opened, listed, gathered)


def is_carrier(node: Node) -> bool:
    """Whether a node only carries values into a nested graph or out of it; its calls are nobody's."""
    return node.function in CARRIERS


def carrier(function: Callable[..., Any], output: str, others: Sequence[str], values: str) -> Node:
    """Return a node of one of the functions above that takes `values`, and `others` for their axes only."""
    own = ("values", *(f"other_{k}" for k in range(len(others))))
    names = replace(Names.of(function.__name__, own, (output,)), local_parameters=(values, *others))
    return Node(function, Signature(own, MappingProxyType({}), ()), names, version="1")
