"""Lanes: where many calls run at once in this process: threads here, coroutines on an event loop in `coroutines`.

Owns how many run, and in what threads. Threads are daemons that are kept for a while: a call that never returns must
not keep the interpreter from ending.
"""

import contextlib
import contextvars
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

IDLE_SECONDS = 30.0
"""How long a thread without work stays."""

BUSY: ContextVar[bool] = ContextVar("gristmill_lane", default=False)
"""Whether this is a call in a lane: an engine that it starts runs in it, and adds nothing to what runs at once."""


class Lanes(Protocol):
    """Runs jobs, so many at once; the others wait in line."""

    width: int
    """How many run at once."""
    is_async: bool
    """Whether what it runs are coroutine functions."""
    fault: Exception | None
    """Why nothing more is run, if it is so."""

    def start(self, jobs: Sequence[Any]) -> None:
        """Run jobs as soon as there is room for them."""

    def close(self) -> None:
        """End what can be ended; whoever wants no more jobs to do anything has to say so to them."""


class _Thread:
    """A thread that is used again."""

    def __init__(self, kept: "_Threads") -> None:
        self.tasks: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        threading.Thread(target=self._run, args=(kept,), name="gristmill-lane", daemon=True).start()

    def _run(self, kept: "_Threads") -> None:
        while True:
            try:
                task = self.tasks.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                if kept.retire(self):
                    return
                continue  # a task is on its way
            task()
            del task  # what it holds is not held by an idle thread
            kept.give_back(self)


class _Threads:
    """The threads of this process that are kept for the next task."""

    def __init__(self) -> None:
        self._idle: list[_Thread] = []
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def run(self, task: Callable[[], object]) -> None:
        """Run a task in a thread of its own, in a copy of the context of whoever calls this."""
        task = partial(contextvars.copy_context().run, task)
        with self._lock:
            if self._pid != os.getpid():  # a fork has our list, but not our threads
                self._pid, self._idle = os.getpid(), []
            thread = self._idle.pop() if self._idle else _Thread(self)
        thread.tasks.put(task)

    def give_back(self, thread: _Thread) -> None:
        """Keep a thread that has done its task."""
        with self._lock:
            self._idle.append(thread)

    def retire(self, thread: _Thread) -> bool:
        """Forget an idle thread; return False if it has just been given a task."""
        with self._lock, contextlib.suppress(ValueError):
            self._idle.remove(thread)
            return True
        return False


THREADS = _Threads()


class ThreadLanes:
    """Runs functions without arguments, each in a thread.

    Parameters
    ----------
    width
        How many run at once.
    """

    is_async = False
    fault: Exception | None = None

    def __init__(self, width: int) -> None:
        self.width = width
        self._waiting: deque[Callable[[], object]] = deque()
        self._running = 0
        self._lock = threading.Lock()

    def start(self, jobs: Sequence[Callable[[], object]]) -> None:
        """Run jobs as soon as there is room for them."""
        with self._lock:
            self._waiting.extend(jobs)
            new = min(self.width - self._running, len(self._waiting))
            first = [self._waiting.popleft() for _ in range(new)]
            self._running += new
        for job in first:
            THREADS.run(partial(self._work, job))

    def close(self) -> None:
        """Do nothing: a thread cannot be ended."""

    def _work(self, job: Callable[[], object]) -> None:
        BUSY.set(True)
        while True:
            contextvars.copy_context().run(job)
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                job = self._waiting.popleft()
