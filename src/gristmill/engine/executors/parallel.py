"""Parallel: batches run in processes, each of which may have one batch that waits behind the one it runs.

So a process goes on while its engine takes in what it has done. Where a process dies, only the batch that it ran has
to do with that: what waited behind it goes to the process that takes its place.
"""

import functools
import os
import pickle
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.engine.executors.base import SlotDiedError
from gristmill.engine.executors.jobs import JobFiles, is_by_value
from gristmill.engine.executors.slots import Slot, take_slot
from gristmill.engine.executors.warm import WARM
from gristmill.engine.process import BatchMessage, StaleCodeError
from gristmill.engine.report import BatchReport
from gristmill.engine.seat import Table, Underway
from gristmill.engine.stagerun import Missing, StageRun
from gristmill.engine.stores import Stores
from gristmill.errors import GristmillError
from gristmill.storage.claims import Claims

Array = np.ndarray[Any, Any]

_SLOTS_TRIED = 3
"""How many processes may turn out to be dead before a batch is given back."""


@dataclass(frozen=True, eq=False)
class _Delivery:
    """One batch on its way, for as long as its report is out."""

    stage: StageRun
    message: BatchMessage
    answer: "Future[BatchReport]"
    fresh_process: bool = False
    """Whether the process was started for this batch, because an older one had other code loaded."""
    sent: float = field(default_factory=time.monotonic)

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
        self._jobs = JobFiles(stores)
        self._lines: dict[Slot, list[_Delivery]] = {}
        """What each process has: the batch that it runs, and the one behind it."""
        self._lock = threading.RLock()
        """Reports come in threads of loky's."""
        self._closed = False
        self._table: Table | None = None
        self._rows: dict[Slot, int] = {}
        """The row of each slot in the table; none has one where there is no room for a table."""

    @property
    def is_busy(self) -> bool:
        """Return whether processes run batches."""
        return any(self._lines.copy().values())

    def free(self, stage: StageRun) -> int:
        """How many more batches can start now."""
        with self._lock:
            return self.width - sum(map(bool, self._lines.values()))

    def ahead(self, stage: StageRun) -> int:
        """How many more batches can wait behind others: one behind each that runs."""
        with self._lock:
            return sum(len(line) == 1 for line in self._lines.values())

    def least(self, stage: StageRun) -> int:
        """Return 1: slow items go one by one."""
        return 1

    def submit(
        self, stage: StageRun, positions: Array, claims: Claims, missing: Missing
    ) -> "Future[BatchReport]":
        """Send a batch to an idle worker, or else to the one that will be the first to have run what it has."""
        job = self._jobs.path(stage)
        message = BatchMessage.of(
            self._stores.spec, str(job), positions, friend=claims.owner, missing=missing
        )
        answer: Future[BatchReport] = Future()
        answer.set_running_or_notify_cancel()
        with self._lock:
            slot = self._slot()
            self._send(slot, _Delivery(stage, message, answer))
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
        """Return the ids of the processes that have batches now."""
        with self._lock:
            return {
                one.answer: process
                for slot, line in self._lines.items()
                for process in slot.processes()
                for one in line
            }

    def underway(self) -> dict["Future[BatchReport]", Underway]:
        """Return the calls that processes are at now."""
        with self._lock:
            looked = {line[0].answer: self._look(slot) for slot, line in self._lines.items() if line}
        return {batch: call for batch, call in looked.items() if call is not None}

    def end(self, batch: "Future[BatchReport]") -> None:
        """End the process that runs a batch."""
        with self._lock:
            running = [slot for slot, line in self._lines.items() if line and line[0].answer is batch]
        for slot in running:
            slot.kill()

    def forget(self, stage: StageRun) -> None:
        """Publish the stage's job again before its next batch: what it reads has moved."""
        self._jobs.forget(stage)

    def extend(self, stage: StageRun, positions: Mapping[str, Array]) -> None:
        """Take in that more elements of what the stage reads are there."""
        self._jobs.extend(stage, positions)

    def halt(self) -> None:
        """Do nothing: a process runs the batches that it has, which are short, until it is ended."""

    def close(self, *, kill: bool) -> None:
        """Keep idle processes warm for the next run; with `kill`, end those that still work."""
        with self._lock:
            self._closed = True
            lines, self._lines, self._rows = self._lines, {}, {}
        for slot, line in lines.items():
            if not line:
                WARM.give(slot)
            elif kill:
                slot.kill()
        if self._table is not None:
            self._table.remove()
        self._jobs.close()

    # -- slots --------------------------------------------------------------------------------------------------

    def _slot(self) -> Slot:
        """Return the slot for the next batch."""
        idle = [slot for slot, line in self._lines.items() if not line]
        if idle:
            return idle[-1]
        if len(self._lines) < self.width:
            return self._add(take_slot())
        return min(self._lines, key=lambda slot: (len(self._lines[slot]), self._lines[slot][0].sent))

    def _add(self, slot: Slot) -> Slot:
        if self._table is None and not self._rows:
            self._table = self._new_table()
        self._lines[slot] = []
        self._rows[slot] = min(set(range(self.width)) - set(self._rows.values()))
        return slot

    def _remove(self, slot: Slot) -> list[_Delivery]:
        """Forget a slot that is to be ended; return what it had."""
        self._rows.pop(slot, None)
        return self._lines.pop(slot, [])

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

    def _look(self, slot: Slot) -> Underway | None:
        row = self._rows.get(slot)
        return self._table.row(row).look() if self._table is not None and row is not None else None

    # -- sending ------------------------------------------------------------------------------------------------

    def _send(self, slot: Slot, delivery: _Delivery) -> None:
        """Give a slot a batch; where its process died while it was idle, which no call is to blame for, a new one."""
        seat = (str(self._table.path), self._rows[slot]) if self._table is not None else None
        message = pickle.dumps(replace(delivery.message, seat=seat), protocol=5)
        self.bytes_piped += len(message)
        for _ in range(_SLOTS_TRIED):
            line = self._lines[slot]
            line.append(delivery)
            if self._table is not None and len(line) == 1:
                self._table.row(self._rows[slot]).clear()
            try:
                future = slot.submit(message)
            except Exception:  # noqa: BLE001 - loky's word for a dead process has many forms
                if len(line) > 1:
                    return  # the end of the batch before it is on its way, and will send this one again
                row = self._rows[slot]
                self._remove(slot)
                slot.kill()
                slot = Slot()
                self._lines[slot], self._rows[slot] = [], row
            else:
                future.add_done_callback(functools.partial(self._land, slot, delivery))
                return
        self._remove(slot)
        delivery.answer.set_exception(SlotDiedError("no worker process can be started"))

    def _land(self, slot: Slot, delivery: _Delivery, future: "Future[bytes]") -> None:
        """Take a report in; runs in a thread of loky's."""
        try:
            reply = future.result()
        except BaseException as error:  # noqa: BLE001 - as above
            self._bury(slot, delivery, error)
            return
        with self._lock:
            self.bytes_piped += len(reply)
            if delivery in (line := self._lines.get(slot, [])):
                line.remove(delivery)
        report = pickle.loads(reply)  # noqa: S301 - from our own worker
        if isinstance(report, StaleCodeError):
            self._send_again(slot, delivery, report)
        elif isinstance(report, BaseException):
            delivery.answer.set_exception(report)
        else:
            delivery.answer.set_result(report)

    def _bury(self, slot: Slot, delivery: _Delivery, error: BaseException) -> None:
        """Give back the batch that a process ran which has ended, and send the one behind it to another."""
        with self._lock:
            if delivery not in self._lines.get(slot, []):
                return  # the end of the process has been seen already
            call = self._look(slot)
            died, *waiting = self._remove(slot)
            for one in waiting:
                self._send(self._slot(), one)
        slot.kill()
        died.answer.set_exception(SlotDiedError(str(error), call))

    def _send_again(self, slot: Slot, delivery: _Delivery, stale: StaleCodeError) -> None:
        """Send code that the worker has in another version: first by value, then to a new process."""
        try:
            with self._lock:
                sent, others = Path(delivery.message.job), list[_Delivery]()
                if is_by_value(sent):
                    delivery.check_hope(stale)
                    others = self._remove(slot)
                    slot.kill()
                    slot, delivery = self._add(Slot()), replace(delivery, fresh_process=True)
                job = self._jobs.instead(delivery.stage, sent)
                self._send(slot, replace(delivery, message=replace(delivery.message, job=str(job))))
                for one in others:  # it may have begun
                    self._send(slot, replace(one, message=replace(one.message, fresh=False)))
        except BaseException as error:  # noqa: BLE001 - this runs in a thread of loky's; the future carries it
            delivery.answer.set_exception(error)
