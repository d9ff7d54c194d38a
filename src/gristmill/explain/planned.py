"""What would run: the stages of a plan with how many of their calls are in the store already."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gristmill.explain.findings import opened
from gristmill.explain.report import counted
from gristmill.explain.survey import StepSurvey, Survey
from gristmill.plan.compile import Plan
from gristmill.plan.space import Space
from gristmill.plan.stage import Step
from gristmill.storage.local import LocalStorage


@dataclass(frozen=True, slots=True)
class NodePlan:
    """How many calls of one node would run."""

    node: str
    """The function's name."""
    output_names: tuple[str, ...]
    total: int
    """Calls."""
    found: int
    """Calls whose results are in the store."""
    compute: int
    """Calls that would run for certain; equal ones run once."""
    depends: int
    """Calls that need the result of one that would run: whether they run depends on what that gives."""

    def __str__(self) -> str:
        counts = [counted(self.total, "call"), f"{self.compute:,} to compute"]
        if self.depends:
            counts.append(f"{self.depends:,} depending on others")
        return f"{self.node} → {', '.join(self.output_names)}: {', '.join(counts)}"


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Nodes that run together for each index."""

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    """Extents of the axes; empty while they are not known, because calls that make them have to run first."""
    nodes: tuple[NodePlan, ...]
    after: tuple[int, ...]
    """Positions in `RunPlan.stages` of the stages that have to be complete before."""

    def __str__(self) -> str:
        shape = self.shape or ("?",) * len(self.axes)
        space = " × ".join(
            f"{axis}={n:,}" if isinstance(n, int) else f"{axis}={n}"
            for axis, n in zip(self.axes, shape, strict=True)
        )
        waits = f", after {', '.join(str(number + 1) for number in self.after)}" if self.after else ""
        head = f"over {space}" if space else "once"
        return "\n".join([head + waits, *(f"   {node}" for node in self.nodes)])


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would do, in the order in which it would.

    Examples
    --------
    >>> from gristmill import Pipeline
    >>> def double(x):
    ...     return 2 * x
    >>> def total(double):
    ...     return int(double.sum())
    >>> pipeline = Pipeline([(double, "x[i] -> double[i]"), total], store=None)
    >>> print(pipeline.plan({"x": [1, 2, 3]}))
    1. over i=3
       double → double: 3 calls, 3 to compute
    2. once, after 1
       total → total: 1 call, 0 to compute, 1 depending on others
    """

    stages: tuple[StagePlan, ...]

    @property
    def compute(self) -> int:
        """Calls that would run for certain."""
        return sum(node.compute for stage in self.stages for node in stage.nodes)

    @property
    def depends(self) -> int:
        """Calls of which it cannot be known yet whether they would."""
        return sum(node.depends for stage in self.stages for node in stage.nodes)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def to_json(self, *, indent: int | None = None) -> str:
        """Return it as JSON."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def __str__(self) -> str:
        return "\n".join(f"{number}. {stage}" for number, stage in enumerate(self.stages, 1))


def outline(plan: Plan, storage: LocalStorage | None) -> RunPlan:
    """Say what of a plan would run; run nothing, and write nothing.

    Parameters
    ----------
    plan
        What is asked about.
    storage
        Where results are; None where nothing is kept.
    """
    survey = Survey(plan, opened(storage))
    nodes: dict[int, list[NodePlan]] = {stage.number: [] for stage in plan.stages}
    spaces: dict[int, Space] = {}
    for step in survey.steps():
        nodes[step.run.stage.number].append(_node(step))
        spaces[step.run.stage.number] = step.run.space
    return RunPlan(
        tuple(
            StagePlan(
                stage.axes,
                spaces.get(stage.number, Space()).shape,
                tuple(nodes[stage.number]) or tuple(_unknown(step) for step in stage.steps),
                tuple(sorted(stage.after)),
            )
            for stage in plan.stages
        )
    )


def _unknown(step: Step) -> NodePlan:
    """A node whose calls nobody can count yet."""
    return NodePlan(step.node.name, step.outputs, 0, 0, 0, 0)


def _node(survey: StepSurvey) -> NodePlan:
    node, size = survey.step.node, survey.run.size
    found = int(np.count_nonzero(survey.found))
    waiting = np.zeros(size, dtype=bool)
    for mask in survey.waiting.values():
        waiting |= mask
    depends = int(np.count_nonzero(waiting))
    return NodePlan(node.name, node.output_names, size, found, size - found - depends, depends)
