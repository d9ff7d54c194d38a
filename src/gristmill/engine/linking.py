"""Linking: keeps the zarr views of a run's chunked outputs up to date as reports come in."""

from typing import Any

import numpy as np

from gristmill.engine.stagerun import StageRun
from gristmill.identity.digest import checksum
from gristmill.plan.compile import Plan
from gristmill.plan.stage import Constant, Stage
from gristmill.storage.elements import ChunkRef
from gristmill.storage.local import LocalStorage
from gristmill.storage.views import View

Array = np.ndarray[Any, Any]


class Linker:
    """The views of one run.

    Parameters
    ----------
    plan, storage
        Whose outputs, and where their chunks are.
    """

    def __init__(self, plan: Plan, storage: LocalStorage) -> None:
        self._plan = plan
        self._storage = storage
        self._views: dict[int, View] = {}

    def landed(self, run: StageRun, positions: Array) -> list[tuple[str, int]]:
        """Link what is new at `positions`; return the outputs and positions whose chunk is gone."""
        lost: list[tuple[str, int]] = []
        if not run.stage.axes or self._storage.spec.readonly:
            return lost
        for k, step in enumerate(run.stage.steps):
            if run.storage(k) is not self._storage:
                continue
            locators = run.locators[k][positions]
            there = np.flatnonzero(locators >= 0)
            for segment, where, places in run.indexes[k].runs(locators[there]):
                chosen = positions[there[where]]
                for output, name in enumerate(step.outputs):
                    codec = segment.codecs[output]
                    if codec["kind"] == "chunk":
                        refs = _refs(codec, segment.checksums[output], places)
                        lost += [(name, position) for position in self._view(run).link(name, chosen, refs)]
                    elif run.stage.number in self._views:
                        self._views[run.stage.number].spoil(name)
        return lost

    def finish(self) -> dict[str, str]:
        """Write what is pending; return output name to the path of its view."""
        found: dict[str, str] = {}
        for view in self._views.values():
            view.finish()
            found |= view.paths()
        return found

    def _view(self, run: StageRun) -> View:
        number = run.stage.number
        if number not in self._views:
            directory = self._storage.layout.arrays / self._name(run.stage)
            self._views[number] = View(directory, run.stage.axes, run.space.shape, self._storage.chunks)
        return self._views[number]

    def _name(self, stage: Stage) -> str:
        """Identity of a stage with all that it depends on: the same map has the same view."""
        parts = [step.prefix for earlier in self._plan.stages[: stage.number + 1] for step in earlier.steps]
        parts += [checksum(self._plan.inputs[key].digests) for key in sorted(self._plan.inputs)]
        parts += [
            argument.given.digest
            for earlier in self._plan.stages[: stage.number + 1]
            for step in earlier.steps
            for argument in step.arguments
            if isinstance(argument, Constant)
        ]
        return checksum(b"".join(parts)).hex()


def _refs(codec: dict[str, Any], checksums: bytes, places: Array) -> list[ChunkRef]:
    dtype, shape = codec["dtype"], tuple(codec["shape"])
    return [ChunkRef(checksums[16 * k : 16 * k + 16], dtype, shape) for k in places.tolist()]
