"""Causes: which failed call is why an element is missing, and what a reduction that wants errors is given.

An element is missing because its own call failed, or because one that it needs did. One that was not asked for
(`fixed_indices`) is missing without a cause.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from gristmill.engine.failed import ItemError
from gristmill.engine.job import Passed
from gristmill.engine.report import Failure
from gristmill.engine.stagerun import StageRun
from gristmill.identity.digest import digest_block
from gristmill.plan.stage import Constant, Element, Slice, Span, Stage

Array = np.ndarray[Any, Any]
NONE = -1


class Causes:
    """The failed calls of a run, and what each of them is the cause of, as far as the run has come.

    Parameters
    ----------
    stages
        By number; of each stage also those that it reads.
    """

    def __init__(self, stages: Mapping[int, StageRun]) -> None:
        self._stages = stages
        self._failures = [
            (number, key) for number, run in stages.items() for key, _ in sorted(run.failures.items())
        ]
        self._found: dict[tuple[int, int], Array] = {}

    @cached_property
    def errors(self) -> tuple[ItemError, ...]:
        """All failed calls."""
        runs = self._stages
        return tuple(item_error(runs[number], runs[number].failures[key]) for number, key in self._failures)

    def of(self, name: str) -> Array:
        """Return, for each element of an output, the place of its cause among `errors`, or -1."""
        run = self._makers[name]
        step = run.step_of(name)
        found = self._step(run, step)
        if not run.stage.steps[step].inner:
            return found
        spread = run.spread(step)
        return np.where(spread.dead, found[spread.calls], NONE)

    def at(self, name: str, positions: Array) -> list[ItemError | None]:
        """Return the causes of elements of an output."""
        return [self.errors[k] if k != NONE else None for k in self.of(name)[positions].tolist()]

    def passed(self, name: str) -> Passed:
        """Return what a function is handed in the places of missing elements."""
        causes = self.of(name)
        used, places = np.unique(causes, return_inverse=True)
        errors = tuple(self.errors[k].handed_on() for k in used.tolist() if k != NONE)
        return Passed(places - np.count_nonzero(used == NONE), errors, digest_block(errors))

    @cached_property
    def _makers(self) -> dict[str, StageRun]:
        return {name: run for run in self._stages.values() for name in run.stage.outputs}

    @cached_property
    def _numbers(self) -> dict[tuple[int, tuple[int, int]], int]:
        return {failure: k for k, failure in enumerate(self._failures)}

    def _step(self, run: StageRun, step: int) -> Array:
        """For each position of a stage, the cause of what a step has not made there."""
        key = run.stage.number, step
        if key not in self._found:
            found = np.full(run.size, NONE, dtype=np.int64)
            for position, failed in run.failures:
                if failed == step:
                    found[position] = self._numbers[run.stage.number, (position, failed)]
            for argument in run.stage.steps[step].arguments:
                if isinstance(argument, Constant) or argument.source not in self._makers:
                    continue
                open_ = np.flatnonzero(run.dead[step] & (found == NONE))
                if len(open_):
                    found[open_] = self._through(run, argument, open_)
            self._found[key] = found
        return self._found[key]

    def _through(self, run: StageRun, argument: Element | Slice | Span, positions: Array) -> Array:
        """For each of `positions`, the first cause among the elements that an argument is made of."""
        maker = self._makers[argument.source]
        causes = self.of(argument.source)
        if maker is run:
            return causes[positions]
        space = maker.space_of(argument.source)
        if isinstance(argument, Element):
            return causes[run.space.elements(positions, argument.axes, space)]
        if isinstance(argument, Span):
            members = [argument.members(position) for position in positions.tolist()]
        else:
            slices = run.space.slices(positions, argument.axes, space)
            members = [slices.members(row) for row in slices.taken.tolist()]
        found = [causes[one][causes[one] != NONE][:1] for one in members]
        return np.array([one[0] if len(one) else NONE for one in found], dtype=np.int64)


def with_errors(
    stage: Stage, dead: Mapping[str, Array], stages: Mapping[int, StageRun]
) -> tuple[Stage, dict[str, Passed]]:
    """Return a stage as it runs where elements have failed that it wants errors for, and these errors.

    What such a step makes is kept by nobody, as that of a node with `cache=False`: the calls that failed may do
    better the next time.

    Parameters
    ----------
    stage
        What is about to start.
    dead
        Masks of what it reads.
    stages
        What has run so far.
    """
    wanted = {
        argument.source
        for step in stage.steps
        for argument in step.arguments
        if isinstance(argument, Slice | Span) and argument.with_errors
        if argument.source in dead and dead[argument.source].any()
    }
    causes = Causes(stages)
    passed = {name: one for name in wanted if (one := causes.passed(name)).errors}
    if not passed:
        return stage, {}
    steps = tuple(
        replace(step, node=replace(step.node, cache=False))
        if any(isinstance(a, Slice | Span) and a.with_errors and a.source in passed for a in step.arguments)
        else step
        for step in stage.steps
    )
    return replace(stage, steps=steps), passed


def item_error(run: StageRun, failure: Failure) -> ItemError:
    """What a user sees of a failure."""
    step = run.stage.steps[failure.step]
    return ItemError(
        step.outputs[0],
        run.space.index(failure.position),
        failure.exception,
        failure.traceback,
        step.node.function,
        lambda: run.arguments(failure.step, failure.position),
        failure.attempts,
    )
