"""The worker process: what runs in it, and how it ends with its parent.

A worker keeps the stores and jobs it has opened. When its parent is gone, it starts nothing more and commits
what it has finished; the watchdog then ends it.
"""

import contextlib
import pickle
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gristmill.engine import watchdog
from gristmill.engine.job import Job
from gristmill.engine.stores import Stores, StoresSpec
from gristmill.engine.worker import StageWorker
from gristmill.storage.claims import Claims

Array = np.ndarray[Any, Any]

_JOBS = 8
"""Jobs kept open; the one that was used the longest ago goes first."""


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
    friend: int
    """The engine's number in the claim table."""
    fresh: bool

    @classmethod
    def of(
        cls, stores: StoresSpec, job: str, positions: Array, *, friend: int, fresh: bool
    ) -> "BatchMessage":
        """Return the message for `positions`."""
        first, last = int(positions[0]), int(positions[-1])
        if last - first == len(positions) - 1:
            return cls(stores, job, first, last + 1, b"", friend, fresh)
        return cls(stores, job, 0, 0, _narrow(positions), friend, fresh)

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
        self._claims: dict[StoresSpec, Claims] = {}
        self._jobs: OrderedDict[str, StageWorker] = OrderedDict()

    def worker(self, spec: StoresSpec, path: str, friend: int) -> StageWorker:
        """Return the worker for a job, opened when it is asked for first."""
        if spec in self._claims:
            self._claims[spec].friend = friend
        found = self._jobs.get(path)
        if found is not None:
            self._jobs.move_to_end(path)
            return found
        stores = self._stores.get(spec)
        if stores is None:
            stores = self._stores[spec] = Stores.open(spec)
            self._claims[spec] = stores.kept.claims(friend)
        worker = StageWorker(_open_job(path, stores), stores, self._claims[spec], self.stop, portable=True)
        self._jobs[path] = worker
        while len(self._jobs) > _JOBS:
            self._jobs.popitem(last=False)[1].close()
        return worker

    def last_words(self) -> None:
        """Start nothing more, and commit what has been finished."""
        self.stop.set()
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
    sources = {name: ref.open(stores) for name, ref in job.sources.items()}
    return replace(job, sources=sources)


_PROCESS: list[_WorkerProcess] = []  # a worker process has one state; there is nowhere else to keep it


def _process() -> _WorkerProcess:
    if not _PROCESS:
        _PROCESS.append(_WorkerProcess())
        watchdog.before_end(_PROCESS[0].last_words)
    return _PROCESS[0]


def run_batch(message: bytes) -> bytes:
    """Run one batch; the pickled `BatchMessage` in, the pickled `BatchReport` or exception out."""
    batch: BatchMessage = pickle.loads(message)  # noqa: S301 - from the parent process
    try:
        worker = _process().worker(batch.stores, batch.job, batch.friend)
        answer: Any = worker.run(batch.indices(), fresh=batch.fresh)
    except Exception as error:  # noqa: BLE001 - the engine gets it and decides
        answer = error
    try:
        return pickle.dumps(answer, protocol=5)
    except Exception:  # noqa: BLE001 - an exception of ours that carries something odd
        return pickle.dumps(RuntimeError(f"{type(answer).__name__}: {answer}"), protocol=5)
