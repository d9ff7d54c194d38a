"""Graphs: nodes wired by name, checked when they are built.

A graph is an immutable value. Owns the wiring, pruning and the check of input names; how mapspecs agree is in
`axes`, how a whole graph is given an axis in `mapping`. Knows nothing of values, storage or execution.
"""

import graphlib
import heapq
import itertools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

from gristmill.errors import DigestError, GraphError, InputError
from gristmill.graph import axes
from gristmill.graph.mapping import mapped
from gristmill.graph.mapspec import ArraySpec, MapSpec
from gristmill.graph.node import Node
from gristmill.graph.wording import did_you_mean, joined


class Graph:
    """Nodes wired by name: a parameter takes the output of that name, else it is an input of the graph.

    Parameters
    ----------
    nodes
        In any order.
    supplied
        Names that come from the caller although a node makes them; they count as inputs.

    Raises
    ------
    GraphError
        If a name is made twice, the nodes form a cycle, or defaults of an input differ.
    MapSpecError
        If two mapspecs contradict each other.

    Examples
    --------
    >>> from gristmill.graph.node import node
    >>> graph = Graph(
    ...     [
    ...         node(lambda y: sum(y), output_name="total"),
    ...         node(lambda x: 2 * x, output_name="y", mapspec="x[i] -> y[i]"),
    ...     ]
    ... )
    >>> graph.inputs, graph.outputs, graph.leaves
    (('x',), ('y', 'total'), ('total',))
    >>> dict(graph.axes)
    {'x': ('i',), 'y': ('i',)}
    """

    def __init__(self, nodes: Iterable[Node], *, supplied: Iterable[str] = ()) -> None:
        given = tuple(nodes)
        self._supplied = frozenset(supplied)
        _check_nodes(given)
        self._nodes = _along_axes(_sorted(given, _producers(given, self._supplied)), self._supplied)
        self._producers = _producers(self._nodes, self._supplied)
        self._defaults = _defaults(self._nodes, self._producers)
        self._dimensions = axes.dimensions(self._nodes, self._supplied)

    # -- what it is

    @property
    def nodes(self) -> tuple[Node, ...]:
        """In topological order; as given where the wiring leaves a choice."""
        return self._nodes

    @property
    def supplied(self) -> frozenset[str]:
        """Names that come from the caller although a node makes them."""
        return self._supplied

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names that no node makes, in the order the nodes need them."""
        return tuple(
            dict.fromkeys(n for node in self._nodes for n in node.parameters if n not in self._producers)
        )

    @property
    def defaults(self) -> Mapping[str, object]:
        """Inputs that need not be given, with their values; every node that takes one must have a default."""
        return self._defaults

    @property
    def required_inputs(self) -> tuple[str, ...]:
        """Inputs that some node has no default for."""
        return tuple(name for name in self.inputs if name not in self._defaults)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Everything that is made, in topological order."""
        return tuple(self._producers)

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """Outputs that no node takes."""
        taken = {name for node in self._nodes for name in node.parameters}
        return tuple(name for name in self._producers if name not in taken)

    @cached_property
    def axes(self) -> Mapping[str, tuple[str, ...]]:
        """The axes of every mapped name, inputs included; unmapped names are absent.

        A dimension of an input that every node takes whole has a made-up name.
        """
        return MappingProxyType(axes.named(self._dimensions))

    @cached_property
    def ragged(self) -> Mapping[str, frozenset[str]]:
        """The ragged axes of names that have some, own or inherited."""
        return MappingProxyType(
            {name: known.ragged for name, known in self._dimensions.items() if known.ragged}
        )

    def producer(self, name: str) -> Node:
        """The node that makes `name`.

        Raises
        ------
        GraphError
            If none does.
        """
        if name not in self._producers:
            what = "is an input, no node makes it" if name in self.inputs else "is no output of this graph"
            raise GraphError(
                f"{name!r} {what}{did_you_mean(name, self.outputs)}; it makes {joined(self.outputs)}"
            )
        return self._producers[name]

    def consumers(self, name: str) -> tuple[Node, ...]:
        """The nodes that take `name`, in topological order."""
        return tuple(node for node in self._nodes if name in node.parameters)

    def dependencies(self, node: Node) -> tuple[Node, ...]:
        """The nodes whose outputs `node` takes, each once."""
        return tuple(dict.fromkeys(self._producers[n] for n in node.parameters if n in self._producers))

    # -- changing it

    def prune(
        self, output_names: str | Iterable[str] | None = None, supplied: Collection[str] = ()
    ) -> "Graph":
        """The part that is needed for some outputs when some names are supplied.

        Parameters
        ----------
        output_names
            All leaves by default.
        supplied
            Names given by the caller; a supplied intermediate cuts what is above it.

        Raises
        ------
        GraphError
            If an output does not exist.

        Examples
        --------
        >>> from gristmill.graph.node import node
        >>> graph = Graph([node(lambda x: x, output_name="y"), node(lambda y: y, output_name="z")])
        >>> graph.prune("y").outputs, graph.prune("z", supplied={"y"}).inputs
        (('y',), ('y',))
        """
        names = self.leaves if output_names is None else output_names
        wanted = [names] if isinstance(names, str) else list(names)
        given = self._supplied | (set(supplied) & set(self._producers))
        kept: set[Node] = set()
        waiting = [self.producer(name) for name in wanted if name not in given]
        while waiting:
            node = waiting.pop()
            if node not in kept:
                kept.add(node)
                waiting += [
                    self.producer(n) for n in node.parameters if n in self._producers and n not in given
                ]
        used = {name for node in kept for name in (*node.parameters, *node.output_names)}
        return Graph((node for node in self._nodes if node in kept), supplied=given & used)

    def with_nodes(self, nodes: Iterable[Node]) -> "Graph":
        """The same graph with other nodes."""
        return Graph(nodes, supplied=self._supplied)

    def map_over(self, names: str | Iterable[str], mode: Literal["zip", "product"] = "zip") -> "Graph":
        """The same graph mapped over some of its inputs: each call so far becomes one for each position.

        Parameters
        ----------
        names
            Inputs, of which there will be several.
        mode
            `"zip"` for one new axis that all of them share, `"product"` for one each.

        Raises
        ------
        InputError
            If a name is no input, or the mode does not exist.

        Examples
        --------
        >>> from gristmill.graph.node import node
        >>> graph = Graph([node(lambda x: x, output_name="y"), node(lambda y, k: y, output_name="z")])
        >>> [str(node.mapspec) for node in graph.map_over(["x", "k"], "product").nodes]
        ['x[i] -> y[i]', 'y[i], k[j] -> z[i, j]']
        """
        return self.with_nodes(mapped(self, names, mode))

    # -- checking inputs

    def check_inputs(self, inputs: Mapping[str, object], outputs: str | Iterable[str] | None = None) -> None:
        """See that `inputs` are enough for `outputs`, and known.

        Raises
        ------
        InputError
            Naming all that are unknown and all that are missing.

        Examples
        --------
        >>> from gristmill.graph.node import node
        >>> Graph([node(lambda x: x, output_name="y")]).check_inputs({"X": 1})
        Traceback (most recent call last):
        gristmill.errors.InputError: 'X' is no input (did you mean 'x'?)
        'x' is missing: needed by <lambda>; give it a value
        """
        pruned = self.prune(outputs, supplied=inputs)
        problems = [self._unknown(name) for name in inputs if name not in {*self.inputs, *self.outputs}]
        problems += [pruned._missing(name) for name in pruned.required_inputs if name not in inputs]  # noqa: SLF001
        if problems:
            raise InputError("\n".join(problems))

    def _unknown(self, name: str) -> str:
        if bound := [node.name for node in self._nodes if name in node.bound]:
            return f"{name!r} is no input: it is bound in {', '.join(bound)}"
        known = (*self.inputs, *self.outputs)
        return f"{name!r} is no input" + (
            did_you_mean(name, known) or f"; the graph has {joined(self.inputs)}"
        )

    def _missing(self, name: str) -> str:
        needing = [node for node in self.consumers(name) if name not in node.defaults]
        others = [node for node in self.consumers(name) if name in node.defaults]
        note = f" ({', '.join(node.name for node in others)} has a default for it)" if others else ""
        needed_by = ", ".join(node.name for node in needing)
        return f"{name!r} is missing: needed by {needed_by}{note}; give it a value"

    def __reduce__(self) -> tuple[object, ...]:
        return _graph, (self._nodes, self._supplied)

    def __repr__(self) -> str:
        return f"<Graph ({', '.join(self.inputs)}) -> {', '.join(self.leaves)}, {len(self._nodes)} nodes>"


