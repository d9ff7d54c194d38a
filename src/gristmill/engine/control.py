"""Control: what others ask of a run while it goes on: to end, or to send no more for a while."""

import sys
from collections.abc import Callable
from concurrent.futures import CancelledError

from gristmill.engine.interrupts import Bell
from gristmill.engine.stagerun import StageRun

Room = Callable[[StageRun, int], int]


class Control:
    """The hand that others have in a run; its methods may be called from any thread.

    Parameters
    ----------
    room
        Gives, for a stage and the number of its items that are under way, how many more may be sent now.
        Without it, any number.
    is_timed
        Whether it is wanted how long each call takes.
    """

    def __init__(self, room: Room | None = None, *, is_timed: bool = False) -> None:
        self._room = room
        self.is_timed = is_timed
        self._bell: Bell | None = None
        self.is_cancelled = False
        """Whether the run was asked to end."""
        self.is_watched = False
        """Whether somebody waits for single items, while the batches that they are in go on."""

    def attach(self, bell: Bell) -> None:
        """Take in what wakes the thread that runs."""
        self._bell = bell

    def ring(self) -> None:
        """Have the run look again at what it may do."""
        if self._bell is not None:
            self._bell.ring()

    def cancel(self) -> None:
        """Have the run end as soon as it can: it starts nothing more, and keeps what it has finished."""
        self.is_cancelled = True
        self.ring()

    def check(self) -> None:
        """Raise if the run was asked to end.

        Raises
        ------
        concurrent.futures.CancelledError
            It was.
        """
        if self.is_cancelled:
            raise CancelledError

    def room(self, run: StageRun, flying: int) -> int:
        """Return how many more items of a stage may be sent now."""
        return sys.maxsize if self._room is None else self._room(run, flying)
