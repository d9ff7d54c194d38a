"""Sharing: what a claim costs, and how much faster two processes are on one map."""

import subprocess
import sys
from functools import partial

from benchmarks.case import AtMost, Case, Job, Runner, SpeedOf

_PROCESSES = 2


def _claims(job: Job, batch: int) -> None:
    """Claim `job.items` calls, so many at once, while another owner holds some of its own; only claiming is timed."""
    import numpy as np

    from gristmill.storage.claims import Claims

    own, other = (Claims(job.directory / "claims") for _ in range(2))
    chance = np.random.default_rng(0)
    other.take(chance.bytes(16 * 1000))
    own.take(chance.bytes(16))
    refused = 0
    for start in range(0, job.items, batch):
        keys = chance.bytes(16 * min(batch, job.items - start))
        with job.timer():
            granted = own.take(keys)
        refused += int((~granted).sum())
        if batch < job.items:
            own.drop(keys)
    if refused:
        raise AssertionError(f"{refused} calls were refused that nobody has claimed")
    own.close()
    other.close()


def _share(job: Job, processes: int) -> None:
    """Map over the same inputs in several processes at once; each call must be made once."""
    command = [sys.executable, "-m", "benchmarks.sharer", str(job.directory / "store"), str(job.items)]
    running = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    for one in running:
        assert one.stdout is not None
        one.stdout.readline()  # it is ready
    with job.timer():
        for one in running:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        said = [one.communicate()[0] for one in running]
    computed = sum(map(int, said))
    if computed != job.items:
        raise AssertionError(f"{job.items} calls were made {computed} times")


def _claim_case(name: str, title: str, items: int, batch: int, budget: float) -> Case:
    return Case(
        name=name,
        title=title,
        items=items,
        quick_items=min(items, 2_000),
        budget=AtMost(budget),
        unit="µs/call",
        runners=(Runner("gristmill", partial(_claims, batch=batch), kind="ours"),),
    )


CASES = (
    _claim_case("claim-one", "calls claimed one by one", 5_000, 1, 20.0),
    _claim_case("claim-batch", "calls claimed a thousand at once", 500_000, 1_000, 0.1),
    _claim_case("claim-million", "a million calls claimed at once", 1_000_000, 1_000_000, 0.1),
    Case(
        name="sharing",
        title=f"400 items of 5 ms of computing: {_PROCESSES} processes on one map, and one",
        items=400,
        quick_items=20,
        budget=SpeedOf("one process", 1.8),
        runners=(
            Runner("gristmill", partial(_share, processes=_PROCESSES), kind="ours", note="on two idle CPUs"),
            Runner("one process", partial(_share, processes=1), kind="raw"),
        ),
    ),
)
