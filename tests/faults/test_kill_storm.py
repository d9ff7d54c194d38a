"""`kill -9` at any instant: a rerun computes only what was in flight or had just ended, and nothing lives on."""

import itertools
import random
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
from tests.support.calls import CallLog
from tests.support.programs import run, running

ITEMS = 2000
FLUSH_SECONDS = 0.5
"""What ended this long before a kill, or later, may be executed again."""
ORPHAN_SECONDS = 1.0
"""How long workers may outlive their parent."""

PROGRAM = dedent(
    """
    import sys, time
    from gristmill import Pipeline
    from tests.support.calls import record

    def slow(x, log):
        record(log, "start", x)
        time.sleep(0.002 + 0.003 * (x % 7) / 7)
        record(log, "end", x)
        return x * x

    def after(slow):
        return slow + 1

    def total(after):
        return int(after.sum())

    if __name__ == "__main__":
        log, count, executor = sys.argv[1], int(sys.argv[2]), sys.argv[3]
        pipeline = Pipeline([(slow, "x[i] -> slow[i]"), (after, "slow[i] -> after[i]"), total])
        print("ready", flush=True)
        result = pipeline.map({"x": range(count), "log": log}, map_executor=executor, max_workers=2)
        print(result["total"], result.stats.computed)
    """
)


@dataclass(frozen=True)
class Execution:
    """One execution of one call."""

    start: float
    end: float | None
    """None if it was cut off."""


def executions(lines: Sequence[tuple[float, str]]) -> dict[str, list[Execution]]:
    """Every execution of every call, in the order of their starts."""
    found: dict[str, list[Execution]] = defaultdict(list)
    for when, words in lines:
        what, call = words.split()
        if what == "start":
            found[call].append(Execution(when, None))
            continue
        open_ = next(k for k, execution in enumerate(found[call]) if execution.end is None)
        found[call][open_] = Execution(found[call][open_].start, when)
    return found


def unexplained(lines: Sequence[tuple[float, str]], kills: Sequence[float]) -> list[tuple[str, Execution]]:
    """Executions that were repeated although no kill had cut them off or come right after them."""
    return [
        (call, execution)
        for call, made in executions(lines).items()
        for execution, again in itertools.pairwise(made)
        if not any(
            execution.start <= kill + ORPHAN_SECONDS
            and kill <= again.start
            and (execution.end is None or execution.end >= kill - FLUSH_SECONDS)
            for kill in kills
        )
    ]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def storm(script: Path, log: CallLog, store: Path, executor: str, instants: Iterator[float]) -> list[float]:
    """Start and kill the program at each of `instants` (seconds after it is ready); return when that was."""
    kills = []
    for wait in instants:
        with running(script, log.path, ITEMS, executor, store=store) as program:
            assert program.line() == "ready"
            time.sleep(wait)  # a random instant is what is tested
            assert program.process.poll() is None, "it had finished before it was to be killed"
            kills.append(time.time())
            program.kill()
            assert program.wait_for_orphans(ORPHAN_SECONDS) == []
    return kills


def check(script: Path, log: CallLog, store: Path, executor: str, kills: Sequence[float]) -> None:
    total = sum(x * x + 1 for x in range(ITEMS))
    assert run(script, log.path, ITEMS, executor, store=store).split()[:2] == ["ready", str(total)]
    lines = log.lines()
    assert len(executions(lines)) == ITEMS
    assert unexplained(lines, kills) == []
    assert run(script, log.path, ITEMS, executor, store=store).split() == ["ready", str(total), "0"]
    assert len(log.lines()) == len(lines)


@pytest.mark.parametrize("executor", ["parallel", pytest.param("sequential", marks=pytest.mark.slow)])
def test_a_map_killed_at_ten_random_instants_repeats_only_what_was_in_flight(
    executor: str, script: Path, log: CallLog, default_store: Path
) -> None:
    chance = random.Random(executor)
    instants = (chance.uniform(0.0, 0.9) for _ in range(10))
    kills = storm(script, log, default_store, executor, instants)
    check(script, log, default_store, executor, kills)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_many_storms(seed: int, script: Path, log: CallLog, default_store: Path) -> None:
    chance = random.Random(seed)
    kills = storm(script, log, default_store, "parallel", (chance.uniform(0.0, 0.5) for _ in range(20)))
    check(script, log, default_store, "parallel", kills)


# -- orphans

ENDLESS = dedent(
    """
    import sys, time
    from gristmill import Pipeline
    from tests.support.calls import record

    def slow(x, log, seconds):
        record(log, "start", x)
        time.sleep(seconds)
        return x

    if __name__ == "__main__":
        pipeline = Pipeline([(slow, "x[i] -> slow[i]")])
        print("ready", flush=True)
        given = {"x": range(100_000), "log": sys.argv[1], "seconds": float(sys.argv[2])}
        pipeline.map(given, map_executor="parallel", max_workers=3)
    """
)


@pytest.mark.parametrize("seconds", [0.001, 0.05, 60.0], ids=["fast items", "middling items", "slow items"])
def test_workers_of_a_killed_parent_are_gone_within_a_second(
    seconds: float, tmp_path: Path, log: CallLog, default_store: Path
) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    with running(script, log.path, seconds, store=default_store) as program:
        while len(log.lines()) < 3:
            assert program.process.poll() is None
        killed = time.time()
        program.kill()
        assert program.wait_for_orphans(ORPHAN_SECONDS) == []
    late = [words for when, words in log.lines() if when > killed + FLUSH_SECONDS]
    assert late == []


@pytest.mark.parametrize("wait", [0.0, 0.05, 0.1, 0.2, 0.4])
def test_workers_that_are_still_starting_are_gone_too(
    wait: float, tmp_path: Path, log: CallLog, default_store: Path
) -> None:
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    with running(script, log.path, 60.0, store=default_store) as program:
        assert program.line() == "ready"
        time.sleep(wait)  # while the first worker comes up
        program.kill()
        assert program.wait_for_orphans(ORPHAN_SECONDS) == []


def test_litter_of_a_killed_run_is_swept(script: Path, log: CallLog, default_store: Path) -> None:
    storm(script, log, default_store, "parallel", iter([0.3, 0.3]))
    assert list((default_store / "tmp").iterdir())
    run(script, log.path, ITEMS, "parallel", store=default_store)
    run(script, log.path, 1, "sequential", store=default_store)
    assert [path.name for path in (default_store / "tmp").iterdir() if path.is_dir()] == []
