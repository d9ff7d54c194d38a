"""Ctrl-C in the middle: the program ends, what was finished is kept, nothing lives on."""

import signal
import time
from pathlib import Path
from textwrap import dedent

import pytest
from tests.support.calls import CallLog
from tests.support.programs import run, running

ITEMS = 400

PROGRAM = dedent(
    """
    import sys, time
    from gristmill import Pipeline
    from tests.support.calls import record

    def slow(x, log, seconds):
        record(log, "start", x)
        time.sleep(seconds)
        record(log, "end", x)
        return x * x

    if __name__ == "__main__":
        log, executor, count, seconds = sys.argv[1:]
        pipeline = Pipeline([(slow, "x[i] -> slow[i]")])
        given = {"x": range(int(count)), "log": log, "seconds": float(seconds)}
        try:
            print("ready", flush=True)
            result = pipeline.map(given, map_executor=executor, max_workers=2)
        except KeyboardInterrupt as error:
            print("interrupted", flush=True)
            with open(log + ".notes", "w") as file:
                print(*getattr(error, "__notes__", ()), file=file)
            if executor != "sequential":
                assert pipeline.map({**given, "x": [-1]}, map_executor=executor)["slow"].tolist() == [1]
            sys.exit(0)
        print(sum(result["slow"].tolist()), result.stats.computed)
    """
)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


@pytest.fixture(params=["sequential", "threaded", "parallel"])
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_interrupted_map_raises_and_keeps_what_was_finished(
    executor: str, script: Path, log: CallLog, default_store: Path
) -> None:
    arguments = (log.path, executor, ITEMS, 0.01)
    with running(script, *arguments, store=default_store) as program:
        while len(log.lines()) < 100:
            assert program.process.poll() is None
        program.interrupt()
        assert program.finish() == "ready\ninterrupted\n"
        assert program.wait_for_orphans(1.0) == []
    note = Path(f"{log.path}.notes").read_text()
    assert f"of {ITEMS:,} calls are kept in {default_store}: run the same again to go on" in note
    ended = {words.split()[1] for words in log.take() if words.startswith("end")} - {"-1"}
    _, total, computed = run(script, *arguments, store=default_store).split()
    assert int(total) == sum(x * x for x in range(ITEMS))
    again = {words.split()[1] for words in log.take()}
    assert ended
    # Without worker processes Ctrl-C interrupts the function itself, perhaps between its last two lines.
    assert len(ended & again) <= (executor == "sequential")
    assert int(computed) == ITEMS - len(ended - again)


def test_slow_calls_in_worker_processes_do_not_hold_the_program_up(
    script: Path, log: CallLog, default_store: Path
) -> None:
    with running(script, log.path, "parallel", ITEMS, 3600.0, store=default_store) as program:
        while len(log.lines()) < 2:
            assert program.process.poll() is None
        program.interrupt()
        assert [program.line(), program.line()] == ["ready", "interrupted"]
        program.interrupt()
        program.process.wait()
        assert program.wait_for_orphans(1.0) == []


@pytest.mark.parametrize("executor", ["parallel"])
def test_ctrl_c_in_a_terminal_reaches_workers_too(
    executor: str, script: Path, log: CallLog, default_store: Path
) -> None:
    """A terminal sends SIGINT to the whole process group."""
    with running(script, log.path, executor, ITEMS, 0.01, store=default_store) as program:
        while len(log.lines()) < 100:
            assert program.process.poll() is None
        for process in program.others():
            process.send_signal(signal.SIGINT)
        program.interrupt()
        assert program.finish() == "ready\ninterrupted\n"
        assert program.wait_for_orphans(1.0) == []
    ended = {words.split()[1] for words in log.take() if words.startswith("end")} - {"-1"}
    computed = run(script, log.path, executor, ITEMS, 0.01, store=default_store).split()[2]
    assert int(computed) == ITEMS - len(ended)


@pytest.mark.parametrize("wait", [0.0, 0.1, 0.2, 0.3, 0.5])
def test_an_interrupt_at_any_time_ends_the_program(
    wait: float, executor: str, script: Path, log: CallLog, default_store: Path
) -> None:
    with running(script, log.path, executor, 100_000, 0.01, store=default_store) as program:
        assert program.line() == "ready"
        time.sleep(wait)  # a random instant, in the middle of whatever happens then
        program.interrupt()
        assert program.finish() == "interrupted\n"
        assert program.wait_for_orphans(1.0) == []
