"""One call: made as often as its node says, each time on arguments of its own, and for as long as it may take."""

import inspect
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.engine.deliver import Alone
from gristmill.engine.interrupts import Bell, calls_users_code
from gristmill.engine.lanes import THREADS
from gristmill.engine.seat import Seat
from gristmill.errors import GristmillError, ItemTimeoutError, StoreError
from gristmill.graph.node import Node
from gristmill.graph.retry import LONGEST_WAIT
from gristmill.identity.digest import digest
from gristmill.storage.elements import SCALARS, pickle_value

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from tenacity.wait import wait_base

    from gristmill.engine.coroutines import Loops

Times = tuple[float, float]
"""When a call began, in seconds since the epoch, and how many seconds it took."""


class GaveUpError(BaseException):
    """A call has failed more than once.

    Parameters
    ----------
    error
        What it raised the last time.
    attempts
        How often it was made.
    """

    def __init__(self, error: BaseException, attempts: int) -> None:
        super().__init__(error, attempts)
        self.error = error
        self.attempts = attempts


@dataclass(frozen=True)
class Manner:
    """How the calls of a job are made where they are made."""

    check_mutation: bool = False
    """Whether a call fails that changes its arguments."""
    timed: bool = False
    """Whether it is wanted when each call began, and how long it took."""
    seat: Seat | None = None
    """Who is told what is being called."""
    before: Callable[[int, int], int] = lambda _step, _position: 0
    """How often a call has been made already, in a process that has been ended."""
    interruptible: bool = False
    """Whether a KeyboardInterrupt is the user's (in the user's process) rather than the function's."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when nothing more may be started."""


