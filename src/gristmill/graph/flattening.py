"""Flattening: a graph in which nested graphs have been replaced by their nodes.

A nested graph is no unit of execution: its nodes take part in the outer graph, under names of their own, so that each
call in it is looked up, shared and resumed like any other. Where it is mapped over a list, the list becomes an axis;
where it gives back what has axes, a node makes a list or an array of that.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from gristmill.errors import GraphError
from gristmill.graph.axes import fresh
from gristmill.graph.graph import Graph
from gristmill.graph.mapspec import ArraySpec, MapSpec
from gristmill.graph.nested import Nested, carrier, gathered, listed, nested_in, opened
from gristmill.graph.node import Node
from gristmill.graph.retry import ONCE

Axes = tuple[str | None, ...]

_REFUSED = {
    "version": None,
    "writable": False,
    "output_picker": None,
    "post_execution_hook": None,
    "ignore_globals": (),
    "own_reduce": None,
    "retries": ONCE,
    "timeout": None,
}
"""Options that are about one function, with what they are where they are not given."""


@dataclass(frozen=True)
class Flat:
    """A graph without nested ones."""

    graph: Graph
    owners: Mapping[str, str]
    """The outer output that stands for each output of a nested graph: what is said of that holds for these."""


def flat(graph: Graph) -> Flat:
    """Replace nested graphs by their nodes, at every depth.

    Raises
    ------
    GraphError
        The node of a nested graph has an option that says something about one function.
    """
    if not any(nested_in(node) for node in graph.nodes):
        return Flat(graph, {})
    used = {*graph.inputs, *graph.outputs}
    used |= {axis for axes in graph.axes.values() for axis in axes}
    indexed = _indexed(graph)
    nodes: list[Node] = []
    owners: dict[str, str] = {}
    for node in graph.nodes:
        inner = nested_in(node)
        if inner is None:
            nodes.append(node)
            continue
        _check_options(node)
        made = _Expansion(graph, node, inner, used, indexed).nodes()
        nodes += made
        owners |= {name: node.output_names[0] for one in made for name in one.output_names}
    return Flat(Graph(nodes, supplied=graph.supplied), owners)


def _indexed(graph: Graph) -> set[str]:
    """Inputs of which a mapspec, or more than one nested graph, may take elements."""
    found: set[str] = set()
    takers: dict[str, int] = {}
    for node in graph.nodes:
        found |= {array.name for array in (node.mapspec.inputs if node.mapspec else ()) if array.axes}
        for name in node.parameters if nested_in(node) else ():
            takers[name] = takers.get(name, 0) + 1
    return found | {name for name, count in takers.items() if count > 1}


def _check_options(node: Node) -> None:
    for option, absent in _REFUSED.items():
        if getattr(node, option) != absent:
            raise GraphError(
                f"{node.name} is a pipeline, for which {option.removeprefix('own_')} means nothing; "
                "give it to the nodes that are in it"
            )


@dataclass
class _Expansion:
    """One nested graph, being put into the outer one."""

    outer: Graph
    node: Node
    nested: Nested
    used: set[str]
    """Names and axes that are taken; those that are given here are added."""
    indexed: set[str]

    def __post_init__(self) -> None:
        self._inner = flat(self.nested.graph).graph
        self._axes = {axis: fresh(axis, self.used) for axis in _axes_of(self._inner)}
        """What inner axes are called outside."""
        self._names: dict[str, str] = {}
        """What is made inside, and opened inputs, are called outside."""
        self._over: dict[str, tuple[str, ...]] = {}
        """The outer axes of these."""
        self._to_open = self._opened_inputs()
        """The inputs of which inner nodes take elements, and how many axes they have."""

    def nodes(self) -> list[Node]:
        """Return the nodes in topological order."""
        found = [self._open(name, dimensions) for name, dimensions in self._to_open.items()]
        found += [self._lifted(one) for one in self._inner.nodes]
        found += [self._carried(own) for own in self.nested.outputs if self._names[own] != self._outside(own)]
        return [self._with_options(one) for one in found if one is not None]

    # -- names

    def _outside(self, own: str) -> str:
        """What the outer graph calls an input or output of the nested one."""
        names = self.node.names
        if own in names.own_parameters:
            return names.graph(own)
        return names.outputs[names.own_outputs.index(own)]

    def _inside(self, own: str) -> str:
        """A name for what the outer graph does not know."""
        wish = own if own.startswith(f"{self._scope}.") else f"{self._scope}.{own}"
        return fresh(wish, self.used)

    @property
    def _scope(self) -> str:
        title = self.node.name
        return title if title.isidentifier() else self.node.output_names[0].replace(".", "_")

    # -- axes

    def _outer_axes(self, own: str) -> Axes:
        """How the outer mapspec indexes an input of the nested graph."""
        spec = self.node.mapspec
        return spec.input(self._outside(own)).axes if spec and own not in self.node.own_bound else ()

    @property
    def _wanted(self) -> tuple[str, ...]:
        """The outer axes that every output has to have."""
        return self.node.mapspec.axes if self.node.mapspec else ()

    def _ordered(self, axes: Iterable[str | None]) -> tuple[str, ...]:
        chosen = set(axes)
        return tuple(axis for axis in self._wanted if axis in chosen)

    def _opened_inputs(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for one in self._inner.nodes:
            for array in one.mapspec.inputs if one.mapspec else ():
                if array.axes and array.name in self._inner.inputs:
                    found[array.name] = len(array.axes)
            if one.reduce in self._inner.inputs and self._outer_axes(one.reduce):
                found.setdefault(one.reduce, 1)
        return found

    def _shared(self, own: str) -> tuple[str, ...]:
        """The outer axes of an opened input: those of all that share an inner axis with it, which differ in length."""
        group, axes = {own}, set(self._inner.axes.get(own, ()))
        grown = True
        while grown:
            more = {name for name in self._to_open if axes & set(self._inner.axes.get(name, ()))} - group
            grown = bool(more)
            group |= more
            axes |= {axis for name in more for axis in self._inner.axes.get(name, ())}
        return self._ordered(axis for name in group for axis in self._outer_axes(name))

    def _anchors(self, missing: Sequence[str]) -> dict[str, Axes]:
        """Inputs of the node that have some outer axes which others lack."""
        found: dict[str, Axes] = {}
        for axis in missing:
            if not any(axis in axes for axes in found.values()):
                spec = self.node.mapspec
                assert spec is not None  # noqa: S101 - else no axis would be missing
                array = next(one for one in spec.inputs if axis in one.axes)
                found[array.name] = array.axes
        return found

    # -- nodes

    def _open(self, own: str, dimensions: int) -> Node | None:
        """Return a node that makes axes of a list; None where that is not needed, as the list is an input."""
        name, axes, over = self._outside(own), self._outer_axes(own), self._shared(own)
        is_input = name in self.outer.inputs and own not in self.node.own_bound
        if is_input and not over and not axes and name not in self.indexed:
            self._names[own], self._over[own] = name, ()
            return None
        anchors = self._anchors([axis for axis in over if axis not in axes])
        over = self._ordered([*over, *axes, *(axis for one in anchors.values() for axis in one)])
        made = self._inside(own)
        known = self._inner.axes.get(own, (f"{own.replace('.', '_')}_0",))
        inner = tuple(self._axes.get(axis) or fresh(axis, self.used) for axis in known[:dimensions])
        ragged = frozenset(inner[:1]) if over else frozenset[str]()
        inputs = tuple(ArraySpec(n, a) for n, a in ((name, axes), *anchors.items()) if a)
        spec = MapSpec(inputs, (ArraySpec(made, (*over, *inner), ragged),))
        self._names[own], self._over[own] = made, over
        node = carrier(opened, made, tuple(anchors), name)
        if own in self.node.own_bound:
            node = replace(node, own_bound=MappingProxyType({"values": self.node.own_bound[own]}))
        elif own in (defaults := {**self._inner.defaults, **self.node.own_defaults}):
            node = replace(node, own_defaults=MappingProxyType({"values": defaults[own]}))
        return replace(node, mapspec=spec)

    def _lifted(self, one: Node) -> Node:
        """Return an inner node with its names and axes outside."""
        arrays = {name: self._array(one, name) for name in one.parameters}
        over = self._ordered(axis for array in arrays.values() for axis in array.axes)
        for own in one.output_names:
            self._over[own] = over
            self._names[own] = self._inside(own) if self._needs_carrier(own) else self._outside(own)
        names = {name: array.name for name, array in arrays.items()}
        names |= {name: f"{self._scope}.{name}" for name in one.bound}
        names |= {name: self._names[name] for name in one.output_names}
        whole = [name for name in one.parameters if self._takes_whole(one, name)]
        bound = {one.own_name(n): self.node.own_bound[n] for n in whole if n in self.node.own_bound}
        given = self.node.own_defaults
        defaults = {one.own_name(name): given[name] for name in one.parameters if name in given}
        private = tuple(one.own_name(name) for name in one.parameters if name in self.node.own_private)
        plain = replace(one, mapspec=None).renamed(names)
        return replace(
            plain,
            mapspec=self._spec(one, [array for array in arrays.values() if array.axes], over),
            own_bound=MappingProxyType({**one.own_bound, **bound}),
            own_defaults=MappingProxyType({**one.own_defaults, **defaults}),
            own_private=(*one.own_private, *private),
            axis=self._axes.get(one.axis, one.axis) if one.axis else None,
        )

    def _spec(self, one: Node, inputs: Sequence[ArraySpec], over: tuple[str, ...]) -> MapSpec | None:
        own = one.mapspec
        axes = (*over, *(self._axes[axis] for axis in own.output_axes)) if own else over
        ragged = frozenset(self._axes[axis] for axis in own.ragged) if own else frozenset[str]()
        if own and over and one.function is opened:  # a list of its own at each index
            ragged |= {self._axes[own.inner_axes[0]]}
        outputs = tuple(ArraySpec(self._names[name], axes, ragged) for name in one.output_names)
        return MapSpec(tuple(inputs), outputs) if axes else None

    def _takes_whole(self, one: Node, name: str) -> bool:
        """Whether an inner node takes an input of the nested graph as it is."""
        if name not in self._inner.inputs:
            return False
        is_indexed = bool(one.mapspec and one.mapspec.input(name).axes) or name == one.reduce
        return name not in self._to_open or not is_indexed

    def _array(self, one: Node, name: str) -> ArraySpec:
        """How an inner node takes one of its parameters outside."""
        if self._takes_whole(one, name):
            return ArraySpec(self._outside(name), self._outer_axes(name))
        own = one.mapspec.input(name).axes if one.mapspec else ()
        axes: Axes = tuple(axis and self._axes[axis] for axis in own)
        if not axes and self._over[name]:  # it reduces all of what is there at one index now
            axes = (None,) * len(self._inner.axes.get(name, (None,) if name in self._to_open else ()))
        return ArraySpec(self._names[name], (*self._over[name], *axes))

    def _needs_carrier(self, own: str) -> bool:
        """Whether an output of an inner node is not an output of the outer graph as it is."""
        spec = self.node.mapspec
        is_same = not self._inner.axes.get(own) and self._over[own] == self._wanted
        return own not in self.nested.outputs or not is_same or bool(spec and spec.inner_axes)

    def _carried(self, own: str) -> Node:
        """Return a node that gives back an output of the nested graph: as a list or array, where it has inner axes."""
        over, wanted = self._over[own], self._wanted
        anchors = self._anchors([axis for axis in wanted if axis not in over])
        name, made = self._outside(own), self._names[own]
        dimensions = len(self._inner.axes.get(own, ()))
        axes = (*over, *(None,) * dimensions)
        node = carrier(listed if self.nested.is_mapped else gathered, name, tuple(anchors), made)
        outer = self.node.mapspec
        if outer is not None:
            inputs = tuple(ArraySpec(n, a) for n, a in ((made, axes), *anchors.items()) if any(a))
            node = replace(node, mapspec=MapSpec(inputs, (outer.output(name),)))
        return replace(node, errors=self.node.errors)

    def _with_options(self, one: Node) -> Node:
        path = (
            one.path if self.nested.is_mapped else (self._scope, *one.path)
        )  # it is in one of the same name
        return replace(one, cache=one.cache and self.node.cache, policy=self.node.policy, path=path)


def _axes_of(graph: Graph) -> list[str]:
    """All axes in a graph, in the order of its nodes; those of inputs that nothing names included."""
    found = [axis for axes in graph.axes.values() for axis in axes]
    found += [axis for node in graph.nodes if node.mapspec for axis in node.mapspec.output_axes]
    return list(dict.fromkeys(found))
