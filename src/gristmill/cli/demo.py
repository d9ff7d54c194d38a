"""`gristmill demo`: runs the demo's job and says what came of it.

Owns the order of things, what is said meanwhile, and the exit codes. The job itself is in `demo_job`.
"""

import platform
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from gristmill.cli.demo_display import Display
from gristmill.cli.demo_job import demo_pipeline
from gristmill.cli.demo_kill import kill_later
from gristmill.cli.demo_report import Report
from gristmill.cli.demo_sources import module_name, python_files, standard_library
from gristmill.cli.words import again, counted, short_path
from gristmill.engine.specs import cpu_count
from gristmill.errors import GristmillError, StoreError
from gristmill.identity.files import File
from gristmill.store import Store

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True)
class Demo:
    """One invocation of the demo."""

    started: float
    """When it began, by `time.perf_counter`."""
    source: Path | None = None
    """The folder of Python files to examine; the standard library by default."""
    store: str | None = None
    """Where results are kept; the default store if None."""
    workers: int | None = None
    """Worker processes; one per CPU if None."""
    kill_after: float | None = None
    """Seconds after which it kills itself."""

    def main(self, *, as_json: bool) -> int:
        """Run, report on the terminal, and return the exit code."""
        console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        try:
            store = _opened(self.store)
        except StoreError as error:
            console.print(f"Error: {error}")
            return USAGE
        try:
            with store:
                report = self.run(store, console)
        except KeyboardInterrupt:
            console.print(f"Interrupted; what was finished is kept. To go on: {again()}")
            return INTERRUPTED
        except GristmillError as error:
            console.print(f"Error: {error}")
            return FAILED
        if as_json:
            report.print_json()
        else:
            report.show(Console(highlight=False, markup=False))
        return DONE

    def run(self, store: Store, console: Console) -> Report:
        """Examine the modules; tell `console` how it goes.

        Raises
        ------
        GristmillError
            There is nothing to examine, a call failed, or the store does not take results.
        """
        root = self.source or standard_library()
        files = python_files(root)
        if not files:
            raise GristmillError(f"there are no Python files to examine in {root}")
        console.print(self._opening(len(files)))
        display = Display(console)
        with kill_later(self.kill_after, display):
            pipeline = demo_pipeline(store, self.workers).with_(callbacks=[display])
            modules = [module_name(path, root) for path in files]
            inputs = {"source": [File(path) for path in files], "module": modules}
            result = pipeline.map(inputs, output_name=pipeline.outputs, on_error="continue", progress=False)
            if result.errors:
                failed = counted(len(result.errors), "call")
                raise GristmillError(f"{failed} failed, the first: {result.errors[0]!r}")
            return Report.of(result, modules, store.location, time.perf_counter() - self.started)

    def _opening(self, modules: int) -> str:
        library = f"of Python {_version()}'s standard library"
        what = f"in {short_path(self.source)}" if self.source else library
        workers = counted(self.workers or cpu_count(), "process", "processes")
        return f"Examining {counted(modules, 'module')} {what} with {workers}."


def _opened(location: str | None) -> Store:
    store = Store(location)
    _ = store.storage  # so that a place that cannot be used is refused before anything else is said
    return store


def _version() -> str:
    return ".".join(platform.python_version_tuple()[:2])
