"""The worker process: what runs in it, and how it ends with its parent.

A worker keeps the stores and jobs it has opened. It ignores Ctrl-C (the engine decides what to do), and when its
parent is gone it starts nothing more, commits what it has finished and exits.
"""

import contextlib
import os
import pickle
import signal
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gristmill.engine.job import Job
from gristmill.engine.sources import SourceRef
from gristmill.engine.stores import Stores, StoresSpec
from gristmill.engine.worker import StageWorker

Array = np.ndarray[Any, Any]

_WATCH_SECONDS = 0.1
_LAST_WORDS_SECONDS = 0.7
"""How long an orphan may take to commit what it has finished."""
_JOBS = 8


@dataclass(frozen=True, slots=True)
class BatchMessage:
    """One batch, as it goes through the pipe."""

    stores: StoresSpec
    job: str
    """Path of the job's file."""
    start: int
    """First position; with `stop`, a range of them."""
    stop: int
    positions: bytes
    """Positions as int32 or int64, where they are no range."""
    fresh: bool

    @classmethod
    def of(cls, stores: StoresSpec, job: str, positions: Array, *, fresh: bool) -> "BatchMessage":
        """Return the message for `positions`."""
        first, last = int(positions[0]), int(positions[-1])
        if last - first == len(positions) - 1:
            return cls(stores, job, first, last + 1, b"", fresh)
        return cls(stores, job, 0, 0, _narrow(positions), fresh)

    def indices(self) -> Array:
        """Return the positions."""
        if self.positions:
            width = self.positions[0]
            return np.frombuffer(self.positions, dtype=f"<i{width}", offset=1).astype(np.int64)
        return np.arange(self.start, self.stop)


def _narrow(positions: Array) -> bytes:
    """Return positions as bytes: their width, then the numbers."""
    width = 4 if int(positions[-1]) < 2**31 else 8
    return bytes([width]) + positions.astype(f"<i{width}").tobytes()


class StaleCodeError(Exception):
    """A function arrived whose code is not the code that was fingerprinted."""


class _WorkerProcess:
    """Everything a worker process keeps between batches."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._stores: dict[StoresSpec, Stores] = {}
        self._jobs: OrderedDict[str, StageWorker] = OrderedDict()

    def worker(self, spec: StoresSpec, path: str) -> StageWorker:
        """Return the worker for a job, opened when it is asked for first."""
        found = self._jobs.get(path)
        if found is not None:
            self._jobs.move_to_end(path)
            return found
        stores = self._stores.get(spec)
        if stores is None:
            stores = self._stores[spec] = Stores.open(spec)
        worker = StageWorker(
            _open_job(path, stores), stores, stores.kept.inner_claims, self.stop, portable=True
        )
        self._jobs[path] = worker
        while len(self._jobs) > _JOBS:
            self._jobs.popitem(last=False)[1].close()
        return worker

    def last_words(self) -> None:
        """Commit what has been finished."""
        for worker in tuple(self._jobs.values()):
            with contextlib.suppress(Exception):  # nobody is left to be told
                worker.flush()
        for stores in tuple(self._stores.values()):
            with contextlib.suppress(Exception):
                stores.close()


def _open_job(path: str, stores: Stores) -> Job:
    with open(path, "rb") as file:  # noqa: PTH123 - pickle wants a file object
        job: Job = pickle.load(file)  # noqa: S301 - written by the parent process
    for task in job.tasks:
        if bytes(task.node.fingerprint) != task.fingerprint:
            raise StaleCodeError(task.node.name)
    sources = {name: _opened(ref, stores) for name, ref in job.sources.items()}
    return replace(job, sources=sources)


def _opened(ref: SourceRef, stores: Stores) -> Any:
    return ref.open(stores)


_PROCESS: _WorkerProcess | None = None  # a worker process has one state; there is nowhere else to keep it


def initialize(parent: int) -> None:
    """Prepare a new worker process.

    Parameters
    ----------
    parent
        Process id of the engine; when it is no longer the parent, this process ends.
    """
    global _PROCESS  # noqa: PLW0603 - see _PROCESS
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _PROCESS = _WorkerProcess()
    threading.Thread(target=_watch, args=(parent, _PROCESS), name="gristmill-watchdog", daemon=True).start()


def run_batch(message: bytes) -> bytes:
    """Run one batch; the pickled `BatchMessage` in, the pickled `BatchReport` or exception out."""
    assert _PROCESS is not None
    batch: BatchMessage = pickle.loads(message)  # noqa: S301 - from the parent process
    try:
        worker = _PROCESS.worker(batch.stores, batch.job)
        answer: Any = worker.run(batch.indices(), fresh=batch.fresh)
    except Exception as error:  # noqa: BLE001 - the engine gets it and decides
        answer = error
    try:
        return pickle.dumps(answer, protocol=5)
    except Exception:  # noqa: BLE001 - an exception of ours that carries something odd
        return pickle.dumps(RuntimeError(f"{type(answer).__name__}: {answer}"), protocol=5)


def _watch(parent: int, process: _WorkerProcess) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    process.stop.set()
    killer = threading.Timer(_LAST_WORDS_SECONDS, os._exit, (1,))
    killer.daemon = True
    killer.start()
    process.last_words()
    os._exit(1)
