"""What `import` costs in a fresh interpreter, the interpreter's own start not counted."""

import subprocess
import sys
from collections.abc import Callable

from benchmarks.case import Case, Job, Kind, Runner, SpeedOf

PROGRAM = "from time import perf_counter as now; start = now(); import {module}; print(now() - start)"


def _import(module: str) -> Callable[[Job], None]:
    def measure(job: Job) -> None:
        for _ in range(job.items):
            command = [sys.executable, "-c", PROGRAM.format(module=module)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            job.timer.seconds += float(done.stdout)

    return measure


def _runner(module: str, kind: Kind = "peer") -> Runner:
    # The first import compiles, and reads from the disk; what counts is every later one.
    return Runner(module, _import(module), prepare=_import(module), kind=kind, needs=(module,))


CASES = (
    Case(
        name="import",
        title="import in a fresh interpreter",
        items=5,
        quick_items=1,
        unit="µs",
        budget=SpeedOf("numpy", 1 / 1.5),
        runners=(
            _runner("gristmill", "ours"),
            _runner("numpy", "raw"),
            _runner("pipefunc"),
            _runner("joblib"),
        ),
    ),
)