def _graph(nodes: tuple[Node, ...], supplied: frozenset[str]) -> Graph:
    return Graph(nodes, supplied=supplied)


def _check_nodes(nodes: tuple[Any, ...]) -> None:
    for node in nodes:
        if not isinstance(node, Node):
            raise GraphError(f"a graph has nodes, found {node!r}; make one with node(...)")
        if own := [name for name in node.output_names if name in node.parameters]:
            raise GraphError(
                f"{node.name} takes and makes {joined(own)}; rename its output or its parameter",
            )


def _producers(nodes: tuple[Node, ...], supplied: frozenset[str]) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for node in nodes:
        for name in node.output_names:
            if name in found:
                raise GraphError(
                    f"{name!r} is made twice: by {found[name].name} and by {node.name}; rename one output",
                )
            found[name] = node
    return {name: node for name, node in found.items() if name not in supplied}


def _sorted(nodes: tuple[Node, ...], producers: dict[str, Node]) -> tuple[Node, ...]:
    """Topological order; among nodes that are ready, the one given first."""
    place = {node: position for position, node in enumerate(nodes)}
    sorter: graphlib.TopologicalSorter[int] = graphlib.TopologicalSorter()
    for node in nodes:
        sorter.add(place[node], *(place[producers[name]] for name in node.parameters if name in producers))
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise _cycle([nodes[position] for position in error.args[1]]) from None
    found: list[Node] = []
    ready: list[int] = []
    while sorter.is_active():
        for position in sorter.get_ready():
            heapq.heappush(ready, position)
        first = heapq.heappop(ready)
        found.append(nodes[first])
        sorter.done(first)
    return tuple(found)


