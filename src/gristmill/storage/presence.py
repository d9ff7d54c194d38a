"""Presence: which runs are going on and which results are in use, in whatever process.

A run is present through a file, its *pin*, in a scratch directory that its process keeps locked: the lock ends
with the process, however it ends, and then nobody believes the pin any more. The *gate* is passed by a run
while it looks results up and says which it found, and is closed by a collector while it deletes.
"""

import contextlib
import fcntl
import os
import re
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Wait until nothing is being deleted, and let nothing be deleted meanwhile."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Wait until nobody is inside, and let nobody in meanwhile."""
        with self._locked(fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:  # a read-only disk, from which nothing is deleted either
            yield
            return
        try:
            fcntl.flock(descriptor, kind)
            yield
        finally:
            os.close(descriptor)
