"""`gristmill store`, `runs` and `show`: the same for people and for programs."""

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest
from tests.support.scene import CALLS_PER_INDEX, Scene

from gristmill import InputError, Pipeline, Store, node
from gristmill.cli.store import parse_age, parse_size
from gristmill.engine.executors.warm import WARM

GRISTMILL = str(Path(sysconfig.get_path("scripts"), "gristmill"))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A store with two runs, the default one."""
    made = Scene(tmp_path)
    monkeypatch.setenv("GRISTMILL_STORE", str(made.location))
    with made.open() as store:
        made.map(store, range(3))
        made.map(store, range(2))
    return made


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([GRISTMILL, *words], capture_output=True, text=True, check=False)


def said(*words: str) -> str:
    done = call(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_stats(scene: Scene) -> None:
    text = said("store", "stats")
    assert f"{CALLS_PER_INDEX * 3 + 2} calls" in text
    assert "tests.support.scene:image" in text
    found = json.loads(said("store", "stats", "--json"))
    assert found["calls"] == CALLS_PER_INDEX * 3 + 2
    assert [run["hits"] for run in found["runs"]] == [CALLS_PER_INDEX * 2, 0]


@pytest.mark.usefixtures("scene")
def test_ls() -> None:
    assert len(said("store", "ls").splitlines()) == 8
    (entry,) = json.loads(said("store", "ls", "image", "--json"))
    assert (entry["outputs"], entry["calls"]) == (["image"], 3)


def test_verify_says_what_is_damaged_and_repairs_it(scene: Scene) -> None:
    assert said("store", "verify").startswith("sound: 20 calls")
    chunk = max((scene.location / "chunks").glob("*/*"), key=lambda path: path.stat().st_size)
    chunk.chmod(0o600)
    chunk.write_bytes(b"damaged")
    done = call("store", "verify")
    assert done.returncode == 1
    assert chunk.name in done.stdout
    assert call("store", "verify", "--json").returncode == 1
    assert "set aside" in said("store", "verify", "--repair")
    assert json.loads(said("store", "verify", "--json"))["ok"] is True


@pytest.mark.usefixtures("scene")
def test_gc() -> None:
    gone = f"{CALLS_PER_INDEX + 1} calls, 1 run,"
    assert said("store", "gc", "--keep-runs", "1", "--dry-run").startswith(f"{gone}")
    assert json.loads(said("store", "gc", "--older-than", "1h", "--json"))["calls"] == 0
    assert said("store", "gc", "--keep-runs", "1").startswith(gone)
    assert json.loads(said("store", "gc", "--max-bytes", "0", "--json"))["kept_calls"] == 0


@pytest.mark.usefixtures("scene")
def test_runs_and_one_of_them() -> None:
    assert len(said("runs").splitlines()) == 3
    newest, oldest = json.loads(said("runs", "--json"))
    assert (newest["cached"], oldest["computed"]) == (CALLS_PER_INDEX * 2, CALLS_PER_INDEX * 3 + 1)
    text = said("show", oldest["run_id"][:8])
    assert text.startswith(f"run {oldest['run_id']}: done")
    assert "i=3" in text
    assert "run by" in text
    assert json.loads(said("show", oldest["run_id"], "--json"))["state"] == "done"


def odd(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x


def test_a_run_with_failures_says_which(tmp_path: Path) -> None:
    WARM.end()
    with Store(tmp_path / "other") as store:
        pipeline = Pipeline([node(odd, mapspec="x[i] -> odd[i]")], store=store, name="odds")
        run_id = pipeline.map({"x": range(4)}, on_error="continue").run_id
    done = call("show", run_id, "--store", str(tmp_path / "other"))
    assert done.returncode == 1
    assert "run " + run_id + " of odds: done" in done.stdout
    assert "ValueError: 3 is odd" in done.stdout
    assert "sequential (starting anything takes longer: " in done.stdout


@pytest.mark.usefixtures("scene")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["show", "nothing"], "there is no run 'nothing'"),
        (["store", "gc", "--max-bytes", "much"], "no size"),
        (["store", "gc", "--older-than", "long"], "no age"),
        (["store", "stats", "--store", "s3://bucket"], "only paths"),
    ],
)
def test_a_command_line_that_is_wrong_says_why(words: list[str], expected: str) -> None:
    done = call(*words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_looking_makes_no_store(default_store: Path) -> None:
    for words in (["runs"], ["store", "stats"], ["store", "ls"], ["store", "verify"], ["store", "gc"]):
        said(*words)
    assert not default_store.exists()


def test_sizes_and_ages() -> None:
    assert [parse_size(text) for text in ("10", "2k", "1.5MB", "3 g")] == [10, 2000, 1_500_000, 3 * 10**9]
    assert [parse_age(text) for text in ("10", "2m", "1.5h", "3d", "1w")] == [10, 120, 5400, 259_200, 604_800]
    with pytest.raises(InputError):
        parse_age("d")