def _cycle(nodes: list[Node]) -> GraphError:
    """The error for nodes each of which takes what the one before it makes."""
    path = [
        next(name for name in before.output_names if name in after.parameters)
        for before, after in itertools.pairwise(nodes)
    ]
    functions = " → ".join(node.name for node in nodes)
    return GraphError(
        f"the nodes form a cycle: {' → '.join([*path, path[0]])} (functions {functions}); "
        "rename one of these names",
    )


def _defaults(nodes: tuple[Node, ...], producers: Mapping[str, Node]) -> Mapping[str, object]:
    takers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.parameters:
            if name not in producers:
                takers.setdefault(name, []).append(node)
    for name, consumers in takers.items():
        _check_defaults(name, [node for node in consumers if name in node.defaults])
    return MappingProxyType(
        {
            name: consumers[0].defaults[name]
            for name, consumers in takers.items()
            if all(name in node.defaults for node in consumers)
        },
    )


def _check_defaults(name: str, consumers: list[Node]) -> None:
    for node in consumers[1:]:
        one, other = consumers[0].defaults[name], node.defaults[name]
        if not _same(one, other):
            raise GraphError(
                f"input {name!r} has two defaults: {one!r} in {consumers[0].name}, {other!r} in {node.name}; "
                "make them equal, or rename one of the parameters",
            )


def _same(one: object, other: object) -> bool:
    """Whether two defaults are one value: 1 and True are not, two equal arrays are."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, (bool, int, str, bytes, type(None))):
        return one == other
    return _same_digest(one, other)


def _same_digest(one: object, other: object) -> bool:
    from gristmill.identity.digest import digest

    try:
        return digest(one) == digest(other)
    except DigestError:
        return False


def _along_axes(nodes: tuple[Node, ...], supplied: frozenset[str]) -> tuple[Node, ...]:
    """Give tree reductions along one axis of several their mapspec: they run at each index of the others."""
    found: list[Node] = []
    for node in nodes:
        name = node.reduce
        if name is None or node.mapspec is not None:
            found.append(node)
            continue
        made = {output for one in found for output in one.output_names} - supplied
        known = axes.dimensions([one for one in found if one.mapspec], supplied).get(name)
        over = known.axes if known is not None else ()
        if name in made and not over:
            raise GraphError(
                f"{node.name} reduces {name!r}, which has no axes; give its maker a mapspec like '... -> {name}[i]'"
            )
        if node.axis is None:
            if len(over) > 1:
                shown = ", ".join(str(axis) for axis in over)
                raise GraphError(
                    f"{node.name} reduces {name!r}, which has the axes {shown}; say along which: axis={over[-1]!r}"
                )
        elif node.axis not in over:
            shown = joined(str(axis) for axis in over) or "none"
            raise GraphError(
                f"{node.name} reduces {name!r} along {node.axis!r}, which is not among its axes: {shown}"
            )
        left = tuple(axis for axis in over if axis is not None and axis != node.axis)
        if node.axis is not None and left:
            taken = tuple(None if axis == node.axis else axis for axis in over)
            outputs = tuple(ArraySpec(output, left) for output in node.output_names)
            node = replace(node, mapspec=MapSpec((ArraySpec(name, taken),), outputs))  # noqa: PLW2901 - the same, along an axis
        found.append(node)
    return tuple(found)
