"""Coroutines: event loops that run one at a time, or many.

Apart from `lanes` because asyncio takes a good part of the time that a process needs to start.
"""

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gristmill.engine.lanes import BUSY

_END_SECONDS = 1.0
"""How long the end of an event loop is waited for."""


class Loops:
    """Runs coroutines to their end, one at a time, on an event loop that is kept."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._thread: ThreadPoolExecutor | None = None

    def run(self, awaitable: Any) -> Any:
        """Return the result of a coroutine."""
        if self._runner is None:
            self._runner = asyncio.Runner()
        if asyncio._get_running_loop() is None:  # noqa: SLF001 - documented for exactly this question
            return self._runner.run(awaitable)
        if self._thread is None:  # in Jupyter this thread is busy with a loop of its own
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="gristmill-async")
        return self._thread.submit(self._runner.run, awaitable).result()

    def close(self) -> None:
        """End the loop, and its thread if it has one."""
        runner, self._runner = self._runner, None
        thread, self._thread = self._thread, None
        if thread is not None and runner is not None:
            thread.submit(runner.close).result()
            thread.shutdown()
        elif runner is not None:
            runner.close()


Job = Callable[[], Coroutine[Any, Any, None]]


class LoopLanes:
    """Runs coroutine functions without arguments on an event loop in a thread of its own.

    Parameters
    ----------
    width
        How many run at once.
    """

    is_async = True
    fault: Exception | None = None

    def __init__(self, width: int) -> None:
        self.width = width
        self._loop = asyncio.new_event_loop()
        self._waiting: deque[Job] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="gristmill-loop", daemon=True).start()

    def start(self, jobs: Sequence[Job]) -> None:
        """Run jobs as soon as there is room for them."""
        context = contextvars.copy_context()
        self._loop.call_soon_threadsafe(self._take, jobs, context=context)

    def close(self) -> None:
        """Cancel what runs, and end the loop."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._cancel)
        self._ended.wait(
            _END_SECONDS
        )  # a coroutine that does not let itself be cancelled keeps it for longer

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._finish())
        finally:
            self._loop.close()
            self._ended.set()

    async def _finish(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    def _take(self, jobs: Sequence[Job]) -> None:
        BUSY.set(True)
        self._waiting.extend(jobs)
        self._fill()

    def _fill(self, done: "asyncio.Task[None] | None" = None) -> None:
        if done is not None:
            self._tasks.discard(done)
        while self._waiting and len(self._tasks) < self.width:
            task = self._loop.create_task(self._waiting.popleft()())
            self._tasks.add(task)
            task.add_done_callback(self._fill)

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
        while self._waiting:  # each says that it has not been run
            self._tasks.add(self._loop.create_task(self._waiting.popleft()()))
        self._loop.stop()
