"""Seats: where a worker says which call it is at, so that its engine can see it without being told.

A worker process writes to its row of a file that both have mapped: this costs it a few nanoseconds, and what it wrote
last can be read when it has died or does not answer.
"""

import contextlib
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

NOWHERE = -1
"""The position between two calls."""

_POSITION, _STEP, _STARTED, _ATTEMPT = range(4)
_FIELDS = 8
_ROW_BYTES = 8 * _FIELDS

Cells: TypeAlias = "memoryview[int]"
"""The numbers of a seat."""


def private_cells() -> Cells:
    """Return cells that nobody looks at."""
    cells = memoryview(bytearray(_ROW_BYTES)).cast("q")
    cells[_POSITION] = NOWHERE
    return cells


@dataclass(frozen=True, slots=True)
class Underway:
    """The call that a worker is at."""

    step: int
    position: int
    seconds: float
    """Since it began, as far as its node is timed."""
    attempt: int
    """Counted from 1."""


class Seat(Protocol):
    """What a caller tells about the call that it is at."""

    cells: Cells
    """The first is the position of the call, `NOWHERE` between calls; the second the step."""
    ends_late_calls: bool
    """Whether somebody looks here, and ends what takes too long."""

    def begin(self, step: int, position: int, attempt: int) -> None:
        """Say that a call begins now."""

    def clear(self) -> None:
        """Say that no call has begun."""


class Row:
    """A seat in a file that two processes have mapped.

    Parameters
    ----------
    cells
        The row's fields.
    """

    ends_late_calls = True

    def __init__(self, cells: Cells) -> None:
        self.cells = cells

    def begin(self, step: int, position: int, attempt: int) -> None:
        """Say that a call begins now; whoever looks meanwhile sees none."""
        cells = self.cells
        cells[_POSITION] = NOWHERE
        cells[_STARTED] = (
            time.monotonic_ns()
        )  # of the machine, so that another process can tell how long ago it was
        cells[_ATTEMPT] = attempt
        cells[_STEP] = step
        cells[_POSITION] = position

    def clear(self) -> None:
        """Say that no call has begun."""
        self.cells[_STARTED] = self.cells[_ATTEMPT] = 0
        self.cells[_POSITION] = NOWHERE

    def look(self) -> Underway | None:
        """Return what the process is at; None between two calls."""
        cells = self.cells
        position, step, started, attempt = (cells[k] for k in (_POSITION, _STEP, _STARTED, _ATTEMPT))
        if position == NOWHERE or cells[_POSITION] != position:  # it went on while it was looked at
            return None
        seconds = (time.monotonic_ns() - started) / 1e9 if started else 0.0
        return Underway(step, position, seconds, max(attempt, 1))


class LiveSeat:
    """A seat in the engine's own process, which is told at once.

    Parameters
    ----------
    begun
        Called with the step and the position of each call that begins.
    """

    ends_late_calls = False

    def __init__(self, begun: Callable[[int, int], None]) -> None:
        self.cells = private_cells()
        self._begun = begun

    def begin(self, step: int, position: int, attempt: int) -> None:
        """Tell of a call."""
        if attempt == 1:
            self._begun(step, position)

    def clear(self) -> None:
        """Say nothing: nobody looks."""


class Table:
    """The rows of the worker processes of one run.

    Parameters
    ----------
    path
        The file.
    count
        How many rows a new file gets; None for a file that is there.

    Raises
    ------
    OSError
        There is no room for it, or it is gone.
    """

    def __init__(self, path: Path, count: int | None = None) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDWR | (os.O_CREAT | os.O_EXCL if count else 0), 0o600)
        try:
            if count:
                # Not a hole: writing to one on a full disk ends the process.
                os.write(descriptor, bytes(count * _ROW_BYTES))
            self._map = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
        self._cells = memoryview(self._map).cast("q")

    def row(self, number: int) -> Row:
        """Return a row."""
        return Row(self._cells[number * _FIELDS : (number + 1) * _FIELDS])

    def remove(self) -> None:
        """Delete the file; who has it mapped may go on."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
