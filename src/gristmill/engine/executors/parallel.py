"""Parallel: batches run in loky processes, one single-process executor per slot.

One executor per process, because in a shared loky pool one dead worker fails every pending future and takes its
siblings along. So a death costs one slot its batch, names it exactly, and leaves the others alone. Slots stay warm
between runs and end when they have been idle for a while. This is the only module that knows loky.
"""

import contextlib
import os
import pickle
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
from loky.process_executor import ProcessPoolExecutor

from gristmill.engine.executors.base import SlotDiedError
from gristmill.engine import watchdog
from gristmill.engine.process import BatchMessage, StaleCodeError, run_batch
from gristmill.engine.report import BatchReport
from gristmill.engine.sources import InputSource, OutputSource, PublishedInput, PublishedOutput
from gristmill.engine.stagerun import StageRun
from gristmill.engine.stores import Stores
from gristmill.errors import GristmillError
from gristmill.identity.digest import checksum

Array = np.ndarray[Any, Any]

IDLE_SECONDS = 300.0
"""How long a worker without work stays."""

_ONE_THREAD = dict.fromkeys((*("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), *("VECLIB_MAXIMUM_THREADS", "BLIS_NUM_THREADS", "ZARR_THREADING__MAX_WORKERS")), "1")
"""`max_workers` processes with as many threads each would fight for the same cores."""


class _Slot:
    """One worker process."""

    def __init__(self) -> None:
        self.executor = ProcessPoolExecutor(
            max_workers=1,
            timeout=IDLE_SECONDS,
            initializer=watchdog.start,
            initargs=(os.getpid(),),
            env=_ONE_THREAD,
        )

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

    def take(self) -> _Slot:
        with self._lock:
            if self._pid != os.getpid():  # a fork has our list, but not our processes
                self._pid, self._idle = os.getpid(), []
            return self._idle.pop() if self._idle else _Slot()

    def give(self, slot: _Slot) -> None:
        with self._lock:
            self._idle.append(slot)


_WARM = _WarmSlots()  # starting a process costs 0.3 s: they outlive the run that started them


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

    def __init__(self, stores: Stores, width: int) -> None:
        self._stores = stores
        self.width = width
        self.bytes_piped = 0
        self._slots: list[_Slot] = []
        self._idle: list[_Slot] = []
        self._jobs: dict[int, str] = {}
        self._counter = 0

    @property
    def free(self) -> int:
        return len(self._idle) + self.width - len(self._slots)

    def submit(self, stage: StageRun, positions: Array, *, fresh: bool) -> "Future[BatchReport]":
        slot = self._idle.pop() if self._idle else self._new_slot()
        path = self._jobs.get(stage.stage.number) or self._publish(stage, by_value=False)
        answer: Future[BatchReport] = Future()
        answer.set_running_or_notify_cancel()
        self._send(slot, answer, stage, path, positions, fresh=fresh)
        return answer

    def close(self, *, kill: bool) -> None:
        for slot in self._slots:
            if slot in self._idle:
                _WARM.give(slot)
            elif kill:
                slot.kill()
        self._slots, self._idle = [], []
        for path in self._jobs.values():
            for file in Path(path).parent.glob(f"{Path(path).stem}*"):
                file.unlink(missing_ok=True)

    def _new_slot(self) -> _Slot:
        slot = _WARM.take()
        self._slots.append(slot)
        return slot

    def _send(
        self,
        slot: _Slot,
        answer: "Future[BatchReport]",
        stage: StageRun,
        path: str,
        positions: Array,
        *,
        fresh: bool,
    ) -> None:
        message = pickle.dumps(BatchMessage.of(self._stores.spec, path, positions, fresh=fresh), protocol=5)
        self.bytes_piped += len(message)

        def landed(future: "Future[bytes]") -> None:
            try:
                reply = future.result()
            except BaseException as error:  # noqa: BLE001 - loky's word for a dead process has many forms
                self._replace(slot)
                answer.set_exception(SlotDiedError(str(error)))
                return
            self.bytes_piped += len(reply)
            report = pickle.loads(reply)  # noqa: S301 - from our own worker
            if isinstance(report, StaleCodeError):
                self._resend(slot, answer, stage, path, positions, report, fresh=fresh)
                return
            self._idle.append(slot)
            if isinstance(report, BaseException):
                answer.set_exception(report)
            else:
                answer.set_result(report)

        try:
            slot.executor.submit(run_batch, message).add_done_callback(landed)
        except BaseException as error:  # noqa: BLE001 - a slot whose process died while it was idle
            self._replace(slot)
            answer.set_exception(SlotDiedError(str(error)))

    def _replace(self, slot: _Slot) -> None:
        slot.kill()
        with contextlib.suppress(ValueError):
            self._slots.remove(slot)

    def _resend(
        self,
        slot: _Slot,
        answer: "Future[BatchReport]",
        stage: StageRun,
        path: str,
        positions: Array,
        stale: StaleCodeError,
        *,
        fresh: bool,
    ) -> None:
        """Send the functions by value: the worker's modules are not those that were fingerprinted."""
        try:
            if path.endswith("-v.job"):
                raise GristmillError(
                    f"the code of {stale} differs between this process and its workers, even when it is sent by "
                    "value; was a source file edited while this process ran? Restart it."
                )
            if self._jobs.get(stage.stage.number) == path:
                self._publish(stage, by_value=True)
            self._send(slot, answer, stage, self._jobs[stage.stage.number], positions, fresh=fresh)
        except BaseException as error:  # noqa: BLE001 - this runs in loky's thread; the future carries it
            self._idle.append(slot)
            answer.set_exception(error)

    def _publish(self, stage: StageRun, *, by_value: bool) -> str:
        """Write the job of a stage, its inputs included, to files that the workers read."""
        number = stage.stage.number
        self._counter += 1
        base = self._stores.kept.scratch / f"{checksum(os.urandom(16)).hex()[:12]}{'-v' if by_value else ''}"
        job = stage.job
        sources: dict[str, Any] = {}
        for position, (name, source) in enumerate(job.sources.items()):
            sources[name] = _reference(source, Path(f"{base}-{position}"))
        data = _pickled(type(job)(job.space, job.tasks, job.shapes, sources), by_value=by_value)
        path = f"{base}.job"
        Path(path).write_bytes(data)
        self._jobs[number] = path
        return path


def _reference(source: Any, path: Path) -> PublishedInput | PublishedOutput:
    assert isinstance(source, InputSource | OutputSource)
    return source.publish(path)


def _pickled(job: Any, *, by_value: bool) -> bytes:
    modules = _own_modules(job) if by_value else []
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        data: bytes = cloudpickle.dumps(job, protocol=5)
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
    return data


def _own_modules(job: Any) -> list[Any]:
    """The modules whose functions go by value: the top-level packages of the job's functions."""
    import sys

    names = {getattr(task.node.function, "__module__", "").partition(".")[0] for task in job.tasks}
    return [sys.modules[name] for name in sorted(names) if name in sys.modules and name != "__main__"]
