"""Recording: keeps the run record of a map up to date as reports come in.

A record is never worth a failure, nor more than a few per cent of a run's time.
"""

import itertools
import os
import platform
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from gristmill.engine.extents import encode_space
from gristmill.engine.interrupts import guarded
from gristmill.engine.loop import RunOutcome
from gristmill.engine.notes import node_name
from gristmill.engine.stagerun import StageRun
from gristmill.events import Callback, RunEvent
from gristmill.identity.digest import merkle
from gristmill.identity.keys import elements_group
from gristmill.identity.types import Digest
from gristmill.plan.compile import Plan
from gristmill.plan.space import Space
from gristmill.plan.stage import Constant, Stage, Step
from gristmill.runs import (
    Calls,
    NodeRecord,
    RunRecord,
    StageRecord,
    State,
    calls_rows,
    encode_head,
    head_key,
    space_rows,
)
from gristmill.storage.index import MISSING
from gristmill.storage.local import LocalStorage
from gristmill.storage.presence import Pin
from gristmill.version import __version__

_FIRST_SECONDS = 0.02
"""After how long it is written first, in a thread, while calls are under way; a shorter run writes it once."""

REFRESH_SECONDS = 0.5
"""How often a record is written at most while its run goes on."""

HEARTBEAT_SECONDS = 5.0
"""How often it is written at least, though nothing has been reported: the run is alive."""

_DUTY = 50
"""A record that takes long to write is written again only after this many times as long."""

_MOST_FAILURES = 20
"""Failed calls that a record describes."""

_MOST_TEXT = 300
"""Characters of what an exception says."""


class Recorder(Callback):
    """The record of one run, and the pin that says that it goes on.

    Parameters
    ----------
    plan, storage
        What runs, and where its results go.
    name
        Of the pipeline.
    """

    def __init__(self, plan: Plan, storage: LocalStorage, name: str | None) -> None:
        self._storage = storage
        self._plan = plan
        self._runs: dict[int, StageRun] = {}
        self._changed: set[int] = set()
        self._stages = list(plan.stages)
        """Those of the plan, and after them the levels of tree reductions, once they are known."""
        self._spaced: set[int] = set()
        """The places of which the ragged space has been written."""
        self._next = time.monotonic() + _FIRST_SECONDS
        self._ended = False
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        now = time.time()
        self._record = RunRecord(
            "",
            name,
            "running",
            started=now,
            refreshed=now,
            ended=None,
            outputs=plan.outputs,
            stages=(),
            inputs=_digests(plan),
            host=socket.gethostname(),
            pid=os.getpid(),
            versions=_versions(),
        )
        self._pin: Pin | None = None

    def on_run_start(self, event: RunEvent) -> None:
        """Take in what the run is called."""
        self._record = replace(self._record, run_id=event.run_id)

    def landed(self, run: StageRun) -> None:
        """Take in that calls of a stage may have been completed; write the record where that is due."""
        number = run.stage.number
        with self._lock:
            if all(stage.number != number for stage in self._stages):
                self._stages.append(run.stage)  # partial results: found again when there is more to reduce
            if not self._runs:
                self._pin = self._storage.pin(self._record.run_id)
            starts = number not in self._runs
            self._runs[number] = run
            self._changed.add(number)
            # What a stage finds at its start is named at once: a collector may come before the next time.
            if (starts and _found_any(run)) or time.monotonic() >= self._next:
                self._write("running")
            if self._changed or not (starts and _found_all(run)):
                self._write_in()  # the next report may be hours away

    @property
    def progress(self) -> tuple[int, int]:
        """How many calls there are results of, and how many there are of the stages that have started."""
        found = [locators != MISSING for run in self._runs.values() for locators in run.locators]
        return sum(int(np.count_nonzero(one)) for one in found), sum(map(len, found))

    def end(
        self, outcome: RunOutcome | None, *, error: BaseException | None, views: Mapping[str, str]
    ) -> Pin | None:
        """Write the record for the last time; return what keeps the results from being collected.

        Parameters
        ----------
        outcome
            What the run left behind; None where it was stopped by an exception from outside.
        error
            What it ended with.
        views
            Output name to the path of its zarr array.
        """
        with self._lock:
            self._ended = True
            if self._timer is not None:
                self._timer.cancel()
            if self._record.run_id:
                self._end(outcome, error, views)
        pin, self._pin = self._pin, None  # a loop that is garbage must not hold it
        if pin is not None:
            pin.settle()
        return pin

    @guarded
    def _end(self, outcome: RunOutcome | None, error: BaseException | None, views: Mapping[str, str]) -> None:
        # What calls have made along axes is known once all of them are there.
        spread = (n for n, run in self._runs.items() if any(step.inner for step in run.stage.steps))
        self._changed.update(spread)
        if self._storage.refuge.exists:  # what was there has another place in the store, if it has been moved
            self._changed.update(self._runs)
        self._record = replace(
            self._record,
            ended=time.time(),
            bytes_written=outcome.bytes_written if outcome is not None else 0,
            error=_said(error) if error is not None else "",
            failures=tuple(itertools.islice(self._failures(), _MOST_FAILURES)),
            views=dict(views),
        )
        self._write("done" if error is None else "failed")

    def _write_in(self) -> None:
        """Write again when it is due, unless that is to happen anyway."""
        if self._timer is None:
            wait = self._next - time.monotonic() if self._changed else HEARTBEAT_SECONDS
            self._timer = threading.Timer(min(max(wait, 0.0), HEARTBEAT_SECONDS), self._write_late)
            self._timer.daemon = True
            self._timer.start()

    def _write_late(self) -> None:
        """Write what has been reported since the last time, in a thread of its own, or only that the run goes on."""
        with self._lock:
            self._timer = None
            if not self._ended:
                if self._changed and time.monotonic() >= self._next:
                    self._write("running")
                else:
                    self._refresh()
                    self._storage.note({head_key(self._record.run_id): encode_head(self._record)})
                self._write_in()

    def _refresh(self, **changes: Any) -> None:
        now = time.time()
        self._record = replace(self._record, refreshed=now, seconds=now - self._record.started, **changes)

    def _write(self, state: State) -> None:
        """Write everything that has been reported."""
        started = time.monotonic()
        stages = tuple(self._stage(stage) for stage in self._stages)
        self._refresh(state=state, stages=stages)
        rows = {head_key(self._record.run_id): encode_head(self._record)}
        for number in self._changed:
            rows.update(self._calls(self._runs[number]))
        spaces = self._spaces()
        for place, space in spaces.items():
            rows.update(space_rows(self._record.run_id, place, encode_space(space)))
        # Else the next time; whoever cannot do without the store says what is wrong.
        if self._storage.note(rows):
            self._changed.clear()
            self._spaced.update(spaces)
        ended = time.monotonic()
        self._next = ended + max(REFRESH_SECONDS, _DUTY * (ended - started))

    def _stage(self, stage: Stage) -> StageRecord:
        run = self._runs.get(stage.number)
        nodes = tuple(_node(entry, run) for entry in _entries(stage))
        if run is None:
            return StageRecord(stage.title, stage.axes, (), nodes)
        counts = (run.computed, run.cached, len(run.failures), run.skipped)
        ran = run.executor, run.reason, round(run.worked, 6)
        return StageRecord(stage.title, stage.axes, run.space.shape, nodes, *counts, *ran)

    def _calls(self, run: StageRun) -> dict[bytes, bytes]:
        rows: dict[bytes, bytes] = {}
        for place, entry in self._placed(run.stage):
            if not entry.step.node.cache:
                continue
            if entry.output is None:
                index, locators = run.indexes[entry.number], run.locators[entry.number]
            elif run.is_spread(entry.number):
                source = run.spread(entry.number).source(entry.output)
                index, locators = source.index, source.locators
            else:
                continue
            rows.update(calls_rows(self._record.run_id, place, Calls.of(index, locators)))
        return rows

    def _spaces(self) -> dict[int, Space]:
        """Return the ragged spaces that have not been written yet, by place."""
        found = {}
        for number in self._changed:
            run = self._runs[number]
            for place, entry in self._placed(run.stage):
                space = _space(entry, run)
                if space.places is not None and place not in self._spaced:
                    found[place] = space
        return found

    def _placed(self, stage: Stage) -> Iterator[tuple[int, "_Entry"]]:
        """Yield what a record has of a stage, each with its place among what it has of all stages."""
        before = itertools.takewhile(lambda one: one.number != stage.number, self._stages)
        return enumerate(_entries(stage), sum(len(_entries(one)) for one in before))

    def _failures(self) -> Iterator[tuple[str, tuple[int, ...], str]]:
        for run in self._runs.values():
            for failure in run.failures.values():
                outputs = run.stage.steps[failure.step].outputs
                yield outputs[0], run.space.index(failure.position), _said(failure.exception)


