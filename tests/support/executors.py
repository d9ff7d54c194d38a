"""Executors as users make them, for tests: with as little as one may have, or with faults."""

import multiprocessing
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

import cloudpickle
import loky


class BareFuture:
    """Has what a future needs to have, and nothing else."""

    def __init__(self, future: "Future[Any]") -> None:
        self._future = future

    def result(self) -> Any:
        return self._future.result()

    def done(self) -> bool:
        return self._future.done()

    def add_done_callback(self, function: Callable[[Any], object]) -> None:
        self._future.add_done_callback(lambda _: function(self))


class Bare:
    """Has `submit` and `shutdown`, and nothing that says how wide it is."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(2)
        self.was_shut_down = False

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> BareFuture:
        return BareFuture(self._threads.submit(function, *arguments))

    def shutdown(self) -> None:
        self.was_shut_down = True
        self._threads.shutdown()


class Inline:
    """Runs each task at once, in the thread that submits it."""

    def __init__(self) -> None:
        self.tasks = 0

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> "Future[Any]":
        self.tasks += 1
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except BaseException as error:  # noqa: BLE001 - the future carries it
            future.set_exception(error)
        return future


class Pickling:
    """Pickles its tasks and their results, and runs them in threads of this process, as some clusters do for tests."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(3)
        self.largest = 0
        """Bytes of the largest result."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> "Future[Any]":
        return self._threads.submit(self._run, cloudpickle.dumps((function, arguments)))

    def shutdown(self) -> None:
        self._threads.shutdown()

    def _run(self, task: bytes) -> Any:
        function, arguments = pickle.loads(task)
        result = pickle.dumps(function(*arguments))
        self.largest = max(self.largest, len(result))
        return pickle.loads(result)


class Healing:
    """Makes a new pool of processes when one of them has died."""

    def __init__(self) -> None:
        self._max_workers = 2
        self._pool = self._new()

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> "Future[Any]":
        try:
            return self._pool.submit(function, *arguments)
        except BrokenProcessPool:
            self._pool.shutdown()
            self._pool = self._new()
            return self._pool.submit(function, *arguments)

    def shutdown(self) -> None:
        self._pool.shutdown()

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver"))


class Failing:
    """Takes so many tasks, then none; threads run those that it takes."""

    def __init__(self, taken: int, *, cancels: bool = False) -> None:
        self._threads = ThreadPoolExecutor(2)
        self._left = taken
        self._cancels = cancels
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> "Future[Any]":
        with self._lock:
            self._left -= 1
            if self._left >= 0:
                return self._threads.submit(function, *arguments)
        if not self._cancels:
            raise OSError("no room for another task")
        future: Future[Any] = Future()
        future.cancel()
        return future

    def shutdown(self) -> None:
        self._threads.shutdown()


def _processes() -> Executor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver"))


def _loky() -> Executor:
    executor: Executor = loky.get_reusable_executor(max_workers=2)
    return executor


OWN: dict[str, Callable[[], Any]] = {
    "thread-pool": lambda: ThreadPoolExecutor(3),
    "process-pool": _processes,
    "loky": _loky,
    "bare": Bare,
    "inline": Inline,
    "pickling": Pickling,
}
"""By a readable name, what makes an executor of each kind."""

ELSEWHERE = ("process-pool", "loky")
"""Those that run tasks in other processes."""


@contextmanager
def made(name: str) -> Iterator[Any]:
    """An executor of that kind, or the name itself if it is one of gristmill's; shut down at the end."""
    executor = OWN[name]() if name in OWN else name
    try:
        yield executor
    finally:
        if hasattr(executor, "shutdown"):
            executor.shutdown()
