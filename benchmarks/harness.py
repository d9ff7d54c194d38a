"""Runs cases: every runner in a fresh process, in turns, several times.

Knows nothing of what is measured or reported.
"""

import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.case import Case, Runner

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Sample:
    """One measurement."""

    figure: float
    """Microseconds for each item."""
    growth: int
    """Bytes by which the measuring process grew; its workers are not counted."""
    facts: dict[str, float] = field(default_factory=dict)
    """What the runner reported besides."""


@dataclass
class Measured:
    """A runner's samples, or why there are none."""

    runner: Runner
    items: int
    samples: list[Sample] = field(default_factory=list)
    skipped: str = ""
    failed: str = ""

    @property
    def figure(self) -> float | None:
        """The median of the figures."""
        return statistics.median(sample.figure for sample in self.samples) if self.samples else None


class StepFailedError(Exception):
    """A child process did not end well; the message is what it said."""


def measure(
    case: Case, *, items: int, repeats: int, directory: Path | None, progress: Callable[[str], None]
) -> list[Measured]:
    """Measure every runner of a case: round after round, each round starting with another runner."""
    entries = [Measured(runner, max(1, round(items * runner.share))) for runner in case.runners]
    with TemporaryDirectory(prefix="gristmill-bench-", dir=directory) as base:
        places = {entry.runner.system: Path(base) / str(number) for number, entry in enumerate(entries)}
        for entry in entries:
            entry.skipped = missing(entry.runner)
            _attempt(case, entry, places[entry.runner.system], "prepare", progress)
        for round_number in range(repeats):
            first = round_number % len(entries)
            for entry in entries[first:] + entries[:first]:
                _attempt(case, entry, places[entry.runner.system], "measure", progress)
    return entries


def profiled(case: Case, *, items: int, directory: Path | None) -> tuple[float, list[tuple[str, int, float]]]:
    """Profile gristmill at a case: the seconds of the measured part, and where they went."""
    (runner,) = (runner for runner in case.runners if runner.kind == "ours")
    entry = Measured(runner, items)
    with TemporaryDirectory(prefix="gristmill-bench-", dir=directory) as base:
        if runner.prepare is not None:
            _run_step(case, entry, Path(base), "prepare")
        outcome = _run_step(case, entry, Path(base), "profile")
    return outcome["seconds"], [(name, calls, own) for name, calls, own in outcome["spots"]]


def missing(runner: Runner) -> str:
    """Why a runner cannot run here; empty if it can."""
    absent = [name for name in runner.needs if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def _attempt(case: Case, entry: Measured, place: Path, step: str, progress: Callable[[str], None]) -> None:
    if entry.skipped or entry.failed or (step == "prepare" and entry.runner.prepare is None):
        return
    progress(f"{case.name}: {step} {entry.runner.system}")
    try:
        with _directory(place, keep=entry.runner.prepare is not None):
            outcome = _run_step(case, entry, place, step)
    except StepFailedError as error:
        entry.failed = str(error)
        return
    if step == "measure":
        figure = outcome["seconds"] / entry.items * 1e6
        entry.samples.append(Sample(figure, outcome["growth"], outcome["facts"]))


@contextmanager
def _directory(place: Path, *, keep: bool) -> Iterator[None]:
    place.mkdir(exist_ok=True)
    try:
        yield
    finally:
        if not keep:
            shutil.rmtree(place)


def _run_step(case: Case, entry: Measured, place: Path, step: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.child", case.name, entry.runner.system, step]
    done = subprocess.run(
        [*command, str(entry.items), str(place)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise StepFailedError(done.stderr.strip() or f"exit code {done.returncode}")
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome
