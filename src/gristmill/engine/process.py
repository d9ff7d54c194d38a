"""The worker process: what runs in it, and how it ends with its parent.

A worker keeps the stores and jobs it has opened. When its parent is gone, it starts nothing more and commits
what it has finished; the watchdog then ends it.
"""

import contextlib
import importlib
import os
import pickle
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.engine import watchdog
from gristmill.engine.job import Job
from gristmill.engine.seat import Row, Table
from gristmill.engine.stagerun import Missing
from gristmill.engine.stores import Stores, StoresSpec
from gristmill.engine.worker import Site, StageWorker
from gristmill.errors import StoreError
from gristmill.identity.memo import Memos

Array = np.ndarray[Any, Any]

_JOBS = 8
_STORES = 3
"""Jobs and stores kept open; the one that was used the longest ago goes first."""


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
    entitled: bytes
    """Keys of calls below others that the engine has claimed for this batch."""
    fresh: bool
    distrusted: bytes
    """Keys that must not be looked up."""
    attempts: Mapping[tuple[int, int], int]
    """How often calls have been made before, by step and position."""
    seat: tuple[str, int] | None
    """Path and number of the row in which the worker says what it is at."""

    @classmethod
    def of(
        cls,
        stores: StoresSpec,
        job: str,
        positions: Array,
        *,
        friend: int,
        missing: Missing,
        seat: tuple[str, int] | None = None,
    ) -> "BatchMessage":
        """Return the message for `positions`."""
        first, last = int(positions[0]), int(positions[-1])
        where = (first, last + 1, b"") if last - first == len(positions) - 1 else (0, 0, _narrow(positions))
        known: tuple[bytes, bool, bytes] = missing.below, missing.fresh, missing.distrusted
        return cls(stores, job, *where, friend, *known, missing.attempts, seat)

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


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the engine's process finds modules and files; a warm worker may have been started elsewhere."""

    path: tuple[str, ...]
    directory: str

    @classmethod
    def here(cls) -> "Surroundings":
        """Return those of this process.

        Raises
        ------
        FileNotFoundError
            Its working directory has been removed; no process can be started in it.
        """
        directory = _working_directory()
        if directory is None:
            raise FileNotFoundError(
                "the working directory of this process has been removed, so that worker processes cannot start in it; "
                "change to another one with os.chdir"
            )
        return cls(tuple(sys.path), directory)

    def adopt(self) -> None:
        """Make them those of this process."""
        if tuple(sys.path) != self.path:
            sys.path[:] = self.path
            importlib.invalidate_caches()
        if self.directory != _working_directory():
            # One that is removed meanwhile leaves the worker where it is: only a function that opens a file by a
            # relative name minds, and its error says so.
            with contextlib.suppress(OSError):
                os.chdir(self.directory)


def _working_directory() -> str | None:
    """Return the current directory, or `None` where it has been removed."""
    try:
        return os.getcwd()  # noqa: PTH109 - a string goes through the pipe
    except FileNotFoundError:
        return None


class StaleCodeError(Exception):
    """A function arrived whose code is not the code that was fingerprinted."""


class _OpenStores:
    """The stores of one engine, with what a worker process has opened on them."""

    def __init__(self, spec: StoresSpec, stop: threading.Event) -> None:
        self.stores = Stores.open(spec)
        self.stores.bound_memory()
        Memos.current.offer(spec.kept.location, self.stores.kept.remembered_files)
        self.claims = self.stores.kept.claims()
        self._stop = stop
        self._jobs: OrderedDict[str, StageWorker] = OrderedDict()

    def worker(self, path: str, seat: tuple[str, int] | None) -> StageWorker:
        """Return the worker for a job, opened when it is asked for first."""
        found = self._jobs.get(path)
        if found is None:
            self.stores.kept.reopen()
            job = _open_job(path, self.stores)
            site = Site(self._stop, portable=True, seat=_row(seat))
            found = self._jobs[path] = StageWorker(job, self.stores, self.claims, site)
        self._jobs.move_to_end(path)
        while len(self._jobs) > _JOBS:
            self._jobs.popitem(last=False)[1].close()
        return found

    def close(self) -> None:
        """Commit what has been finished, and close everything."""
        for worker in self._jobs.values():
            with contextlib.suppress(StoreError):  # the engine was told, or is gone
                worker.close()
        self.claims.close()
        self.stores.close()


class WorkerProcess:
    """Everything a worker process keeps between batches.

    Parameters
    ----------
    stop
        Set when nothing more may be started.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._open: OrderedDict[StoresSpec, _OpenStores] = OrderedDict()

    def worker(self, batch: BatchMessage) -> StageWorker:
        """Return what runs a batch."""
        opened = self._open.get(batch.stores)
        if opened is None:
            opened = self._open[batch.stores] = _OpenStores(batch.stores, self._stop)
        self._open.move_to_end(batch.stores)
        while len(self._open) > _STORES:
            self._open.popitem(last=False)[1].close()
        opened.claims.friend = batch.friend
        return opened.worker(batch.job, batch.seat)

    def last_words(self) -> None:
        """Start nothing more, and commit what has been finished."""
        self._stop.set()
        for opened in tuple(self._open.values()):
            with contextlib.suppress(Exception):  # nobody is left to be told
                opened.close()


def _row(seat: tuple[str, int] | None) -> Row | None:
    """The row of this process in the engine's table; without it, time limits are kept here."""
    with contextlib.suppress(OSError, ValueError):
        return Table(Path(seat[0])).row(seat[1]) if seat is not None else None
    return None


def _open_job(path: str, stores: Stores) -> Job:
    with open(path, "rb") as file:  # noqa: PTH123 - pickle wants a file object
        Surroundings.adopt(pickle.load(file))  # noqa: S301 - written by the parent process
        try:
            job: Job = pickle.load(file)  # noqa: S301 - as above
        except Exception as error:  # a module that is not, or no longer, what the engine's process has loaded
            raise StaleCodeError(f"a function ({error!r})") from error
    for task in job.tasks:
        if bytes(task.node.fingerprint) != task.fingerprint:
            raise StaleCodeError(task.node.name)
    sources = {name: ref.open(stores) for name, ref in job.sources.items()}
    return replace(job, sources=sources)


_PROCESS: list[WorkerProcess] = []  # a worker process has one state; there is nowhere else to keep it


def _process() -> WorkerProcess:
    if not _PROCESS:
        _PROCESS.append(WorkerProcess(threading.Event()))
        watchdog.before_end(_PROCESS[0].last_words)
    return _PROCESS[0]


def run_batch(message: bytes) -> bytes:
    """Run one batch; the pickled `BatchMessage` in, the pickled `BatchReport` or exception out."""
    batch: BatchMessage = pickle.loads(message)  # noqa: S301 - from the parent process
    return run_in(_process(), batch)


def run_in(process: WorkerProcess, batch: BatchMessage) -> bytes:
    """Run one batch with what a process keeps; the pickled `BatchReport` or exception out."""
    try:
        answer: Any = process.worker(batch).run(
            batch.indices(),
            fresh=batch.fresh,
            entitled=batch.entitled,
            distrusted=batch.distrusted,
            attempts=batch.attempts,
        )
    except Exception as error:  # noqa: BLE001 - the engine gets it and decides
        answer = error
    return packed(answer)


def packed(answer: Any) -> bytes:
    """Return an answer as bytes."""
    try:
        return pickle.dumps(answer, protocol=5)
    except Exception:  # noqa: BLE001 - an exception of ours that carries something odd
        return pickle.dumps(RuntimeError(f"{type(answer).__name__}: {answer}"), protocol=5)
