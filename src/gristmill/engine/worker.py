"""The worker: runs batches of one stage, in whatever process or thread it is.

A batch is evaluated in blocks: of one index for slow or large items (depth first), of up to 1,024 for fast
ones.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.engine.block import Block
from gristmill.engine.calls import Caller
from gristmill.engine.chunked import ChunkedSource
from gristmill.engine.concurrent import ConcurrentCaller
from gristmill.engine.interrupts import Interrupts
from gristmill.engine.job import Job
from gristmill.engine.lanes import Lanes
from gristmill.engine.onecall import Manner
from gristmill.engine.report import BatchReport
from gristmill.engine.runner import Runner
from gristmill.engine.seat import Seat
from gristmill.engine.sources import DIGEST
from gristmill.engine.stores import Stores
from gristmill.engine.writer import Writer
from gristmill.errors import StoreError
from gristmill.graph.node import Node
from gristmill.storage import patience
from gristmill.storage.claims import NESTED, Claims
from gristmill.storage.local import CallBlock

Array = np.ndarray[Any, Any]

BLOCK_ITEMS = 1024
"""Largest block; measured, node by node over 1,024 items is 1.6 to 4 times as fast as item by item."""

MOST_CONCURRENT = 1 << 16
"""Largest block of calls that run many at a time: all of a batch, as far as its arguments may be in memory."""

_BLOCK_SECONDS = 0.005
"""Blocks that take longer are halved: then node by node gains nothing, and memory and progress suffer."""

_POLL_SECONDS = 0.005
"""How often calls that another process has claimed are looked at again."""


def busy_seconds() -> float:
    """Return how long this thread has used a CPU, or has waited for one that others used, as far as that is known."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as file:  # noqa: PTH123 - a microsecond counts here
            used, waited, _ = file.read().split()
        return (int(used) + int(waited)) / 1e9
    except (OSError, ValueError):  # not Linux
        return time.thread_time()


@dataclass(frozen=True)
class Site:
    """Where batches run."""

    stop: threading.Event
    """Set when nothing more may be started."""
    portable: bool = False
    """Whether reports leave this process."""
    lanes: Callable[[Node], Lanes] | None = None
    """Where calls run, many at a time, for nodes that are coroutine functions and for others; one at a time without."""
    seat: Seat | None = None
    """Who is told what is being called."""


