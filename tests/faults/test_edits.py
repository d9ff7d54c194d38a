"""What is edited is computed again, and nothing else: inputs, helpers, comments, upstream nodes, live reloads."""

import importlib
import itertools
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest
from tests.support.calls import CallLog
from tests.support.programs import run

HELPERS = dedent(
    '''
    """Helpers of the job."""

    SCALE = 2

    def scale(x):
        return SCALE * x

    def clip(x):
        return min(x, 5)

    def unused(x):
        return x
    '''
)

JOB = dedent(
    """
    from helpers import clip, scale
    from tests.support.calls import record

    def scaled(x, log):
        record(log, "scaled", x)
        return scale(x)

    def clipped(scaled, log):
        record(log, "clipped", scaled)
        return clip(scaled)

    def shown(clipped, log):
        record(log, "shown", clipped)
        return f"<{clipped}>"

    def width(shown: list, log: str):
        record(log, "width")
        return sum(map(len, shown))

    def labelled(shown, width, log):
        record(log, "labelled", shown)
        return f"{shown}/{width}"

    NODES = [
        (scaled, "x[i] -> scaled[i]"),
        (clipped, "scaled[i] -> clipped[i]"),
        (shown, "clipped[i] -> shown[i]"),
        width,
        (labelled, "shown[i] -> labelled[i]"),
    ]
    """
)

MAIN = dedent(
    """
    import sys
    from gristmill import Pipeline
    import job

    if __name__ == "__main__":
        executor, *x = sys.argv[1:]
        inputs = {"x": list(map(int, x)), "log": "calls.log"}
        result = Pipeline(job.NODES).map(inputs, map_executor=executor, max_workers=2)
        print(*result["labelled"].tolist())
    """
)


class Job:
    """A program of several modules that is edited and run again."""

    def __init__(self, directory: Path, store: Path, executor: str) -> None:
        self.directory = directory
        self._store = store
        self._executor = executor
        self.write("helpers", HELPERS)
        self.write("job", JOB)
        self.write("main", MAIN)

    def write(self, module: str, text: str) -> None:
        """Write a module, and forget what Python compiled of it within the same second."""
        path = self.directory / f"{module}.py"
        path.write_text(text)
        for compiled in (self.directory / "__pycache__").glob(f"{module}.*"):
            compiled.unlink()

    def edit(self, module: str, old: str, new: str) -> None:
        """Replace a piece of a module's text."""
        text = (self.directory / f"{module}.py").read_text()
        assert text.count(old) == 1
        self.write(module, text.replace(old, new))

    def run(self, *x: int) -> tuple[list[str], list[str]]:
        """Run it in a new process; return the elements of its result, and the calls it made."""
        printed = run(self.directory / "main.py", self._executor, *x, store=self._store)
        return printed.split(), CallLog(self.directory / "calls.log").take()


