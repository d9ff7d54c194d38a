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
from gristmill.cli.words import again, counted
from gristmill.engine.specs import cpu_count
from gristmill.errors import GristmillError, StorePermissionError, StoreVersionError
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
    store: Path | None = None
    """Where results are kept; the default store if None."""
    workers: int | None = None
    """Worker processes; one per CPU if None."""
    kill_after: float | None = None
    """Seconds after which it kills itself."""

    def main(self, *, as_json: bool) -> int:
        """Run, report on the terminal, and return the exit code."""
        console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        try:
            report = self.run(console)
        except KeyboardInterrupt:
            console.print(f"Interrupted. What was finished is kept; go on with: {again()}")
            return INTERRUPTED
        except GristmillError as error:
            console.print(f"Error: {error}")
            return USAGE if isinstance(error, StoreVersionError | StorePermissionError) else FAILED
        if as_json:
            report.print_json()
        else:
            report.show(Console(highlight=False, markup=False))
        return FAILED if report.stats.failed else DONE

    def run(self, console: Console) -> Report:
        """Examine the modules; tell `console` how it goes.

        Raises
        ------
        GristmillError
            The store cannot be used, or there is nothing to examine.
        """
        root = self.source or standard_library()
        files = python_files(root)
        if not files:
            raise GristmillError(f"there are no Python files to examine in {root}")
        console.print(self._opening(len(files)))
        display = Display(console)
        with Store(self.store) as store, kill_later(self.kill_after, display):
            pipeline = demo_pipeline(store, self.workers).with_(callbacks=[display])
            modules = [module_name(path, root) for path in files]
            inputs = {"source": [File(path) for path in files], "module": modules}
            result = pipeline.map(inputs, output_name=pipeline.outputs, on_error="continue", progress=False)
            return Report.of(result, modules, store.location, time.perf_counter() - self.started)

    def _opening(self, modules: int) -> str:
        what = f"in {self.source}" if self.source else f"of Python {_version()}'s standard library"
        workers = counted(self.workers or cpu_count(), "worker process", "worker processes")
        return f"Examining the {counted(modules, 'module')} {what} with {workers}."


def _version() -> str:
    return ".".join(platform.python_version_tuple()[:2])
