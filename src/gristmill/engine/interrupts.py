"""Ctrl-C while a run goes on: raised in the user's own code and while the engine waits, held back elsewhere.

Python raises KeyboardInterrupt between any two instructions. Within the engine that could lose a result which
has just been returned, or leave an index half updated in a process that goes on, as a notebook does.
"""

import contextlib
import signal
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, ClassVar, Self, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_CALLERS: set[CodeType] = set()
_WAITS: set[CodeType] = set()
_GUARDED: set[CodeType] = set()


def calls_users_code(function: F) -> F:
    """Mark a function of the engine: what it calls may be interrupted, but not itself."""
    _CALLERS.add(function.__code__)
    return function


def waits(function: F) -> F:
    """Mark a function of the engine: it does nothing but wait, and may be interrupted anywhere."""
    _WAITS.add(function.__code__)
    return function


def guarded(function: F) -> F:
    """Mark a function of the engine: it and what it calls is not interrupted, but for the marked functions."""
    _GUARDED.add(function.__code__)
    return function


class Interrupts:
    """Holds Ctrl-C back in `guarded` functions, as long as it is entered and the handler is Python's own.

    A second Ctrl-C is never held back.
    """

    _pending: ClassVar[bool] = False

    def __init__(self) -> None:
        self._installed = False

    def __enter__(self) -> Self:
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            Interrupts._pending = False
            signal.signal(signal.SIGINT, _handle)
            self._installed = True
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._installed and signal.getsignal(signal.SIGINT) is _handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if kind is None:
                self.check()

    @classmethod
    def check(cls) -> None:
        """Raise what has been held back; where the engine can be left at once."""
        if cls._pending and threading.current_thread() is threading.main_thread():
            cls._pending = False
            raise KeyboardInterrupt

    @classmethod
    def take(cls, frame: FrameType | None) -> bool:
        """Hold one back; return whether it must be raised instead."""
        if cls._pending or _may_be_interrupted(frame):
            cls._pending = False
            return True
        cls._pending = True
        return False


class Bell:
    """Wakes the thread that waits; it remembers one ring.

    A bare lock, which Ctrl-C leaves as it is: the conditions of `concurrent.futures` may stay locked.
    """

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self, _: object = None) -> None:
        """Wake whoever waits, or will."""
        with contextlib.suppress(RuntimeError):  # it has been rung already
            self._silent.release()

    @waits
    def wait(self, timeout: float | None) -> None:
        """Return when it is rung, or after so many seconds."""
        Interrupts.check()  # what comes after this is raised in here
        self._silent.acquire(timeout=-1 if timeout is None else timeout)


def _handle(_number: int, frame: FrameType | None) -> None:
    if Interrupts.take(frame):
        raise KeyboardInterrupt


def _may_be_interrupted(frame: FrameType | None) -> bool:
    """Whether the innermost marked function is one that waits, or is calling the user's code."""
    innermost = frame
    while frame is not None:
        code = frame.f_code
        if code in _WAITS:
            return True
        if code in _CALLERS:
            return frame is not innermost
        if code in _GUARDED:
            return False
        frame = frame.f_back
    return True
