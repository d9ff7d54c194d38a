"""Setting apart: of a reduction that is handed errors, the calls that get none are made and kept as usual.

They are a stage of their own, before the one that makes the others. That one finds what they made in the private
store of the run, where all that it makes goes.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gristmill.engine.causes import with_errors
from gristmill.engine.notes import node_name
from gristmill.engine.stagerun import StageRun
from gristmill.errors import IntegrityError
from gristmill.plan.space import Space
from gristmill.plan.stage import Element, Slice, Span, Stage, Step
from gristmill.storage.elements import ChunkRef, Filed, ObjectRef
from gristmill.storage.index import MISSING
from gristmill.storage.local import CallBlock
from gristmill.storage.segment import Provenance

Array = np.ndarray[Any, Any]

WHOLE = ".whole"
"""Behind the name of an output, where it is made of calls that get no errors."""

_BLOCK = 1024


def wants_errors(stage: Stage) -> bool:
    """Whether a step of a stage wants errors in the places of failed elements."""
    return any(isinstance(a, Slice | Span) and a.with_errors for step in stage.steps for a in step.arguments)


def set_apart(
    stage: Stage, space: Space, dead: Mapping[str, Array], stages: Mapping[int, StageRun], number: int
) -> Stage | None:
    """Return the stage of those calls that get no errors; None where all get some, or none does.

    Parameters
    ----------
    stage, space
        What wants errors, and its indices.
    dead
        Masks of what it reads.
    stages
        What has run so far.
    number
        Of the new stage.
    """
    made, _ = with_errors(stage, dead, stages)
    steps = tuple(
        _without_errors(step)
        for step, private in zip(stage.steps, made.steps, strict=True)
        if step.node.cache and not private.node.cache and not step.inner
        if not any(isinstance(a, Element) and a.source in stage.outputs for a in step.arguments)
    )
    return Stage(number, stage.axes, steps, stage.after, space) if steps and stage.axes else None


def take_over(run: StageRun, whole: StageRun) -> None:
    """Have a stage find what the calls that were set apart have made, and know which of them failed."""
    numbers = [run.step_of(step.outputs[0].removesuffix(WHOLE)) for step in whole.stage.steps]
    for step, number in enumerate(numbers):
        there = np.flatnonzero(whole.locators[step] != MISSING)
        for start in range(0, len(there), _BLOCK):
            _copy(run, whole, (number, step), there[start : start + _BLOCK])
    failures = [replace(one, step=numbers[one.step]) for one in whole.failures.values()]
    run.absorb(failures, whole.computed)


def _without_errors(step: Step) -> Step:
    node = replace(step.node, errors="skip").renamed({name: f"{name}{WHOLE}" for name in step.outputs})
    arguments = tuple(
        replace(a, with_errors=False) if isinstance(a, Slice | Span) else a for a in step.arguments
    )
    return replace(step, node=node, arguments=arguments)


def _copy(run: StageRun, whole: StageRun, steps: tuple[int, int], positions: Array) -> None:
    """Copy results to where the stage looks; those that cannot be read, or have files in them, are made there again."""
    number, step = steps
    sources = [whole.source(name) for name in whole.stage.steps[step].outputs]
    try:
        columns = [source.forms(positions) for source in sources]
        kept = [k for k, row in enumerate(zip(*columns, strict=True)) if not any(map(_is_filed, row))]
        moved = [
            [_moved(run, number, source, column[k]) for k in kept]
            for source, column in zip(sources, columns, strict=True)
        ]
    except IntegrityError:
        for position in positions.tolist() if len(positions) > 1 else ():
            _copy(run, whole, steps, np.array([position]))
        return
    if not kept:
        return
    found = positions[kept]
    mine = run.stage.steps[number]
    digests = tuple(source.digests(found).tobytes() for source in sources)
    provenance = Provenance(node_name(mine.node), {}, {})
    block = CallBlock(mine.prefix, whole.keys(step, found), digests, tuple(moved), provenance)
    run.storage(number).append([block])


def _is_filed(form: object) -> bool:
    return isinstance(form, Filed)


def _moved(run: StageRun, number: int, source: Any, form: object) -> object:
    """The stored form of a value where the stage looks: what is large is written there."""
    large = isinstance(form, ChunkRef | ObjectRef)
    return run.storage(number).keep(source.load(form)) if large else form
