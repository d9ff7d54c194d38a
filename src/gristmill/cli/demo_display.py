"""What the demo shows while it runs: what it found in the store, and progress bars."""

import threading

from rich.console import Console

from gristmill.events import Callback, RunEvent, StageEvent
from gristmill.observe.progress import ProgressCallback, is_interactive

_DELAY_SECONDS = 0.4
"""Running time from which bars are shown: a run that finds everything is over by then."""


class Display(Callback):
    """Says on `console` what the store holds already, then shows bars where a person is looking.

    Parameters
    ----------
    console
        Where messages go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = ProgressCallback(delay=_DELAY_SECONDS) if is_interactive() else Callback()
        self._lock = threading.Lock()
        self._closed = False

    def on_run_start(self, event: RunEvent) -> None:
        """Get the bars ready."""
        self._tell("on_run_start", event)

    def on_stage_start(self, event: StageEvent) -> None:
        """Say what was found of the map; reductions speak for themselves."""
        if event.total > 1 and 0 < event.found < event.total:
            left = event.total - event.found
            self._console.print(f"{event.found:,} of them are finished already; {left:,} are left.")
        self._tell("on_stage_start", event)

    def on_stage_progress(self, event: StageEvent) -> None:
        """Move a bar."""
        self._tell("on_stage_progress", event)

    def on_stage_end(self, event: StageEvent) -> None:
        """Complete a bar."""
        self._tell("on_stage_end", event)

    def on_run_end(self, event: RunEvent) -> None:
        """Leave the bars standing."""
        self._tell("on_run_end", event)

    def last_words(self, text: str) -> None:
        """Take the bars off the terminal for good and print `text`; any thread may ask for this."""
        with self._lock:
            self._closed = True
            self._bars.on_run_end(RunEvent("", (), ()))
            self._console.print(text)

    def _tell(self, method: str, event: RunEvent | StageEvent) -> None:
        with self._lock:
            if not self._closed:
                getattr(self._bars, method)(event)
