"""Borrowed lanes: calls run in the threads of an executor that the user made, each as a task of its own.

The executor may refuse a task, cancel it, or lose it; whoever waits for the call is told in each case.
"""

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from gristmill.engine.lanes import BUSY
from gristmill.engine.specs import GivenExecutor
from gristmill.errors import GristmillError


class _Task:
    """One call, as the executor gets it; it is made once, even if the executor runs the task again."""

    def __init__(self, job: Callable[[], object], context: contextvars.Context) -> None:
        self._jobs = [job]
        self._context = context

    @property
    def has_begun(self) -> bool:
        """Whether the call has been made, or is being made."""
        return not self._jobs

    def __call__(self) -> None:
        """Run the call."""
        try:
            job = self._jobs.pop()
        except IndexError:  # another thread has taken it
            return
        self._context.run(self._run, job)

    def _run(self, job: Callable[[], object]) -> None:
        BUSY.set(True)
        job()


class BorrowedLanes:
    """Runs functions without arguments as tasks of an executor.

    Parameters
    ----------
    given
        The executor.
    width
        How many tasks it has at once.
    stop
        Is set when the executor fails: the jobs that are left then say that they have not been run.
    """

    def __init__(self, given: GivenExecutor, width: int, stop: threading.Event) -> None:
        self.width = width
        self.is_async = False
        self.fault: Exception | None = None
        self._given = given
        self._stop = stop
        self._waiting: deque[_Task] = deque()
        self._running = 0
        self._is_filling = False
        self._lock = threading.Lock()

    def start(self, jobs: Sequence[Callable[[], object]]) -> None:
        """Run jobs as soon as there is room for them."""
        tasks = [_Task(job, contextvars.copy_context()) for job in jobs]
        with self._lock:
            self._waiting.extend(tasks)
        self._fill()

    def close(self) -> None:
        """Do nothing: the threads are not ours."""

    def _fill(self) -> None:
        """Submit what there is room for; one thread at a time, since a task may have ended when it is submitted."""
        with self._lock:
            if self._is_filling:
                return
            self._is_filling = True
        while (task := self._next()) is not None:
            self._submit(task)

    def _next(self) -> _Task | None:
        with self._lock:
            if self._running == self.width or not self._waiting:
                self._is_filling = False
                return None
            self._running += 1
            return self._waiting.popleft()

    def _submit(self, task: _Task) -> None:
        if self.fault is not None:
            self._ended(task)
            return
        try:
            future = self._given.executor.submit(task)
            future.add_done_callback(partial(self._ended, task))
        except Exception as error:  # noqa: BLE001 - whatever such an executor raises
            self._fail(error)
            self._ended(task)

    def _ended(self, task: _Task, future: Any = None) -> None:
        if not task.has_begun:
            self._fail(_cause(future))
            task()
        with self._lock:
            self._running -= 1
        self._fill()

    def _fail(self, error: BaseException | None) -> None:
        self._stop.set()
        if self.fault is None:
            why = f"{type(error).__name__}: {error}" if error is not None else "it did not run them"
            self.fault = GristmillError(
                f"{self._given.text} took no more calls while a map was running ({why}); what was finished is kept"
            )


def _cause(future: Any) -> BaseException | None:
    """Return why a task has not been run, as far as its future says."""
    if future is None:
        return None
    try:
        future.result()
    except BaseException as error:  # noqa: BLE001 - a cancelled one raises what is no Exception in places
        return error
    return None
