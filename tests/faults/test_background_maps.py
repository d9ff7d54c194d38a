"""Maps in the background of a program that ends, is interrupted or killed: finished work is kept, nothing lives on."""

import time
from pathlib import Path
from textwrap import dedent

import pytest
from tests.support.calls import CallLog
from tests.support.programs import Program, run, running

EXECUTORS = ("sequential", "threaded", "async", "parallel")

PROGRAM = dedent(
    """
    import asyncio, sys, time
    from gristmill import Pipeline
    from tests.support.calls import record

    def slow(x, log, seconds):
        record(log, "start", x)
        time.sleep(seconds)
        record(log, "end", x)
        return x * x

    async def awaited(run):
        return await run

    if __name__ == "__main__":
        how, log, executor, count, seconds = sys.argv[1:]
        pipeline = Pipeline([(slow, "x[i] -> slow[i]")])
        given = {"x": range(int(count)), "log": log, "seconds": float(seconds)}
        options = {"map_executor": executor, "max_workers": 2}
        if how == "map":
            print(pipeline.map(given, **options).stats.computed)
            sys.exit()
        if how == "stream":
            work = pipeline.map_stream(given, **options)
        else:
            work = pipeline.map_async(given, **options)
        print("ready", flush=True)
        try:
            if how == "stream":
                for item in work:
                    pass
            elif how == "await":
                asyncio.run(awaited(work))
            elif how == "result":
                work.result()
            else:
                sys.stdin.readline()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            if executor != "sequential" and float(seconds) < 1:
                again = pipeline.map({**given, "x": [-1]}, map_executor=executor)
                assert again["slow"].tolist() == [1]
        print("end", flush=True)
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


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def wait_for_calls(program: Program, log: CallLog, count: int) -> None:
    while len(log.lines()) < count:
        assert program.process.poll() is None
        time.sleep(0.005)


def rest_is_computed(script: Path, log: CallLog, count: int, store: Path, *, lost: int) -> None:
    """Run the map to its end; all but so many of the calls that had ended must be found."""
    ended = {words.split()[1] for words in log.take() if words.startswith("end")} - {"-1"}
    assert ended
    computed = int(run(script, "map", log.path, "threaded:32", count, 0.01, store=store))
    again = {words.split()[1] for words in log.take()}
    assert computed == len(again)
    assert len(ended & again) <= lost
    assert count - len(ended) <= computed < count


@pytest.mark.parametrize(
    ("how", "executor"),
    [*(("stream", executor) for executor in EXECUTORS), ("await", "parallel"), ("result", "threaded")],
)
def test_an_interrupted_program_ends_and_keeps_what_was_finished(
    how: str, executor: str, script: Path, log: CallLog, default_store: Path
) -> None:
    arguments = (how, log.path, executor, 400, 0.01)
    with running(script, *arguments, store=default_store) as program:
        wait_for_calls(program, log, 60)
        program.interrupt()
        assert program.finish() == "ready\ninterrupted\nend\n"
        assert program.wait_for_orphans(1.0) == []
    rest_is_computed(script, log, 400, default_store, lost=0)


def test_a_program_that_ends_ends_its_maps_and_keeps_what_was_finished(
    executor: str, script: Path, log: CallLog, default_store: Path
) -> None:
    with running(script, "leave", log.path, executor, 400, 0.01, store=default_store) as program:
        wait_for_calls(program, log, 60)
        program.go()
        assert program.finish() == "ready\nend\n"
        assert program.wait_for_orphans(1.0) == []
    rest_is_computed(script, log, 400, default_store, lost=0)


@pytest.mark.parametrize("how", ["leave", "stream"])
def test_slow_calls_do_not_keep_a_program_from_ending(
    how: str, script: Path, log: CallLog, default_store: Path
) -> None:
    for executor in ("parallel", "threaded"):
        with running(script, how, log.path, executor, 10, 600, store=default_store) as program:
            wait_for_calls(program, log, 2)
            if how == "leave":
                program.go()
                assert program.finish() == "ready\nend\n"
            else:
                program.interrupt()
                assert program.finish() == "ready\ninterrupted\nend\n"
            assert program.wait_for_orphans(1.0) == []
        log.take()


def test_killing_the_program_loses_no_finished_call(script: Path, log: CallLog, default_store: Path) -> None:
    with running(script, "stream", log.path, "parallel", 400, 0.01, store=default_store) as program:
        wait_for_calls(program, log, 150)
        program.kill()
        assert program.wait_for_orphans(1.5) == []
    killed = log.lines()[-1][0]
    # Its workers outlive it for a moment, and what has just finished may not be committed yet.
    early = {words.split()[1] for when, words in log.lines() if words[:3] == "end" and when < killed - 0.3}
    log.take()
    run(script, "map", log.path, "threaded:32", 400, 0.01, store=default_store)
    assert early
    assert not early & {words.split()[1] for words in log.take()}
