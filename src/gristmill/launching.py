"""Several maps at once, of which only so many run at the same time."""

import asyncio
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import CancelledError, Future
from threading import RLock
from typing import Any

from gristmill.errors import InputError
from gristmill.maprun import MapRun, awaited, wait_for
from gristmill.observe.progress import ProgressCallback, shown
from gristmill.result import MapResult


class MapRuns:
    """Several maps that go on in the background; what `launch_maps` returns where no event loop runs.

    `await runs`, or `runs.result()`, gives their results in the order of the maps, once all have ended.
    """

    def __init__(
        self, runs: Sequence[MapRun], max_concurrent: int | None, display: Sequence[ProgressCallback]
    ) -> None:
        self._runs = tuple(runs)
        different = list(dict.fromkeys(self._runs))
        self._waiting = deque(run for run in different if not run.started)
        self._left = len(different)
        self._free = (len(different) if max_concurrent is None else max_concurrent) - (
            len(different) - len(self._waiting)
        )
        self._display = tuple(display)
        self._lock = RLock()
        self._outcome: Future[list[MapResult]] = Future()
        for one in self._display:
            one.hold()
        for run in different:
            run.when_done(self._note_end)
        self._fill()
        if not different:
            self._finish()

    def result(self, timeout: float | None = None) -> list[MapResult]:
        """Wait for all maps to end, and return their results.

        Parameters
        ----------
        timeout
            Seconds to wait at most; the maps go on.

        Raises
        ------
        TimeoutError
            Not all have ended by then.
        concurrent.futures.CancelledError
            One of them was cancelled.
        Exception
            What the first that failed has raised, in the order in which they were given.
        """
        return wait_for(self._outcome, timeout)

    def cancel(self) -> None:
        """End all maps, and start no more; what is done is kept."""
        with self._lock:
            self._waiting.clear()
        for run in self._runs:
            run.cancel()

    @property
    def done(self) -> bool:
        """Whether all have ended, in whatever way."""
        return self._outcome.done()

    def __await__(self) -> Generator[Any, None, list[MapResult]]:
        return self.wait().__await__()

    async def wait(self) -> list[MapResult]:
        """Wait for all maps to end, and return their results; who gives up waiting cancels them."""
        return await awaited(self._outcome, self.cancel)

    def _fill(self) -> None:
        """Start as many as may run."""
        with self._lock:
            while self._waiting and self._free > 0:
                self._free -= 1
                self._waiting.popleft().start(display=self._display)

    def _note_end(self) -> None:
        with self._lock:
            self._free += 1
            self._left -= 1
            self._fill()
            if not self._left:
                self._finish()

    def _finish(self) -> None:
        for one in self._display:
            one.let_go()
        try:
            results = [run.result() for run in self._runs]
        except CancelledError:
            self._outcome.cancel()
            self._outcome.set_running_or_notify_cancel()
        except BaseException as error:  # noqa: BLE001 - whoever waits for the results gets it
            self._outcome.set_exception(error)
        else:
            self._outcome.set_result(results)


def launch_maps(
    *runs: MapRun, max_concurrent: int | None = None, progress: bool | None = None
) -> "asyncio.Task[list[MapResult]] | MapRuns":
    """Have several maps run in the background, at most so many at once; return at once.

    Parameters
    ----------
    *runs
        What `Pipeline.map_async(..., start=False)` returns; some may have been started.
    max_concurrent
        How many run at once; those that were started before count, but are not held back.
    progress
        Whether to show the progress of all of them in one display; by default only in a terminal or a notebook, if
        they take a while.

    Returns
    -------
    What gives the results when it is awaited, in the order of `runs`: a task where an event loop runs, else `MapRuns`,
    which has `result()` too. If maps fail, the others go on, and the exception of the first is raised at the end; the
    results of the others are in their `MapRun`.

    Examples
    --------
    >>> from gristmill import Pipeline
    >>> pipeline = Pipeline([(abs, "x[i] -> abs[i]")], store=None)
    >>> runs = [pipeline.map_async({"x": [k, -k]}, start=False) for k in (1, 2)]
    >>> [result["abs"].tolist() for result in launch_maps(*runs, max_concurrent=1).result()]
    [[1, 1], [2, 2]]
    """
    launched = _launched(runs, max_concurrent, progress)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return launched
    return loop.create_task(launched.wait())


async def gather_maps(
    *runs: MapRun, max_concurrent: int | None = None, progress: bool | None = None
) -> list[MapResult]:
    """Have several maps run, at most so many at once, and wait for them.

    Cancelling it cancels the maps. See `launch_maps` for the parameters, and for maps that fail.
    """
    return await _launched(runs, max_concurrent, progress).wait()


def _launched(
    runs: Sequence[MapRun],
    max_concurrent: int | None,
    progress: bool | None,  # noqa: FBT001 - the option as it was given
) -> MapRuns:
    for run in runs:
        if not isinstance(run, MapRun):
            raise InputError(
                f"found a {type(run).__name__} among the maps; pass what pipeline.map_async(..., start=False) returns"
            )
    width: object = max_concurrent
    if width is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
        raise InputError(f"max_concurrent is {max_concurrent!r}; it must be a positive number, or None")
    return MapRuns(runs, max_concurrent, shown(progress))
