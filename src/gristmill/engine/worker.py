"""The worker: runs batches of one stage, in whatever process or thread it is.

A batch is evaluated in blocks: of one index for slow or large items (depth first), of up to 1,024 for fast
ones.
"""

import contextlib
import itertools
import threading
import time
from typing import Any

import numpy as np

from gristmill.engine.block import Block
from gristmill.engine.interrupts import Interrupts
from gristmill.engine.job import Job
from gristmill.engine.report import BatchReport
from gristmill.engine.runner import Runner
from gristmill.engine.sources import DIGEST
from gristmill.engine.stores import Stores
from gristmill.engine.writer import Writer
from gristmill.errors import StoreError
from gristmill.storage import patience
from gristmill.storage.claims import NESTED, Claims
from gristmill.storage.local import CallBlock

Array = np.ndarray[Any, Any]

BLOCK_ITEMS = 1024
"""Largest block; measured, node by node over 1,024 items is 1.6 to 4 times as fast as item by item."""

_BLOCK_SECONDS = 0.005
"""Blocks that take longer are halved: then node by node gains nothing, and memory and progress suffer."""

_POLL_SECONDS = 0.005
"""How often calls that another process has claimed are looked at again."""


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
    stop
        Set when nothing more may be started.
    portable
        Whether reports leave this process.
    """

    def __init__(
        self, job: Job, stores: Stores, claims: Claims, stop: threading.Event, *, portable: bool
    ) -> None:
        self.job = job
        self.stores = stores
        self.claims = claims
        self._stop = stop
        self.portable = portable
        self.block_items = 1
        self.depth_first = False
        """Whether a large array goes from node to node: then one index after the other, to hold only one."""
        self.runners = [Runner(job, k, stores, interruptible=not portable) for k in range(len(job.tasks))]
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
        self, positions: Array, *, fresh: bool, entitled: bytes = b"", distrusted: bytes = b""
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

        Raises
        ------
        StoreError
            Neither the store nor the refuge takes what was computed.
        """
        started = time.perf_counter()
        report = BatchReport([0] * len(self.runners))
        written, sheltered = self.stores.bytes_written, self.stores.sheltered
        if not fresh or len(self.runners) > 1:
            self.stores.refresh()
        self.entitled = set(np.frombuffer(entitled, dtype=DIGEST).tolist())
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
        report.bytes_written = self.stores.bytes_written - written
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
            block = positions[at : at + self.block_items]
            waiting.append(Block(self, block, report, look_up=look_up, again=again).run())
            at += len(block)
            self._adapt(time.perf_counter() - started, len(block))
        return np.concatenate(waiting)

    def _adapt(self, seconds: float, count: int) -> None:
        if self.depth_first:
            self.block_items = 1
        elif seconds > _BLOCK_SECONDS:
            self.block_items = max(1, self.block_items // 2)
        elif count == self.block_items and self.block_items < BLOCK_ITEMS:
            self.block_items *= 4
