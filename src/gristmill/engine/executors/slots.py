"""Slots: worker processes, each with an executor of loky's to itself.

In a shared loky pool one dead worker fails every pending future and takes its siblings along; so a death costs
one slot what it had, names it exactly, and leaves the others alone. This is the only module that knows loky.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future

from loky.process_executor import ProcessPoolExecutor

from gristmill.engine import watchdog
from gristmill.engine.executors.warm import WARM
from gristmill.engine.exits import be_first
from gristmill.engine.process import run_batch

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


class Slot:
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
        """Have the process run a batch, once it has run those that it has."""
        with _uninterrupted():
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


def take_slot() -> Slot:
    """Return an idle process, or a new one."""
    return WARM.take() or Slot()
