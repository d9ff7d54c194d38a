"""One step of one runner: `python -m benchmarks.child CASE SYSTEM STEP ITEMS DIRECTORY`.

The last line that it prints is the outcome, as JSON.
"""

import gc
import json
import os
import sys
from pathlib import Path

from benchmarks.case import Job
from benchmarks.catalog import find_runner


def main() -> None:
    """Run what the command line says."""
    case, system, step, items, directory = sys.argv[1:]
    runner = find_runner(case, system)
    job = Job(int(items), Path(directory))
    if step == "prepare":
        if runner.prepare is not None:
            runner.prepare(job)
    else:
        os.sync()  # what others wrote must not be flushed on this runner's time
        gc.collect()
        runner.measure(job)
    print(json.dumps({"seconds": job.timer.seconds, "growth": job.timer.growth, "facts": job.facts}))


if __name__ == "__main__":
    main()
