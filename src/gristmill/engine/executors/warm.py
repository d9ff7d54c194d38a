"""Warm processes: those that have no work now, kept for the next run of any engine of this process.

Starting one takes 0.3 s, so they outlive the run that started them; each ends itself when it has been idle for long.
Knows nothing of what they are, so that looking whether there are any starts nothing.
"""

import os
import threading
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gristmill.engine.executors.slots import Slot


class WarmSlots:
    """Idle slots, shared by all engines of this process."""

    def __init__(self) -> None:
        self._idle: list[Slot] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._tidied = False

    def take(self) -> "Slot | None":
        """Return an idle slot, if there is one."""
        with self._lock:
            self._forget_others()
            if (
                not self._tidied
            ):  # before multiprocessing, in a child process of its own, joins what still runs
                self._tidied = True
                Finalize(None, self.end, exitpriority=100)
            return self._idle.pop() if self._idle else None

    def give(self, slot: "Slot") -> None:
        """Keep an idle slot for the next run."""
        with self._lock:
            self._forget_others()
            self._idle.append(slot)

    def end(self) -> None:
        """End all idle processes."""
        with self._lock:
            self._forget_others()
            idle, self._idle = self._idle, []
        for slot in idle:
            slot.kill()

    def __len__(self) -> int:
        """Return how many idle processes there are; a slot whose process has ended starts another when it is used."""
        with self._lock:
            self._forget_others()
            return sum(bool(slot.processes()) for slot in self._idle)

    def _forget_others(self) -> None:
        if self._pid != os.getpid():  # a fork has our list, but not our processes
            self._pid, self._idle, self._tidied = os.getpid(), [], False


WARM = WarmSlots()
