"""Linking: keeps the zarr views of a run's chunked outputs up to date as reports come in."""

import warnings
from typing import Any

import numpy as np

from gristmill.engine.stagerun import StageRun
from gristmill.identity.digest import checksum, digest
from gristmill.plan.compile import Plan
from gristmill.plan.stage import Constant, Stage, Step
from gristmill.storage.elements import ChunkRef
from gristmill.storage.layout import READ_ONLY
from gristmill.storage.local import LocalStorage
from gristmill.storage.segment import Segment
from gristmill.storage.views import View

Array = np.ndarray[Any, Any]

_BLOCK = 1 << 16
"""Positions looked at together, so that what is needed on the way stays small."""


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
        self._refused = ""
        self._lacking = False

    def landed(self, run: StageRun, positions: Array) -> list[tuple[str, int]]:
        """Link what is new at `positions`; return the outputs and positions whose chunk is gone."""
        lost: list[tuple[str, int]] = []
        # Chunks in the refuge go with it, and a disk that takes no chunks takes no view either.
        self._lacking |= not self._storage.is_whole
        if not run.stage.axes or self._storage.spec.readonly or self._lacking:
            return lost
        for k, step in enumerate(run.stage.steps):
            if run.storage(k) is not self._storage or step.inner or run.space.places is not None:
                continue
            if run.stage.number >= len(self._plan.stages):
                continue  # partial results of a tree reduction
            for start in range(0, len(positions), _BLOCK):
                if not self._open_outputs(run, step):
                    break
                lost += self._link_step(run, k, positions[start : start + _BLOCK])
        return lost

    def _open_outputs(self, run: StageRun, step: Step) -> list[tuple[int, str]]:
        """Number and name of the outputs of a step that may have an array in the view."""
        view = self._view(run)
        return [(k, name) for k, name in enumerate(step.outputs) if not view.is_spoiled(name)]

    def _link_step(self, run: StageRun, number: int, positions: Array) -> list[tuple[str, int]]:
        """Link what a step has made at `positions`, as long as any of it can be linked."""
        step, lost = run.stage.steps[number], []
        locators = run.locators[number][positions]
        there = np.flatnonzero(locators >= 0)
        for segment, where, places in run.indexes[number].runs(locators[there]):
            outputs = self._open_outputs(run, step)
            if not outputs:
                break
            for output, name in outputs:
                refs = _refs(segment, output, places)
                missing = self._link(self._view(run), name, positions[there[where]], refs)
                lost += [(name, position) for position in missing]
        return lost

    def finish(self) -> dict[str, str]:
        """Write what is pending; return output name to the path of its view."""
        found: dict[str, str] = {}
        if self._lacking:
            return found  # the store's fault has been told
        for view in self._views.values():
            try:
                view.finish()
            except OSError as error:
                self._note(view, error)
            else:
                found |= view.paths()
        if self._refused:
            warnings.warn(self._refused, RuntimeWarning, stacklevel=2)
        return found

    def _note(self, view: View, error: OSError) -> None:
        """Take in that a view cannot be written, which is no news on a disk that is only read."""
        if error.errno not in READ_ONLY:
            where = f"the zarr view at {view.directory}"
            self._refused = f"{where} cannot be written ({error}); results are in the store all the same"

    def _link(self, view: View, name: str, positions: Array, refs: list[ChunkRef] | None) -> list[int]:
        """Link chunks; a view that cannot be written is given up, since it is derived data."""
        if refs is None:
            view.spoil(name)
            return []
        try:
            return view.link(name, positions, refs)
        except OSError as error:
            self._note(view, error)
            view.spoil(name)
            return []

    def _view(self, run: StageRun) -> View:
        number = run.stage.number
        if number not in self._views:
            directory = self._storage.layout.arrays / self._name(run.stage, run.space.shape)
            self._views[number] = View(directory, run.stage.axes, run.space.shape, self._storage.chunks)
        return self._views[number]

    def _name(self, stage: Stage, shape: tuple[int, ...]) -> str:
        """Identity of a stage with all that it depends on: the same map has the same view, and no other has."""
        stages = [
            (earlier.axes, [_described(step) for step in earlier.steps])
            for earlier in self._plan.stages[: stage.number + 1]
        ]
        inputs = [
            (key, one.space.shape, checksum(one.digests)) for key, one in sorted(self._plan.inputs.items())
        ]
        return digest((stages, inputs, shape)).hex()


def _described(step: Step) -> tuple[Any, ...]:
    """What distinguishes a step from others with the same function: names, wiring and constants."""
    arguments = [
        (a.parameter, a.given.digest) if isinstance(a, Constant) else (a.parameter, a.source, a.axes)
        for a in step.arguments
    ]
    return step.prefix, step.outputs, arguments


def _refs(segment: Segment, output: int, places: Array) -> list[ChunkRef] | None:
    """The chunks of a segment's column, or None where it is packed."""
    codec = segment.codecs[output]
    if codec["kind"] != "chunk":
        return None
    dtype, shape, compressor = codec["dtype"], tuple(codec["shape"]), codec.get("compressor", "")
    checksums = segment.checksums_of(output)
    return [ChunkRef(checksums[16 * k : 16 * k + 16], dtype, shape, compressor) for k in places.tolist()]
