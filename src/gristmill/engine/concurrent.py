"""Concurrent calls: one node called over columns of arguments, many calls at a time.

What a call returns is identified and kept where it ran, before anything else happens there; whoever waits gets the
calls in groups, as they end.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from gristmill.engine.calls import Caller, Outcome
from gristmill.engine.deliver import Alone
from gristmill.engine.lanes import Lanes
from gristmill.engine.onecall import GaveUpError, Manner
from gristmill.graph.node import Node
from gristmill.identity.types import SIZE
from gristmill.storage.elements import SCALARS
from gristmill.storage.local import LocalStorage

Array = np.ndarray[Any, Any]

_COMPANY_SECONDS = 0.002
"""How long a call that has ended waits for others: what is done about each group takes a tenth of that, from the
threads that the others run in."""

_UNMADE = object()
"""Stands for the result of a call that was not made, because nothing more is to be started."""


class _Ended(NamedTuple):
    """A call that has ended."""

    place: int
    result: Any
    error: BaseException | None = None
    attempts: int = 1


def _company(done: "queue.SimpleQueue[_Ended]", left: int) -> list[_Ended]:
    """Return what has ended, at least one call: with what ends in the next moment, as it is all taken in at once."""
    group = [done.get()]
    until = time.monotonic() + _COMPANY_SECONDS
    with contextlib.suppress(queue.Empty):
        while len(group) < left:
            group.append(done.get(timeout=max(0.0, until - time.monotonic())))
    return group


_Report = tuple["queue.SimpleQueue[_Ended]", threading.Event]


class ConcurrentCaller(Caller):
    """Calls one node, many calls at a time.

    Parameters
    ----------
    lanes
        Where the calls run: on an event loop if the node is a coroutine function, else in threads.
    fail_fast
        Whether a failure is a reason to start nothing more.
    **options
        As for `Caller`.
    """

    def __init__(
        self,
        node: Node,
        parameters: Sequence[str],
        storage: LocalStorage,
        manner: Manner,
        *given: Any,
        **options: Any,
    ) -> None:
        self._lanes: Lanes = options.pop("lanes")
        self._fail_fast: bool = options.pop("fail_fast")
        super().__init__(node, parameters, storage, manner, *given, **options)
        self._stop = manner.stop

    def stream(
        self, columns: Sequence[Sequence[Any]], positions: Sequence[int], keys: bytes
    ) -> Iterator[tuple[Array, Outcome]]:
        """As `Caller.stream`; the places of calls are yielded as they end, in any order."""
        done: queue.SimpleQueue[_Ended] = queue.SimpleQueue()
        report = done, threading.Event()
        count = len(positions)
        self._alone = False
        make: Callable[..., Any] = self._coroutine if self._lanes.is_async else self._job
        rows = zip(self._arguments(columns, count), positions, strict=False)
        self._lanes.start(
            [
                partial(make, (place, position), positional, named, report)
                for place, ((positional, named), position) in enumerate(rows)
            ]
        )
        passing = columns[self._parameters.index(self._node.own_reduce)] if self._node.own_reduce else ()
        left = count
        while left:
            group = _company(done, left)
            left -= len(group)
            group.sort()
            places = [one.place for one in group]
            outcome = self._group(group, keys, passing)
            times = self._call.times
            outcome.times = {p: times.pop(p) for p in (positions[k] for k in places) if p in times}
            yield np.array(places), outcome

    def _group(self, group: Sequence[_Ended], keys: bytes, passing: Sequence[Any]) -> Outcome:
        failures = {k: one.error for k, one in enumerate(group) if one.error is not None}
        unmade = {k for k, one in enumerate(group) if one.result is _UNMADE}
        results = [None if k in unmade else one.result for k, one in enumerate(group)]
        self._keys = b"".join([keys[one.place * SIZE : (one.place + 1) * SIZE] for one in group])
        outcome = self._outcome(results, failures, len(group))
        outcome.passed = sum(type(passing[one.place]) is Alone for one in group) if passing else 0
        outcome.unmade |= unmade
        outcome.attempts = {k: one.attempts for k, one in enumerate(group) if one.attempts > 1}
        return outcome

    def _ended(self, place: int, result: Any) -> _Ended:
        if self._single and not self._inner and type(result) in SCALARS:
            return _Ended(place, result)
        return _Ended(place, self._keep(result))

    def _failed(self, place: int, error: BaseException, halt: threading.Event) -> _Ended:
        if self._fail_fast:
            halt.set()
        if isinstance(error, GaveUpError):
            return _Ended(place, None, error.error, error.attempts)
        return _Ended(place, None, error)

    def _job(self, where: tuple[int, int], positional: Any, named: dict[str, Any], report: _Report) -> None:
        (place, position), (done, halt) = where, report
        if self._stop.is_set() or halt.is_set():
            done.put(_Ended(place, _UNMADE))
            return
        try:
            ended = self._ended(place, self._call.make(position, positional, named))
        except BaseException as error:  # noqa: BLE001 - SystemExit and the like fail one item
            ended = self._failed(place, error, halt)
        done.put(ended)

    async def _coroutine(
        self, where: tuple[int, int], positional: Any, named: dict[str, Any], report: _Report
    ) -> None:
        (place, position), (done, halt) = where, report
        if self._stop.is_set() or halt.is_set():
            done.put(_Ended(place, _UNMADE))
            return
        try:
            ended = self._ended(place, await self._call.make_async(position, positional, named))
        except BaseException as error:  # noqa: BLE001 - as above; a cancelled call has not been made
            ended = _Ended(place, _UNMADE) if self._stop.is_set() else self._failed(place, error, halt)
        done.put(ended)
