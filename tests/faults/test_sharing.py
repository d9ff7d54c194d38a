"""Several processes run the same map on one store at the same time: every call is executed once."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from tests.support.calls import CallLog
from tests.support.programs import Program, running

from gristmill import Pipeline, Store
from gristmill.engine.executors.sequential import SequentialTransport
from gristmill.storage.claims import Claims
from gristmill.storage.local import LocalStorage
from gristmill.storage.segment import KEY_SIZE

PROGRAM = dedent(
    """
    import sys, time
    import numpy as np
    from gristmill import Pipeline
    from tests.support.calls import record

    def first(x, log, seconds):
        record(log, "first", x)
        time.sleep(seconds)
        return x + 1

    def second(first, log):
        record(log, "second", first)
        return first % 50

    def third(second, log):
        record(log, "third", second)
        return np.full(10_000, second)

    def total(third, log):
        record(log, "total")
        return int(third[:, 0].sum())

    def share(second, total, log):
        record(log, "share", second)
        return second / total

    FIRST = [(first, "x[i] -> first[i]")]
    CHAIN = [*FIRST, (second, "first[i] -> second[i]")]
    STAGES = [*CHAIN, (third, "second[i] -> third[i]"), total, (share, "second[i] -> share[i]")]

    if __name__ == "__main__":
        log, nodes, count, seconds, executor, order = sys.argv[1:]
        x = list(range(int(count)))[:: int(order)]
        pipeline = Pipeline(globals()[nodes])
        print("ready", flush=True)
        sys.stdin.readline()
        result = pipeline.map({"x": x, "log": log, "seconds": float(seconds)}, map_executor=executor, max_workers=2)
        name = list(result)[-1]
        print(sum(result[name].tolist()), result.stats.computed)
    """
)
NODES = ("FIRST", "CHAIN", "STAGES")


def expected(nodes: str, count: int) -> tuple[dict[str, int], float]:
    """How many calls of each node there are, and the sum of the last output."""
    seconds = [(x + 1) % 50 for x in range(count)]
    different = len(set(seconds))
    counts = {"first": count, "second": count, "third": different, "total": 1, "share": different}
    sums = {"FIRST": sum(range(1, count + 1)), "CHAIN": sum(seconds), "STAGES": 1.0}
    kept = {"FIRST": 1, "CHAIN": 2, "STAGES": 5}[nodes]
    return dict(list(counts.items())[:kept]), sums[nodes]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def together(programs: list[Program]) -> list[tuple[float, int]]:
    """Let programs that are ready go at once; return the sum and the number of computed calls of each."""
    for program in programs:
        assert program.line() == "ready"
    for program in programs:
        program.go()
    printed = [program.finish().split() for program in programs]
    return [(float(total), int(computed)) for total, computed in printed]


@dataclass(frozen=True)
class Race:
    """The same map in several processes at once."""

    nodes: str
    executors: tuple[str, ...]
    """One per process."""
    count: int = 300
    seconds: float = 0.002
    """How long each call of the first node takes."""
    orders: tuple[int, ...] = ()
    """1 or -1 per process: its inputs from the first on, or from the last."""

    def run(self, script: Path, log: CallLog, store: Path) -> None:
        """See that every call is executed once, whoever executes it, and that all get the right result."""
        with ExitStack() as stack:
            programs = [
                stack.enter_context(
                    running(
                        script, log.path, self.nodes, self.count, self.seconds, executor, order, store=store
                    )
                )
                for executor, order in zip(
                    self.executors, self.orders or [1] * len(self.executors), strict=True
                )
            ]
            outcomes = together(programs)
        counts, total = expected(self.nodes, self.count)
        made = log.counts()
        assert {call: times for call, times in made.items() if times > 1} == {}
        assert {name: sum(call.split()[0] == name for call in made) for name in counts} == counts
        assert [found for found, _ in outcomes] == pytest.approx([total] * len(outcomes))
        assert sum(computed for _, computed in outcomes) == sum(counts.values())


@pytest.mark.parametrize("nodes", NODES)
@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_two_processes(nodes: str, executor: str, script: Path, log: CallLog, default_store: Path) -> None:
    Race(nodes, (executor, executor)).run(script, log, default_store)


@pytest.mark.parametrize("nodes", NODES)
def test_three_processes_of_two_kinds(nodes: str, script: Path, log: CallLog, default_store: Path) -> None:
    Race(nodes, ("sequential", "parallel", "parallel")).run(script, log, default_store)


def test_two_processes_from_both_ends(script: Path, log: CallLog, default_store: Path) -> None:
    Race("CHAIN", ("parallel", "parallel"), orders=(1, -1)).run(script, log, default_store)


def test_two_processes_with_trivial_calls(script: Path, log: CallLog, default_store: Path) -> None:
    Race("CHAIN", ("parallel", "parallel"), count=20_000, seconds=0.0).run(script, log, default_store)


def test_two_processes_with_slow_calls_share_the_load(
    script: Path, log: CallLog, default_store: Path
) -> None:
    Race("FIRST", ("parallel", "parallel"), count=12, seconds=0.2).run(script, log, default_store)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", NODES)
def test_eight_processes(nodes: str, script: Path, log: CallLog, default_store: Path) -> None:
    Race(nodes, ("parallel", "sequential") * 4, count=2000).run(script, log, default_store)


def test_a_process_that_is_killed_leaves_its_calls_to_the_other(
    script: Path, log: CallLog, default_store: Path
) -> None:
    count = 300
    arguments = (log.path, "CHAIN", count, 0.005, "parallel", 1)
    with (
        running(script, *arguments, store=default_store) as one,
        running(script, *arguments, store=default_store) as other,
    ):
        for program in (one, other):
            assert program.line() == "ready"
            program.go()
        while len(log.lines()) < 100:
            assert other.process.poll() is None
        one.kill()
        found = float(other.finish().split()[0])
    counts, total = expected("CHAIN", count)
    assert found == total
    assert len(log.counts()) == sum(counts.values())


# -- no waiting in circles


class RefusingClaims(Claims):
    """Claims that once refuse a call as if somebody else were at it, and know what they hold."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.held: set[bytes] = set()
        self.refused: bytes = b""

    def take(self, keys: bytes, entitled: Any = None) -> Any:
        granted = super().take(keys, entitled)
        if len(keys) > 4 * KEY_SIZE and not self.refused:
            self.refused = keys[-KEY_SIZE:]
            super().drop(self.refused)
            granted[-1] = False
        self.held.update(
            keys[k * KEY_SIZE : (k + 1) * KEY_SIZE] for k, is_ours in enumerate(granted) if is_ours
        )
        return granted

    def drop(self, keys: bytes) -> None:
        super().drop(keys)
        self.held.difference_update(keys[k : k + KEY_SIZE] for k in range(0, len(keys), KEY_SIZE))


def left(x: int) -> int:
    return x + 1


def right(x: int) -> int:
    return x - 1


def test_no_call_is_claimed_while_it_waits_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of two calls, one of which somebody else is at: the other is free for whoever gets to it first."""
    made: list[RefusingClaims] = []
    sent: list[tuple[int, int]] = []
    real = SequentialTransport.submit

    def submit(self: Any, stage: Any, positions: Any, *rest: Any) -> Any:
        if made[0].refused:
            sent.append((len(positions), len(made[0].held)))
        return real(self, stage, positions, *rest)

    def claims(storage: LocalStorage, friend: int = 0) -> Claims:
        made.append(RefusingClaims(storage.layout.claims))
        return made[-1]

    monkeypatch.setattr(SequentialTransport, "submit", submit)
    monkeypatch.setattr(LocalStorage, "claims", claims)
    with Store(tmp_path / "store") as store:
        pipeline = Pipeline([(left, "x[i] -> left[i]"), (right, "x[i] -> right[i]")], store=store)
        result = pipeline.map({"x": range(100)}, output_name=["left", "right"], map_executor="sequential")
        assert result["right"].tolist() == [x - 1 for x in range(100)]
    assert sent
    assert [held for _, held in sent] == [2 * count for count, _ in sent]
