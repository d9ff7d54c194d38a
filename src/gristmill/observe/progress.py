"""The progress display: one bar per stage, in a terminal or a notebook, drawn by rich."""

import sys
import threading
import time
from typing import TYPE_CHECKING

from gristmill.events import Callback, RunEvent, StageEvent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def is_interactive() -> bool:
    """Return whether a person is looking: standard error is a terminal, or this is a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def shown(wanted: bool | None) -> "tuple[ProgressCallback, ...]":  # noqa: FBT001 - the option as it was given
    """Return what shows the progress of a map: by default only to a person, once it has taken a while."""
    if wanted is False or (wanted is None and not is_interactive()):
        return ()
    return (ProgressCallback(delay=0.0 if wanted else 1.0),)


class ProgressCallback(Callback):
    """Shows each stage's done, found and failed items, its rate and its remaining time.

    Runs that go on at once share one display.

    Parameters
    ----------
    delay
        Seconds of running before anything is shown; short runs stay silent.
    """

    def __init__(self, *, delay: float = 0.0) -> None:
        self._delay = delay
        self._started = 0.0
        self._events: dict[tuple[str, int], StageEvent] = {}
        self._progress: Progress | None = None
        self._tasks: dict[tuple[str, int], TaskID] = {}
        self._open = 0
        """How many runs go on, and one more while it is held."""
        self._lock = threading.RLock()

    def hold(self) -> None:
        """Keep one display for all runs from now on, until it is let go."""
        with self._lock:
            if not self._open:
                self._started = time.monotonic()
                self._events.clear()
            self._open += 1

    def let_go(self) -> None:
        """Leave the last picture standing, once no run goes on."""
        with self._lock:
            self._open -= 1
            if self._open or self._progress is None:
                return
            self._progress.stop()
            self._progress = None
            self._tasks.clear()

    def on_run_start(self, event: RunEvent) -> None:
        """Forget the runs before."""
        self.hold()

    def on_stage_start(self, event: StageEvent) -> None:
        """Show the stage's bar."""
        self._update(event)

    def on_stage_progress(self, event: StageEvent) -> None:
        """Move the stage's bar."""
        self._update(event)

    def on_stage_end(self, event: StageEvent) -> None:
        """Complete the stage's bar."""
        self._update(event)

    def on_run_end(self, event: RunEvent) -> None:
        """Leave the last picture standing."""
        self.let_go()

    def _update(self, event: StageEvent) -> None:
        with self._lock:
            self._draw(event)

    def _draw(self, event: StageEvent) -> None:
        self._events[event.run_id, event.stage] = event
        if self._progress is None:
            if time.monotonic() - self._started < self._delay:
                return
            self._progress = _new_progress()
            self._progress.start()
        for known in self._events.values() if not self._tasks else (event,):
            self._show(self._progress, known)

    def _show(self, progress: "Progress", event: StageEvent) -> None:
        place = event.run_id, event.stage
        if place not in self._tasks:
            self._tasks[place] = progress.add_task(event.title, total=event.total, note="")
            progress.reset(self._tasks[place], completed=event.found)
        note = f"{event.found:,} found" if event.found else ""
        if event.failed:
            note += f"{', ' if note else ''}[red]{event.failed:,} failed[/red]"
        progress.update(self._tasks[place], completed=event.done, note=note)


def _new_progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _rate_column()(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )


def _rate_column() -> type:
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class RateColumn(ProgressColumn):
        """Items per second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f}/s" if speed else "", style="progress.data.speed")

    return RateColumn