class OneCall:
    """Makes one call of a node at a time, or, as coroutines or in several threads, many.

    Parameters
    ----------
    node
        What to call.
    names
        The function's own names of what it gets by position.
    manner
        How.
    step
        Which node of its stage it is.
    """

    def __init__(self, node: Node, names: Sequence[str], manner: Manner, step: int) -> None:
        self.node = node
        self._names = tuple(names)
        self._manner = manner
        self._step = step
        seat = manner.seat
        self._limit = None if seat is not None and seat.ends_late_calls else node.timeout
        """The time limit that has to be kept here."""
        self._tells = seat if manner.timed or node.timeout is not None else None
        self._loops: Loops | None = None
        self.passed = 0
        """How many were not calls, but elements of a tree reduction that went on as they were."""
        self.times: dict[int, Times] = {}
        """By position, of the calls since this was emptied."""

    @property
    def is_plain(self) -> bool:
        """Whether nothing belongs to a call but the call."""
        node = self.node
        return not (
            node.is_async
            or node.post_execution_hook
            or node.own_reduce
            or node.retries.attempts > 1
            or self._manner.check_mutation
            or self._manner.timed
            or self._tells
            or self._limit
        )

    def close(self) -> None:
        """Close the event loop of an async node."""
        if self._loops is not None:
            self._loops.close()

    @calls_users_code
    def make(self, position: int, positional: Sequence[Any], named: dict[str, Any]) -> Any:
        """Make a call.

        Raises
        ------
        GaveUpError
            It has failed as often as the node says.
        """
        if (alone := self._passing(positional, named)) is not None:
            self.passed += 1
            return alone.value
        begun, started = time.time(), time.perf_counter()
        try:
            if self.node.retries.attempts == 1:
                return self._once(position, 1, positional, named)
            return self._retried(position, positional, named)
        finally:
            if self._manner.timed:
                self.times[position] = begun, time.perf_counter() - started

    async def make_async(self, position: int, positional: Sequence[Any], named: dict[str, Any]) -> Any:
        """Make a call of a coroutine function; as `make`."""
        if (alone := self._passing(positional, named)) is not None:
            return alone.value
        begun, started = time.time(), time.perf_counter()
        try:
            if self.node.retries.attempts == 1:
                return await self._once_async(position, 1, positional, named)
            return await self._retried_async(position, positional, named)
        finally:
            if self._manner.timed:
                self.times[position] = begun, time.perf_counter() - started

    # -- attempts -----------------------------------------------------------------------------------------------

    @calls_users_code
    def _retried(self, position: int, positional: Sequence[Any], named: dict[str, Any]) -> Any:
        from tenacity import Retrying

        given = [_again(value) for value in positional], {name: _again(v) for name, v in named.items()}
        number = self._manner.before(self._step, position)
        try:
            for attempt in Retrying(**self._policy(number)):
                with attempt:
                    number += 1
                    if attempt.retry_state.attempt_number > 1:
                        positional, named = _fresh(*given)
                    return self._once(position, number, positional, named)
        except BaseException as error:  # noqa: BLE001 - it carries it on
            raise GaveUpError(error, number) from None

    async def _retried_async(self, position: int, positional: Sequence[Any], named: dict[str, Any]) -> Any:
        from tenacity import AsyncRetrying

        given = [_again(value) for value in positional], {name: _again(v) for name, v in named.items()}
        number = self._manner.before(self._step, position)
        try:
            async for attempt in AsyncRetrying(**self._policy(number)):
                with attempt:
                    number += 1
                    if attempt.retry_state.attempt_number > 1:
                        positional, named = _fresh(*given)
                    return await self._once_async(position, number, positional, named)
        except BaseException as error:  # noqa: BLE001 - it carries it on
            raise GaveUpError(error, number) from None

    def _policy(self, before: int) -> dict[str, Any]:
        """What tenacity calls the retries of the node, after so many attempts."""
        from tenacity import stop_after_attempt, wait_exponential, wait_random

        retries = self.node.retries
        wait: wait_base = wait_exponential(
            multiplier=retries.wait, exp_base=retries.backoff, max=LONGEST_WAIT
        )
        if retries.jitter:
            wait = wait + wait_random(0, retries.jitter)
        return {
            "stop": stop_after_attempt(max(1, retries.attempts - before)),
            "wait": wait,
            "retry": self._wants_again,
            "reraise": True,
        }

    def _wants_again(self, state: "RetryCallState") -> bool:
        outcome = state.outcome
        if outcome is None or not outcome.failed or self._manner.stop.is_set():
            return False
        return isinstance(outcome.exception(), self.node.retries.on)

    @calls_users_code
    def _once(self, position: int, attempt: int, positional: Sequence[Any], named: dict[str, Any]) -> Any:
        before = self._identities(positional, named)
        self._begin(position, attempt)
        if self.node.is_async:
            result = self._loop().run(self._awaited(positional, named))
        elif self._limit is None:
            result = self.node.function(*positional, **named)
        else:
            result = self._within(self._limit, positional, named)
        self._finish(result, positional, named, before)
        return result

    async def _once_async(
        self, position: int, attempt: int, positional: Sequence[Any], named: dict[str, Any]
    ) -> Any:
        before = self._identities(positional, named)
        self._begin(position, attempt)
        result = await self._awaited(positional, named)
        self._finish(result, positional, named, before)
        return result

    def _loop(self) -> "Loops":
        if self._loops is None:
            from gristmill.engine.coroutines import Loops

            self._loops = Loops()
        return self._loops

    # -- time limits --------------------------------------------------------------------------------------------

    async def _awaited(self, positional: Sequence[Any], named: dict[str, Any]) -> Any:
        from asyncio import timeout

        limit = timeout(self.node.timeout)
        try:
            async with limit:
                result = self.node.function(*positional, **named)
                return await result if inspect.isawaitable(result) else result
        except TimeoutError:
            if not limit.expired():
                raise
        raise late(self.node, "it was cancelled")

    @calls_users_code
    def _within(self, seconds: float, positional: Sequence[Any], named: dict[str, Any]) -> Any:
        """Call the function in a thread that is left alone when it takes too long."""
        bell = Bell()
        ended: list[tuple[Any, BaseException | None]] = []

        def call() -> None:
            try:
                ended.append((self.node.function(*positional, **named), None))
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                ended.append((None, error))
            bell.ring()

        THREADS.run(call)
        bell.wait(seconds)
        if not ended:
            raise late(self.node, "its thread cannot be ended and goes on; what it returns is disregarded")
        result, error = ended[0]
        if error is not None:
            raise error
        return result

    # -- what belongs to a call ---------------------------------------------------------------------------------

    def _begin(self, position: int, attempt: int) -> None:
        if self._tells is not None:
            self._tells.begin(self._step, position, attempt)

    def _given(self, positional: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name."""
        return dict(zip(self._names, positional, strict=True)) | named

    def _passing(self, positional: Sequence[Any], named: dict[str, Any]) -> Alone | None:
        """The element of a tree reduction that is alone, so that there is nothing to call for."""
        if self.node.own_reduce is None:
            return None
        one = self._given(positional, named)[self.node.own_reduce]
        return one if isinstance(one, Alone) else None

    def _identities(self, positional: Sequence[Any], named: dict[str, Any]) -> dict[str, bytes]:
        """What arguments are that the call must not change."""
        if not self._manner.check_mutation:
            return {}
        given = self._given(positional, named)
        return {name: bytes(digest(value)) for name, value in given.items() if _is_mutable(value)}

    @calls_users_code
    def _finish(
        self, result: Any, positional: Sequence[Any], named: dict[str, Any], before: dict[str, bytes]
    ) -> None:
        """Call the hook, and see that arguments are what they were."""
        if self.node.post_execution_hook is not None:
            self.node.post_execution_hook(self.node, result, self._given(positional, named))
        for name, identity in before.items():
            if bytes(digest(self._given(positional, named)[name])) != identity:
                raise GristmillError(
                    f"{self.node.name} changed its argument {name!r} in place; let it work on a copy, or leave "
                    "check_mutation off: each call has its own copy"
                )


def late(node: Node, what: str) -> ItemTimeoutError:
    """Return the error of a call that took too long, and what has become of it."""
    return ItemTimeoutError(f"{node.name} ran for longer than its timeout of {node.timeout:g} s; {what}")


def _is_mutable(value: object) -> bool:
    """Whether a call may change `value`; a zarr array that it reads from is no reason to read all of it."""
    kind = type(value)
    return kind not in SCALARS and not (
        kind.__module__.startswith("zarr.") and getattr(value, "read_only", False)
    )


def _again(value: Any) -> Callable[[], Any]:
    """Return what makes the argument of another attempt: one that failed may have changed it."""
    if not _is_mutable(value) or isinstance(value, np.ndarray):
        if isinstance(value, np.ndarray) and value.flags.writeable:
            kept = value.copy()
            return kept.copy
        return lambda: value
    try:
        data = pickle_value(value, given=True)
    except StoreError:  # all calls are handed the same
        return lambda: value
    return lambda: pickle.loads(data)  # noqa: S301 - our own pickle


def _fresh(
    positional: Sequence[Callable[[], Any]], named: dict[str, Callable[[], Any]]
) -> tuple[list[Any], dict[str, Any]]:
    return [make() for make in positional], {name: make() for name, make in named.items()}
