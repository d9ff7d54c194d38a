"""Jobs on their way to other processes: files in the store's scratch directory, which workers open by their path.

Owns how functions travel: by reference where a worker can import them, else by value. What a worker does with a
job is not known here.
"""

import contextlib
import os
import pickle
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import numpy as np

from gristmill.engine.deliver import Shared, as_form
from gristmill.engine.job import Job
from gristmill.engine.process import Surroundings
from gristmill.engine.sources import OutputSource
from gristmill.engine.stagerun import StageRun
from gristmill.engine.stores import Stores
from gristmill.errors import InputError
from gristmill.identity.code.origin import Origin, origin
from gristmill.plan.stage import Constant

Array = np.ndarray[Any, Any]


class JobFiles:
    """The jobs of one run, each a file with its inputs beside it.

    Parameters
    ----------
    stores
        In whose scratch directory they lie.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._jobs: dict[int, Path] = {}

    def path(self, stage: StageRun) -> Path:
        """Return where the stage's job is, published when it is asked for first.

        Raises
        ------
        InputError
            An input, or what a function refers to, cannot be pickled.
        """
        return self._jobs.get(stage.stage.number) or self._publish(stage, by_value=False)

    def instead(self, stage: StageRun, sent: Path) -> Path:
        """Return a job with the code in another form than in `sent`, for a worker that has another version of it."""
        if self._jobs.get(stage.stage.number) != sent:
            return self.path(stage)  # another batch has asked before
        return self._publish(stage, by_value=not is_by_value(sent))

    def forget(self, stage: StageRun) -> None:
        """Publish the stage's job again when it is needed: what it reads has moved."""
        self._jobs.pop(stage.stage.number, None)

    def extend(self, stage: StageRun, positions: Mapping[str, Array]) -> None:
        """Say where more elements of the stage's sources are, if its job is published; who has it open sees it."""
        job = self._jobs.get(stage.stage.number)
        if job is None:
            return
        try:
            for k, (name, source) in enumerate(stage.sources.items()):
                if name in positions and isinstance(source, OutputSource):
                    source.extend(_beside(job, k), positions[name])
        except OSError:  # the directory is gone: it is published again, and says so if it cannot be
            self.forget(stage)

    def close(self) -> None:
        """Remove all of them."""
        for job in self._jobs.values():
            with contextlib.suppress(OSError):  # they go with the scratch directory at the latest
                for file in job.parent.glob(f"{job.stem}*"):
                    file.unlink(missing_ok=True)

    def _publish(self, stage: StageRun, *, by_value: bool) -> Path:
        """Write the job of a stage, its inputs included, to files that the workers read."""
        here = pickle.dumps(Surroundings.here())
        name = f"{os.urandom(6).hex()}{_BY_VALUE if by_value else ''}"
        try:
            path = self._write(stage.job, here, name, by_value=by_value)
        except OSError as error:
            if not self._stores.kept.move_scratch(error):
                raise
            path = self._write(stage.job, here, name, by_value=by_value)
        self._jobs[stage.stage.number] = path
        return path

    def _write(self, job: Job, here: bytes, name: str, *, by_value: bool) -> Path:
        path = self._stores.kept.scratch / f"{name}.job"
        sources = {
            source_name: source.publish(_beside(path, k))
            for k, (source_name, source) in enumerate(job.sources.items())
        }
        path.write_bytes(here + _pickled(replace(job, sources=sources), by_value=by_value))
        return path


def _beside(job: Path, number: int) -> Path:
    """What the names of the files of a job's source begin with."""
    return job.with_name(f"{job.stem}-{number}")


def is_by_value(job: Path) -> bool:
    """Return whether a job carries the code of its functions."""
    return job.stem.endswith(_BY_VALUE)


_BY_VALUE = "-v"
"""Ends the name of a job that carries the code of its functions."""


def _pickled(job: Job, *, by_value: bool) -> bytes:
    with _REGISTRY:
        registered = cloudpickle.list_registry_pickle_by_value()
        modules = [m for m in _own_modules() if m.__name__ not in registered] if by_value else []
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        try:
            data: bytes = cloudpickle.dumps(job, protocol=5)
        except Exception as error:
            raise _unsendable(job, error) from error
        finally:
            for module in modules:
                cloudpickle.unregister_pickle_by_value(module)
    return data


def _unsendable(job: Job, error: Exception) -> InputError:
    """Say what of a job cannot be pickled."""
    way_out = "run this with the executor 'sequential'"
    for task in job.tasks:
        for argument in task.arguments:
            if isinstance(argument, Constant) and isinstance(as_form(argument.given.value), Shared):
                kind = type(argument.given.value).__qualname__
                return InputError(
                    f"{argument.given.name} cannot be sent to a worker process, since a {kind} cannot be pickled; "
                    f"{way_out}, or let a node make it: node(..., cache=False, version='1')"
                )
        try:
            cloudpickle.dumps(task.node, protocol=5)
        except Exception:  # noqa: BLE001 - a user's __reduce__ may raise anything
            return InputError(
                f"the function {task.node.name} cannot be sent to a worker process, since something that it refers to "
                f"cannot be pickled ({error}); {way_out}, or pass that as an argument"
            )
    return InputError(f"what this stage needs cannot be sent to a worker process ({error}); {way_out}")


_REGISTRY = threading.Lock()  # cloudpickle's list of modules that go by value is one for the process


def _own_modules() -> list[Any]:
    """The user's own modules, as far as they are loaded: whatever a function reads of them goes by value."""
    loaded: list[tuple[str, Any]] = list(sys.modules.items())  # some put what is no module there
    named = [
        (name, module) for name, module in loaded if isinstance(module, ModuleType) and name != "__main__"
    ]
    return [module for name, module in named if not _is_ours(name) and origin(name) is Origin.OWN]


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == __name__.partition(".")[0]
