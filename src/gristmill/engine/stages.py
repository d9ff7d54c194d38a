"""Stages: those of one run, which of them have started, and what each of them reads of the others."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from gristmill.engine.active import Active
from gristmill.engine.apart import set_apart, wants_errors
from gristmill.engine.chunked import open_input
from gristmill.engine.executors.base import Transport
from gristmill.engine.flow import may_flow
from gristmill.engine.sources import OutputSource, Source
from gristmill.engine.stagerun import StageRun
from gristmill.engine.stores import Stores
from gristmill.plan.compile import Plan
from gristmill.plan.space import Space
from gristmill.plan.stage import Constant, Stage, Tree
from gristmill.plan.tree import levels

Array = np.ndarray[Any, Any]


class Stages:
    """The stages of one run.

    Parameters
    ----------
    plan
        What runs.
    stores
        Where results live.
    """

    def __init__(self, plan: Plan, stores: Stores) -> None:
        self.plan = plan
        self._stores = stores
        self.all = list(plan.stages)
        """Those of the plan, with the levels of tree reductions and what is set apart, once these are known."""
        self.active: dict[int, Active] = {}
        """Those that have started, by number."""
        self.runs: dict[int, StageRun] = {}
        """The same as they are given to others: without what was set apart, once that is taken over."""
        self.apart: dict[int, int | None] = {}
        """By stages that want errors: the stage of their calls that get none, if there are both."""
        self._inputs: dict[str, Source] = {key: open_input(one) for key, one in plan.inputs.items()}

    @property
    def are_complete(self) -> bool:
        """Whether nothing is left to be done."""
        return len(self.active) == len(self.all) and all(one.complete for one in self.active.values())

    def startable(self) -> Stage | None:
        """Return the first stage that can start now, or can be grown."""
        return next(
            (
                one
                for one in self.all
                if one.number not in self.active and (self.is_ready(one) or self.may_flow(one))
            ),
            None,
        )

    def is_grown(self, stage: Stage) -> bool:
        """Whether a stage is not to be replaced by several first."""
        return not stage.is_tree and (stage.number in self.apart or not wants_errors(stage))

    def grow(self, stage: Stage) -> None:
        """Put the levels of a tree reduction in the place of what stands for them; set calls without errors apart."""
        if not stage.is_tree:
            self._set_apart(stage)
            return
        name = next(a.source for a in stage.steps[0].arguments if isinstance(a, Tree))
        sources = {a.source for a in stage.steps[0].arguments if not isinstance(a, Constant)}
        spaces = self.spaces(sources)
        kept = self.plan.space(stage, spaces)
        free = 1 + max(one.number for one in self.all)
        at = self.all.index(stage)
        self.all[at : at + 1] = levels(stage, kept, spaces[name], self.dead(stage).get(name), free)

    def _set_apart(self, stage: Stage) -> None:
        """Have the calls of a stage that get no errors made before it."""
        whole = None
        if self._stores.private is not None:
            space = self.plan.space(stage, self.spaces(self.sources(stage)))
            free = 1 + max(one.number for one in self.all)
            whole = set_apart(stage, space, self.dead(stage), self.runs, free)
        self.apart[stage.number] = None if whole is None else whole.number
        if whole is not None:
            at = self.all.index(stage)
            self.all[at : at + 1] = [whole, replace(stage, after=stage.after | {whole.number})]

    def is_ready(self, stage: Stage) -> bool:
        """Whether everything that a stage reads is complete."""
        return all(number in self.active and self.active[number].complete for number in stage.after)

    def under_way(self, stage: Stage) -> dict[str, StageRun]:
        """Return what is not complete of what a stage reads."""
        makers = (self.active[number] for number in stage.after if number in self.active)
        return {name: one.run for one in makers if not one.complete for name in one.run.stage.outputs}

    def may_flow(self, stage: Stage) -> bool:
        """Whether a stage can run beside what makes its arguments."""
        return all(number in self.active for number in stage.after) and may_flow(stage, self.under_way(stage))

    def sources(self, stage: Stage) -> dict[str, Source]:
        """Return where the arguments of a stage come from."""
        found: dict[str, Source] = {}
        for step in stage.steps:
            for argument in step.arguments:
                if isinstance(argument, Constant) or argument.source in stage.outputs:
                    continue
                name = argument.source
                found[name] = self._inputs[name] if name in self._inputs else self.output(name)
        return found

    def stage_of(self, name: str) -> Stage:
        """Return the stage that makes an output."""
        return next(stage for stage in self.all if name in stage.outputs)

    def spaces(self, names: Iterable[str]) -> dict[str, Space]:
        """Return the indices of inputs and outputs."""
        return {
            name: self.plan.inputs[name].space
            if name in self.plan.inputs
            else self.active[self.stage_of(name).number].run.space_of(name)
            for name in names
        }

    def output(self, name: str) -> OutputSource:
        """Return an output as what others read."""
        return self.active[self.stage_of(name).number].run.source(name)

    def dead(self, stage: Stage) -> dict[str, Array]:
        """Return, for what a stage reads, the mask of the elements that will never be there."""
        upstream = [self.active[number].run for number in stage.after]
        read = {a.source for step in stage.steps for a in step.arguments if not isinstance(a, Constant)}
        return {
            name: run.dead_positions(name) for run in upstream for name in run.stage.outputs if name in read
        }

    def mark_dead(self, run: StageRun) -> None:
        """Have the stages that read one know what has failed in it."""
        for reader in self.active.values():
            if run.stage.number in reader.run.stage.after:
                reader.run.mark_dead(self.dead(reader.run.stage))
                if reader.transport is not None:  # a worker must not look for what will never be there
                    reader.transport.forget(reader.run)

    @property
    def transports(self) -> list[Transport]:
        """What runs batches of any of them."""
        found = {id(one.transport): one.transport for one in self.active.values() if one.transport}
        return list(found.values())
