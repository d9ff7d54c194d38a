"""Whether the annotations of a graph's functions agree where one takes what another makes.

Owns which part of a value travels along an edge; which types go together is in `compatible`. Knows nothing of
values, and refuses only what surely cannot work.
"""

from typing import Any, Literal, NamedTuple, get_args, get_origin

from gristmill.errors import GraphError
from gristmill.graph.compatible import compatible, element, elements_fit, holds_many, shown
from gristmill.graph.graph import Graph
from gristmill.graph.node import Node

Form = Literal["array", "list", "zarr", "lazy"]
"""How a reduction's argument is delivered: assembled, or as something that reads elements when they are asked for."""


class Edge(NamedTuple):
    """One parameter that takes one output."""

    maker: Node
    taker: Node
    name: str


def check_annotations(graph: Graph) -> None:
    """See that what each node is annotated to return fits what its consumers are annotated to take.

    Raises
    ------
    GraphError
        At the first edge that surely cannot work, naming both functions, the parameter and both types.

    Examples
    --------
    >>> from gristmill.graph.node import node
    >>> def load() -> str: ...
    >>> def double(text: int): ...
    >>> check_annotations(Graph([node(load, output_name="text"), node(double)]))
    Traceback (most recent call last):
    gristmill.errors.GraphError: double takes text: int, but load returns str; ...
    """
    for taker in graph.nodes:
        for name in taker.parameters:
            if name in graph.outputs:
                _check(graph, Edge(graph.producer(name), taker, name))
        if taker.reduce is not None:
            _check_partial(taker, taker.own_name(taker.reduce))


def asked_form(node: Node, own: str) -> Form:
    """How a reduction's argument is delivered: as the parameter's annotation asks.

    Parameters
    ----------
    node, own
        Whose, and its own name of the parameter.

    Raises
    ------
    GraphError
        Errors cannot be passed in that form.

    Examples
    --------
    >>> from gristmill.graph.node import node
    >>> def total(values: list[int]): ...
    >>> asked_form(node(total), "values")
    'list'
    """
    hint = node.annotations.get(own)
    kind = get_origin(hint) or hint
    if kind is list:
        return "list"
    where, name = getattr(kind, "__module__", ""), getattr(kind, "__name__", "")
    if (where.partition(".")[0], name) == ("gristmill", "MappedOutput"):
        return "lazy"
    if (where.partition(".")[0], name) != ("zarr", "Array"):
        return "array"
    if node.errors == "pass":
        raise GraphError(
            f"{node.name} takes {own}: zarr.Array, which cannot hold errors, and has errors='pass'; annotate {own} as "
            "list, np.ndarray or MappedOutput, or say errors='drop'"
        )
    return "zarr"


def _check(graph: Graph, edge: Edge) -> None:
    if _reduced(graph, edge):
        asked_form(edge.taker, edge.taker.own_name(edge.name))
    wanted = edge.taker.annotations.get(edge.taker.own_name(edge.name), Any)
    # pydantic converts what it is given.
    if wanted is Any or hasattr(edge.taker.function, "model_fields"):
        return
    given = _made(edge)
    depth = _reduced(graph, edge)
    if depth and not holds_many(wanted):
        raise GraphError(
            f"{edge.taker.name} takes {_own(edge)}: {shown(wanted)}, "
            f"but gets many elements of {_array(graph, edge)}; "
            f"map it with a mapspec, or annotate {_own(edge)} as list or np.ndarray",
        )
    if not (elements_fit(given, wanted, depth) if depth else compatible(given, wanted)):
        each = "each element of " if depth else ""
        raise GraphError(
            f"{edge.taker.name} takes {_own(edge)}: {shown(wanted)}, but {edge.maker.name} returns "
            f"{shown(edge.maker.annotations['return'])}{f' ({each}{edge.name})' if each else ''}; "
            "correct one of the annotations, or build the pipeline with validate_types=False",
        )


def _check_partial(node: Node, own: str) -> None:
    """See that a tree reduction takes lists of what it returns."""
    made, wanted = node.annotations.get("return", Any), node.annotations.get(own, Any)
    if len(node.output_names) == 1 and not elements_fit(made, wanted, 1):
        raise GraphError(
            f"{node.name} reduces {own}: {shown(wanted)} level by level, so it gets lists of what it returns, which is "
            f"{shown(made)}; make them the same, or build the pipeline with validate_types=False"
        )


def _own(edge: Edge) -> str:
    return edge.taker.own_name(edge.name)


def _array(graph: Graph, edge: Edge) -> str:
    return f"{edge.name}[{', '.join(graph.axes[edge.name])}]"


def _made(edge: Edge) -> Any:
    """The type of one element of the output, as far as annotations tell."""
    maker = edge.maker
    hint = maker.annotations.get("return", Any)
    if maker.output_picker is not None:
        return Any
    if len(maker.output_names) > 1:
        hint = _of_several(hint, maker.output_names.index(edge.name), len(maker.output_names))
    return element(hint, len(maker.mapspec.inner_axes) if maker.mapspec else 0)


def _of_several(hint: Any, place: int, count: int) -> Any:
    parts = get_args(hint)
    fits = get_origin(hint) is tuple and len(parts) == count and Ellipsis not in parts
    return parts[place] if fits else Any


def _reduced(graph: Graph, edge: Edge) -> int:
    """How many dimensions of the output one call takes all of."""
    array = edge.taker.mapspec.input(edge.name) if edge.taker.mapspec else None
    if array is not None and array.axes:
        return len(array.reduced)
    return len(graph.axes.get(edge.name, ()))