@pytest.fixture(params=["sequential", "parallel"], scope="module")
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def finished(executor: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a job that has run."""
    directory = tmp_path_factory.mktemp("finished")
    Job(directory, directory / "store", executor).run(1, 2, 3)
    return directory / "store"


@pytest.fixture
def job(tmp_path: Path, default_store: Path, executor: str, finished: Path) -> Job:
    """A job that has run, somewhere else: with a copy of its store."""
    shutil.copytree(finished, default_store)
    return Job(tmp_path, default_store, executor)


def calls(name: str, *arguments: object) -> list[str]:
    return sorted(f"{name} {argument}" for argument in arguments)


def test_the_first_run_computes_everything(tmp_path: Path, default_store: Path, executor: str) -> None:
    result, made = Job(tmp_path, default_store, executor).run(1, 2, 3)
    assert result == ["<2>/9", "<4>/9", "<5>/9"]
    assert made == sorted(
        [
            *calls("scaled", 1, 2, 3),
            *calls("clipped", 2, 4, 6),
            *calls("shown", 2, 4, 5),
            "width",
            *calls("labelled", "<2>", "<4>", "<5>"),
        ]
    )


def test_the_second_run_computes_nothing(job: Job) -> None:
    assert job.run(1, 2, 3) == (["<2>/9", "<4>/9", "<5>/9"], [])


def test_an_added_input_computes_itself_and_what_it_changes(job: Job) -> None:
    result, made = job.run(1, 2, 3, 0)
    assert result == ["<2>/12", "<4>/12", "<5>/12", "<0>/12"]
    assert made == sorted(
        ["scaled 0", "clipped 0", "shown 0", "width", *calls("labelled", "<0>", "<2>", "<4>", "<5>")]
    )


def test_a_removed_input_computes_only_the_reduction(job: Job) -> None:
    result, made = job.run(1, 2)
    assert result == ["<2>/6", "<4>/6"]
    assert made == [*calls("labelled", "<2>", "<4>"), "width"]


def test_reordered_inputs_compute_no_element_again(job: Job) -> None:
    result, made = job.run(3, 1, 2)
    assert result == ["<5>/9", "<2>/9", "<4>/9"]
    assert made == ["width"], "what it gets has another order"


def test_an_edited_helper_computes_the_nodes_that_use_it(job: Job) -> None:
    job.edit("helpers", "min(x, 5)", "min(x, 3)")
    result, made = job.run(1, 2, 3)
    assert result == ["<2>/9", "<3>/9", "<3>/9"]
    assert made == sorted([*calls("clipped", 2, 4, 6), "shown 3", "width", "labelled <3>"])


def test_an_edited_global_of_a_helper_computes_the_nodes_that_use_it(job: Job) -> None:
    job.edit("helpers", "SCALE = 2", "SCALE = 3")
    result, made = job.run(1, 2, 3)
    assert result == ["<3>/9", "<5>/9", "<5>/9"]
    assert made == sorted(
        [*calls("scaled", 1, 2, 3), *calls("clipped", 3, 9), "shown 3", "width", "labelled <3>"]
    )


CLIP = "def clip(x):\n    return min(x, 5)"
NEUTRAL = {
    "module docstring": ("helpers", '"""Helpers of the job."""', '"""Other words."""'),
    "comment": ("helpers", "return min(x, 5)", "# a comment\n    return min(x, 5)  # and another"),
    "formatting": ("helpers", CLIP, "def clip(\n    x\n):\n    return min(\n        x, 5\n    )"),
    "docstring": ("helpers", CLIP, CLIP.replace("\n", '\n    """Clip."""\n\n', 1)),
    "unused helper": ("helpers", "def unused(x):\n    return x", "def unused(x):\n    return x + 1"),
    "unused global": ("helpers", "SCALE = 2", "OTHER = 7\nSCALE = 2"),
    "annotation": ("helpers", "def clip(x):", "def clip(x: int) -> int:"),
    "blank lines": ("job", "def width(shown", "\n\n\ndef width(shown"),
    "annotation of a node": ("job", "def scaled(x, log):", "def scaled(x: int, log: str) -> int:"),
    "import": (
        "job",
        "from helpers import clip, scale",
        "from helpers import scale\nfrom helpers import clip",
    ),
}


@pytest.mark.parametrize(("module", "old", "new"), NEUTRAL.values(), ids=NEUTRAL)
def test_an_edit_that_changes_nothing_computes_nothing(module: str, old: str, new: str, job: Job) -> None:
    job.edit(module, old, new)
    assert job.run(1, 2, 3) == (["<2>/9", "<4>/9", "<5>/9"], [])


def test_an_upstream_edit_with_equal_output_stops_within_a_stage(job: Job) -> None:
    job.edit("helpers", "SCALE * x", "x * SCALE")
    result, made = job.run(1, 2, 3)
    assert result == ["<2>/9", "<4>/9", "<5>/9"]
    assert made == calls("scaled", 1, 2, 3)


def test_an_upstream_edit_with_partly_equal_output_goes_on_only_where_it_differs(job: Job) -> None:
    job.edit("helpers", "SCALE * x", "SCALE * x if x < 3 else 7")
    result, made = job.run(1, 2, 3)
    assert result == ["<2>/9", "<4>/9", "<5>/9"]
    assert made == sorted([*calls("scaled", 1, 2, 3), "clipped 7"])


def test_an_upstream_edit_with_equal_output_stops_at_a_reduction(job: Job) -> None:
    job.edit("job", "sum(map(len, shown))", "sum(len(one) for one in shown)")
    result, made = job.run(1, 2, 3)
    assert result == ["<2>/9", "<4>/9", "<5>/9"]
    assert made == ["width"]


def test_an_undone_edit_finds_the_old_results(job: Job) -> None:
    job.edit("helpers", "min(x, 5)", "min(x, 3)")
    job.run(1, 2, 3)
    job.edit("helpers", "min(x, 3)", "min(x, 5)")
    assert job.run(1, 2, 3) == (["<2>/9", "<4>/9", "<5>/9"], [])


def test_a_moved_program_finds_its_results(job: Job, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("elsewhere")
    for name in ("helpers", "job", "main"):
        (other / f"{name}.py").write_text((job.directory / f"{name}.py").read_text())
    job.directory = other
    assert job.run(1, 2, 3) == (["<2>/9", "<4>/9", "<5>/9"], [])


# -- in one process, with warm workers


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of modules that this process imports."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in ("live_job", "live_helpers"):
        sys.modules.pop(name, None)


LIVE_JOB = dedent(
    """
    import live_helpers
    from live_helpers import direct

    def through_module(x):
        return live_helpers.helper(x)

    def through_name(x):
        return direct(x)

    def own(x):
        return x + 100
    """
)
LIVE_HELPERS = dedent(
    """
    def helper(x):
        return x + 10

    def direct(x):
        return x + 1000
    """
)


EDITS = itertools.count()


def load(directory: Path, name: str, text: str) -> ModuleType:
    """Write a module and import it, again if it has been imported."""
    path = directory / f"{name}.py"
    path.write_text(text)
    # Python takes a file of the same size and second for unchanged, and its compiled form for current.
    later = time.time() + 10 * next(EDITS)
    os.utime(path, (later, later))
    importlib.invalidate_caches()
    if name in sys.modules:
        return importlib.reload(sys.modules[name])
    return importlib.import_module(name)


def outputs(job: Any, executor: str) -> list[Any]:
    from gristmill import Pipeline

    functions = (job.through_module, job.through_name, job.own)
    pipeline = Pipeline([(f, f"x[i] -> {f.__name__}[i]") for f in functions])
    result = pipeline.map({"x": [1, 2]}, map_executor=executor)
    return [result[f.__name__].tolist() for f in functions]


def test_a_reloaded_module_runs_as_it_is_now(live: Path, executor: str) -> None:
    load(live, "live_helpers", LIVE_HELPERS)
    job = load(live, "live_job", LIVE_JOB)
    assert outputs(job, executor) == [[11, 12], [1001, 1002], [101, 102]]
    job = load(live, "live_job", LIVE_JOB.replace("x + 100", "x + 200"))
    assert outputs(job, executor) == [[11, 12], [1001, 1002], [201, 202]]
    job = load(live, "live_job", LIVE_JOB)
    assert outputs(job, executor) == [[11, 12], [1001, 1002], [101, 102]]


def test_a_reloaded_helper_runs_as_each_caller_sees_it(live: Path, executor: str) -> None:
    load(live, "live_helpers", LIVE_HELPERS)
    job = load(live, "live_job", LIVE_JOB)
    assert outputs(job, executor) == [[11, 12], [1001, 1002], [101, 102]]
    load(live, "live_helpers", LIVE_HELPERS.replace("10", "20"))
    assert outputs(job, executor) == [[21, 22], [1001, 1002], [101, 102]], (
        "`direct` is still the old function"
    )
    job = load(live, "live_job", LIVE_JOB)
    assert outputs(job, executor) == [[21, 22], [2001, 2002], [101, 102]]


def test_a_file_edited_under_a_running_process_changes_nothing(live: Path, executor: str) -> None:
    load(live, "live_helpers", LIVE_HELPERS)
    job = load(live, "live_job", LIVE_JOB)
    (live / "live_helpers.py").write_text(LIVE_HELPERS.replace("10", "30"))
    (live / "live_job.py").write_text(LIVE_JOB.replace("x + 100", "x + 300"))
    assert outputs(job, executor) == [[11, 12], [1001, 1002], [101, 102]]


def test_a_file_broken_under_a_running_process_breaks_nothing(live: Path, executor: str) -> None:
    load(live, "live_helpers", LIVE_HELPERS)
    job = load(live, "live_job", LIVE_JOB)
    (live / "live_helpers.py").write_text("def helper(:")
    (live / "live_job.py").unlink()
    assert outputs(job, executor) == [[11, 12], [1001, 1002], [101, 102]]


def test_a_replaced_helper_runs(live: Path, executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    helpers = load(live, "live_helpers", LIVE_HELPERS)
    job = load(live, "live_job", LIVE_JOB)
    assert outputs(job, executor)[0] == [11, 12]
    monkeypatch.setattr(helpers, "helper", lambda x: x * 7)
    assert outputs(job, executor)[0] == [7, 14]


def test_a_changed_global_is_seen_by_warm_workers(live: Path, executor: str) -> None:
    from gristmill import Pipeline

    job: Any = load(live, "live_job", "LIMIT = 5\n\ndef limited(x):\n    return min(x, LIMIT)\n")
    for limit in (5, 1, 5, 3):
        job.LIMIT = limit
        result = Pipeline([(job.limited, "x[i] -> limited[i]")]).map({"x": [0, 4]}, map_executor=executor)
        assert result["limited"].tolist() == [0, min(4, limit)]
