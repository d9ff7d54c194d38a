"""What `import` costs in a fresh interpreter, the interpreter's own start not counted."""

import subprocess
import sys
from collections.abc import Callable

from benchmarks.case import Case, Job, Kind, Runner, SpeedOf

PROGRAM = "from time import perf_counter as now; start = now(); {statement}; print(now() - start)"
USED = "from gristmill import Engine, Pipeline, Store, node"


def _import(statement: str) -> Callable[[Job], None]:
    def measure(job: Job) -> None:
        for _ in range(job.items):
            command = [sys.executable, "-c", PROGRAM.format(statement=statement)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            job.timer.seconds += float(done.stdout)

    return measure


def _runner(system: str, statement: str, kind: Kind = "peer", note: str = "") -> Runner:
    measure = _import(statement)
    # The first import compiles, and reads from the disk; what counts is every later one.
    return Runner(system, measure, prepare=measure, kind=kind, needs=(statement.split()[1],), note=note)


CASES = (
    Case(
        name="import",
        title="import in a fresh interpreter",
        items=5,
        quick_items=1,
        unit="µs",
        budget=SpeedOf("numpy", 1 / 1.5),
        runners=(
            _runner("gristmill", USED, "ours", note="what a script imports"),
            _runner("gristmill, unused", "import gristmill", "raw"),
            _runner("numpy", "import numpy", "raw"),
            _runner("pipefunc", "import pipefunc"),
            _runner("joblib", "import joblib"),
        ),
    ),
)
