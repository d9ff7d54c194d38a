"""Stopped: knows which batches are with a process that has been stopped for long.

What such a batch has claimed would keep other processes waiting for as long as its engine lives, which has not
stopped. Whether a process is stopped, the kernel says: a heartbeat would stand still in any function that keeps the
interpreter's lock.
"""

import time
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path

from gristmill.engine.executors.base import Transport
from gristmill.engine.report import BatchReport
from gristmill.storage import patience

LOOK_SECONDS = 1.0
"""How often it is looked."""

_STOPPED = frozenset("Tt")
"""How Linux says that a process is stopped, by a signal or a debugger (``proc_pid_stat(5)``)."""


class StoppedBatches:
    """The batches of one run whose processes are stopped."""

    def __init__(self) -> None:
        self._looked = 0.0
        self._since: dict[Future[BatchReport], float] = {}

    def overdue(self, transports: Iterable[Transport]) -> list[Future[BatchReport]]:
        """Return the batches whose processes are stopped, and have been for as long as claims are respected."""
        now = time.monotonic()
        if now < self._looked + LOOK_SECONDS:
            return []
        self._looked = now
        stopped = {
            batch
            for transport in transports
            for batch, process in transport.processes().items()
            if is_stopped(process)
        }
        self._since = {batch: self._since.get(batch, now) for batch in stopped}
        return [batch for batch, since in self._since.items() if now - since >= patience.STALL_SECONDS]


def is_stopped(process: int) -> bool:
    """Return whether a process is stopped; False where the platform does not say."""
    try:
        told = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return told.rpartition(")")[2].strip()[:1] in _STOPPED
