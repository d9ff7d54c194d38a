"""Loading: the result of an earlier run, out of its record.

It knows records, locators and results; there is no plan, so nothing can be computed here.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from gristmill.engine.extents import decode_space
from gristmill.engine.mapped import MappedOutput
from gristmill.engine.sources import OutputSource
from gristmill.errors import GristmillError, IntegrityError
from gristmill.graph.wording import did_you_mean, joined
from gristmill.plan.space import Space
from gristmill.result import MapResult, Stats, lazy
from gristmill.runs import Calls, NodeRecord, RunRecord, StageRecord, read_calls, read_run, read_space
from gristmill.storage.elements import ChunkRef
from gristmill.storage.index import MISSING, KeyIndex
from gristmill.storage.local import LocalStorage
from gristmill.storage.segment import KEY_SIZE

Array = np.ndarray[Any, Any]


def load(storage: LocalStorage, run_id: str, keep: object) -> MapResult:
    """Return the result of a run by reference.

    Parameters
    ----------
    storage
        Where its record is.
    run_id
        Its id, or as much of it as is unique.
    keep
        What must live as long as the result.

    Raises
    ------
    StoreError
        There is no record of such a run.
    """
    record = read_run(storage, run_id)
    pin = storage.pin(record.run_id)
    if pin is not None:
        pin.settle()
    storage.refresh()
    opened = _Opened(storage, record, (keep, pin))
    outputs = {name: opened.output(name) for name in record.outputs}
    stats = Stats(
        computed=record.computed,
        cached=record.cached,
        failed=record.failed,
        skipped=record.skipped,
        seconds=record.seconds,
        bytes_written=record.bytes_written,
    )
    return MapResult(outputs, [], stats, record.run_id, record.views)


def chunk_path(storage: LocalStorage, run_id: str, name: str, index: tuple[int, ...]) -> Path | None:
    """Return the file of one element of a run's output; None where it is packed with others.

    Raises
    ------
    StoreError
        There is no record of such a run.
    GristmillError
        The run has no such element, or it is missing.
    """
    storage.refresh()
    record = read_run(storage, run_id)
    opened = _Opened(storage, record, None)
    located, space = opened.located(name)
    try:
        locator = located.locators[[space.position(index)]]
    except (ValueError, TypeError, IndexError) as error:
        raise GristmillError(
            f"{name!r} of run {record.run_id} has no index {index}: its axes are {list(space.axes)}, of lengths "
            f"{list(space.shape)}"
        ) from error
    if locator[0] == MISSING:
        raise GristmillError(f"the element {index} of {name!r} in run {record.run_id} is missing")
    form = storage.forms(located.index, locator, located.output)[0]
    return storage.chunks.path(form.checksum) if isinstance(form, ChunkRef) else None


def resolve(index: KeyIndex, calls: Calls) -> Array:
    """Return where the results of `calls` are now; missing where they have been taken back or collected."""
    there = index.locators(calls.rows())
    found = np.full(len(there), MISSING, dtype=np.int64)
    known = np.flatnonzero(there != MISSING)
    keys = np.empty(len(known), dtype=f"V{KEY_SIZE}")
    for segment, where, positions in index.runs(there[known]):
        keys[where] = np.frombuffer(segment.keys, dtype=keys.dtype)[positions]
    found[known] = index.find(keys.tobytes())  # which may be in a later segment, where they were healed
    return found


@dataclass(frozen=True)
class _Opened:
    """A record whose outputs are being opened."""

    storage: LocalStorage
    record: RunRecord
    keep: object

    def output(self, name: str) -> Any:
        """Return what a result has under a name."""
        _, _, node = self._maker(name)
        calls = self._calls(name)
        if calls is None:
            return lazy(_raising(name, self.record, node))
        located, space = self.located(name)
        output = MappedOutput(name, space, located, self._healer(name, calls, located))
        return output if space.axes else lazy(output.scalar)

    def located(self, name: str) -> tuple[OutputSource, Space]:
        """Return where the elements of an output are."""
        number, stage, node = self._maker(name)
        calls = self._calls(name)
        if calls is None:
            _raising(name, self.record, node)()
        index = self.storage.index(bytes.fromhex(node.group))
        where = OutputSource(self.storage, index, resolve(index, calls), node.outputs.index(name))
        space = Space(node.axes, node.shape) if node.elements else Space(stage.axes, stage.shape)
        if ragged := read_space(self.storage, self.record, number):
            with contextlib.suppress(IntegrityError):
                space = decode_space(ragged)
        if space.size != calls.size:
            raise GristmillError(
                f"{name!r} of run {self.record.run_id} is ragged, and its record does not say where its elements are; "
                "map the same inputs again: what is there is found"
            )
        return where, space

    def _calls(self, name: str) -> Calls | None:
        number, _, node = self._maker(name)
        return read_calls(self.storage, self.record)[number] if node.kept else None

    def _maker(self, name: str) -> tuple[int, StageRecord, NodeRecord]:
        number, found = 0, None
        for stage in self.record.stages:
            for node in stage.nodes:
                if name in node.outputs:
                    found = number, stage, node  # elements come after the calls that have made them
                number += 1
        if found is not None:
            return found
        known = [name for stage in self.record.stages for node in stage.nodes for name in node.outputs]
        raise GristmillError(
            f"run {self.record.run_id} has no output {name!r}{did_you_mean(name, known)}; it has {joined(known)}"
        )

    def _healer(self, name: str, calls: Calls, located: OutputSource) -> Callable[[Array], None]:
        def heal(positions: Array, _alive: object = self.keep) -> None:
            located.set_aside(positions)
            self.storage.refresh()
            before = np.count_nonzero(located.locators != MISSING)
            located.locators = resolve(located.index, calls)
            lost = int(before - np.count_nonzero(located.locators != MISSING))
            if lost:
                raise IntegrityError(
                    f"{lost} of the elements of {name!r} in run {self.record.run_id} are damaged or gone; map the same "
                    "inputs again: that computes just those, and then this run loads whole"
                )

        return heal


def _raising(name: str, record: RunRecord, node: NodeRecord) -> Callable[[], NoReturn]:
    why = "no record of its calls can be read; the run may have ended before they were looked up"
    if not node.kept:
        why = "its node has cache=False, or was handed errors, and nothing of it was kept"

    def read() -> NoReturn:
        raise GristmillError(f"{name!r} of run {record.run_id} cannot be loaded: {why}")

    return read
