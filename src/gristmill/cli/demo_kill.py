"""The demo's violent end: SIGKILL for its workers and itself, which nothing can catch or clean up after."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

from gristmill.cli.demo_display import Display
from gristmill.cli.words import again, counted


@contextlib.contextmanager
def kill_later(seconds: float | None, display: Display) -> Iterator[None]:
    """Kill this process and its workers after so many seconds, unless the body ends first; never if None."""
    if seconds is None:
        yield
        return
    timer = threading.Timer(seconds, kill_everything, (display, f"--kill-after {seconds:g}"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
    display.last_words(f"All was done before --kill-after {seconds:g}: nothing was killed.")


def kill_everything(display: Display, reason: str) -> None:
    """Say what happens, then send SIGKILL to the worker processes and to this one."""
    workers = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
    display.last_words(
        f"{reason}: sending SIGKILL to this process and its {counted(len(workers), 'worker')}. "
        f"To go on: {again('--kill-after')}"
    )
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
