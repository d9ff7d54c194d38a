"""Stages: the groups of nodes that run together per index, with where each argument comes from.

Everything here is a frozen value that knows names, axes and digests, and nothing of storage or execution.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.graph.annotations import Form
from gristmill.graph.node import Node
from gristmill.plan.inputs import WholeInput
from gristmill.plan.space import Space

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Inner:
    """The length of an axis that calls make: known when they have been made."""

    maker: str
    """The first output of the node that makes it."""
    axis: str


Extent = int | Inner


@dataclass(frozen=True, slots=True)
class Constant:
    """An argument that is the same value in every call."""

    parameter: str
    """The function's own name."""
    given: WholeInput


@dataclass(frozen=True, slots=True)
class Element:
    """An argument that is one element of a mapped input or of another node's output."""

    parameter: str
    source: str
    """Output name, or key of a mapped input in the plan."""
    axes: tuple[str, ...]
    """The stage's axes that select the element, in the source's order; none for an output without axes."""


@dataclass(frozen=True, slots=True)
class Slice:
    """An argument that is gathered from several elements of a mapped output: a reduction."""

    parameter: str
    source: str
    axes: tuple[str | None, ...]
    """One per axis of the source: an axis of the stage, or None for all of that axis."""
    form: Form
    """How it is delivered: assembled, or as something that reads elements when they are asked for."""
    reduced: tuple[str, ...]
    """Names of the axes that it takes all of."""
    with_errors: bool = False
    """Whether an error stands in the place of an element whose call failed."""

    @property
    def is_whole(self) -> bool:
        """Whether every call gets the same."""
        return not any(self.axes)


@dataclass(frozen=True, slots=True)
class Tree(Slice):
    """An argument of a tree reduction: the elements that are combined level by level, group by group."""


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """An argument of one level of a tree reduction: a group of elements, or of what the level before made."""

    parameter: str
    source: str
    order: Array | None
    """The elements in the order in which they are grouped; None for the order that they have."""
    starts: Array
    stops: Array
    """For each position of the stage, where its group begins and ends."""
    passes: Array
    """Mask of the positions whose group is one element, or nothing, which goes on as it is."""
    initial: WholeInput | None
    """What goes on where there is nothing."""
    form: Form = "list"
    axes: tuple[str | None, ...] = ()
    reduced: tuple[str, ...] = ("item",)
    is_whole: bool = False
    with_errors: bool = False

    def members(self, position: int) -> Array:
        """Return the elements of one group."""
        start, stop = int(self.starts[position]), int(self.stops[position])
        return np.arange(start, stop) if self.order is None else self.order[start:stop]


Argument = Constant | Element | Slice | Span


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One node within its stage."""

    node: Node
    fingerprint: bytes
    prefix: bytes
    """What the keys of all its calls share; also the group of its records in the store."""
    arguments: tuple[Argument, ...]
    """Sorted by the function's own parameter names, as they count in the call key."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names in the graph."""
        return self.node.output_names

    @property
    def inner(self) -> tuple[str, ...]:
        """The axes that each call makes."""
        return self.node.mapspec.inner_axes if self.node.mapspec else ()


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Nodes that run together per index: one space, one executor, no reduction between them."""

    number: int
    axes: tuple[str, ...]
    steps: tuple[Step, ...]
    """In topological order."""
    after: frozenset[int]
    """Numbers of the stages whose outputs this one reads."""
    space: Space | None = None
    """Its indices, where they do not follow from what it reads: one level of a tree reduction."""

    @property
    def is_tree(self) -> bool:
        """Whether it stands for the levels of a tree reduction, which are made when it is known how many."""
        return any(isinstance(a, Tree) for step in self.steps for a in step.arguments)

    @property
    def outputs(self) -> tuple[str, ...]:
        """All names that its steps make."""
        return tuple(name for step in self.steps for name in step.outputs)

    @property
    def title(self) -> str:
        """What progress displays call it."""
        made: set[str] = set()
        title = ""
        for step in self.steps:
            follows = any(isinstance(a, Element) and a.source in made for a in step.arguments)
            title += (" → " if follows else ", ") if title else ""
            title += ", ".join(step.outputs)
            made.update(step.outputs)
        return title
