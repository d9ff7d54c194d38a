"""The axes of every name in a graph, and whether the mapspecs of its nodes agree on them.

Knows nodes only by their mapspecs and names; knows nothing of extents, which are known at run time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from gristmill.errors import MapSpecError
from gristmill.graph.mapspec import ArraySpec, MapSpec
from gristmill.graph.node import Node
from gristmill.graph.wording import joined


@dataclass(frozen=True)
class Dimensions:
    """What is known of one mapped name."""

    axes: tuple[str | None, ...]
    """None where every consumer takes all of that dimension of an input."""
    ragged: frozenset[str]
    source: str
    """Who says so, for messages."""


def dimensions(nodes: Sequence[Node], supplied: frozenset[str]) -> dict[str, Dimensions]:
    """The dimensions of every mapped name, inputs included.

    Parameters
    ----------
    nodes
        In topological order.
    supplied
        Names that come from the caller although a node makes them.

    Raises
    ------
    MapSpecError
        If two mapspecs contradict each other.
    """
    made = {name: node for node in nodes for name in node.output_names if name not in supplied}
    found = _of_inputs(nodes, made)
    for node in nodes:
        if node.mapspec is None:
            continue
        _check_inputs(node, node.mapspec, found, made)
        ragged = _ragged(node, node.mapspec, found)
        for array in node.mapspec.outputs:
            if array.name not in supplied:
                found[array.name] = Dimensions(array.axes, ragged, _who(node, array))
    return found


def named(found: Mapping[str, Dimensions]) -> dict[str, tuple[str, ...]]:
    """The axes of each name, with names made up for those that nothing names."""
    used = {axis for known in found.values() for axis in known.axes if axis}
    return {
        name: tuple(
            axis or fresh(f"{name.replace('.', '_')}_{position}", used)
            for position, axis in enumerate(known.axes)
        )
        for name, known in found.items()
    }


def fresh(wish: str, used: set[str]) -> str:
    """`wish`, or something like it that is not in `used`; then it is.

    Examples
    --------
    >>> fresh("i", {"i", "i1"})
    'i2'
    """
    name, count = wish, 0
    while name in used:
        count += 1
        name = f"{wish}{count}"
    used.add(name)
    return name


def _who(node: Node, array: ArraySpec) -> str:
    return f"{array} in {node.name}"


def _arrays(node: Node) -> Iterator[ArraySpec]:
    """The inputs of a node that its mapspec gives axes."""
    yield from (array for array in (node.mapspec.inputs if node.mapspec else ()) if array.axes)


def _of_inputs(nodes: Sequence[Node], made: Mapping[str, Node]) -> dict[str, Dimensions]:
    found: dict[str, Dimensions] = {}
    for node in nodes:
        for array in _arrays(node):
            if array.name not in made:
                known = found.setdefault(array.name, Dimensions(array.axes, frozenset(), _who(node, array)))
                _check_same(node, array, known)
                found[array.name] = _merged(known, array)
    return found


def _merged(known: Dimensions, array: ArraySpec) -> Dimensions:
    axes = tuple(old or new for old, new in zip(known.axes, array.axes, strict=True))
    return Dimensions(axes, known.ragged, known.source)


def _check_inputs(
    node: Node,
    spec: MapSpec,
    found: Mapping[str, Dimensions],
    made: Mapping[str, Node],
) -> None:
    for array in _arrays(node):
        if array.name not in found:
            _refuse_unmapped(spec, array, made[array.name])
        _check_same(node, array, found[array.name])
        _check_outer(spec, array, found[array.name])


def _refuse_unmapped(spec: MapSpec, array: ArraySpec, maker: Node) -> NoReturn:
    axes = ", ".join(axis or f"dim_{position}" for position, axis in enumerate(array.axes))
    names = ", ".join(f"{name}[{axes}]" for name in maker.output_names)
    spec.refuse(
        array.name,
        f"{array.name!r} is made by {maker.name}, which gives it no axes; "
        f"give {maker.name} mapspec='... -> {names}', or take {array.name!r} whole",
    )


def _check_same(node: Node, array: ArraySpec, known: Dimensions) -> None:
    same = len(array.axes) == len(known.axes) and all(
        mine is None or theirs is None or mine == theirs
        for mine, theirs in zip(array.axes, known.axes, strict=True)
    )
    if not same:
        raise MapSpecError(
            f"{array.name!r} is {known.source}, but {_who(node, array)}; "
            "one name has the same axes everywhere: use the same ones, or ':' for those to reduce",
        )


def _check_outer(spec: MapSpec, array: ArraySpec, known: Dimensions) -> None:
    """A ragged axis has positions only below those before it, which must be kept and come first."""
    for place, axis in enumerate(array.axes):
        if axis is None or axis not in known.ragged:
            continue
        missing = [
            theirs for mine, theirs in zip(array.axes, known.axes[:place], strict=False) if mine is None
        ]
        if missing:
            spec.refuse(
                array.name,
                f"axis {axis!r} of {array.name!r} is ragged ({known.source}): its length depends on "
                f"{joined(str(name) for name in missing)}; keep those, or reduce {axis!r} too",
            )
        order = [spec.output_axes.index(name) for name in array.axes[: place + 1] if name is not None]
        if order != sorted(order):
            spec.refuse(
                array.name,
                f"axis {axis!r} of {array.name!r} is ragged ({known.source}); "
                f"put it after {joined(str(name) for name in array.axes[:place])} in the outputs",
            )


def _ragged(node: Node, spec: MapSpec, found: Mapping[str, Dimensions]) -> frozenset[str]:
    """The ragged axes of the node's outputs: its own, and those of what it is mapped over."""
    ragged = {axis for array in _arrays(node) for axis in array.named if axis in found[array.name].ragged}
    for array in _arrays(node):
        dense = [axis for axis in array.named if axis in ragged and axis not in found[array.name].ragged]
        if dense:
            spec.refuse(
                array.name,
                f"axis {dense[0]!r} of {array.name!r} has one length, but another input of {node.name} "
                "is ragged there; rename one of the two axes",
            )
    return frozenset(ragged) | spec.ragged
