"""Map runs: maps that go on in the background, to be waited for, watched, ended, or taken item by item."""

import asyncio
import contextlib
import math
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from gristmill.background import Background
from gristmill.engine.feed import Feed
from gristmill.engine.interrupts import Bell, Interrupts
from gristmill.engine.items import Item
from gristmill.evaluation import Evaluation
from gristmill.events import Callback, StageEvent
from gristmill.plan.compile import Plan
from gristmill.plan.stage import Stage
from gristmill.result import MapResult

T = TypeVar("T")


@dataclass(frozen=True)
class StageProgress:
    """How far one stage of a map is."""

    title: str
    """Its outputs, as a person reads them."""
    done: int = 0
    """Indices that need nothing more: computed, found, failed or skipped."""
    total: int = 0
    """Indices in its space; 0 as long as that is not known."""
    failed: int = 0
    """Calls that raised."""


@dataclass(frozen=True)
class MapProgress:
    """How far a map is: sums over its stages."""

    done: int = 0
    """Indices that need nothing more: computed, found, failed or skipped."""
    total: int = 0
    """Indices of all stages, as far as they are known."""
    failed: int = 0
    """Calls that raised."""
    stages: tuple[StageProgress, ...] = field(default=(), repr=False)
    """Each stage."""


class _Tally(Callback):
    """Keeps the latest that was told of each stage."""

    def __init__(self, plan: Plan) -> None:
        self._stages = {
            stage.number: StageProgress(stage.title, total=_total(plan, stage)) for stage in plan.stages
        }

    def on_stage_start(self, event: StageEvent) -> None:
        """Take in that a stage has started."""
        self._take_in(event)

    def on_stage_progress(self, event: StageEvent) -> None:
        """Take in how far a stage is."""
        self._take_in(event)

    def on_stage_end(self, event: StageEvent) -> None:
        """Take in that a stage has ended."""
        self._take_in(event)

    def _take_in(self, event: StageEvent) -> None:
        self._stages = {
            **self._stages,
            event.stage: StageProgress(event.title, event.done, event.total, event.failed),
        }

    @property
    def progress(self) -> MapProgress:
        stages = tuple(self._stages.values())
        return MapProgress(
            sum(stage.done for stage in stages),
            sum(stage.total for stage in stages),
            sum(stage.failed for stage in stages),
            stages,
        )


def _total(plan: Plan, stage: Stage) -> int:
    """How many indices a stage will have; 0 if that is not known before it starts."""
    extents = plan.shapes[stage.outputs[0]][: len(stage.axes)]
    return math.prod(one if isinstance(one, int) else 0 for one in extents)


class MapRun:
    """A map that goes on in the background, in a thread of its own; what `Pipeline.map_async` returns.

    `await run`, or `run.result()`, gives its result. `async for item in run` gives its items as they are completed,
    each once.

    Examples
    --------
    >>> from gristmill import Pipeline
    >>> run = Pipeline([(abs, "x[i] -> abs[i]")], store=None).map_async({"x": [-1, 2]})
    >>> run.result()["abs"].tolist(), run.done
    ([1, 2], True)
    """

    def __init__(self, evaluation: Evaluation, feed: Feed, display: Sequence[Callback]) -> None:
        self._tally = _Tally(evaluation.plan)
        self._run = Background(evaluation, feed, display, told=(self._tally,))

    def start(self, *, display: Sequence[Callback] | None = None) -> Self:
        """Start the map, unless it has been started; return itself.

        Parameters
        ----------
        display
            Shows its progress, instead of its own.
        """
        self._run.start(display)
        return self

    def result(self, timeout: float | None = None) -> MapResult:
        """Wait for the map to end, and return its result; start it, if it has not been.

        Parameters
        ----------
        timeout
            Seconds to wait at most; the map goes on.

        Raises
        ------
        TimeoutError
            It has not ended by then.
        concurrent.futures.CancelledError
            It was cancelled.
        Exception
            What `Pipeline.map` would have raised.
        """
        self.start()
        self._run.feed.release()  # nobody has to take items first
        return wait_for(self._run.outcome, timeout)

    def cancel(self) -> bool:
        """End the map: nothing more is started, and what is done is kept; return whether that was in time.

        It returns at once. Calls that run get a moment to end; then processes are ended, coroutines are cancelled, and
        threads left behind. Whoever waits for the result gets a `CancelledError`.
        """
        if self.done:
            return False
        self._run.cancel()
        return True

    @property
    def progress(self) -> MapProgress:
        """How far it is."""
        return self._tally.progress

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._run.outcome.done()

    @property
    def cancelled(self) -> bool:
        """Whether it has ended because it was cancelled."""
        return self._run.outcome.cancelled()

    def __await__(self) -> Generator[Any, None, MapResult]:
        return self._awaited().__await__()

    async def _awaited(self) -> MapResult:
        """Wait without keeping the event loop from anything else; who gives up waiting cancels the map."""
        self.start()
        self._run.feed.release()
        return await awaited(self._run.outcome, self.cancel)

    def __aiter__(self) -> AsyncIterator[Item]:
        self.start()
        return _Items(self._run)

    @property
    def started(self) -> bool:
        """Whether it has been started."""
        return self._run.is_started

    def when_done(self, call: Callable[[], None]) -> None:
        """Have `call` called when it has ended, in whatever thread that is."""
        self._run.outcome.add_done_callback(lambda _: call())

    def __repr__(self) -> str:
        progress = self.progress
        state = "running" if self._run.is_started else "not started"
        if self.done:
            state = "cancelled" if self.cancelled else "failed" if self._run.outcome.exception() else "done"
        return f"<MapRun {state}, {progress.done} of {progress.total}>"


class _Items(AsyncIterator[Item]):
    """The items of a map, for a coroutine; when it is no longer used, the map goes on without waiting for anybody."""

    def __init__(self, run: Background) -> None:
        self._run = run
        self._news = asyncio.Event()
        self._listener = waker(self._news)
        run.feed.hold()
        run.feed.listen(self._listener)
        self._finalizer = weakref.finalize(self, _leave, run.feed, self._listener)

    async def __anext__(self) -> Item:
        feed = self._run.feed
        try:
            while not feed.exhausted:
                self._news.clear()
                if not feed.has_located:
                    await asyncio.to_thread(feed.locate)
                if (item := feed.take()) is not None:
                    return item
                if not feed.exhausted:
                    await self._news.wait()
        except CancelledError:
            raise asyncio.CancelledError from None
        self._finalizer()
        raise StopAsyncIteration


def wait_for(outcome: Future[T], timeout: float | None) -> T:
    """Wait for an outcome in this thread, which Ctrl-C ends and leaves everything as it is."""
    bell = Bell()
    outcome.add_done_callback(bell.ring)
    with Interrupts():
        bell.wait(timeout)
    return outcome.result(0)


async def awaited(outcome: Future[T], cancel: Callable[[], object]) -> T:
    """Wait for an outcome on the running event loop; who gives up waiting cancels it."""
    ended = asyncio.Event()
    outcome.add_done_callback(waker(ended))
    try:
        await ended.wait()
    except asyncio.CancelledError:
        cancel()
        raise
    try:
        return outcome.result(0)
    except CancelledError:
        raise asyncio.CancelledError from None


def waker(event: asyncio.Event) -> Callable[..., None]:
    """Return what sets an event of the running loop from any thread."""
    loop = asyncio.get_running_loop()

    def wake(*_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(event.set)

    return wake


def _leave(feed: Feed, listener: Callable[..., None]) -> None:
    feed.ignore(listener)
    feed.release()
