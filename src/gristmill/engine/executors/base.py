"""What the engine needs of an executor: slots that take batches and give reports."""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, Protocol

import numpy as np

from gristmill.engine.report import BatchReport
from gristmill.engine.seat import Underway
from gristmill.engine.stagerun import Missing, StageRun
from gristmill.storage.claims import Claims

Array = np.ndarray[Any, Any]


class SlotDiedError(Exception):
    """The process of a slot ended while it ran a batch.

    Parameters
    ----------
    text
        What is known of how.
    call
        The call that it was at; None between two calls, or where that is not known.
    """

    def __init__(self, text: str, call: Underway | None = None) -> None:
        super().__init__(text)
        self.call = call


class Transport(Protocol):
    """Carries batches to where they run."""

    name: str
    """What events and run records call it."""
    width: int
    """How many batches run at once."""
    bytes_piped: int
    """Bytes of messages and reports so far."""
    is_direct: bool
    """Whether a batch is done when it has been submitted, because it runs in the thread that submits it."""
    is_shared: bool
    """Whether a process that dies takes the batches of the others along: then suspects run first, and alone."""

    @property
    def is_busy(self) -> bool:
        """Whether batches are under way."""

    def free(self, stage: StageRun) -> int:
        """How many more batches of a stage can start now."""

    def ahead(self, stage: StageRun) -> int:
        """How many batches can be sent besides, to wait behind others where they will run."""

    def least(self, stage: StageRun) -> int:
        """How many items a batch should have at least, if there are so many."""

    def prepare(self, stage: StageRun) -> None:
        """See that the stage's batches can be carried; raise an `InputError` that says why they cannot."""

    def submit(
        self, stage: StageRun, positions: Array, claims: Claims, missing: Missing
    ) -> "Future[BatchReport]":
        """Start a batch; the future raises `SlotDiedError` if its process dies."""

    def processes(self) -> "Mapping[Future[BatchReport], int]":
        """Return the ids of the processes that run batches now, other than this one."""

    def underway(self) -> "Mapping[Future[BatchReport], Underway]":
        """Return the calls that such processes are at now, as far as they can be seen."""

    def end(self, batch: "Future[BatchReport]") -> None:
        """End the process that runs a batch, if it does: its future raises `SlotDiedError`."""

    def forget(self, stage: StageRun) -> None:
        """Take in that what the stage reads has moved."""

    def extend(self, stage: StageRun, positions: Mapping[str, Array]) -> None:
        """Take in that more elements of what the stage reads are there, by name the positions of those."""

    def halt(self) -> None:
        """Start no more calls, as far as that can be told to what runs them; those that run may end."""

    def close(self, *, kill: bool) -> None:
        """Give the slots back; with `kill`, end what still runs."""