def _digests(plan: Plan) -> dict[str, str]:
    """What was given, by name; what a user has called private stays so, even if one would have to guess."""
    hidden = {name for node in plan.graph.nodes for name in node.private}
    arguments = (a for stage in plan.stages for step in stage.steps for a in step.arguments)
    found = {a.given.name: Digest(a.given.digest) for a in arguments if isinstance(a, Constant)}
    found |= {one.name: Digest(merkle(one.space.shape, one.digests)) for one in plan.inputs.values()}
    return {name: str(found[name]) for name in sorted(found) if name not in hidden}


class _Entry(NamedTuple):
    """What a record has of a stage: the calls of a step, or the elements that they have made of one output."""

    number: int
    """Of the step."""
    step: Step
    output: int | None


def _entries(stage: Stage) -> list[_Entry]:
    found = []
    for number, step in enumerate(stage.steps):
        found.append(_Entry(number, step, None))
        found += [_Entry(number, step, output) for output in range(len(step.outputs)) if step.inner]
    return found


def _node(entry: _Entry, run: StageRun | None) -> NodeRecord:
    step, name = entry.step, node_name(entry.step.node)
    if entry.output is None:
        made = step if run is None else run.stage.steps[entry.number]  # of errors, perhaps
        wall, busy = run.spent[entry.number] if run is not None else (0.0, 0.0)
        kept, group = made.node.cache, step.prefix.hex()
        return NodeRecord(name, step.outputs, group, kept, seconds=round(wall, 6), cpu_seconds=round(busy, 6))
    space = _space(entry, run) if run is not None else Space()
    group = elements_group(step.prefix, entry.output).hex()
    outputs = (step.outputs[entry.output],)
    return NodeRecord(
        name, outputs, group, step.node.cache, elements=True, axes=space.axes, shape=space.shape
    )


def _space(entry: _Entry, run: StageRun) -> Space:
    """Return the indices of what a record has of a stage; none while they are not known."""
    if entry.output is None:
        return run.space
    return run.spread(entry.number).space if run.is_spread(entry.number) else Space()


def _found_any(run: StageRun) -> bool:
    return any(bool((locators != MISSING).any()) for locators in run.locators)


def _found_all(run: StageRun) -> bool:
    return all(bool((locators != MISSING).all()) for locators in run.locators)


def _said(error: BaseException) -> str:
    return traceback.format_exception_only(error)[0].strip()[:_MOST_TEXT]  # str() of it may raise


@cache
def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "gristmill": __version__, "numpy": np.__version__}
