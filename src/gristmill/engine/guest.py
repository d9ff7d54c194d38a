"""The guest: what runs in a process of an executor that the user made.

Such a process is not ours. It keeps its signal handlers, is never ended from here, may do other work besides, and
may run several batches at once, in threads. A batch starts no more calls once the engine has withdrawn its job, or is
gone; it commits what has been finished in any case.
"""

import contextlib
import contextvars
import os
import pickle
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gristmill.engine.interrupts import Interrupts, guarded
from gristmill.engine.lanes import BUSY
from gristmill.engine.process import BatchMessage, WorkerProcess, packed, run_in
from gristmill.errors import InputError


class Token:
    """Tells whether it has been handed on itself, or was pickled on the way."""

    def __init__(self, *, is_original: bool = True) -> None:
        self.is_original = is_original

    def __reduce__(self) -> tuple[object, ...]:
        return _copied, ()


def _copied() -> Token:
    return Token(is_original=False)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an executor has run a task."""

    host: str
    process: int
    thread: int
    is_direct: bool
    """Whether the task was handed over as it is, not as a pickle."""

    @classmethod
    def here(cls, token: Token) -> "Place":
        """Return where this runs."""
        return cls(socket.gethostname(), os.getpid(), threading.get_ident(), token.is_original)


def look_around(token: Token) -> Place:
    """Return where this runs: the first task that an executor is given."""
    return Place.here(token)


def nothing() -> None:
    """Do nothing: the task that shows that an executor still takes tasks."""


@dataclass(frozen=True, slots=True)
class Host:
    """The process that a guest works for."""

    name: str
    """Of its machine."""
    process: int

    @classmethod
    def here(cls) -> "Host":
        """Return this process."""
        return cls(socket.gethostname(), os.getpid())

    @property
    def is_alive(self) -> bool:
        """Whether it can be seen from here; it may be hidden, in a container of its own."""
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except OSError:
            return True
        return True

    def check(self, job: str) -> None:
        """See that this process can reach what the engine's process can.

        Raises
        ------
        InputError
            It cannot.
        """
        if (name := socket.gethostname()) != self.name:
            raise InputError(elsewhere(name, self.name))
        if not Path(job).exists():
            raise InputError(
                f"a process of this executor cannot see {Path(job).parent}, where the store is; its processes must "
                "have the same file system as the process that maps"
            )


def elsewhere(there: str, here: str) -> str:
    """Return what is wrong with a process on another machine."""
    return (
        f"this executor runs tasks on {there!r}, and the store is on {here!r}: the database of a store must not be "
        "used from several machines; use an executor whose processes are on this one"
    )


class _Withdrawal(threading.Event):
    """Set when the job of the batch that runs is withdrawn, or the engine is gone."""

    def __init__(self) -> None:
        super().__init__()
        self._host: Host | None = None
        self._job = ""

    def watch(self, host: Host, job: str) -> None:
        """Watch over another batch."""
        self._host = host if host.is_alive else None
        self._job = job

    def is_set(self) -> bool:
        """Return whether nothing more may be started."""
        return not Path(self._job).exists() or (self._host is not None and not self._host.is_alive)


class _Guest:
    """What one batch at a time needs in this process, kept for the next one."""

    def __init__(self) -> None:
        self.withdrawal = _Withdrawal()
        self.process = WorkerProcess(self.withdrawal)


_IDLE: list[_Guest] = []
_RUNNING: list[int] = []  # a process has one list of each; there is nowhere else to keep them


def is_guest() -> bool:
    """Return whether this process runs a batch for another process."""
    return bool(_RUNNING)


def run_guest_batch(message: bytes, host: Host, _number: int) -> bytes:
    """Run one batch; the pickled `BatchMessage` in, the pickled `BatchReport` or exception out.

    Its number makes every task another one: there are executors that answer equal tasks from their memory.
    """
    batch: BatchMessage = pickle.loads(message)  # noqa: S301 - from the engine's process
    return contextvars.copy_context().run(_run, batch, host)


def _run(batch: BatchMessage, host: Host) -> bytes:
    BUSY.set(True)
    with Interrupts(), _busy(host):
        return _answer(batch, host)


@guarded
def _answer(batch: BatchMessage, host: Host) -> bytes:
    try:
        host.check(batch.job)
    except InputError as error:
        return packed(error)
    try:
        guest = _IDLE.pop()
    except IndexError:
        guest = _Guest()
    guest.withdrawal.watch(host, batch.job)
    try:
        return run_in(guest.process, batch)
    finally:
        _IDLE.append(guest)


@contextlib.contextmanager
def _busy(host: Host) -> Iterator[None]:
    """Say that this process works for another one: an engine that a call starts runs in the call."""
    if host.process == os.getpid():
        yield
        return
    _RUNNING.append(host.process)
    try:
        yield
    finally:
        _RUNNING.remove(host.process)
