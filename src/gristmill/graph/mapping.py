"""Giving a whole graph an axis: what `map_over` does to the mapspecs of its nodes.

Knows of a graph its wiring only; what it returns are nodes, for a graph to be made of.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from gristmill.errors import InputError
from gristmill.graph.axes import fresh
from gristmill.graph.mapspec import ArraySpec, MapSpec
from gristmill.graph.node import Node
from gristmill.graph.wording import did_you_mean, joined

MODES = ("zip", "product")
LETTERS = "ijklmnopqrstuvwxyzabcdefgh"


class Wired(Protocol):
    """What is asked of a graph."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """In topological order."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names that no node makes."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names that nodes make."""

    @property
    def axes(self) -> Mapping[str, tuple[str, ...]]:
        """The axes of every mapped name."""

    def producer(self, name: str) -> Node:
        """The node that makes a name."""


Added = Mapping[str, tuple[str, ...]]
"""The new axes of each name that has some."""


def mapped(graph: Wired, names: str | Iterable[str], mode: str, axis: str | None = None) -> list[Node]:
    """The nodes of `graph` with new axes for some inputs, carried through whatever depends on them.

    A node becomes elementwise over the new axes; what it mapped or reduced before, it maps or reduces at each
    position of them. An `axis` that all of them share may be given a name.
    """
    wanted = _checked(graph, names, mode)
    axes = _new_axes(graph, wanted, mode) if axis is None else dict.fromkeys(wanted, _named(graph, axis))
    order = list(dict.fromkeys(axes.values()))
    added: dict[str, tuple[str, ...]] = {name: (axis,) for name, axis in axes.items()}
    nodes = []
    for node in graph.nodes:
        own = {axis for name in node.parameters for axis in added.get(name, ())}
        over = tuple(axis for axis in order if axis in own)
        nodes.append(node.with_(mapspec=_spec(graph, node, added, over)) if over else node)
        added |= {name: over for name in node.output_names if over and name in graph.outputs}
    return nodes


def _checked(graph: Wired, names: str | Iterable[str], mode: str) -> list[str]:
    if mode not in MODES:
        raise InputError(f"map_mode is {mode!r}{did_you_mean(mode, MODES)}; use {joined(MODES, 'or')}")
    wanted = [names] if isinstance(names, str) else list(names)
    if not wanted:
        raise InputError(f"map_over names no input; name some of {joined(graph.inputs)}")
    for name in wanted:
        if wanted.count(name) > 1:
            raise InputError(f"map_over has {name!r} twice; name each input once")
        if name in graph.outputs:
            raise InputError(
                f"cannot map over {name!r}: {graph.producer(name).name} makes it; supply it as an input, "
                f"or map over one of {joined(graph.inputs)}",
            )
        if name not in graph.inputs:
            raise InputError(
                f"cannot map over {name!r}: it is no input{did_you_mean(name, graph.inputs)}; "
                f"the graph has {joined(graph.inputs)}",
            )
    return wanted


def _new_axes(graph: Wired, names: list[str], mode: str) -> dict[str, str]:
    used = {*graph.inputs, *graph.outputs, *(axis for axes in graph.axes.values() for axis in axes)}
    if mode == "zip":
        return dict.fromkeys(names, _letter(used))
    return {name: _letter(used) for name in names}


def _named(graph: Wired, axis: str) -> str:
    taken = {known for axes in graph.axes.values() for known in axes}
    if axis in taken:
        raise InputError(f"there is an axis {axis!r} already; name the new one otherwise")
    return axis


def _letter(used: set[str]) -> str:
    free = next((letter for letter in LETTERS if letter not in used), LETTERS[0])
    return fresh(free, used)


def _spec(graph: Wired, node: Node, added: Added, over: tuple[str, ...]) -> MapSpec:
    old = node.mapspec
    listed = [array.name for array in old.inputs] if old else []
    names = [*listed, *(name for name in node.parameters if name in added and name not in listed)]
    inputs = tuple(
        _input(graph, old.input(name) if old else ArraySpec(name), added.get(name, ())) for name in names
    )
    outputs = old.outputs if old else tuple(ArraySpec(name) for name in node.output_names)
    return MapSpec(
        inputs, tuple(ArraySpec(array.name, (*over, *array.axes), array.ragged) for array in outputs)
    )


def _input(graph: Wired, array: ArraySpec, new: tuple[str, ...]) -> ArraySpec:
    """One input with its new axes; dimensions it had and that the node takes whole become `:`."""
    if not new:
        return array
    whole = (None,) * len(graph.axes.get(array.name, ()))
    return ArraySpec(array.name, (*new, *(array.axes or whole)), array.ragged)
