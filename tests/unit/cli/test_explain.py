"""`gristmill explain`: from the command line to the same explanation."""

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

GRISTMILL = str(Path(sysconfig.get_path("scripts"), "gristmill"))

JOBS = """
from gristmill import Pipeline
def scale(x, factor=2):
    return x * factor
def total(scale):
    return int(scale.sum())
pipeline = Pipeline([(scale, "x[i] -> scale[i]"), total])
flat = Pipeline([scale])
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "jobs.py").write_text(JOBS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def explain(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([GRISTMILL, "explain", *words], capture_output=True, text=True, check=False)


def computed(code: str) -> None:
    import sys

    subprocess.run([sys.executable, "-c", f"import jobs; {code}"], check=True)


@pytest.mark.usefixtures("here")
def test_it_prints_why_calls_would_run() -> None:
    computed("jobs.pipeline.map({'x': [1, 2]})")
    done = explain("jobs:pipeline", "--input", "x=[1, 2, 3]")
    assert done.returncode == 0
    assert done.stdout.splitlines()[:3] == [
        "scale → scale[i]: 3 calls, 2 hits, 1 miss",
        "  hit  0–1",
        "  miss  2  input x[2] is new",
    ]


@pytest.mark.usefixtures("here")
def test_json_is_one_object() -> None:
    done = explain("jobs:pipeline", "--input", "x=[1]", "--input", "factor=3", "--json")
    assert json.loads(done.stdout)["misses"] == 2


def test_inputs_come_from_json_files(here: Path) -> None:
    (here / "x.json").write_text("[1, 2, 3]")
    done = explain("jobs:flat", "--input", "x=@x.json", "--map-over", "x")
    assert done.stdout.startswith("scale → scale[i]: 3 calls")


@pytest.mark.usefixtures("here")
def test_a_product_has_an_axis_for_each_input() -> None:
    words = ("--input", "x=[1,2]", "--input", "factor=[1,2,3]", "--map-over", "x", "--map-over", "factor")
    assert "6 calls" in explain("jobs:flat", *words, "--product").stdout
    done = explain("jobs:flat", *words)
    assert (done.returncode, done.stderr.count("length")) == (2, 2)


def test_another_store_and_fewer_outputs_can_be_asked_for(here: Path) -> None:
    computed("jobs.pipeline.with_(store='other').map({'x': [1]})")
    words = ("jobs:pipeline", "--input", "x=[1]", "--output", "scale")
    assert explain(*words, "--store", "other").stdout == "scale → scale[i]: 1 call, 1 hit\n"
    assert "1 miss" in explain(*words).stdout


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jobs"], "expected MODULE:PIPELINE"),
        (["nowhere:pipeline"], "there is no module 'nowhere'"),
        (["jobs:pipline"], "did you mean 'pipeline'?"),
        (["jobs:scale"], "is a function, not a Pipeline"),
        (["jobs:pipeline"], "'x' is missing"),
        (["jobs:pipeline", "--input", "x"], "expected NAME=VALUE"),
        (["jobs:pipeline", "--input", "x=abc"], "--input \"x='abc'\""),
        (["jobs:pipeline", "--input", "x=[1"], "no Python literal"),
        (["jobs:pipeline", "--input", "x=@none.json"], "cannot be read: No such file"),
        (["jobs:pipeline", "--input", "x=@jobs.py"], "is not JSON"),
        (["jobs:pipeline", "--input", "x=[1]", "--input", "x=[2]"], "given twice"),
    ],
)
def test_a_command_line_that_is_wrong_says_why(words: list[str], said: str) -> None:
    done = explain(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_module_that_does_not_import_shows_where(here: Path) -> None:
    (here / "broken.py").write_text("x = 1\ny = x / 0\n")
    done = explain("broken:pipeline")
    assert done.returncode == 2
    assert 'broken.py", line 2' in done.stderr
    assert "gristmill" not in done.stderr
