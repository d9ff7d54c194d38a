"""A process that is stopped while it holds something keeps nobody waiting for longer than `storage.patience` says."""

import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import psutil
import pytest
from tests.support.calls import CallLog, record
from tests.support.programs import Program, running

from gristmill import MapResult, Pipeline, Store
from gristmill.storage import claims, patience
from gristmill.storage.layout import Layout, Scratch
from gristmill.storage.refuge import Refuge

COUNT = 40

HOLDER = dedent(
    """
    import fcntl, os, sqlite3, sys, time

    kind, path = sys.argv[1:]
    if kind in ("shared", "exclusive"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_SH if kind == "shared" else fcntl.LOCK_EX)
    else:
        connection = sqlite3.connect(path, isolation_level=None)
        if kind == "file":
            connection.execute("PRAGMA locking_mode = exclusive")
        connection.execute("BEGIN IMMEDIATE" if kind == "write" else "BEGIN EXCLUSIVE")
    print("holds", flush=True)
    time.sleep(600)
    """
)

PROGRAM = dedent(
    """
    import sys
    from gristmill import Pipeline
    from gristmill.storage import patience
    from tests.faults.test_stopped import NODES

    patience.STALL_SECONDS = 1.0

    if __name__ == "__main__":
        Pipeline(NODES).map(
            {"x": range(int(sys.argv[2])), "log": sys.argv[1], "seconds": 0.05},
            map_executor=sys.argv[3],
            max_workers=1,
        )
    """
)


def slow(x: int, log: str, seconds: float) -> int:
    record(log, "start", x)
    time.sleep(seconds)
    record(log, "end", x)
    return x * x


def image(slow: int) -> Any:
    return np.full(10_000, slow)


def total(image: Any) -> int:
    return int(image[:, 0].sum())


NODES: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (slow, "x[i] -> slow[i]"),
    (image, "slow[i] -> image[i]"),
    total,
]


def workers(program: Program) -> list[psutil.Process]:
    """The worker processes of a program."""
    children = psutil.Process(program.process.pid).children()
    return [one for one in children if any("LokyProcess" in word for word in one.cmdline())]


@dataclass
class Place:
    """A store, a log, and programs that are stopped while they hold something."""

    store: Path
    log: CallLog
    directory: Path
    stack: ExitStack

    def hold(self, kind: str, path: Path) -> Program:
        """Start a program that holds the lock of a file or a database, and stop it."""
        script = self.directory / "holder.py"
        script.write_text(HOLDER)
        program = self.stack.enter_context(running(script, kind, path, store=self.store))
        assert program.line() == "holds"
        program.process.send_signal(signal.SIGSTOP)
        return program

    def start(self, executor: str) -> Program:
        """Start a program that runs the map, and wait until it computes."""
        script = self.directory / "job.py"
        script.write_text(PROGRAM)
        program = self.stack.enter_context(running(script, self.log.path, COUNT, executor, store=self.store))
        while len(self.log.lines()) < 5:
            assert program.process.poll() is None
            time.sleep(0.01)
        return program

    def stop(self, process: psutil.Process) -> None:
        """Stop a process that does not write to the database just then; `test_the_database` is about one that does."""
        while True:
            process.suspend()
            with closing(
                sqlite3.connect(self.store / "ledger" / "cache.db", isolation_level=None)
            ) as connection:
                connection.execute("PRAGMA busy_timeout = 500")
                with suppress(sqlite3.OperationalError):
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute("ROLLBACK")
                    return
            process.resume()
            time.sleep(0.01)

    def map(self, store: Store, count: int = COUNT) -> MapResult:
        """Run the map here, and see that everything is right."""
        given = {"x": range(count), "log": self.log.path, "seconds": 0.05}
        result = Pipeline(NODES, store=store).map(
            given, output_name=["slow", "image", "total"], map_executor="sequential"
        )
        assert result["slow"].tolist() == [x * x for x in range(count)]
        assert result["total"] == sum(x * x for x in range(count))
        return result

    def check(self) -> None:
        """See that the store is sound, and that what was computed is in it."""
        with Store(self.store) as store:
            assert store.verify().damaged == []
            assert self.map(store).stats.computed == 0


