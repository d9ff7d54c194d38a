"""Runners: one step of a job, with what does not change between batches."""

import contextlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from gristmill.engine.calls import Caller
from gristmill.engine.deliver import as_form
from gristmill.engine.job import Job
from gristmill.engine.notes import code_record, constant_notes, node_name
from gristmill.engine.stores import Stores
from gristmill.errors import StoreError
from gristmill.plan.stage import Constant, Element
from gristmill.storage.index import KeyIndex
from gristmill.storage.segment import Provenance

Array = np.ndarray[Any, Any]


class Runner:
    """One step of the job, with what does not change between batches."""

    def __init__(self, job: Job, number: int, stores: Stores, caller: Callable[..., Caller]) -> None:
        self.task = task = job.tasks[number]
        self.node = task.node
        self.storage = storage = stores.of(task.node)
        made_here = {name for other in job.tasks for name in other.node.output_names}
        taken = {a.source for other in job.tasks for a in other.arguments if isinstance(a, Element)}
        self.caller = caller(
            task.node,
            [a.parameter for a in task.arguments],
            storage,
            number,
            feeds=not taken.isdisjoint(task.node.output_names),
        )
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
        self.notes = constant_notes(task.arguments, task.node.own_private)
        self._name = node_name(task.node)
        self._is_described = not task.node.cache

    @cached_property
    def index(self) -> KeyIndex:
        """Where its calls are looked up; read from the ledger when it is asked for first, which may be never."""
        return self.storage.index(self.task.prefix, len(self.node.output_names))

    def provenance(self, columns: dict[str, bytes]) -> Provenance:
        """Return what a record says of where its calls' arguments came from."""
        return Provenance(self._name, self.notes, columns)

    @property
    def element_provenance(self) -> Provenance:
        """Return what a record says of elements along axes that calls have made: the calls' own say the rest."""
        return Provenance(self._name, {}, {})

    def describe(self) -> None:
        """Keep a record of the code whose calls have just been committed, unless there is one."""
        if self._is_described:
            return
        self._is_described = True
        record = code_record(self.node, self.task.arguments)
        if record.fingerprint == self.task.fingerprint:  # else it was edited meanwhile
            with contextlib.suppress(StoreError):  # without it, `explain` says less, and that is all
                self.storage.describe(record, self.task.prefix)
