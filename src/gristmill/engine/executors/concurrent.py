"""Concurrent: the calls of a batch run in threads or as coroutines of this process, many at a time.

For calls that wait for something. A thread of its own drives each batch: it looks up, hands the calls to the lanes,
and records them as they end.
"""

import contextlib
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.engine.executors.sequential import check_code
from gristmill.engine.lanes import THREADS, Lanes
from gristmill.engine.report import BatchReport
from gristmill.engine.seat import LiveSeat, Underway
from gristmill.engine.stagerun import Missing, StageRun
from gristmill.engine.stores import Stores
from gristmill.engine.worker import Site, StageWorker
from gristmill.errors import StoreError
from gristmill.graph.node import Node
from gristmill.storage.claims import Claims

if TYPE_CHECKING:
    from gristmill.engine.coroutines import LoopLanes

Array = np.ndarray[Any, Any]


class ConcurrentTransport:
    """Runs batches in this process, with many calls at a time.

    Parameters
    ----------
    name
        What events and run records call it.
    stores
        Where results go.
    threads
        Where functions run.
    coroutines
        How many coroutines run at once.
    stop
        Set when nothing more may be started: by this transport, or by `threads`.
    """

    width = 1  # a stage has one batch at a time, of as many calls as run at once, and then the next beside its rest
    bytes_piped = 0
    is_direct = False
    is_shared = False

    def __init__(
        self, name: str, stores: Stores, threads: Lanes, coroutines: int, stop: threading.Event
    ) -> None:
        self.name = name
        self._stores = stores
        self._threads = threads
        self._coroutines = coroutines
        self._loop: LoopLanes | None = None
        self._stop = stop
        self._lock = threading.Lock()
        self._idle: dict[int, list[StageWorker]] = {}
        self._busy: dict[bool, int] = {False: 0, True: 0}
        """Items under way, in threads and as coroutines."""

    @property
    def is_busy(self) -> bool:
        """Return whether calls are under way."""
        return any(self._busy.values())

    def free(self, stage: StageRun) -> int:
        """How many more batches can start now: one, while less than that waits for room in the lanes."""
        return int(self._busy[_is_async(stage)] < 2 * self.least(stage))

    def ahead(self, stage: StageRun) -> int:
        """Return 0: none waits behind another."""
        return 0

    def least(self, stage: StageRun) -> int:
        """Return how many calls run at once."""
        return self._coroutines if _is_async(stage) else self._threads.width

    def prepare(self, stage: StageRun) -> None:
        """Do nothing: nothing is carried anywhere."""

    def submit(
        self, stage: StageRun, positions: Array, claims: Claims, missing: Missing
    ) -> "Future[BatchReport]":
        """Start a batch in a thread."""
        worker = self._worker(stage, claims)
        with self._lock:
            self._busy[_is_async(stage)] += len(positions)
        future: Future[BatchReport] = Future()
        future.set_running_or_notify_cancel()
        THREADS.run(partial(self._drive, stage, worker, positions, missing, future))
        return future

    def processes(self) -> dict["Future[BatchReport]", int]:
        """Return none: this process runs everything."""
        return {}

    def underway(self) -> dict["Future[BatchReport]", Underway]:
        """Return none: calls say themselves when they begin."""
        return {}

    def end(self, batch: "Future[BatchReport]") -> None:
        """Do nothing: time limits are kept where the calls are made."""

    def forget(self, stage: StageRun) -> None:
        """Do nothing: the worker reads through the stage itself."""

    def extend(self, stage: StageRun, positions: Mapping[str, Array]) -> None:
        """Do nothing: the worker reads through the stage itself."""

    def halt(self) -> None:
        """Start no more calls."""
        self._stop.set()

    def close(self, *, kill: bool) -> None:
        """Commit what is left; with `kill`, start no more calls. Threads that still run are left alone."""
        if kill:
            self._stop.set()
        self._threads.close()
        if self._loop is not None:
            self._loop.close()
        with self._lock:
            idle, self._idle = self._idle, {}
        for worker in (one for workers in idle.values() for one in workers):
            worker.close()

    def _drive(
        self,
        stage: StageRun,
        worker: StageWorker,
        positions: Array,
        missing: Missing,
        future: "Future[BatchReport]",
    ) -> None:
        report: BatchReport | None = None
        failure: BaseException | None = None
        try:
            report = worker.run(
                positions, fresh=missing.fresh, entitled=missing.below, distrusted=missing.distrusted
            )
        except BaseException as error:  # noqa: BLE001 - the future carries it to the loop
            failure = error
        failure = failure or self._threads.fault  # what had ended before that is committed
        with self._lock:
            self._busy[_is_async(stage)] -= len(positions)
            self._idle.setdefault(stage.stage.number, []).append(worker)
        if self._stop.is_set():
            with contextlib.suppress(StoreError):  # nobody waits for it any more
                worker.close()
        if failure is not None:
            future.set_exception(failure)
        elif report is not None:
            future.set_result(report)

    def _worker(self, stage: StageRun, claims: Claims) -> StageWorker:
        number = stage.stage.number
        with self._lock:
            if idle := self._idle.get(number):
                return idle.pop()
            is_new = number not in self._idle
        if is_new:
            check_code(stage)
        seat = LiveSeat(stage.begun) if stage.begun is not None else None
        site = Site(self._stop, lanes=self._lanes, seat=seat)
        return StageWorker(stage.job, self._stores, claims, site)

    def _lanes(self, node: Node) -> Lanes:
        if not node.is_async:
            return self._threads
        if self._loop is None:
            from gristmill.engine.coroutines import LoopLanes

            self._loop = LoopLanes(self._coroutines)
        return self._loop


def _is_async(stage: StageRun) -> bool:
    return any(step.node.is_async for step in stage.stage.steps)
