"""A storm of kills and stops over processes that share a store: nothing wrong, nothing lost, little done twice."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
from tests.support.calls import CallLog
from tests.support.programs import run
from tests.support.storm import executions, tormenting, unexplained

from gristmill import Store
from gristmill.storage import patience

SCRIPT = dedent(
    """
    import os, random, sys, time

    log, seconds, stall, *rest = sys.argv[1:]
    os.environ["GRISTMILL_TEST_ENGINE"] = str(os.getpid())
    os.environ["GRISTMILL_TEST_STALL"] = stall

    from gristmill import WorkerDiedError
    from tests.support.storm_job import everything, run_map, something

    if __name__ == "__main__":
        if not rest:
            print("computed", run_map(everything(float(seconds)), log, "sequential").stats.computed)
            sys.exit()
        began, chance = float(rest[0]), random.Random(rest[1])
        while (now := time.time() - began) < float(seconds):
            try:
                run_map(something(now, chance), log, chance.choice(("sequential", "parallel")))
            except WorkerDiedError:  # one call was hit twice, alone in its process, and is given up
                print("died", flush=True)
            else:
                print("right", flush=True)
    """
)


@dataclass(frozen=True)
class Storm:
    """How violent it is."""

    count: int
    """Programs at once."""
    seconds: float
    seed: int
    stall: float = patience.STALL_SECONDS
    """How long processes wait for one that has stopped."""
    long_stops: tuple[float, ...] = ()

    def rage(self, script: Path, log: CallLog, store: Path) -> None:
        """See that nothing is wrong or lost, and that what was done twice is explained by what was done to whom."""
        given = (log.path, self.seconds, self.stall)
        with tormenting(script, *given, store=store, count=self.count, seed=self.seed) as tormentor:
            tormentor.rage(self.seconds, pause=0.15, stop_seconds=1.0, long_stops=self.long_stops)
            tormentor.finish()
        printed = " ".join(tormentor.printed).split()
        assert set(printed) <= {"right", "died"}, tormentor.printed
        assert tormentor.torment.kills
        assert tormentor.torment.stops
        before = set(executions(log.lines()))
        assert before
        computed = int(run(script, *given, store=store).split()[1])
        lines = log.lines()
        twice = unexplained(lines, tormentor.torment, self.stall)
        assert not twice, twice
        assert computed >= len(set(executions(lines)) - before)
        assert run(script, *given, store=store).split() == ["computed", "0"]
        assert len(log.lines()) == len(lines)
        with Store(store) as opened:
            assert opened.verify().damaged == []


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def test_a_short_storm(script: Path, log: CallLog, default_store: Path) -> None:
    Storm(3, 5.0, seed=1).rage(script, log, default_store)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_eight_processes_for_half_a_minute(
    seed: int, script: Path, log: CallLog, default_store: Path
) -> None:
    Storm(8, 30.0, seed, stall=5.0, long_stops=(7.0, 7.0)).rage(script, log, default_store)
