"""The narrator: tells callbacks of every call, in the engine's thread, whatever runs the calls.

For each index of a node: its start, then its end or its error; or that it was found. A start is told when it is seen:
at once where the call is made in this process, else when the worker's seat is looked at; or with the end, if the call
was faster than that.
"""

import queue
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from gristmill.engine.interrupts import Bell
from gristmill.engine.report import BatchReport
from gristmill.engine.seat import Underway
from gristmill.engine.stagerun import StageRun
from gristmill.events import NodeEvent, Observers
from gristmill.graph.nested import is_carrier
from gristmill.storage.index import MISSING

Array = np.ndarray[Any, Any]

_UNTOLD, _STARTED, _ENDED = range(3)

_CALLS = ("start", "end", "error")


class Narrator:
    """Tells callbacks of the calls of one run.

    Parameters
    ----------
    observers
        The callbacks.
    run_id
        Names the run.
    bell
        Rung when a call has begun in another thread.
    is_timed
        Whether calls are timed for somebody else, too.
    """

    def __init__(self, observers: Observers, run_id: str, bell: Bell, *, is_timed: bool) -> None:
        self._observers = observers
        self._run_id = run_id
        self._bell = bell
        self._thread = threading.get_ident()
        self._begun: queue.SimpleQueue[tuple[StageRun, int, int, float]] = queue.SimpleQueue()
        self._told: dict[int, list[Array]] = {}
        names = [f"{prefix}_{what}" for prefix in ("on_node", "on_map_item") for what in _CALLS]
        self.is_heard = observers.want(
            *names, "on_node_cached", "on_map_item_cached", "on_map_start", "on_map_end"
        )
        """Whether anybody wants to be told."""
        self._times = is_timed or observers.want(*names)
        self.looks = observers.want("on_node_start", "on_map_item_start")
        """Whether starts are wanted as they happen."""

    def open(self, run: StageRun) -> None:
        """Take in that a stage starts."""
        if self._times:
            run.begun = partial(self._begin, run) if self.looks else _nobody
        if not self.is_heard:
            return
        self._told[run.stage.number] = [np.zeros(run.size, dtype=np.uint8) for _ in run.stage.steps]
        for step in self._mapped_steps(run):
            self._observers.tell("on_map_start", self._event(run, step))

    def hear(self) -> None:
        """Tell of calls that have begun in other threads."""
        while not self._begun.empty():  # nobody else takes from it
            run, step, position, started = self._begun.get()
            self._start(run, step, position, {"started": started})

    def see(self, run: StageRun, call: Underway) -> None:
        """Tell of a call that is seen in a worker process."""
        if self.looks and call.seconds > 0:
            self._start(run, call.step, call.position, {"started": time.time() - call.seconds})

    def take_in(self, run: StageRun, report: BatchReport) -> None:
        """Tell of the calls that a batch has made."""
        if not self.is_heard:
            return
        self.hear()
        failures = {(one.step, one.position): one for one in report.failures}
        for timed in report.timed:
            for position, begun, seconds in zip(timed.positions, timed.begun, timed.seconds, strict=True):
                failure = failures.pop((timed.step, position), None)
                times: dict[str, Any] = {"started": begun, "seconds": seconds}
                if failure is not None:
                    times |= {"error": failure.exception, "attempts": failure.attempts}
                self._end(run, timed.step, position, times)
        for (step, position), failure in failures.items():
            self._end(run, step, position, {"error": failure.exception, "attempts": failure.attempts})

    def land(self, run: StageRun, positions: Array) -> None:
        """Tell of calls that were found."""
        if not self.is_heard:
            return
        for step, told in enumerate(self._told[run.stage.number]):
            if is_carrier(run.stage.steps[step].node):
                continue
            there = run.locators[step][positions] != MISSING
            found = positions[there & (told[positions] != _ENDED)]
            told[found] = _ENDED
            for position in found.tolist() if self._wants(run, "cached") else ():
                self._tell(run, step, position, "cached", {})

    def close(self, run: StageRun, seconds: float) -> None:
        """Take in that a stage is complete."""
        if self.is_heard:
            for step in self._mapped_steps(run):
                self._observers.tell("on_map_end", self._event(run, step, seconds=seconds))

    def _begin(self, run: StageRun, step: int, position: int) -> None:
        if threading.get_ident() == self._thread:
            self._start(run, step, position, {"started": time.time()})
            return
        self._begun.put((run, step, position, time.time()))
        self._bell.ring()

    def _start(self, run: StageRun, step: int, position: int, times: Mapping[str, Any]) -> None:
        told = self._told[run.stage.number][step]
        if told[position] == _UNTOLD and not is_carrier(run.stage.steps[step].node):
            told[position] = _STARTED
            self._tell(run, step, position, "start", times)

    def _end(self, run: StageRun, step: int, position: int, times: Mapping[str, Any]) -> None:
        told = self._told[run.stage.number][step]
        if told[position] == _ENDED or is_carrier(run.stage.steps[step].node):
            return
        self._start(run, step, position, {"started": times.get("started", 0.0)})
        told[position] = _ENDED
        self._tell(run, step, position, "error" if "error" in times else "end", times)

    def _tell(self, run: StageRun, step: int, position: int, what: str, times: Mapping[str, Any]) -> None:
        if self._wants(run, what):
            event = self._event(run, step, index=run.space.index(position), **times)
            self._observers.tell(self._method(run, what), event)

    def _wants(self, run: StageRun, what: str) -> bool:
        return self._observers.want(self._method(run, what))

    def _method(self, run: StageRun, what: str) -> str:
        return f"on_map_item_{what}" if run.stage.axes else f"on_node_{what}"

    def _mapped_steps(self, run: StageRun) -> list[int]:
        if not run.stage.axes:
            return []
        return [k for k, step in enumerate(run.stage.steps) if not is_carrier(step.node)]

    def _event(self, run: StageRun, step: int, **what: Any) -> NodeEvent:
        node = run.stage.steps[step].node
        return NodeEvent(self._run_id, node.name, node.output_names, run.size, path=node.path, **what)


def _nobody(_step: int, _position: int) -> None:
    """Take a start that nobody wants to be told of."""
