"""`gristmill run`: a pipeline of a module, mapped from the command line."""

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

GRISTMILL = str(Path(sysconfig.get_path("scripts"), "gristmill"))

JOBS = """
from gristmill import Pipeline
import numpy as np
def inverse(x, factor=2):
    return factor / x
def total(inverse):
    return float(inverse.sum())
def image(x):
    return np.full((2, 2), x), {"x": x}
pipeline = Pipeline([(inverse, "x[i] -> inverse[i]"), total])
flat = Pipeline([image])
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs.py").write_text(JOBS)
    monkeypatch.chdir(tmp_path)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([GRISTMILL, "run", *words], capture_output=True, text=True, check=False)


def test_it_maps_and_prints_what_came_of_it() -> None:
    done = run("jobs:pipeline", "--input", "x=[1, 2, 4]", "--output", "inverse", "--output", "total")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["inverse: i=3, like 2.0", "total: 3.5"]
    assert lines[2].endswith("4 computed, 0 cached")
    again = run("jobs:pipeline", "--input", "x=[1, 2, 4]", "--executor", "parallel", "--workers", "2")
    assert again.stdout.splitlines()[-1].endswith("0 computed, 4 cached")


def test_it_gives_json_to_programs() -> None:
    done = run("jobs:flat", "--map-over", "x", "--input", "x=[1, 2]", "--json")
    found = json.loads(done.stdout)
    assert found["outputs"]["image"] == [[[[1, 1], [1, 1]], {"x": 1}], [[[2, 2], [2, 2]], {"x": 2}]]
    assert (found["stats"]["computed"], found["errors"]) == (2, [])


def test_calls_that_fail_are_named_and_the_exit_code_is_1() -> None:
    done = run("jobs:pipeline", "--input", "x=[1, 0]", "--output", "inverse", "--output", "total")
    assert done.returncode == 1
    assert "1 failed, 1 skipped" in done.stdout
    assert "<ItemError inverse[1]: ZeroDivisionError" in done.stdout
    found = json.loads(run("jobs:pipeline", "--input", "x=[1, 0]", "--output", "inverse", "--json").stdout)
    assert (found["outputs"]["inverse"], found["errors"][0]["index"]) == ([2.0, None], [1])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("jobs:pipelin", "--input", "x=[1]"), "did you mean"),
        (("jobs:pipeline",), "'x'"),
        (("jobs:pipeline", "--input", "x=[1]", "--input", "y=2"), "'y'"),
        (("jobs:pipeline", "--input", "x=[1]", "--executor", "paralel"), "paralel"),
        (("nowhere:pipeline",), "no module"),
    ],
)
def test_what_cannot_be_is_said_and_the_exit_code_is_2(words: tuple[str, ...], message: str) -> None:
    done = run(*words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
