"""Compile: a graph and inputs become a plan, and bad input an error, before anything runs."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gristmill.errors import InputError
from gristmill.graph.annotations import asked_form
from gristmill.graph.flattening import flat
from gristmill.graph.graph import Graph
from gristmill.graph.node import Node
from gristmill.identity.digest import digest
from gristmill.identity.keys import call_prefix
from gristmill.plan.inputs import GivenOutput, MappedInput, Reference, WholeInput, mapped_input
from gristmill.plan.space import Reading, Space, joined, zip_mismatch
from gristmill.plan.stage import (
    Argument,
    Constant,
    Element,
    Extent,
    Inner,
    Slice,
    Span,
    Stage,
    Step,
    Tree,
)

Array = np.ndarray[Any, Any]
Executors = Callable[[Sequence[str], bool], object]


@dataclass(frozen=True, eq=False)
class Plan:
    """A graph with its inputs, as stages in topological order."""

    graph: Graph
    outputs: tuple[str, ...]
    """What the caller asked for."""
    stages: tuple[Stage, ...]
    inputs: Mapping[str, MappedInput | GivenOutput]
    """Inputs that are read element by element, by the key that an argument names as its source."""
    given: Mapping[str, Any]
    """The inputs as the caller gave them, defaults included."""
    shapes: Mapping[str, tuple[Extent, ...]]
    """Extents of every output along its axes; () where it has none."""
    axes: Mapping[str, tuple[str, ...]]
    """Names of those axes."""
    fixed: Mapping[str, int | slice] = field(default_factory=dict)
    """Of some axes, which indices are wanted; all of the others."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """The outer output that stands for each output of a nested graph."""

    def unwanted(self, space: Space) -> Array | None:
        """Mask of the positions of a space that are not wanted, or None where all are.

        Raises
        ------
        InputError
            An index is out of bounds.
        """
        chosen = [axis for axis in space.axes if axis in self.fixed]
        if not chosen:
            return None
        along = dict(zip(space.axes, space.coordinates(np.arange(space.size)), strict=True))
        mask = np.zeros(space.size, dtype=bool)
        for axis in chosen:
            wanted = np.zeros(space.shape[space.axes.index(axis)], dtype=bool)
            try:
                wanted[self.fixed[axis]] = True
            except IndexError:
                raise InputError(
                    f"fixed_indices: {axis!r} has length {len(wanted)}, so there is no index {self.fixed[axis]}"
                ) from None
            mask |= ~wanted[along[axis]]
        return mask

    def space(self, stage: Stage, known: Mapping[str, Space]) -> Space:
        """Return the space that a stage runs over.

        Parameters
        ----------
        stage
            One of the plan's.
        known
            The spaces of all outputs that it reads.

        Raises
        ------
        InputError
            Axes that calls have made differ in length from what they are zipped with.
        """
        if stage.space is not None:
            return stage.space
        found: Space | None = None
        for step in stage.steps:
            readings = [
                Reading(a.source.partition("[")[0], a.axes, known[a.source])
                for a in step.arguments
                if not isinstance(a, Constant) and a.source not in stage.outputs and any(a.axes)
            ]
            if readings and {axis for one in readings for axis in one.axes} >= set(stage.axes):
                space = joined(stage.axes, readings, step.node.name)
                if found is not None and (space.size, space.shape) != (found.size, found.shape):
                    raise InputError(
                        f"{step.node.name} and {stage.steps[0].node.name} run over {', '.join(stage.axes)}, which have "
                        f"lengths {space.shape} for one and {found.shape} for the other; rename the axes of one of them"
                    )
                found = space
        return Space() if found is None else found

    def identify(self) -> "Plan":
        """Identify all inputs, defaults and bound values; return the plan.

        Raises
        ------
        DigestError
            One has no identity; the message names the path inside it.
        """
        arguments = [a for stage in self.stages for step in stage.steps for a in step.arguments]
        for constant in {id(a.given): a.given for a in arguments if isinstance(a, Constant)}.values():
            _ = constant.digest
        for mapped in self.inputs.values():
            _ = mapped.digests
        return self

    def input_spaces(self) -> dict[str, Space]:
        """Return the spaces of the inputs that are read element by element."""
        return {key: one.space for key, one in self.inputs.items()}

    def stage_of(self, name: str) -> Stage:
        """Return the stage that makes `name`."""
        return next(stage for stage in self.stages if name in stage.outputs)


@dataclass
class _Draft:
    """A stage while nodes are still being added to it."""

    axes: tuple[str, ...]
    extents: tuple[Extent, ...]
    executor: object
    is_tree: bool
    nodes: list[Node] = field(default_factory=list)
    after: set[int] = field(default_factory=set)


def compile_plan(
    graph: Graph,
    inputs: Mapping[str, Any],
    outputs: Sequence[str] | None = None,
    *,
    executors: Executors = lambda _outputs, _is_mapped: None,
    fuse: bool = True,
    known: Iterable[WholeInput] = (),
) -> Plan:
    """Compile what `outputs` need.

    Parameters
    ----------
    graph
        The whole graph; it is pruned here, and nested graphs are replaced by their nodes.
    inputs
        Values by name; an intermediate among them cuts what is above it.
    outputs
        Names wanted; all leaves by default.
    executors
        Gives what runs a node, by its outputs and whether it is mapped; nodes with different ones are not fused.
    fuse
        Whether nodes without axes may share a stage; False lets independent ones run side by side, if there are any.

    known
        Inputs that may have been identified already.

    Raises
    ------
    InputError
        Inputs are missing, unknown, of wrong dimensions or of unequal lengths.
    """
    wanted = graph.leaves if outputs is None else tuple(outputs)
    whole = flat(graph)
    whole.graph.check_inputs(inputs, wanted)
    pruned = whole.graph.prune(wanted, supplied=inputs)
    given = {name: inputs.get(name, pruned.defaults.get(name)) for name in pruned.inputs}
    compiler = _Compiler(pruned, inputs, known)
    arguments = {node: compiler.arguments(node) for node in pruned.nodes}
    shapes, axes = _shapes(pruned.nodes, arguments, compiler.mapped)

    def executor(node: Node) -> object:
        outputs = [whole.owners.get(name, name) for name in node.output_names]
        return executors(outputs, bool(node.mapspec and node.mapspec.axes))

    fuse = fuse or _is_chain(pruned.nodes)
    stages = _stages(pruned, arguments, (axes, shapes), executor, fuse=fuse)
    wanted = tuple(name for name in wanted if name in pruned.outputs)
    return Plan(pruned, wanted, stages, compiler.mapped, given, shapes, axes, owners=whole.owners)


class _Compiler:
    """Resolves where each argument comes from; collects the inputs on the way."""

    def __init__(self, graph: Graph, inputs: Mapping[str, Any], known: Iterable[WholeInput]) -> None:
        self._graph = graph
        self._inputs = inputs
        self._known = {(one.name, id(one.value)): one for one in known}
        self.mapped: dict[str, MappedInput | GivenOutput] = {}
        self.whole: dict[tuple[str, int], WholeInput] = {}

    def arguments(self, node: Node) -> tuple[Argument, ...]:
        found = [self._constant(node, name, value, ()) for name, value in node.bound.items()]
        found += [self._argument(node, name) for name in node.parameters]
        return tuple(sorted(found, key=lambda argument: argument.parameter))

    def _argument(self, node: Node, name: str) -> Argument:
        own = node.own_name(name)
        axes = node.mapspec.input(name).axes if node.mapspec else ()
        if name == node.reduce:
            return self._tree(node, own, name, axes)
        if name in self._graph.outputs:
            return _reader(node, own, name, axes, self._graph.axes.get(name, ()))
        value = self._inputs[name] if name in self._inputs else node.defaults[name]
        if not any(axes) or (isinstance(value, Reference) and len(axes) == len(value.space.axes)):
            return self._constant(node, name, value, axes)
        key = f"{name}[{','.join('.' if axis else ':' for axis in axes)}]"
        if key not in self.mapped:
            self.mapped[key] = mapped_input(name, value, axes)
        return Element(own, key, tuple(axis for axis in axes if axis))

    def _tree(self, node: Node, own: str, name: str, axes: tuple[str | None, ...]) -> Argument:
        if name in self._graph.outputs:
            found = _reader(node, own, name, axes, self._graph.axes.get(name, ()))
        else:
            value = self._inputs[name] if name in self._inputs else node.defaults[name]
            found = self._constant(node, name, value, axes)
            if isinstance(found, Constant):
                dimensions = axes or ("item",)
                key = f"{name}[{len(dimensions)}]"
                self.mapped.setdefault(
                    key, mapped_input(name, value, tuple(f"d{k}" for k in range(len(dimensions))))
                )
                named = tuple(axis or "item" for axis in dimensions)
                found = _reader(node, own, key, axes or (None,), named)
        if not isinstance(found, Slice):
            raise InputError(
                f"{node.name} reduces {name!r}, of which each call gets one element; leave out the mapspec"
            )
        return Tree(own, found.source, found.axes, "list", found.reduced, found.with_errors)

    def _constant(self, node: Node, name: str, value: object, axes: tuple[str | None, ...]) -> Argument:
        """A value that every call gets; of a mapped output that is passed on, the elements that `axes` select."""
        own = node.own_name(name)
        if not isinstance(value, Reference):
            key = (name, id(value))
            given = self._known.get(key) or WholeInput(name, value)
            return Constant(own, self.whole.setdefault(key, given))
        source = f"{name}[*]{node.output_names[0]}" if name in node.bound else f"{name}[*]"
        self.mapped.setdefault(source, GivenOutput(name, value))
        return _reader(node, own, source, axes, value.space.axes)


def _reader(
    node: Node, own: str, source: str, axes: tuple[str | None, ...], dimensions: tuple[str, ...]
) -> Argument:
    """What a parameter takes of an output whose axes are `dimensions`: one element, or all along some of them."""
    if not dimensions:
        return Element(own, source, ())
    selected = axes or (None,) * len(dimensions)
    if all(selected):
        return Element(own, source, tuple(axis for axis in selected if axis))
    reduced = tuple(name for name, axis in zip(dimensions, selected, strict=True) if axis is None)
    return Slice(own, source, selected, asked_form(node, own), reduced, with_errors=node.errors == "pass")


def _shapes(
    nodes: Iterable[Node],
    arguments: Mapping[Node, tuple[Argument, ...]],
    mapped: Mapping[str, MappedInput | GivenOutput],
) -> tuple[dict[str, tuple[Extent, ...]], dict[str, tuple[str, ...]]]:
    """Extents and axes of every output, as far as they are known before anything runs."""
    shapes: dict[str, tuple[Extent, ...]] = {}
    axes: dict[str, tuple[str, ...]] = {}
    for node in nodes:
        known: dict[str, tuple[Extent, ...]] = dict.fromkeys(mapped, ()) | shapes
        known |= {key: _extents_of(key, one.space) for key, one in mapped.items()}
        extents = _extents(node, arguments[node], known)
        spec = node.mapspec
        for name in node.output_names:
            shapes[name] = tuple(extents[axis] for axis in spec.axes) if spec else ()
            if spec and spec.inner_axes:
                shapes[name] += tuple(Inner(node.output_names[0], axis) for axis in spec.inner_axes)
            axes[name] = spec.output_axes if spec else ()
    return shapes, axes


def _extents_of(key: str, space: Space) -> tuple[Extent, ...]:
    return tuple(
        Inner(key, axis) if axis in space.ragged else n
        for axis, n in zip(space.axes, space.shape, strict=True)
    )


def _extents(
    node: Node, arguments: Iterable[Argument], shapes: Mapping[str, tuple[Extent, ...]]
) -> dict[str, Extent]:
    """The length of each axis that `node` is mapped over, where all its arguments agree."""
    found: dict[str, tuple[Extent, str]] = {}
    for argument in arguments:
        if isinstance(argument, Constant):
            continue
        name = argument.source.partition("[")[0]
        for axis, length in zip(argument.axes, shapes[argument.source], strict=True):
            if axis is None:
                continue
            before, whose = found.setdefault(axis, (length, name))
            if isinstance(before, int) and isinstance(length, int):
                if before != length:
                    raise zip_mismatch(axis, node.name, (whose, before), (name, length))
            elif isinstance(before, int):  # what calls make decides, once they have
                found[axis] = length, name
    return {axis: length for axis, (length, _) in found.items()}


def _stages(
    graph: Graph,
    arguments: Mapping[Node, tuple[Argument, ...]],
    spaces: tuple[Mapping[str, tuple[str, ...]], Mapping[str, tuple[Extent, ...]]],
    executor: Callable[[Node], object],
    *,
    fuse: bool,
) -> tuple[Stage, ...]:
    drafts: list[_Draft] = []
    made: dict[str, int] = {}
    for node in graph.nodes:
        over = node.mapspec.axes if node.mapspec else ()
        own = _Draft(
            over,
            spaces[1][node.output_names[0]][: len(over)],
            executor(node),
            node.reduce is not None,
        )
        number = _stage_for(own, arguments[node], drafts, made, fuse=fuse)
        if number == len(drafts):
            drafts.append(own)
        draft = drafts[number]
        draft.nodes.append(node)
        draft.after |= {made[name] for name in _sources(arguments[node], made)} - {number}
        made.update(dict.fromkeys(node.output_names, number))
    return tuple(
        Stage(
            number,
            draft.axes,
            tuple(_step(node, arguments[node]) for node in draft.nodes),
            frozenset(draft.after),
        )
        for number, draft in enumerate(drafts)
    )


def _stage_for(
    own: _Draft,
    arguments: Iterable[Argument],
    drafts: list[_Draft],
    made: Mapping[str, int],
    *,
    fuse: bool,
) -> int:
    """The first stage that a node may join: after all it reads, or together with what it reads per index."""
    earliest = 0
    for argument in arguments:
        if isinstance(argument, Constant) or argument.source not in made:
            continue
        below = made[argument.source]
        together = isinstance(argument, Element) and argument.axes == own.axes == drafts[below].axes
        earliest = max(earliest, below if together else below + 1)
    if (own.axes or fuse) and not own.is_tree:
        for number in range(earliest, len(drafts)):
            there = drafts[number]
            if not there.is_tree and (there.axes, there.extents, there.executor) == (
                own.axes,
                own.extents,
                own.executor,
            ):
                return number
    return len(drafts)


def _is_chain(nodes: Sequence[Node]) -> bool:
    """Whether each node needs the one before it, so that none could run beside another."""
    return all(set(one.output_names) & set(other.parameters) for one, other in itertools.pairwise(nodes))


def _sources(arguments: Iterable[Argument], made: Mapping[str, int]) -> set[str]:
    return {a.source for a in arguments if not isinstance(a, Constant) and a.source in made}


def _step(node: Node, arguments: tuple[Argument, ...]) -> Step:
    fingerprint = bytes(node.fingerprint)
    forms = [(a.parameter, _delivered_form(a)) for a in arguments]
    return Step(node, fingerprint, call_prefix(fingerprint, _structure(node), forms), arguments)


def _delivered_form(argument: Argument) -> str:
    return argument.form if isinstance(argument, Slice | Span) else "value"


def _structure(node: Node) -> bytes:
    """Identity of the form of a node's outputs: what else than code and arguments decides what is recorded."""
    picker = None
    if node.output_picker is not None:
        picker = (node.output_picker, node.names.own_outputs)
    inner = node.mapspec.inner_axes if node.mapspec else ()
    # What the axes are called is nobody's business: in a nested pipeline they have other names.
    return bytes(digest((len(node.output_names), tuple(range(len(inner))), picker)))
