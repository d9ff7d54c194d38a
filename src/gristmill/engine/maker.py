"""Makers: make a value again that is not stored, in the process that needs it.

Such a value is what an uncached node returned and nothing can digest or pickle: a connection, a loaded model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.engine import given
from gristmill.engine.calls import Caller
from gristmill.engine.job import Job, Task
from gristmill.engine.onecall import Manner
from gristmill.engine.sources import Making, Source
from gristmill.engine.stores import Stores
from gristmill.errors import DigestError, IntegrityError
from gristmill.identity.keys import call_keys
from gristmill.identity.types import SIZE
from gristmill.storage.elements import Made
from gristmill.storage.local import LocalStorage


@dataclass(frozen=True)
class Maker:
    """Makes the calls of one node again.

    Parameters
    ----------
    job
        The node alone, with open sources of all its arguments.
    storage
        Holds what is made.
    """

    job: Job
    storage: LocalStorage

    def make(self, form: Made) -> Any:
        """Return the value, made here if no call of this process has made it.

        Raises
        ------
        DigestError
            The same call made another value now.
        IntegrityError
            An argument of that call cannot be read any more.
        Exception
            What the function raises.
        """
        try:
            return self.storage.value(form)
        except IntegrityError:
            pass
        position = self._position(form.key)
        values = [[given.value(a, self.job, self._source, position)] for a in self._task.arguments]
        node = self._task.node
        parameters = [argument.parameter for argument in self._task.arguments]
        caller = Caller(node, parameters, self.storage, Manner())
        try:
            outcome = caller.run(values, [position], form.key)
        finally:
            caller.close()
        if outcome.failures:
            error = outcome.failures[0]
            error.add_note(f"while {node.name} was called again, whose value is not stored, in this process")
            raise error
        if outcome.outputs[form.output].forms[0] != form:
            raise DigestError(
                f"what {node.name} returns is not stored, and was another value when it was called again in this "
                "process; say cache=True, or return the same value each time"
            )
        return self.storage.value(form)

    def publish(self, path: Path) -> "PublishedMaker":
        """Write what its arguments come from to files whose names start with `path`."""
        sources = {
            name: source.publish(path.with_name(f"{path.name}-{k}"))
            for k, (name, source) in enumerate(self.job.sources.items())
        }
        return PublishedMaker(replace(self.job, sources=sources))

    @property
    def _task(self) -> Task:
        return self.job.tasks[0]

    def _source(self, name: str) -> Source:
        source: Source = self.job.sources[name]
        return source

    def _position(self, key: bytes) -> int:
        every = np.arange(self.job.space.size)
        columns = [given.identities(a, self.job, self._source, every) for a in self._task.arguments]
        keys = np.frombuffer(call_keys(self._task.prefix, columns, len(every)), dtype=f"V{SIZE}")
        found = np.flatnonzero(keys == np.void(key))
        if not len(found):
            raise IntegrityError(f"an argument of {self._task.node.name} is not what it was")
        return int(found[0])


@dataclass(frozen=True)
class PublishedMaker:
    """A maker on its way to another process."""

    job: Job

    def open(self, stores: Stores) -> Making:
        """Return the maker there."""
        sources: Mapping[str, Any] = {name: ref.open(stores) for name, ref in self.job.sources.items()}
        return Maker(replace(self.job, sources=sources), stores.of(self.job.tasks[0].node))
