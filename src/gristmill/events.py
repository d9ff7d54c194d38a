"""Events: what happens in a run, as frozen dataclasses, and the callbacks that are told.

They fire in the process that called `run` or `map`. Only what a callback overrides costs anything.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_LOG = logging.getLogger("gristmill")


@dataclass(frozen=True, slots=True)
class RunEvent:
    """A run has started or ended."""

    run_id: str
    """Names the run."""
    outputs: tuple[str, ...]
    """What was asked for."""
    stages: tuple[str, ...]
    """Titles of the stages, in order."""
    seconds: float = 0.0
    """Wall time since the start."""
    failed: bool = False
    """Whether it ended with an exception."""


@dataclass(frozen=True, slots=True)
class StageEvent:
    """How far a stage is."""

    run_id: str
    """Names the run."""
    stage: int
    """Number of the stage."""
    title: str
    """Its outputs, as a person reads them."""
    total: int
    """Indices in its space."""
    done: int
    """Indices that need nothing more: computed, found, failed or skipped."""
    found: int
    """Of these, indices that were complete in the store when the stage started."""
    failed: int
    """Calls that raised."""
    executor: str
    """What runs it; empty as long as there was nothing to run."""


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """The store held something damaged, which is computed again, or does not take what is computed."""

    run_id: str
    """Names the run."""
    output: str
    """Whose bytes were lost; empty where the store as a whole cannot be written."""
    index: tuple[int, ...]
    """Which element."""
    message: str
    """What was found."""


class Callback:
    """Is told what happens; override what you need."""

    def on_run_start(self, event: RunEvent) -> None:
        """Handle the start of a run, before the first look-up."""

    def on_run_end(self, event: RunEvent) -> None:
        """Handle the end of a run, however it ended."""

    def on_stage_start(self, event: StageEvent) -> None:
        """Handle the start of a stage, after its look-up."""

    def on_stage_progress(self, event: StageEvent) -> None:
        """Handle a report from a worker."""

    def on_stage_end(self, event: StageEvent) -> None:
        """Handle the end of a stage."""

    def on_store_fault(self, event: FaultEvent) -> None:
        """Handle damage found in the store, or that the store cannot be written: the latter once in a run."""


class Observers:
    """All callbacks of a run; one that raises is logged and never stops the run."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)

    def tell(self, method: str, event: Any) -> None:
        """Call `method` of every callback that overrides it."""
        for callback in self._callbacks:
            if getattr(type(callback), method) is getattr(Callback, method):
                continue
            try:
                getattr(callback, method)(event)
            except Exception:  # noqa: BLE001 - whatever a user's callback raises
                _LOG.exception("%s.%s raised; the run goes on", type(callback).__name__, method)
