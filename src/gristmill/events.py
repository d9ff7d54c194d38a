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
class NodeEvent:
    """What has become of a node, or of one index of a node that is mapped."""

    run_id: str
    """Names the run."""
    node: str
    """The function's qualified name."""
    output_names: tuple[str, ...]
    """What it makes."""
    total: int
    """Indices that it is mapped over; 1 for a node that is not."""
    index: tuple[int, ...] = ()
    """Which of them; empty for a node that is not mapped, and for all of a map."""
    started: float = 0.0
    """When the call began, in seconds since the epoch, by the clock of its process; 0 where that is not known yet."""
    seconds: float = 0.0
    """How long it took, all attempts included."""
    error: BaseException | None = None
    """What it raised."""
    attempts: int = 1
    """How often it was made, if it failed."""
    path: tuple[str, ...] = ()
    """Names of the nested pipelines that the node is in, the outermost first."""

    @property
    def depth(self) -> int:
        """How many pipelines it is nested in."""
        return len(self.path)


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

    def on_node_start(self, event: NodeEvent) -> None:
        """Handle the start of a node that is not mapped."""

    def on_node_end(self, event: NodeEvent) -> None:
        """Handle its end."""

    def on_node_cached(self, event: NodeEvent) -> None:
        """Handle that what it makes was found."""

    def on_node_error(self, event: NodeEvent) -> None:
        """Handle that it raised."""

    def on_map_start(self, event: NodeEvent) -> None:
        """Handle the start of a mapped node, before its first index."""

    def on_map_item_start(self, event: NodeEvent) -> None:
        """Handle the start of one index of a mapped node."""

    def on_map_item_end(self, event: NodeEvent) -> None:
        """Handle the end of one index."""

    def on_map_item_cached(self, event: NodeEvent) -> None:
        """Handle that one index was found; it is not started."""

    def on_map_item_error(self, event: NodeEvent) -> None:
        """Handle that one index raised, as often as its node says."""

    def on_map_end(self, event: NodeEvent) -> None:
        """Handle the end of a mapped node, after its last index."""

    def on_store_fault(self, event: FaultEvent) -> None:
        """Handle damage found in the store, or that the store cannot be written: the latter once in a run."""


class Observers:
    """All callbacks of a run; one that raises is logged and never stops the run."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)

    def want(self, *methods: str) -> bool:
        """Whether any callback overrides any of `methods`."""
        return any(
            getattr(type(callback), method) is not getattr(Callback, method)
            for callback in self._callbacks
            for method in methods
        )

    def tell(self, method: str, event: Any) -> None:
        """Call `method` of every callback that overrides it."""
        for callback in self._callbacks:
            if getattr(type(callback), method) is getattr(Callback, method):
                continue
            try:
                getattr(callback, method)(event)
            except Exception:  # noqa: BLE001 - whatever a user's callback raises
                _LOG.exception("%s.%s raised; the run goes on", type(callback).__name__, method)
