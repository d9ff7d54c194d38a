"""The survey: every call of a plan, looked up as the engine would, without running anything.

What depends on a call that is not in the store cannot be looked up: its key needs the digest of a value that
nobody has yet.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.engine.chunked import open_input
from gristmill.engine.sources import Source
from gristmill.engine.spread import unreadable
from gristmill.engine.stagerun import StageRun
from gristmill.engine.stores import Stores
from gristmill.plan.compile import Plan
from gristmill.plan.space import Space
from gristmill.plan.stage import Constant, Element, Span, Stage, Step, Tree
from gristmill.plan.tree import levels
from gristmill.storage.index import MISSING
from gristmill.storage.local import LocalStorage

Array = np.ndarray[Any, Any]


class Survey:
    """What of a plan is in the store.

    Parameters
    ----------
    plan
        What is asked about.
    storage
        Where it is looked up.
    """

    def __init__(self, plan: Plan, storage: LocalStorage) -> None:
        self.plan = plan
        self.storage = storage
        self._stores = Stores(storage)
        self._inputs = {key: open_input(one) for key, one in plan.inputs.items()}
        self._runs: dict[int, StageRun] = {}
        self.unknown: dict[int, list[str]] = {}
        """Of each stage whose indices are not known, what it reads that has not been made yet."""
        storage.refresh()
        self._stages = {name: stage for stage in plan.stages for name in stage.outputs}
        for stage in plan.stages:
            self._examine(stage)

    def steps(self) -> Iterator["StepSurvey"]:
        """Yield what was found of each step, in topological order of the stages.

        Not of those whose indices are not known yet: see `unknown`.
        """
        for stage in self.plan.stages:
            for number in range(len(stage.steps) if stage.number in self._runs else 0):
                yield StepSurvey(self, self._runs[stage.number], number)

    def absent(self, name: str) -> Array:
        """Return the mask of the elements of the output `name` that are not in the store."""
        run = self._runs[self._stages[name].number]
        if run.stage.steps[run.step_of(name)].inner:
            return run.source(name).missing
        return np.asarray(run.locators[run.step_of(name)] == MISSING)

    def _examine(self, stage: Stage) -> None:
        if unknown := [name for name in self._read_by(stage) if not self._is_known(name)]:
            self.unknown[stage.number] = unknown
            return
        if stage.is_tree:
            for level in self._levels(stage):
                self._stages |= dict.fromkeys(level.outputs, level)
                self._examine(level)
            return
        sources = self._sources(stage)
        spaces = {name: self.space(name) for name in sources}
        run = self._runs[stage.number] = StageRun(
            self.plan, stage, sources, spaces, self._stores, {}, repair=False
        )
        for number, step in enumerate(stage.steps):
            # For the engine these are calls that cannot be made: it skips them, and so leaves them missing.
            run.dead[number][:] = not step.node.cache
            for name in self._needed(step):
                if name not in stage.outputs:
                    run.dead[number] |= self.waiting(run, step, name)
        run.examine(np.arange(run.size), files=True)

    def _levels(self, stage: Stage) -> Sequence[Stage]:
        """The levels of a tree reduction."""
        step = stage.steps[0]
        name = next(a.source for a in step.arguments if isinstance(a, Tree))
        spaces = {a.source: self.space(a.source) for a in step.arguments if not isinstance(a, Constant)}
        free = 1 + max(len(self.plan.stages), *self._runs, 0)
        return tuple(levels(stage, self.plan.space(stage, spaces), spaces[name], None, free))

    def waiting(self, run: StageRun, step: Step, name: str) -> Array:
        """Return the mask of a step's positions that need an absent element of the output `name`."""
        absent = self.absent(name)
        found = np.zeros(run.size, dtype=bool)
        if not absent.any():
            return found
        everything = np.arange(run.size)
        for argument in step.arguments:
            if isinstance(argument, Constant) or argument.source != name:
                continue
            if isinstance(argument, Span):
                met = [absent[argument.members(position)].any() for position in range(run.size)]
                found |= np.array(met, dtype=bool)
            elif isinstance(argument, Element):
                found |= absent[run.space.elements(everything, argument.axes, self.space(name))]
            else:
                found |= run.space.meets(absent, everything, argument.axes, self.space(name))
        return found

    def _needed(self, step: Step) -> list[str]:
        sources = [argument.source for argument in step.arguments if not isinstance(argument, Constant)]
        return [name for name in dict.fromkeys(sources) if name not in self._inputs]

    def _sources(self, stage: Stage) -> dict[str, Source]:
        found: dict[str, Source] = {}
        for step in stage.steps:
            for argument in step.arguments:
                if isinstance(argument, Constant) or argument.source in stage.outputs:
                    continue
                name = argument.source
                found[name] = self._inputs[name] if name in self._inputs else self._output(name)
        return found

    def _read_by(self, stage: Stage) -> list[str]:
        """Outputs of other stages that a stage reads."""
        named = [name for step in stage.steps for name in self._needed(step)]
        return [name for name in dict.fromkeys(named) if name not in stage.outputs]

    def _is_known(self, name: str) -> bool:
        """Whether the indices of an output are known: those that calls make are once all of them can be read."""
        run = self._runs.get(self._stages[name].number)
        if run is None:
            return False
        step = run.step_of(name)
        if not run.stage.steps[step].inner:
            return True
        return bool((run.locators[step] != MISSING).all()) and not len(unreadable(run, step))

    def space(self, name: str) -> Space:
        """Return the indices of an input or an output."""
        if name in self._inputs:
            return self.plan.inputs[name].space
        return self._runs[self._stages[name].number].space_of(name)

    def _output(self, name: str) -> Source:
        return self._runs[self._stages[name].number].source(name)


@dataclass(frozen=True)
class StepSurvey:
    """What of one step is in the store."""

    survey: Survey
    run: StageRun
    number: int

    @property
    def place(self) -> tuple[int, int]:
        """Number of the stage, and of the step in it."""
        return self.run.stage.number, self.number

    @property
    def step(self) -> Step:
        """The step."""
        return self.run.stage.steps[self.number]

    @property
    def found(self) -> Array:
        """The mask of positions whose calls are in the store."""
        return np.asarray(self.run.locators[self.number] != MISSING)

    @property
    def waiting(self) -> dict[str, Array]:
        """For each output that it reads, the mask of positions that need an absent element of it."""
        masks = {
            argument.source: self.survey.waiting(self.run, self.step, argument.source)
            for argument in self.step.arguments
            if not isinstance(argument, Constant) and argument.source not in self.survey.plan.inputs
        }
        return {name: mask for name, mask in masks.items() if mask.any()}
