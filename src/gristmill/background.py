"""A map in a thread of its own: how it is started, ended and waited for."""

import contextvars
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future

from gristmill.engine.exits import before_exit
from gristmill.engine.feed import Feed
from gristmill.evaluation import Evaluation
from gristmill.events import Callback
from gristmill.result import MapResult

END_SECONDS = 5.0
"""How long the end of a map that was cancelled is waited for at most: one call may never return."""


class Background:
    """A map that runs in a thread, once it is started.

    Parameters
    ----------
    evaluation
        What runs.
    feed
        Takes its items.
    display
        Shows its progress.
    told
        Who is told besides.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        feed: Feed,
        display: Sequence[Callback] = (),
        told: Sequence[Callback] = (),
    ) -> None:
        self._evaluation = evaluation
        self._display = tuple(display)
        self._told = tuple(told)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.feed = feed
        """Its items."""
        self.outcome: Future[MapResult] = Future()
        """Its result; pending until it is there, so that cancelling it tells."""

    @property
    def is_started(self) -> bool:
        """Whether it has been started."""
        return self._thread is not None

    def start(self, display: Sequence[Callback] | None = None) -> None:
        """Start the map, unless it has been started or cancelled; `display` shows it instead of its own."""
        callbacks = (*self._told, *(self._display if display is None else display))
        with self._lock:
            if self._thread is not None or self.outcome.done():
                return
            # The thread is one of the call that it is started in, if it is: a map in it adds no workers.
            run = contextvars.copy_context().run
            self._thread = threading.Thread(
                target=run, args=(self._run, callbacks), name="gristmill-map", daemon=True
            )
            _RUNNING.add(self)
            self._thread.start()

    def cancel(self) -> None:
        """Have the map end: nothing more is started, what is finished is kept."""
        self.feed.control.cancel()
        with self._lock:
            unstarted = self._thread is None
        if unstarted and not self.outcome.done() and self.outcome.cancel():
            self.outcome.set_running_or_notify_cancel()
            self.feed.end(None, CancelledError())

    def wait(self, timeout: float) -> None:
        """Wait until the thread has ended, so many seconds at most."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _run(self, callbacks: Sequence[Callback]) -> None:
        result: MapResult | None = None
        failure: BaseException | None = None
        try:
            result = self._evaluation.run(callbacks=callbacks, feed=self.feed)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the result gets it
            failure = error
        try:
            self.feed.end(result, failure)
        except Exception as error:  # noqa: BLE001 - as above
            result, failure = None, error
            self.feed.end(None, error)
        _RUNNING.discard(self)
        if isinstance(failure, CancelledError) and self.feed.control.is_cancelled:
            self.outcome.cancel()
            self.outcome.set_running_or_notify_cancel()
        elif failure is not None:
            self.outcome.set_exception(failure)
        elif result is not None:
            self.outcome.set_result(result)


class _Running:
    """The maps of this process that run in threads."""

    def __init__(self) -> None:
        self._runs: set[Background] = set()
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def add(self, run: Background) -> None:
        """Take in one that is about to start."""
        with self._lock:
            if self._pid != os.getpid():  # a fork has our list, but not our threads
                self._pid, self._runs = os.getpid(), set()
            self._runs.add(run)
        before_exit(self.end)

    def discard(self, run: Background) -> None:
        """Forget one that has ended."""
        with self._lock:
            self._runs.discard(run)

    def end(self) -> None:
        """End all of them, and wait for that."""
        if self._pid != os.getpid():
            return
        with self._lock:
            runs = tuple(self._runs)
        for run in runs:
            run.cancel()
        deadline = time.monotonic() + END_SECONDS
        for run in runs:
            run.wait(max(0.0, deadline - time.monotonic()))


_RUNNING = _Running()  # a process ends once: there is nowhere else to keep what has to be ended before