@pytest.fixture
def place(tmp_path: Path, default_store: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(default_store, CallLog(tmp_path / "calls.log"), tmp_path, stack)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process wait for a second where others wait for half a minute."""
    for name in ("STALL_SECONDS", "TABLE_SECONDS", "ENTER_SECONDS", "BUSY_SECONDS"):
        monkeypatch.setattr(patience, name, 1.0)


def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note how long each lock is waited for that is not had."""
    found: list[float] = []
    real = patience.lock

    def lock(descriptor: int, kind: int, seconds: float) -> bool:
        done = real(descriptor, kind, seconds)
        if not done:
            found.append(seconds)
        return done

    monkeypatch.setattr(patience, "lock", lock)
    return found


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_the_claims_of_a_stopped_process_end(executor: str, place: Place, brief: None) -> None:
    program = place.start(executor)
    place.stop(psutil.Process(program.process.pid))  # its worker, if it has one, ends its batches and waits
    with Store(place.store) as store:
        place.map(store)
        twice = [call for call, times in place.log.counts().items() if times > 1 and "start" in call]
        assert len(twice) < COUNT / 2
        program.process.send_signal(signal.SIGCONT)
        assert program.finish() == ""
    place.check()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux says that a process is stopped")
def test_a_stopped_worker_keeps_nobody_but_its_engine(place: Place, brief: None) -> None:
    program = place.start("parallel")
    (worker,) = workers(program)
    place.stop(worker)
    with Store(place.store) as store:
        place.map(store)
        assert program.process.poll() is None
        worker.resume()
        assert program.finish() == ""
    place.check()


def test_the_lock_of_the_claim_table(place: Place, brief: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(place.store) as store:
        place.map(store, 1)
        holder = place.hold("exclusive", place.store / "claims" / "table")
        waited = waits(monkeypatch)
        assert place.map(store).stats.computed == 2 * COUNT - 2 + 1
        assert waited.count(1.0) == 1  # for the engine, which has the only claims here
        holder.kill()
    place.check()


def test_claims_that_cannot_be_dropped_are_free(place: Place, brief: None) -> None:
    directory = place.directory / "claims"
    one, other = claims.Claims(directory), claims.Claims(directory)
    keys = bytes(range(32))
    assert one.take(keys).all()
    holder = place.hold("exclusive", directory / "table")
    one.drop(keys)
    holder.kill()
    assert other.take(keys).all()
    assert not one.take(keys).any()
    one.close()
    other.close()


def test_the_gate_that_a_collector_has_closed(
    place: Place, brief: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(place.store) as store:
        place.map(store, 1)
        holder = place.hold("exclusive", Layout(place.store).gate)
        waited = waits(monkeypatch)
        place.map(store)
        assert waited.count(1.0) == 1  # and not once for each stage
        assert waited.count(0.0) >= 1
        holder.kill()
        waited.clear()
        place.map(store, COUNT + 1)
        assert waited == []
    place.check()


def test_a_run_that_is_stopped_in_the_gate_stops_the_collector_alone(
    place: Place, brief: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gristmill import StoreError

    monkeypatch.setattr(patience, "CLOSE_SECONDS", 0.2)
    with Store(place.store) as store:
        place.map(store)
        place.hold("shared", Layout(place.store).gate)
        with pytest.raises(StoreError, match="has stopped in the midst of it; try again"):
            store.gc(keep_runs=0)
        assert place.map(store).stats.computed == 0


@pytest.mark.parametrize("kind", ["write", "file"])
def test_the_database(kind: str, place: Place, brief: None) -> None:
    """Held for writing, or altogether: as by a process that is stopped while it closes as the last one."""
    with Store(place.store) as store:
        place.map(store, 1)
        database = place.store / "ledger" / "cache.db"
        if kind == "file":
            store.close()
            with closing(sqlite3.connect(database, isolation_level=None)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    holder = place.hold(kind, database)
    with Store(place.store) as store:
        started = time.monotonic()
        with pytest.warns(RuntimeWarning, match=r"cannot be written.*locked"):
            place.map(store)
        waited = time.monotonic() - started - 0.05 * COUNT
        assert waited < 20 * patience.BUSY_SECONDS  # and not for each of a hundred statements
        holder.kill()
        assert place.map(store).stats.computed == 0  # what was in the refuge has moved home
    place.check()


def test_the_lock_of_a_scratch_directory_that_a_sweeper_has(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked whether the new directory is locked, and was stopped in that."""
    parent = place.directory / "scratch"
    real = Path.mkdir
    held: list[Program] = []

    def mkdir(path: Path, *args: Any, **named: Any) -> None:
        real(path, *args, **named)
        if path.parent == parent and not held:
            held.append(place.hold("exclusive", path / ".lock"))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    scratch = Scratch(parent)
    assert held
    assert len(list(parent.iterdir())) == 2
    scratch.close()


def test_the_lock_of_a_refuge_that_a_sweeper_has(place: Place, brief: None) -> None:
    path = place.directory / "gristmill" / ("ab" * 16)
    path.mkdir(parents=True)
    place.hold("exclusive", path / ".lock")
    refuge = Refuge(str(path), owned=False)
    started = time.monotonic()
    for _ in range(100):
        assert not refuge.exists
    assert time.monotonic() - started < 20 * patience.TABLE_SECONDS


def test_a_view_is_nobodys_alone(place: Place, brief: None) -> None:
    """A process that is stopped while it links leaves the view to others: there is no lock on it."""
    program = place.start("sequential")
    while not list((place.store / "arrays").glob("*/image/c.*")):
        assert program.process.poll() is None
        time.sleep(0.01)
    place.stop(psutil.Process(program.process.pid))
    import zarr

    with Store(place.store) as store:
        result = place.map(store)
        for path in (place.store / "arrays").glob("*/image"):
            found = zarr.open_array(str(path), mode="r")
            assert np.asarray(found[:, 0]).tolist() == result["slow"].tolist()
    assert psutil.Process(program.process.pid).status() == psutil.STATUS_STOPPED
