"""Parallel: batches run in loky processes, one single-process executor per slot.

One executor per process, because in a shared loky pool one dead worker fails every pending future and takes
its siblings along. So a death costs one slot its batch, names it exactly, and leaves the others alone. Slots
stay warm between runs and end when they have been idle for a while. This is the only module that knows loky.
"""

import contextlib
import functools
import os
import pickle
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import numpy as np
from loky.process_executor import ProcessPoolExecutor

from gristmill.engine import watchdog
from gristmill.engine.executors.base import SlotDiedError
from gristmill.engine.executors.jobs import JobFiles, is_by_value
from gristmill.engine.exits import be_first
from gristmill.engine.process import BatchMessage, StaleCodeError, run_batch
from gristmill.engine.report import BatchReport
from gristmill.engine.seat import Table, Underway
from gristmill.engine.stagerun import Missing, StageRun
from gristmill.engine.stores import Stores
from gristmill.errors import GristmillError
from gristmill.storage.claims import Claims

Array = np.ndarray[Any, Any]

IDLE_SECONDS = 300.0
"""How long a worker without work stays."""

_ONE_THREAD = dict.fromkeys(
    (
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
        *("VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS", "ZARR_THREADING__MAX_WORKERS"),
    ),
    "1",
)
"""`max_workers` processes with as many threads each would fight for the same cores."""


@contextlib.contextmanager
def _quiet_tracker() -> Iterator[None]:
    """Start loky's resource tracker, if this is what starts it, without its warnings.

    It outlives a `kill -9` of this process, tidies up, and would say so beside the user's next prompt.
    """
    before = os.environ.get("PYTHONWARNINGS")
    quiet = "ignore::UserWarning:loky.backend.resource_tracker"
    os.environ["PYTHONWARNINGS"] = f"{before},{quiet}" if before else quiet
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONWARNINGS"]
        else:
            os.environ["PYTHONWARNINGS"] = before


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back: a process that is started here inherits that until its watchdog ignores Ctrl-C."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Slot:
    """One worker process."""

    def __init__(self) -> None:
        self._has_run = False
        with _quiet_tracker():
            self.executor = ProcessPoolExecutor(
                max_workers=1,
                timeout=IDLE_SECONDS,
                initializer=watchdog.start,
                initargs=(os.getpid(),),
                env=_ONE_THREAD,
            )

    def submit(self, message: bytes) -> "Future[bytes]":
        """Have the process run a batch."""
        future: Future[bytes] = self.executor.submit(run_batch, message)
        if not self._has_run:
            self._has_run = True
            be_first()  # each executor of loky's waits at exit for what runs, from its first use on
        return future

    def processes(self) -> list[int]:
        """Return the id of the process, if there is one now."""
        return list(self.executor._processes or ())  # noqa: SLF001 - loky has no other word for it

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(Exception):  # it may be gone already
            self.executor.shutdown(wait=False, kill_workers=True)


class _WarmSlots:
    """Idle slots, shared by all engines of this process."""

    def __init__(self) -> None:
        self._idle: list[_Slot] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._tidied = False

    def take(self) -> _Slot:
        with self._lock:
            if self._pid != os.getpid():  # a fork has our list, but not our processes
                self._pid, self._idle, self._tidied = os.getpid(), [], False
            if self._idle:
                return self._idle.pop()
        slot = _Slot()
        if not self._tidied:  # before multiprocessing, in a child process of its own, joins what still runs
            self._tidied = True
            Finalize(None, self.end, exitpriority=100)
        return slot

    def end(self) -> None:
        """End all idle processes."""
        with self._lock:
            idle, self._idle = self._idle, []
        for slot in idle:
            slot.kill()

    def give(self, slot: _Slot) -> None:
        with self._lock:
            self._idle.append(slot)


_WARM = _WarmSlots()  # starting a process costs 0.3 s: they outlive the run that started them


