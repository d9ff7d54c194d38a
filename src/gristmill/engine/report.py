"""What a worker tells the engine about a batch: small plain data, never a result."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Failure:
    """One call that raised."""

    position: int
    """The index, as a position in the stage's space."""
    step: int
    """Which node of the stage."""
    exception: BaseException
    """The exception; where it leaves its process, one that is known to survive pickling."""
    traceback: str
    """The worker's traceback, from the user's function on."""
    attempts: int = 1
    """How often the call was made."""


@dataclass(frozen=True, slots=True)
class Lost:
    """An element of another stage whose bytes are gone: it must be computed again first."""

    source: str
    position: int


@dataclass(frozen=True, slots=True)
class Timed:
    """When calls of one step began, and how long they took."""

    step: int
    positions: list[int]
    begun: list[float]
    """Seconds since the epoch."""
    seconds: list[float]


@dataclass(slots=True)
class BatchReport:
    """What became of one batch."""

    computed: list[int] = field(default_factory=list)
    """Calls executed, per step."""
    failures: list[Failure] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    seconds: float = 0.0
    """Wall time of the batch, flush included."""
    busy_seconds: float | None = None
    """Of these, how long its thread used a CPU or waited for one; None where others ran its calls."""
    bytes_written: int = 0
    """Where the batch ran in another process."""
    spent: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By step, the wall time in which its calls were made, and how much of it this thread used a CPU, in seconds."""
    timed: list[Timed] = field(default_factory=list)
    """Of the calls that were made, failed ones included, if that is wanted."""
    fault: str = ""
    """Why something of it went to the refuge, if anything did: the store did not take it."""
