"""One step of one runner: `python -m benchmarks.child CASE SYSTEM STEP ITEMS DIRECTORY`.

A step is `prepare`, `measure`, or `profile`, which measures with a profile of the measured part.

The last line that it prints is the outcome, as JSON.
"""

import gc
import json
import os
import sys
from cProfile import Profile
from pathlib import Path
from pstats import Stats

from benchmarks.case import Job, Timer
from benchmarks.catalog import find_runner

SPOTS = 25
"""Functions in a profile: those that took most."""


def main() -> None:
    """Run what the command line says."""
    case, system, step, items, directory = sys.argv[1:]
    runner = find_runner(case, system)
    profile = Profile() if step == "profile" else None
    job = Job(int(items), Path(directory), Timer(profile))
    if step == "prepare":
        if runner.prepare is not None:
            runner.prepare(job)
    else:
        os.sync()  # what others wrote must not be flushed on this runner's time
        gc.collect()
        runner.measure(job)
    spent = spots(profile) if profile is not None else []
    outcome = {"seconds": job.timer.seconds, "growth": job.timer.growth, "facts": job.facts, "spots": spent}
    print(json.dumps(outcome))


def spots(profile: Profile) -> list[tuple[str, int, float]]:
    """Where the time went: functions, how often each was called, and its seconds without those of what it calls."""
    found = []
    for (file, line, name), (_, calls, own, _, _) in Stats(profile).stats.items():  # type: ignore[attr-defined]
        place = f"{'/'.join(Path(file).parts[-2:])}:{line} " if line else ""
        found.append((f"{place}{name}", calls, own))
    return sorted(found, key=lambda spot: -spot[2])[:SPOTS]


if __name__ == "__main__":
    main()
