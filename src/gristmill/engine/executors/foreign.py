"""Foreign: batches run in the processes of an executor that the user made.

It is used as anybody uses it: tasks are submitted to it, as many at once as it is wide. It is never shut down, its
processes are never ended, and when it breaks nothing of it is replaced.
"""

import contextlib
import itertools
import pickle
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.engine.executors.base import SlotDiedError
from gristmill.engine.executors.jobs import JobFiles, is_by_value
from gristmill.engine.guest import Host, run_guest_batch
from gristmill.engine.process import BatchMessage, StaleCodeError
from gristmill.engine.report import BatchReport
from gristmill.engine.seat import Underway
from gristmill.engine.specs import GivenExecutor
from gristmill.engine.stagerun import Missing, StageRun
from gristmill.engine.stores import Stores
from gristmill.errors import GristmillError, WorkerDiedError
from gristmill.storage.claims import Claims

Array = np.ndarray[Any, Any]


@dataclass(eq=False)
class _Posted:
    """One batch on its way."""

    stage: StageRun
    positions: Array
    message: BatchMessage
    answer: "Future[BatchReport]"
    task: Any = None
    """The executor's future."""


class ForeignTransport:
    """Runs batches in other processes, through an executor that is not ours.

    Parameters
    ----------
    stores
        The stores that those processes open too.
    given
        The executor.
    width
        How many batches it is given at once.
    """

    is_direct = False
    is_shared = True

    def __init__(self, stores: Stores, given: GivenExecutor, width: int) -> None:
        self.name = given.name
        self.width = width
        self.bytes_piped = 0
        self._stores = stores
        self._given = given
        self._jobs = JobFiles(stores)
        self._host = Host.here()
        self._numbers = itertools.count()
        self._running: dict[Future[BatchReport], _Posted] = {}
        self._broken = ""
        """What was under way when a process died."""

    @property
    def is_busy(self) -> bool:
        """Return whether batches are under way."""
        return bool(self._running)

    def free(self, stage: StageRun) -> int:
        """How many more batches can start now."""
        return self.width - len(self._running)

    def ahead(self, stage: StageRun) -> int:
        """Return 0: none waits behind another."""
        return 0

    def least(self, stage: StageRun) -> int:
        """Return 1: slow items go one by one."""
        return 1

    def prepare(self, stage: StageRun) -> None:
        """Publish the stage's job, unless it is.

        Raises
        ------
        InputError
            An input, or what a function refers to, cannot be pickled.
        """
        if not self._jobs.path(stage).exists():  # the store's directory was deleted under us
            self._jobs.forget(stage)
            self._jobs.path(stage)

    def submit(
        self, stage: StageRun, positions: Array, claims: Claims, missing: Missing
    ) -> "Future[BatchReport]":
        """Give the executor a batch.

        Raises
        ------
        GristmillError
            It does not take it.
        """
        self.prepare(stage)
        message = BatchMessage.of(
            self._stores.spec, str(self._jobs.path(stage)), positions, friend=claims.owner, missing=missing
        )
        answer: Future[BatchReport] = Future()
        answer.set_running_or_notify_cancel()
        self._send(_Posted(stage, positions, message, answer))
        return answer

    def processes(self) -> dict["Future[BatchReport]", int]:
        """Return none: which process runs what is the executor's business."""
        return {}

    def underway(self) -> dict["Future[BatchReport]", Underway]:
        """Return none: these processes have no seats, and keep time limits themselves."""
        return {}

    def end(self, batch: "Future[BatchReport]") -> None:
        """Do nothing: the executor's processes are its own."""

    def forget(self, stage: StageRun) -> None:
        """Publish the stage's job again before its next batch: what it reads has moved."""
        self._jobs.forget(stage)

    def extend(self, stage: StageRun, positions: Mapping[str, Array]) -> None:
        """Take in that more elements of what the stage reads are there."""
        self._jobs.extend(stage, positions)

    def halt(self) -> None:
        """Withdraw the jobs: processes start no more blocks of calls."""
        self._jobs.close()

    def close(self, *, kill: bool) -> None:
        """Withdraw what has not begun, with the jobs; what has begun starts no more calls."""
        for posted in list(self._running.values()) if kill else ():
            with contextlib.suppress(Exception):  # not every future can be cancelled
                posted.task.cancel()
        self._jobs.close()

    def _send(self, posted: _Posted) -> None:
        message = pickle.dumps(posted.message, protocol=5)
        self.bytes_piped += len(message)
        self._running[posted.answer] = posted
        try:
            task = self._given.executor.submit(run_guest_batch, message, self._host, next(self._numbers))
            posted.task = task
            task.add_done_callback(partial(self._land, posted))
        except Exception as error:
            self._running.pop(posted.answer, None)
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> GristmillError:
        if self._broken:
            return WorkerDiedError(
                f"a process of {self.name} died with {self._broken}, and the executor takes no more tasks ({error}). "
                "What was finished is kept: map again with a new one. 'parallel' goes on after that, and says whose "
                "call it was"
            )
        return GristmillError(
            f"{self._given.text} took no more tasks while a map was running ({_said(error)}); what was finished is kept"
        )

    def _land(self, posted: _Posted, task: Any) -> None:
        """Take a report in; runs in a thread of the executor's."""
        try:
            reply = task.result()
            self.bytes_piped += len(reply)
            report = pickle.loads(reply)  # noqa: S301 - from our own code
        except BrokenExecutor as error:
            self._broken = self._broken or _described(posted)
            report = SlotDiedError(str(error))
        except BaseException as error:  # noqa: BLE001 - cancelled, or whatever else such an executor raises
            report = GristmillError(
                f"{self._given.text} did not run {_described(posted)} ({_said(error)}); what was finished is kept"
            )
        self._running.pop(posted.answer, None)
        if isinstance(report, StaleCodeError):
            self._send_by_value(posted, report)
        elif isinstance(report, BaseException):
            posted.answer.set_exception(report)
        else:
            posted.answer.set_result(report)

    def _send_by_value(self, posted: _Posted, stale: StaleCodeError) -> None:
        """Send code that a process has in another version by value; a new process is not ours to start."""
        sent = Path(posted.message.job)
        if is_by_value(sent):
            hopeless = GristmillError(
                f"the code of {stale} in this process is not the code that {self.name} has loaded, and cannot be "
                "sent by value; make a new executor, or reload the module that it is in"
            )
            posted.answer.set_exception(hopeless)
            return
        try:
            job = self._jobs.instead(posted.stage, sent)
            self._send(replace(posted, message=replace(posted.message, job=str(job))))
        except BaseException as error:  # noqa: BLE001 - this runs in a thread of the executor's; the future carries it
            posted.answer.set_exception(error)


def _described(posted: _Posted) -> str:
    stage, count = posted.stage, len(posted.positions)
    first = stage.space.index(int(posted.positions[0])) if stage.stage.axes else ()
    where = f" at index {first}" if first else ""
    more = f" and {count - 1} more" if count > 1 else ""
    return f"a batch of {stage.stage.title!r}{where}{more} under way"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