@dataclass(frozen=True)
class _Delivery:
    """One batch on its way, for as long as its report is out."""

    slot: _Slot
    stage: StageRun
    message: BatchMessage
    answer: "Future[BatchReport]"
    fresh_process: bool = False
    """Whether the process was started for this batch, because an older one had other code loaded."""

    def check_hope(self, stale: StaleCodeError) -> None:
        """Give up if even a new process has other code.

        Raises
        ------
        GristmillError
            It has.
        """
        if self.fresh_process:
            raise GristmillError(
                f"the code of {stale} in this process is neither what its source file says now, nor can it be sent "
                "to a worker by value; was the file edited while this process ran? Reload it, or restart."
            )


class ParallelTransport:
    """Runs batches in worker processes.

    Parameters
    ----------
    stores
        The stores that the workers open too.
    width
        How many processes.
    """

    name = "parallel"
    is_direct = False
    is_shared = False

    def __init__(self, stores: Stores, width: int) -> None:
        self._stores = stores
        self.width = width
        self.bytes_piped = 0
        self._slots: list[_Slot] = []
        self._idle: list[_Slot] = []
        self._jobs = JobFiles(stores)
        self._running: dict[Future[BatchReport], _Slot] = {}
        self._table: Table | None = None
        self._rows: dict[_Slot, int] = {}
        """The row of each slot in the table; none has one where there is no room for a table."""

    @property
    def is_busy(self) -> bool:
        """Return whether processes run batches."""
        return bool(self._running)

    def free(self, stage: StageRun) -> int:
        """How many more batches can start now."""
        return len(self._idle) + self.width - len(self._slots)

    def least(self, stage: StageRun) -> int:
        """Return 1: slow items go one by one."""
        return 1

    def submit(
        self, stage: StageRun, positions: Array, claims: Claims, missing: Missing
    ) -> "Future[BatchReport]":
        """Send a batch to an idle worker."""
        job = self._jobs.path(stage)
        slot = self._idle.pop() if self._idle else self._new_slot()
        seat = (str(self._table.path), self._rows[slot]) if self._table is not None else None
        message = BatchMessage.of(
            self._stores.spec, str(job), positions, friend=claims.owner, missing=missing, seat=seat
        )
        answer: Future[BatchReport] = Future()
        answer.set_running_or_notify_cancel()
        self._send(_Delivery(slot, stage, message, answer))
        return answer

    def prepare(self, stage: StageRun) -> None:
        """Publish the stage's job, unless it is.

        Raises
        ------
        InputError
            An input, or what a function refers to, cannot be pickled.
        """
        self._jobs.path(stage)

    def processes(self) -> dict["Future[BatchReport]", int]:
        """Return the ids of the processes that run batches now."""
        return {
            batch: process for batch, slot in self._running.copy().items() for process in slot.processes()
        }

    def underway(self) -> dict["Future[BatchReport]", Underway]:
        """Return the calls that processes are at now."""
        looked = {batch: self._look(slot) for batch, slot in self._running.copy().items()}
        return {batch: call for batch, call in looked.items() if call is not None}

    def end(self, batch: "Future[BatchReport]") -> None:
        """End the process that runs a batch."""
        if (slot := self._running.get(batch)) is not None:
            slot.kill()

    def forget(self, stage: StageRun) -> None:
        """Publish the stage's job again before its next batch: what it reads has moved."""
        self._jobs.forget(stage)

    def extend(self, stage: StageRun, positions: Mapping[str, Array]) -> None:
        """Take in that more elements of what the stage reads are there."""
        self._jobs.extend(stage, positions)

    def halt(self) -> None:
        """Do nothing: a process runs the batch that it has, which is short, until it is ended."""

    def close(self, *, kill: bool) -> None:
        """Keep idle processes warm for the next run; with `kill`, end those that still work."""
        for slot in self._slots:
            if slot in self._idle:
                _WARM.give(slot)
            elif kill:
                slot.kill()
        self._slots, self._idle, self._rows = [], [], {}
        if self._table is not None:
            self._table.remove()
        self._jobs.close()

    def _new_slot(self) -> _Slot:
        if not self._slots and self._table is None:
            self._table = self._new_table()
        slot = _WARM.take()
        self._slots.append(slot)
        self._rows[slot] = min(set(range(self.width)) - set(self._rows.values()))
        return slot

    def _new_table(self) -> Table | None:
        """A table for the processes to say what they are at; None where there is no room for one."""
        for _ in range(2):
            path = self._stores.kept.scratch / f"{os.urandom(6).hex()}.seats"
            try:
                return Table(path, self.width)
            except OSError as error:
                if not self._stores.kept.move_scratch(error):
                    break
        return None

    def _look(self, slot: _Slot) -> Underway | None:
        row = self._rows.get(slot)
        return self._table.row(row).look() if self._table is not None and row is not None else None

    def _send(self, delivery: _Delivery) -> None:
        message = pickle.dumps(delivery.message, protocol=5)
        self.bytes_piped += len(message)
        self._running[delivery.answer] = delivery.slot
        if self._table is not None:
            self._table.row(self._rows[delivery.slot]).clear()
        for _ in range(_SLOTS_TRIED):
            try:
                with _uninterrupted():
                    future = delivery.slot.submit(message)
            except Exception:  # noqa: BLE001 - its process died while it was idle: no call is to blame
                delivery = replace(delivery, slot=self._replaced(delivery.slot))
                self._running[delivery.answer] = delivery.slot
            else:
                future.add_done_callback(functools.partial(self._land, delivery))
                return
        self._running.pop(delivery.answer, None)
        delivery.answer.set_exception(SlotDiedError("no worker process can be started"))

    def _land(self, delivery: _Delivery, future: "Future[bytes]") -> None:
        """Take a report in; runs in a thread of loky's."""
        self._running.pop(delivery.answer, None)
        try:
            reply = future.result()
        except BaseException as error:  # noqa: BLE001 - loky's word for a dead process has many forms
            self._bury(delivery, error)
            return
        self.bytes_piped += len(reply)
        report = pickle.loads(reply)  # noqa: S301 - from our own worker
        if isinstance(report, StaleCodeError):
            self._send_again(delivery, report)
            return
        self._idle.append(delivery.slot)
        if isinstance(report, BaseException):
            delivery.answer.set_exception(report)
        else:
            delivery.answer.set_result(report)

    def _bury(self, delivery: _Delivery, error: BaseException) -> None:
        call = self._look(delivery.slot)
        delivery.slot.kill()
        with contextlib.suppress(ValueError):
            self._slots.remove(delivery.slot)
        self._rows.pop(delivery.slot, None)
        delivery.answer.set_exception(SlotDiedError(str(error), call))

    def _replaced(self, slot: _Slot) -> _Slot:
        """Return a new process in the place of one that is dead or has other code loaded."""
        slot.kill()
        new = _Slot()
        self._slots[self._slots.index(slot)] = new
        self._rows[new] = self._rows.pop(slot)
        return new

    def _send_again(self, delivery: _Delivery, stale: StaleCodeError) -> None:
        """Send code that the worker has in another version: first by value, then to a new process."""
        try:
            sent = Path(delivery.message.job)
            if is_by_value(sent):
                delivery.check_hope(stale)
                delivery = replace(delivery, slot=self._replaced(delivery.slot), fresh_process=True)
            job = self._jobs.instead(delivery.stage, sent)
            self._send(replace(delivery, message=replace(delivery.message, job=str(job))))
        except BaseException as error:  # noqa: BLE001 - this runs in a thread of loky's; the future carries it
            self._idle.append(delivery.slot)
            delivery.answer.set_exception(error)


_SLOTS_TRIED = 3
"""How many processes may turn out to be dead before a batch is given back."""
