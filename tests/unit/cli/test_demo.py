"""`gristmill demo` on a few small files: it computes, reuses, survives being killed, and says so."""

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

GRISTMILL = str(Path(sysconfig.get_path("scripts"), "gristmill"))
MODULES = 40
REDUCTIONS = 5

HALFWAY = """
import os, signal, sys
from pathlib import Path
from gristmill.cli import demo
from gristmill.cli.demo_kill import kill_everything


class StopHalfway(demo.Display):
    def on_stage_progress(self, event):
        super().on_stage_progress(event)
        if event.done >= event.total // 2 > 0:
            stop(self)


def stop(display):
    if {how!r} == "kill":
        kill_everything(display, "halfway")
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    demo.Display = StopHalfway
    sys.argv = ["gristmill", "demo", "--kill-after", "3"]
    sys.exit(demo.Demo(0.0, Path({source!r}), {store!r}, workers=2).main(as_json=True))
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Modules of two packages; module k says `apple` k times and `pear` once."""
    root = tmp_path / "source"
    for k in range(MODULES):
        path = root / f"package{k % 2}" / f"module{k}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("apple\n" * k + "pear\n" + f"'{'z' * 600}'\n" * 2)
    return root


def demo(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [GRISTMILL, "demo", "--workers", "2", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def report(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def stop_halfway(how: str, source: Path, store: Path) -> "subprocess.CompletedProcess[str]":
    script = HALFWAY.format(how=how, source=str(source), store=str(store))
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
        timeout=60,
    )


def test_first_run_computes_and_the_second_finds_everything(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = report(demo("--source", source, "--store", store, "--json"))
    assert first["stats"]["computed"] == 2 * MODULES + REDUCTIONS
    assert first["stats"]["bytes_written"] > MODULES * 256 * 256 * 4

    second = report(demo("--source", source, "--store", store, "--json"))
    assert (second["stats"]["computed"], second["stats"]["bytes_written"]) == (0, 0)
    assert second["stats"]["cached"] == 2 * MODULES + REDUCTIONS
    for name in ("modules", "lines", "identifiers", "similar", "problems", "matrices"):
        assert second[name] == first[name]


def test_results_are_right(source: Path, tmp_path: Path) -> None:
    (source / "broken.py").write_text("def f(:\n")
    found = report(demo("--source", source, "--store", tmp_path / "store", "--json"))
    assert found["modules"] == MODULES + 1
    assert found["identifiers"] == [["apple", sum(range(MODULES))], ["pear", MODULES]]
    assert list(found["problems"]) == ["broken"]
    assert "SyntaxError" in found["problems"]["broken"]
    cosine, one, other = found["similar"][0]
    assert {one.partition(".")[0], other.partition(".")[0]} == {"package0", "package1"}
    assert 0.99 < cosine <= 1.0 + 1e-6


def test_matrices_are_a_zarr_array_for_other_programs(source: Path, tmp_path: Path) -> None:
    import zarr

    found = report(demo("--source", source, "--store", tmp_path / "store", "--json"))
    matrices = zarr.open_array(found["matrices"], mode="r")
    assert matrices.shape == (MODULES, 256, 256)
    files = sorted(source.rglob("*.py"))
    assert np.asarray(matrices[...]).sum() == sum(path.stat().st_size - 1 for path in files)


def test_a_killed_demo_goes_on_where_it_was(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    killed = stop_halfway("kill", source, store)
    assert killed.returncode == -signal.SIGKILL
    assert "sending SIGKILL to this process and its 2 workers. To go on: gristmill demo\n" in killed.stderr

    resumed = demo("--source", source, "--store", store, "--json")
    said = re.search(r"^(\d+) of them are finished already; (\d+) are left\.$", resumed.stderr, re.MULTILINE)
    assert said is not None, resumed.stderr
    found, left = int(said[1]), int(said[2])
    assert found + left == MODULES
    assert found >= MODULES // 2
    stats = report(resumed)["stats"]
    assert stats["computed"] + stats["cached"] == 2 * MODULES + REDUCTIONS
    assert stats["cached"] >= 2 * found
    assert left <= stats["computed"] - REDUCTIONS <= 2 * left


def test_kill_after_leaves_no_process(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    command = [GRISTMILL, "demo", "--source", str(source), "--store", str(store), "--kill-after", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    _, said = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert "--kill-after 0: sending SIGKILL" in said
    psutil.wait_procs(session_of(process.pid), timeout=20)
    assert session_of(process.pid) == []


def session_of(leader: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                found.append(process)
        except (ProcessLookupError, PermissionError):
            continue
    return found


def test_ctrl_c_says_how_to_go_on(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    stopped = stop_halfway("interrupt", source, store)
    assert stopped.returncode == 130
    assert "Interrupted; what was finished is kept. To go on: gristmill demo" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert report(demo("--source", source, "--store", store, "--json"))["stats"]["cached"] >= MODULES


def test_tables_say_what_was_computed_and_where_it_is(source: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = demo("--source", source, "--store", store)
    assert done.returncode == 0
    rows = dict(re.findall(r"^(\w+)  +(.*\S) *$", done.stdout, re.MULTILINE))
    assert rows["computed"] == f"{2 * MODULES + REDUCTIONS} calls"
    assert rows["reused"] == "0 calls"
    assert rows["store"] == str(store)
    assert re.search(r"^apple +780 ", done.stdout, re.MULTILINE)
    assert f"zarr.open_array('{store}/arrays/" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--workers", "0"], 2, "greater than or equal to 1"),
        (["--store", "s3://bucket"], 2, "only paths"),
        (["--store", sys.prefix], 2, "nothing in it was touched"),
        (["--source", "empty"], 1, "no Python files"),
    ],
)
def test_wrong_use_is_told_apart_from_failure(
    arguments: list[str], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    done = demo(*arguments)
    assert done.returncode == code
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
