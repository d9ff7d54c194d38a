"""Jobs: one stage as a worker gets it, once, before the first of its batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.graph.node import Node
from gristmill.plan.space import Space
from gristmill.plan.stage import Argument, Step

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Task:
    """One step of a job."""

    node: Node
    fingerprint: bytes
    prefix: bytes
    arguments: tuple[Argument, ...]

    @classmethod
    def of(cls, step: Step) -> "Task":
        """Return the task of a plan's step."""
        return cls(step.node, step.fingerprint, step.prefix, step.arguments)


@dataclass(frozen=True)
class Passed:
    """The errors that stand in the places of elements whose calls failed."""

    causes: Array
    """For each element its place in `errors`; -1 where there is none."""
    errors: tuple[Any, ...]
    digests: bytes
    """Of the errors, 16 bytes each."""

    def identities(self, elements: Array) -> Array:
        """Return the digests of the errors of elements that have one, as 16-byte items."""
        return np.asarray(np.frombuffer(self.digests, dtype="V16")[self.causes[elements]])

    def at(self, elements: Array) -> list[Any]:
        """Return the errors of elements that have one."""
        return [self.errors[k] for k in self.causes[elements].tolist()]


@dataclass(frozen=True)
class Job:
    """What a worker needs to run batches of one stage."""

    space: Space
    tasks: tuple[Task, ...]
    spaces: Mapping[str, Space]
    """The indices of what `sources` are."""
    dead: Mapping[str, Array]
    """Masks of the outputs, among these, that lack elements because their calls failed."""
    check_mutation: bool
    """Whether arguments are identified again after each call."""
    fail_fast: bool
    """Whether a failure is a reason to start no more calls."""
    timed: bool
    """Whether it is wanted when calls begin, and how long they take."""
    passed: Mapping[str, Passed]
    """What functions that want errors are handed for these elements."""
    sources: Mapping[str, Any]
    """Where arguments from outside the stage are: a `Source` each, or a `SourceRef` while the job travels."""
