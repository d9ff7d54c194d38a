"""Presence: which runs are going on and which results are in use, in whatever process.

A run is present through a file, its *pin*, in a scratch directory that its process keeps locked: the lock ends
with the process, however it ends, and then nobody believes the pin any more. The *gate* is passed by a run
while it looks results up and says which it found, and is closed by a collector while it deletes.
"""

import contextlib
import fcntl
import os
import re
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gristmill.errors import StoreError
from gristmill.storage import patience
from gristmill.storage.patience import LONGEST_PAUSE_SECONDS, Waiter, lock

_PIN = re.compile(r"(running|open)-([0-9a-f]{12})-([0-9a-f]{8})")


@dataclass(frozen=True, slots=True)
class Presence:
    """One pin that was found."""

    run_id: str
    running: bool
    """Whether the run goes on; otherwise its result is in use."""
    since: float
    """Seconds since the epoch, by the clock of the file system."""


class Pin:
    """Says that a run goes on, and after `settle` that its result is in use, as long as this object lives.

    Parameters
    ----------
    scratch
        The locked directory of this process.
    run_id
        Twelve hexadecimal digits.

    Raises
    ------
    OSError
        The file system refuses.
    """

    def __init__(self, scratch: Path, run_id: str) -> None:
        own = f"{run_id}-{os.urandom(4).hex()}"  # a result may be in use twice
        self._running, self._open = (scratch / f"{state}-{own}" for state in ("running", "open"))
        self._running.touch()
        self._finalizer = weakref.finalize(self, _unlink, (self._running, self._open), os.getpid())

    def settle(self) -> None:
        """Say that the run has ended."""
        with contextlib.suppress(OSError):  # the store was deleted, or is full
            os.rename(self._running, self._open)

    def release(self) -> None:
        """Say that nobody uses its result any more."""
        self._finalizer()


def _unlink(paths: tuple[Path, ...], maker: int) -> None:
    if os.getpid() == maker:  # a forked child that ends has a copy of the finalizer
        for path in paths:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def present(scratch: Path) -> dict[str, Presence]:
    """Return the pins of all living processes by run id.

    Parameters
    ----------
    scratch
        The directory that holds every process's scratch directory.
    """
    found: dict[str, Presence] = {}
    with contextlib.suppress(OSError):
        for directory in sorted(scratch.iterdir()):
            if directory.is_dir() and _is_locked(directory):
                for pin in _pins(directory):
                    if pin.running or pin.run_id not in found:
                        found[pin.run_id] = pin
    return found


def _pins(directory: Path) -> Iterator[Presence]:
    with contextlib.suppress(OSError):
        for path in list(directory.iterdir()):
            match = _PIN.fullmatch(path.name)
            pin = _pin(directory, *match.groups()) if match else None
            if pin is not None:
                yield pin


def _pin(directory: Path, state: str, run_id: str, own: str) -> Presence | None:
    for now in dict.fromkeys((state, "open")):  # it may have just been renamed
        with contextlib.suppress(OSError):
            status = (directory / f"{now}-{run_id}-{own}").stat()
            return Presence(run_id, now == "running", status.st_mtime)
    return None


def _is_locked(directory: Path) -> bool:
    try:
        descriptor = os.open(directory / ".lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


class Gate:
    """What keeps look-ups and deletions apart, in all processes.

    Parameters
    ----------
    path
        The file whose lock it is.
    make
        Whether to make it where it is not there; otherwise nobody is kept out then.
    waiter
        Waits to enter: the same for all gates of a process, which need not wait twice for who has stopped.
    """

    def __init__(self, path: Path, *, make: bool = True, waiter: Waiter | None = None) -> None:
        self._path = path
        self._waiter = waiter or Waiter()
        self._flags = os.O_RDWR | os.O_CREAT if make else os.O_RDONLY

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let nothing be deleted meanwhile; wait until nothing is being deleted, but not for who has stopped."""
        with self._opened() as descriptor:
            if descriptor >= 0:
                with contextlib.suppress(OSError):  # without it, what is found may be a miss later
                    self._waiter.lock(descriptor, fcntl.LOCK_SH, patience.ENTER_SECONDS)
            yield

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Wait until nobody is inside, and let nobody in meanwhile.

        Raises
        ------
        StoreError
            Somebody stays inside.
        """
        with self._opened() as descriptor:
            if descriptor >= 0 and not lock(descriptor, fcntl.LOCK_EX, patience.CLOSE_SECONDS):
                raise StoreError(
                    f"a process has been looking things up for {patience.CLOSE_SECONDS:.0f} s in the store at "
                    f"{self._path.parent}, or has stopped in the midst of it; try again"
                )
            yield
        time.sleep(2 * LONGEST_PAUSE_SECONDS)  # so that whoever waits gets in before it is closed again

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        try:
            descriptor = os.open(self._path, self._flags, 0o600)
        except OSError:  # a read-only disk, from which nothing is deleted either
            yield -1
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)
