"""Sequential: batches run in the calling thread."""

import threading
from concurrent.futures import Future
from typing import Any

import numpy as np

from gristmill.engine.report import BatchReport
from gristmill.engine.stagerun import Missing, StageRun
from gristmill.engine.stores import Stores
from gristmill.engine.worker import StageWorker
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


class SequentialTransport:
    """Runs each batch at once, where it is submitted."""

    name = "sequential"
    width = 1
    bytes_piped = 0

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._workers: dict[int, StageWorker] = {}

    def free(self, stage: StageRun) -> int:
        """One batch at a time: when it has been submitted, it is done."""
        return 1

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
            worker = StageWorker(stage.job, self._stores, claims, threading.Event(), portable=False)
            self._workers[stage.stage.number] = worker
        future: Future[BatchReport] = Future()
        try:
            report = worker.run(
                positions, fresh=missing.fresh, entitled=missing.below, distrusted=missing.distrusted
            )
            future.set_result(report)
        except Exception as error:  # noqa: BLE001 - the future carries it to the loop
            future.set_exception(error)
        return future

    def processes(self) -> dict["Future[BatchReport]", int]:
        """Return none: this process runs everything."""
        return {}

    def forget(self, stage: StageRun) -> None:
        """Do nothing: the worker reads through the stage itself."""

    def halt(self) -> None:
        """Do nothing: nothing runs between two submits."""

    def close(self, *, kill: bool) -> None:
        """Commit what is left; nothing runs between two submits."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
