"""A process is killed while calls run in threads or as coroutines: what had ended is kept."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.calls import CallLog

PROGRAM = """
import asyncio, sys, time
from gristmill import Pipeline, node
from tests.support.calls import record

def slow(x):
    time.sleep(60 if x % 5 == 4 and sys.argv[4] == "slow" else 0.02)
    record({log!r}, x)
    return {{"x": x}} if x % 2 else x

async def later(x):
    await asyncio.sleep(60 if x % 5 == 4 and sys.argv[4] == "slow" else 0.02)
    record({log!r}, x)
    return {{"x": x}} if x % 2 else x

function = node(later if sys.argv[3] == "later" else slow, output_name="y", mapspec="x[i] -> y[i]", version="1")
result = Pipeline([function], store=sys.argv[1]).map(
    {{"x": range(40)}}, map_executor=sys.argv[2], max_workers=40, progress=False
)
assert result["y"].tolist() == [{{"x": x}} if x % 2 else x for x in range(40)]
print(result.stats.computed)
"""


@pytest.mark.parametrize("function", ["slow", "later"])
@pytest.mark.parametrize("executor", ["threaded", "async"])
def test_calls_that_had_ended_are_kept(executor: str, function: str, tmp_path: Path) -> None:
    log = CallLog(tmp_path / "log")
    (tmp_path / "program.py").write_text(PROGRAM.format(log=log.path))
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "store"), executor, function]
    process = subprocess.Popen([*command, "slow"], cwd=Path(__file__).parents[2], env=_environment())
    try:
        deadline = time.monotonic() + 60
        while len(log.calls()) < 32 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.5)  # ten times as long as a finished call waits for company
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(log.take()) == 32
    again = subprocess.run(
        [*command, "fast"],
        cwd=Path(__file__).parents[2],
        env=_environment(),
        text=True,
        capture_output=True,
        check=False,
    )
    assert (again.stdout.strip(), again.returncode) == ("8", 0), again.stderr
    assert sorted(map(int, log.take())) == [x for x in range(40) if x % 5 == 4]


def _environment() -> dict[str, str]:
    import os

    here = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
