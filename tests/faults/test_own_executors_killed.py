"""The program that maps is killed while a pool of its own runs calls: the pool's processes are not ours to end."""

import time
from pathlib import Path

import pytest
from tests.support.calls import CallLog
from tests.support.executors import ELSEWHERE
from tests.support.programs import running

PROGRAM = """
import sys, time
from gristmill import Pipeline, node
from tests.support.calls import record
from tests.support.executors import made


def slow(x):
    time.sleep(0.3 if x and sys.argv[1] != "sequential" else 0.006)
    record({log!r}, x)
    return 2 * x


if __name__ == "__main__":
    slow_node = node(slow, output_name="y", mapspec="x[i] -> y[i]", version="1")
    with made(sys.argv[1]) as executor:
        result = Pipeline([slow_node]).map({{"x": range(200)}}, map_executor=executor, max_workers=1, progress=False)
    assert result["y"].tolist() == [2 * x for x in range(200)]
    print(result.stats.cached)
"""


@pytest.mark.parametrize("own", ELSEWHERE)
def test_orphans_start_no_more_calls_and_keep_what_they_have_finished(
    own: str, tmp_path: Path, default_store: Path
) -> None:
    log, program = CallLog(tmp_path / "log"), tmp_path / "program.py"
    program.write_text(PROGRAM.format(log=log.path))
    with running(program, own, store=default_store) as killed:
        deadline = time.monotonic() + 60
        while len(log.calls()) < 2 and time.monotonic() < deadline:  # a batch of eight has begun
            time.sleep(0.005)
        killed.kill()
        time.sleep(1.2)  # in which four more would have ended
        ended = len(log.take())
        assert 2 <= ended <= 4
    with running(program, "sequential", store=default_store) as again:
        assert int(again.finish()) == ended
