"""Sequential: batches run in the calling thread."""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np

from gristmill.engine.lanes import BUSY
from gristmill.engine.report import BatchReport
from gristmill.engine.seat import LiveSeat, Underway
from gristmill.engine.stagerun import Missing, StageRun
from gristmill.engine.stores import Stores
from gristmill.engine.worker import Site, StageWorker
from gristmill.errors import GristmillError
from gristmill.storage.claims import Claims

Array = np.ndarray[Any, Any]


def check_code(stage: StageRun) -> None:
    """See that the code which was fingerprinted is the code that will run.

    Raises
    ------
    GristmillError
        A function, or something it uses, was redefined after the plan was made.
    """
    for step in stage.stage.steps:
        if bytes(step.node.fingerprint) != step.fingerprint:
            raise GristmillError(
                f"the code of {step.node.name}, or of something it uses, has changed since this map was planned; "
                "map again to compute with the new code"
            )


def _at_once(batch: Callable[[], BatchReport]) -> BatchReport:
    return batch()


class SequentialTransport:
    """Runs each batch at once, where it is submitted.

    Parameters
    ----------
    stores
        Where results go.
    is_beside
        Tells whether other batches run meanwhile: then an engine that a call starts runs in the call.
    name
        What events and run records call it.
    call
        Calls a batch, in this thread, and returns what it returns.
    """

    width = 1
    bytes_piped = 0
    is_direct = True
    is_shared = False

    def __init__(
        self,
        stores: Stores,
        is_beside: Callable[[], bool],
        name: str = "sequential",
        call: Callable[[Callable[[], BatchReport]], BatchReport] = _at_once,
    ) -> None:
        self.name = name
        self._is_beside = is_beside
        self._call = call
        self._stores = stores
        self._workers: dict[int, StageWorker] = {}

    @property
    def is_busy(self) -> bool:
        """Return False: what has been submitted is done."""
        return False

    def free(self, stage: StageRun) -> int:
        """One batch at a time: when it has been submitted, it is done."""
        return 1

    def ahead(self, stage: StageRun) -> int:
        """Return 0: none waits behind another."""
        return 0

    def least(self, stage: StageRun) -> int:
        """Return 1."""
        return 1

    def prepare(self, stage: StageRun) -> None:
        """Do nothing: nothing is carried anywhere."""

    def submit(
        self, stage: StageRun, positions: Array, claims: Claims, missing: Missing
    ) -> "Future[BatchReport]":
        """Run a batch now; its future is done when this returns."""
        worker = self._workers.get(stage.stage.number)
        if worker is None:
            check_code(stage)
            seat = LiveSeat(stage.begun) if stage.begun is not None else None
            worker = StageWorker(stage.job, self._stores, claims, Site(threading.Event(), seat=seat))
            self._workers[stage.stage.number] = worker
        future: Future[BatchReport] = Future()
        busy = BUSY.set(BUSY.get() or self._is_beside())
        try:
            batch = partial(
                worker.run,
                positions,
                fresh=missing.fresh,
                entitled=missing.below,
                distrusted=missing.distrusted,
            )
            future.set_result(self._call(batch))
        except Exception as error:  # noqa: BLE001 - the future carries it to the loop
            future.set_exception(error)
        finally:
            BUSY.reset(busy)
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
        """Do nothing: nothing runs between two submits."""

    def close(self, *, kill: bool) -> None:
        """Commit what is left; nothing runs between two submits."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
