"""Runners: one step of a job, with what does not change between batches."""

from typing import Any

import numpy as np

from gristmill.engine.calls import Caller
from gristmill.engine.deliver import as_form
from gristmill.engine.job import Job, Task
from gristmill.engine.stores import Stores
from gristmill.plan.stage import Constant, Element
from gristmill.storage.segment import Provenance

Array = np.ndarray[Any, Any]

_REPR_LENGTH = 80
"""Characters of a constant's repr that a record keeps."""


class Runner:
    """One step of the job, with what does not change between batches."""

    def __init__(self, job: Job, number: int, stores: Stores, *, interruptible: bool) -> None:
        self.task = task = job.tasks[number]
        self.node = task.node
        self.storage = storage = stores.of(task.node)
        made_here = {name for other in job.tasks for name in other.node.output_names}
        taken = {a.source for other in job.tasks for a in other.arguments if isinstance(a, Element)}
        self.caller = Caller(
            task.node,
            [a.parameter for a in task.arguments],
            storage,
            interruptible=interruptible,
            feeds=not taken.isdisjoint(task.node.output_names),
        )
        self.index = storage.index(task.prefix)
        self.inner = [a.source for a in task.arguments if isinstance(a, Element) and a.source in made_here]
        self.twin = any(other.prefix == task.prefix for other in job.tasks[:number])
        """Whether the same function comes earlier in the stage, and may have made the same calls."""
        self.is_below = bool(self.inner) or self.twin
        """Whether its calls cannot all be known before the stage runs: the worker looks them up and claims
        them."""
        self.keeps_recent = self.is_below or any(
            other.prefix == task.prefix for other in job.tasks[number + 1 :]
        )
        self.constants = {
            a.parameter: as_form(a.given.value) for a in task.arguments if isinstance(a, Constant)
        }
        self.notes = _constant_notes(task)

    def provenance(self, columns: dict[str, bytes]) -> Provenance:
        """Return what a record says of where its calls' arguments came from."""
        name = f"{getattr(self.node.function, '__module__', '?')}:{self.node.name}"
        return Provenance(name, self.notes, columns)


def _constant_notes(task: Task) -> dict[str, tuple[str, str]]:
    own_private = set(task.node.own_private)
    return {
        a.parameter: (a.given.digest.hex(), "" if a.parameter in own_private else _short(a.given.value))
        for a in task.arguments
        if isinstance(a, Constant)
    }


def _short(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"array{value.shape} {value.dtype}"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a user's __repr__ may raise anything, and this is only a note
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= _REPR_LENGTH else f"{text[:_REPR_LENGTH]}…"
