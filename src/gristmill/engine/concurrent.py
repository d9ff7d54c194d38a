"""Concurrent calls: one node called over columns of arguments, many calls at a time.

What a call returns is identified and kept where it ran, before anything else happens there; whoever waits gets the
calls in groups, as they end.
"""

import inspect
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from gristmill.engine.calls import Caller, Outcome
from gristmill.engine.deliver import Alone
from gristmill.engine.lanes import Lanes, LoopLanes
from gristmill.identity.types import SIZE
from gristmill.storage.elements import SCALARS

Array = np.ndarray[Any, Any]

_Done = tuple[int, Any, BaseException | None]
_UNMADE = object()
"""Stands for the result of a call that was not made, because nothing more is to be started."""


class ConcurrentCaller(Caller):
    """Calls one node, many calls at a time.

    Parameters
    ----------
    lanes
        Where the calls run: on an event loop if the node is a coroutine function, else in threads.
    stop
        Set when nothing more may be started.
    fail_fast
        Whether a failure is a reason to start nothing more.
    **options
        As for `Caller`.
    """

    def __init__(
        self, *given: Any, lanes: Lanes, stop: threading.Event, fail_fast: bool, **options: Any
    ) -> None:
        super().__init__(*given, **options)
        self._lanes = lanes
        self._stop = stop
        self._fail_fast = fail_fast

    def stream(
        self, columns: Sequence[Sequence[Any]], count: int, keys: bytes
    ) -> Iterator[tuple[Array, Outcome]]:
        """Call the node `count` times; yield places of calls that have ended, in any order, and what became of them."""
        done: queue.SimpleQueue[_Done] = queue.SimpleQueue()
        halt = threading.Event()
        self._alone = False
        make = self._coroutine if isinstance(self._lanes, LoopLanes) else self._job
        call = self._awaited if isinstance(self._lanes, LoopLanes) else self._one()
        self._lanes.start(
            [
                partial(make, call, place, positional, named, (done, halt))
                for place, (positional, named) in enumerate(self._arguments(columns, count))
            ]
        )
        passing = columns[self._parameters.index(self._node.own_reduce)] if self._node.own_reduce else ()
        left = count
        while left:
            group = [done.get()]
            while not done.empty():  # nobody else takes from it
                group.append(done.get())
            left -= len(group)
            places = np.array([place for place, _, _ in group])
            order = np.argsort(places)
            yield places[order], self._group([group[k] for k in order.tolist()], keys, passing)

    def _group(self, group: Sequence[_Done], keys: bytes, passing: Sequence[Any]) -> Outcome:
        failures = {k: error for k, (_, _, error) in enumerate(group) if error is not None}
        unmade = {k for k, (_, result, _) in enumerate(group) if result is _UNMADE}
        results = [None if k in unmade else result for k, (_, result, _) in enumerate(group)]
        self._keys = b"".join([keys[place * SIZE : (place + 1) * SIZE] for place, _, _ in group])
        self._passed = sum(type(passing[place]) is Alone for place, _, _ in group) if passing else 0
        outcome = self._outcome(results, failures, len(group))
        outcome.unmade |= unmade
        return outcome

    def _ended(self, place: int, result: Any) -> _Done:
        if self._single and not self._inner and type(result) in SCALARS:
            return place, result, None
        return place, self._keep(result), None

    def _job(
        self,
        call: Callable[..., Any],
        place: int,
        positional: Any,
        named: dict[str, Any],
        report: tuple["queue.SimpleQueue[_Done]", threading.Event],
    ) -> None:
        done, halt = report
        if self._stop.is_set() or halt.is_set():
            done.put((place, _UNMADE, None))
            return
        try:
            ended = self._ended(place, call(*positional, **named))
        except BaseException as error:  # noqa: BLE001 - SystemExit and the like fail one item
            if self._fail_fast:
                halt.set()
            ended = place, None, error
        done.put(ended)

    async def _coroutine(
        self,
        call: Callable[..., Any],
        place: int,
        positional: Any,
        named: dict[str, Any],
        report: tuple["queue.SimpleQueue[_Done]", threading.Event],
    ) -> None:
        done, halt = report
        if self._stop.is_set() or halt.is_set():
            done.put((place, _UNMADE, None))
            return
        try:
            ended = self._ended(place, await call(*positional, **named))
        except BaseException as error:  # noqa: BLE001 - as above; a cancelled call has not been made
            if self._fail_fast:
                halt.set()
            ended = (place, _UNMADE, None) if self._stop.is_set() else (place, None, error)
        done.put(ended)

    async def _awaited(self, *positional: Any, **named: Any) -> Any:
        """Run one call, with what belongs to it, on an event loop."""
        given = self._given(positional, named)
        if (alone := self._passing(given)) is not None:
            return alone.value
        before = self._identities(given)
        result = self._node.function(*positional, **named)
        if inspect.isawaitable(result):
            result = await result
        self._tell_hook(result, given)
        self._check_unchanged(given, before)
        return result