class StageWorker:
    """Runs batches of one job.

    Parameters
    ----------
    job
        The stage, with open sources.
    stores
        Where results go.
    claims
        Claims on calls below a computed one.
    site
        Where they run.
    """

    def __init__(self, job: Job, stores: Stores, claims: Claims, site: Site) -> None:
        self.job = job
        chunked = [source for source in job.sources.values() if isinstance(source, ChunkedSource)]
        self.stores = stores
        self.claims = claims
        self._stop = site.stop
        self._seat = site.seat
        self.portable = site.portable
        self.block_items = 1
        most = BLOCK_ITEMS if site.lanes is None else MOST_CONCURRENT
        self.most_items = min([most, *(source.most_items for source in chunked)])
        """Largest block: an array that is read as the calls run must not be in memory as a whole."""
        self.depth_first = False
        """Whether a large array goes from node to node: then one index after the other, to hold only one."""
        self._is_concurrent = site.lanes is not None
        self._attempts: Mapping[tuple[int, int], int] = {}
        """How often calls have been made before, by step and position, in processes that have been ended."""
        manner = Manner(
            job.check_mutation,
            job.timed,
            site.seat,
            lambda step, position: self._attempts.get((step, position), 0),
            interruptible=site.lanes is None and not site.portable,
            stop=site.stop,
        )

        def make(node: Node, parameters: Sequence[str], storage: Any, step: int, *, feeds: bool) -> Caller:
            if site.lanes is None:
                return Caller(node, parameters, storage, manner, step, feeds=feeds)
            lanes = site.lanes(node)
            return ConcurrentCaller(
                *(node, parameters, storage, manner, step), feeds=feeds, lanes=lanes, fail_fast=job.fail_fast
            )

        self.runners = [Runner(job, k, stores, make) for k in range(len(job.tasks))]
        self._writers = {id(r.storage): Writer(r.storage, claims.drop) for r in self.runners}
        self.makers = {name: runner for runner in self.runners for name in runner.node.output_names}
        self.recent: dict[bytes, tuple[int, int]] = {}
        self.recent_blocks: list[CallBlock] = []
        self.entitled: set[bytes] = set()
        """Keys below others that the engine has claimed for this batch."""
        self.distrusted: set[bytes] = set()
        """Keys that are computed whatever the index says."""
        self.impatient = False
        """Whether claims of the own engine have been waited for too long: then a call is rather made twice."""
        self.failed: set[bytes] = set()
        """Keys of calls that failed in this batch."""
        self.failed_at: set[tuple[int, int]] = set()
        """Their steps and positions: they are not tried again while others wait."""

    def run(
        self,
        positions: Array,
        *,
        fresh: bool,
        entitled: bytes = b"",
        distrusted: bytes = b"",
        attempts: Mapping[tuple[int, int], int] | None = None,
    ) -> BatchReport:
        """Run one batch.

        Parameters
        ----------
        positions
            The batch's positions in the stage's space, increasing.
        fresh
            Whether none of the calls that the engine could look up was found.
        entitled
            Keys of calls below others that the engine has claimed for this batch.
        distrusted
            Keys that are not looked up: the engine misses them though they were found here, since rows or
            tombstones have vanished from the ledger.
        attempts
            How often calls have been made before, by step and position, in processes that have been ended.

        Raises
        ------
        StoreError
            Neither the store nor the refuge takes what was computed.
        """
        started, worked = time.perf_counter(), busy_seconds()
        report = BatchReport([0] * len(self.runners))
        if self._seat is not None:  # what it says is of the batch before
            self._seat.clear()
        written, sheltered = self.stores.bytes_written, self.stores.sheltered
        if not fresh or len(self.runners) > 1:
            self.stores.refresh()
        self.entitled = set(np.frombuffer(entitled, dtype=DIGEST).tolist())
        self._attempts = attempts or {}
        self.distrusted = set(np.frombuffer(distrusted, dtype=DIGEST).tolist())
        nested = NESTED.set(True)
        try:
            self._run_all(positions, report, look_up=not fresh)
        except BaseException:
            with contextlib.suppress(StoreError):
                self.flush()
            self.claims.close()
            raise
        finally:
            NESTED.reset(nested)
            self.recent.clear()
            self.recent_blocks.clear()
            self.impatient = False
            self.failed.clear()
            self.failed_at.clear()
        report.seconds = time.perf_counter() - started
        report.busy_seconds = None if self._is_concurrent else busy_seconds() - worked
        report.bytes_written = self.stores.bytes_written - written if self.portable else 0
        report.fault = self.stores.fault if self.stores.sheltered > sheltered else ""
        for runner, computed in zip(self.runners, report.computed, strict=True):
            if computed:
                runner.describe()
        return report

    def close(self) -> None:
        """Commit what is left and end the writer's thread."""
        for writer in self._writers.values():
            writer.close()
        for runner in self.runners:
            runner.caller.close()

    def flush(self) -> None:
        """Commit what has been finished."""
        for writer in self._writers.values():
            writer.flush()

    def writer(self, runner: Runner) -> Writer:
        """Return what takes the results of a step."""
        return self._writers[id(runner.storage)]

    def remember(self, block: CallBlock) -> None:
        """Keep calls at hand until they are committed, in case one of them is needed again before that."""
        number = len(self.recent_blocks)
        self.recent_blocks.append(block)
        names = np.frombuffer(block.keys, dtype=DIGEST).tolist()
        self.recent.update(
            zip(names, zip(itertools.repeat(number), range(len(names)), strict=False), strict=False)
        )

    def _run_all(self, positions: Array, report: BatchReport, *, look_up: bool) -> None:
        waiting = self._run_blocks(positions, report, look_up=look_up)
        self.flush()
        since, left = time.monotonic(), len(waiting)
        while len(waiting) and not self._stop.is_set():
            if len(waiting) < left:
                since, left = time.monotonic(), len(waiting)
            self.impatient = time.monotonic() - since > patience.STALL_SECONDS
            time.sleep(_POLL_SECONDS)  # another process is at these calls; we hold no claim while we wait
            Interrupts.check()
            self.stores.refresh()
            waiting = self._run_blocks(waiting, report, look_up=True, again=True)
            self.flush()

    def _run_blocks(
        self, positions: Array, report: BatchReport, *, look_up: bool, again: bool = False
    ) -> Array:
        """Run all of `positions` and return those that wait for somebody else's call."""
        at, waiting = 0, [positions[:0]]
        while at < len(positions) and not self._stop.is_set():
            started = time.perf_counter()
            size = self.most_items if self._is_concurrent else self.block_items
            block = positions[at : at + size]
            waiting.append(Block(self, block, report, look_up=look_up, again=again).run())
            at += len(block)
            self._adapt(time.perf_counter() - started, len(block))
        return np.concatenate(waiting)

    def _adapt(self, seconds: float, count: int) -> None:
        if self.depth_first:
            self.block_items = 1
        elif seconds > _BLOCK_SECONDS:
            self.block_items = max(1, self.block_items // 2)
        elif count == self.block_items and self.block_items < self.most_items:
            self.block_items = min(4 * self.block_items, self.most_items)
