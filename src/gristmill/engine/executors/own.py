"""Executors that users made: finds out where they run tasks, and makes the transport that suits.

Where an executor runs tasks is found out with one that says it, once for each executor.
"""

import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from gristmill.engine.borrowed import BorrowedLanes
from gristmill.engine.executors.base import Transport
from gristmill.engine.executors.concurrent import ConcurrentTransport
from gristmill.engine.executors.sequential import SequentialTransport
from gristmill.engine.guest import Host, Place, Token, elsewhere, look_around, nothing
from gristmill.engine.interrupts import Bell
from gristmill.engine.report import BatchReport
from gristmill.engine.specs import COROUTINES, GivenExecutor
from gristmill.engine.stores import Stores
from gristmill.errors import GristmillError, InputError

_LOOK_SECONDS = 1.0
"""How often it is looked whether a first task is done, in case that its future tells nobody."""


class _Places:
    """Where the executors of this process run tasks."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[int, weakref.ref[Any], Place]] = {}

    def of(self, given: GivenExecutor) -> Place:
        """Return where an executor runs tasks.

        Raises
        ------
        InputError
            It takes none, or runs them where the store cannot be used.
        """
        key = id(given.executor)
        process, known, place = self._found.get(key, (0, None, None))
        if place is not None and known is not None and known() is given.executor and process == os.getpid():
            _submit(given, nothing)
            return place
        place = _place(given)
        with contextlib.suppress(TypeError):  # one that cannot be referred to weakly is asked again each time
            known = weakref.ref(given.executor, lambda _: self._found.pop(key, None))
            self._found[key] = os.getpid(), known, place
        return place


PLACES = _Places()  # where an executor runs tasks does not change between runs


def own_transport(
    stores: Stores, given: GivenExecutor, place: Place, most: int | None, is_beside: Callable[[], bool]
) -> Transport:
    """Return what runs batches or calls in an executor.

    Parameters
    ----------
    stores
        Where results go.
    given, place
        The executor, and where it runs tasks.
    most
        How many calls run at once at most.
    is_beside
        As for `SequentialTransport`.
    """
    here, width = Host.here(), given.width(most)
    if not place.is_direct or place.process != here.process:
        from gristmill.engine.executors.foreign import ForeignTransport

        return ForeignTransport(stores, given, width)
    if place.thread == threading.get_ident():
        return SequentialTransport(stores, is_beside, given.name, partial(_call, given))
    stop = threading.Event()
    return ConcurrentTransport(
        given.name, stores, BorrowedLanes(given, width, stop), most or COROUTINES, stop
    )


def _place(given: GivenExecutor) -> Place:
    future, bell = _submit(given, look_around, Token()), Bell()
    try:
        future.add_done_callback(bell.ring)
        while not future.done():
            bell.wait(_LOOK_SECONDS)
        place = future.result()
    except Exception as error:
        raise InputError(
            f"{given.text} did not run a first task ({type(error).__name__}: {error}); its futures need result, done "
            "and add_done_callback, and its processes the same packages as this one"
        ) from error
    if not isinstance(place, Place):
        raise InputError(f"{given.text} did not run a first task: it returned {place!r}")
    if place.host != (here := Host.here().name):
        raise InputError(elsewhere(place.host, here))
    return place


def _submit(given: GivenExecutor, task: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return given.executor.submit(task, *arguments)
    except Exception as error:
        raise InputError(
            f"{given.text} takes no tasks ({type(error).__name__}: {error}); make a new one"
        ) from error


def _call(given: GivenExecutor, batch: Callable[[], BatchReport]) -> BatchReport:
    """Run a batch in this thread, through the executor."""
    try:
        future = given.executor.submit(batch)
    except Exception as error:
        raise GristmillError(
            f"{given.text} took no more tasks while a map was running ({type(error).__name__}: {error}); what was "
            "finished is kept"
        ) from error
    report: BatchReport = future.result()
    return report
