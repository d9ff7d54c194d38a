"""Trees: the levels of a tree reduction, as stages, once it is known how many elements there are.

Groups follow from the number of elements alone, so that the same elements give the same calls however they are
batched, and more elements at the end change one path.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from gristmill.errors import InputError
from gristmill.graph.options import Absent
from gristmill.plan.inputs import WholeInput
from gristmill.plan.space import Space
from gristmill.plan.stage import Span, Stage, Step, Tree

Array = np.ndarray[Any, Any]

LEVEL = ".level_"
"""Between the name of an output and the number of a level of partial results."""


def levels(stage: Stage, kept: Space, source: Space, dead: Array | None, number: int) -> Iterator[Stage]:
    """Yield the stages that a tree reduction consists of, the last one under its own number and name.

    Parameters
    ----------
    stage
        What stands for them.
    kept
        The indices at which there is a reduction each.
    source
        The indices of the elements.
    dead
        Mask of the elements whose calls failed.
    number
        The first number that is free.

    Raises
    ------
    InputError
        There is nothing to reduce, and no `initial`.
    """
    step = stage.steps[0]
    tree = next(argument for argument in step.arguments if isinstance(argument, Tree))
    order: Array | None
    order, counts = _members(step, tree, kept, source, dead)
    initial = None if isinstance(step.node.initial, Absent) else WholeInput("initial", step.node.initial)
    if initial is None and not counts.all():
        index = kept.index(int(np.flatnonzero(counts == 0)[0]))
        where = f" at index {index}" if index else ""
        raise InputError(
            f"{step.node.name} has nothing to reduce{where}: {tree.source.partition('[')[0]!r} is empty there; "
            "say what that gives: node(..., initial=...)"
        )
    name, level, before, offsets = tree.source, 1, stage.after, np.cumsum(counts) - counts
    while True:
        groups = np.maximum(-(-counts // step.node.fan_in), 1)
        is_last = int(groups.max(initial=1)) == 1
        row = np.repeat(np.arange(kept.size), groups)
        place = np.arange(len(row)) - np.repeat(np.cumsum(groups) - groups, groups)
        starts = offsets[row] + place * step.node.fan_in
        stops = np.minimum(starts + step.node.fan_in, offsets[row] + counts[row])
        sizes = stops - starts
        passes = (sizes == 0) | (sizes == 1) & ((counts[row] > 1) | (level > 1))
        span = Span(tree.parameter, name, order, starts, stops, passes, initial, with_errors=tree.with_errors)
        outputs = {} if is_last else {one: f"{one}{LEVEL}{level}" for one in step.outputs}
        node = step.node.renamed(outputs)
        if not tree.with_errors:  # what failed above has been left out already
            node = replace(node, errors="skip")
        arguments = tuple(span if isinstance(a, Tree) else a for a in step.arguments)
        made = Step(node, step.fingerprint, step.prefix, arguments)
        if is_last:
            yield Stage(stage.number, kept.axes, (made,), before | stage.after, kept)
            return
        uneven = kept.ragged | (frozenset() if (groups == groups[0]).all() else frozenset({"group"}))
        space = Space.below(kept, ("group",), groups[:, None], uneven)
        yield Stage(number, space.axes, (made,), before | stage.after, space)
        name, level, order = made.outputs[0], level + 1, None
        before, number = frozenset({number}), number + 1
        counts, offsets = groups, np.cumsum(groups) - groups


def _members(step: Step, tree: Tree, kept: Space, source: Space, dead: Array | None) -> tuple[Array, Array]:
    """The elements, reduction by reduction, and how many each has."""
    slices = kept.slices(np.arange(kept.size), tree.axes, source)
    members = [slices.members(row) for row in slices.taken.tolist()]
    if dead is not None and step.node.errors == "drop":
        members = [one[~dead[one]] for one in members]
    order = np.concatenate([np.empty(0, dtype=np.int64), *members])
    return order, np.array([len(one) for one in members], dtype=np.int64)
