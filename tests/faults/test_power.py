"""Power cuts: nothing acknowledged is lost with durability="power"; with "process" something may be, never wrong."""

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from tests.support import power
from tests.support.programs import ROOT

JOB = dedent(
    """
    import json, os, sys
    import numpy as np
    from gristmill import Pipeline, Store, node
    from tests.support.calls import CallLog, record

    STEP = 10

    LOG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "calls.log")

    def number(x, log):
        record(log, "number", x)
        return x * x

    def image(number, log):
        record(log, "image", number)
        return np.full(10_000, number + 0.5)

    def text(number, log):
        record(log, "text", number)
        return f"{number} " * 20_000

    def mixed(number, log):
        record(log, "mixed", number)
        return {"n": number, "a": np.arange(number % 50)}

    NODES = [
        node(number, mapspec="x[i] -> number[i]"),
        node(image, mapspec="number[i] -> image[i]"),
        node(text, mapspec="number[i] -> text[i]"),
        node(mixed, mapspec="number[i] -> mixed[i]"),
    ]
    NAMES = ["number", "image", "text", "mixed"]

    def early_image(x):
        return np.full(10_000, x * x + 0.5)

    def early_text(x):
        return f"{x * x} " * 20_000

    EARLY = [(early_image, "x[i] -> early_image[i]"), (early_text, "x[i] -> early_text[i]")]

    def run(store, xs, executor):
        before = len(CallLog(LOG).lines())
        result = Pipeline(NODES, store=store).map(
            {"x": xs, "log": LOG}, output_name=NAMES, map_executor=executor, max_workers=2
        )
        squares = [x * x for x in xs]
        assert result["number"].tolist() == squares
        bounds = [(a.min(), a.max(), a.shape) for a in result["image"]]
        assert bounds == [(n + 0.5, n + 0.5, (10_000,)) for n in squares]
        assert list(result["text"]) == [f"{n} " * 20_000 for n in squares]
        assert [(m["n"], m["a"].tolist()) for m in result["mixed"]] == [(n, list(range(n % 50))) for n in squares]
        return len(CallLog(LOG).lines()) - before

    if __name__ == "__main__":
        what, location, durability, executor, number_, *count = sys.argv[1:]
        careless = Store(location) if durability == "mixed" and what == "run" else None
        durability = "power" if durability == "mixed" else durability
        start = 1_000_000 * int(number_)
        if what == "run":
            store = Store(location, durability=durability)
            for step in range(start, start + 1_000_000, STEP):
                if careless is not None:
                    Pipeline(EARLY, store=careless).map(
                        {"x": range(step, step + STEP)}, output_name=["early_image", "early_text"]
                    )
                run(store, range(step, step + STEP), executor)
                os.write(1, b"done\\n")
        else:
            acknowledged = range(start, start + STEP * int(count[0]))
            with Store(location, durability=durability) as store:
                damaged = [str(one) for one in store.verify().damaged]
                lost = run(store, acknowledged, "sequential")
                rest = run(store, range(acknowledged.stop, acknowledged.stop + 5 * STEP), executor)
                healed = [str(one) for one in store.verify(repair=True).damaged]
                healed = [str(one) for one in store.verify().damaged]
                again = run(store, range(acknowledged.start, acknowledged.stop + 5 * STEP), "sequential")
            print(json.dumps({"damaged": damaged, "lost": lost, "rest": rest, "healed": healed, "again": again}))
    """
)


@cache
def why_not() -> str | None:
    """What keeps the power of a disk from being cut here; None if nothing does."""
    for tool in ("mkfs.ext4", "mount", "unshare"):
        if shutil.which(tool) is None:
            return f"needs {tool}"
    script = dedent(
        """
        import sys, tempfile
        from pathlib import Path
        from tests.support.power import Disk
        with tempfile.TemporaryDirectory() as directory:
            disk = Disk(Path(directory))
            disk.mount()
            disk.cut()
            disk.unmount()
        """
    )
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return None if done.returncode == 0 else f"no ext4 disk in a file: {done.stderr.strip().splitlines()[-1]}"


def cuts(directory: Path, durability: str, executor: str, seed: int, rounds: int) -> list[dict[str, Any]]:
    """Cut the power so many times; return what was found after each."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    job = directory / "job.py"
    job.write_text(JOB)
    command = [sys.executable, power.__file__, job, directory, durability, executor, seed, rounds]
    done = subprocess.run(
        ["unshare", "--mount", *map(str, command)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == rounds
    assert all(one["acknowledged"] > 0 for one in found)
    assert all(one["healed"] == [] and one["again"] == 0 for one in found), found
    return found


@pytest.mark.root
@pytest.mark.parametrize("executor", [pytest.param("sequential", marks=pytest.mark.slow), "parallel"])
def test_nothing_acknowledged_is_lost(executor: str, tmp_path: Path) -> None:
    for one in cuts(tmp_path, "power", executor, seed=1, rounds=2):
        assert one["lost"] == 0
        assert one["damaged"] == []


@pytest.mark.root
def test_nothing_acknowledged_is_lost_of_which_others_had_written_the_bytes(tmp_path: Path) -> None:
    """Equal arrays and texts are kept once, also where their first writer did not wait for the disk."""
    for one in cuts(tmp_path, "mixed", "sequential", seed=1, rounds=2):
        assert one["lost"] == 0


@pytest.mark.root
def test_what_is_lost_is_never_wrong(tmp_path: Path) -> None:
    found = cuts(tmp_path, "process", "sequential", seed=1, rounds=2)
    assert any(one["lost"] for one in found)  # else this disk loses nothing, and the tests say nothing


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize("durability", ["power", "mixed", "process"])
@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("seed", range(3))
def test_many_cuts(durability: str, executor: str, seed: int, tmp_path: Path) -> None:
    for one in cuts(tmp_path, durability, executor, seed, rounds=10):
        assert durability == "process" or one["lost"] == 0, one
        assert durability != "power" or one["damaged"] == [], one
