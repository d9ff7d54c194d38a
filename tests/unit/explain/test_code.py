"""`explain` for code that changed: it names the part."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from gristmill import Pipeline, node
from gristmill.engine.notes import code_record
from gristmill.explain.code import closest, code_reason
from gristmill.identity.fingerprint import Part
from gristmill.identity.types import Digest
from gristmill.storage.code_record import CodeRecord

PROGRAM = """
LIMIT = 3
class Rules:
    strict = True
def _strip(x):
    return x + LIMIT
def clean(x):
    return _strip(x) if Rules.strict else x
"""


def pipeline(source: str, **options: Any) -> Pipeline:
    """A pipeline of the `clean` that a program defines, as a notebook would."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(dedent(source), "text.py", "exec"), space)
    return Pipeline([node(space["clean"], mapspec="x[i] -> clean[i]", **options)])


def reason(source: str, **options: Any) -> str:
    found = pipeline(source, **options).explain({"x": [1, 2]})["clean"]
    assert [(one.verdict, one.where) for one in found.findings] == [("miss", "0–1")]
    return found.findings[0].reason


@pytest.fixture
def recorded() -> Iterator[None]:
    pipeline(PROGRAM).map({"x": [1, 2]})
    yield
    assert pipeline(PROGRAM).explain({"x": [1, 2]}).misses == 0


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("x + LIMIT", "x - LIMIT", "helper _strip (text.py:5)"),
        ("LIMIT = 3", "LIMIT = 4", "value LIMIT (__main__)"),
        ("if Rules.strict", "if not Rules.strict", "its body (text.py:7)"),
        ("strict = True", "strict = False", "value Rules.strict (__main__)"),
    ],
)
def test_the_part_that_changed_is_named(old: str, new: str, what: str) -> None:
    assert reason(PROGRAM.replace(old, new)) == f"code of clean() changed: {what}"


@pytest.mark.usefixtures("recorded")
def test_a_new_helper_is_named_beside_the_body_that_uses_it() -> None:
    source = PROGRAM.replace("return _strip(x)", "return _twice(_strip(x))") + "def _twice(x): return 2 * x\n"
    assert reason(source) == (
        "code of clean() changed: its body (text.py:7), now uses helper _twice (text.py:9)"
    )


@pytest.mark.usefixtures("recorded")
def test_a_helper_that_is_gone_is_named() -> None:
    source = PROGRAM.replace("x + LIMIT", "x")
    assert reason(source) == (
        "code of clean() changed: helper _strip (text.py:5), no longer uses value LIMIT (__main__)"
    )


@pytest.mark.usefixtures("recorded")
def test_a_node_whose_output_was_renamed_is_known() -> None:
    assert reason(PROGRAM.replace("LIMIT = 3", "LIMIT = 4"), output_name="clean") != "never computed"
    changed = pipeline(PROGRAM.replace("LIMIT = 3", "LIMIT = 4")).nodes[0].with_(output_name="tidy")
    found = Pipeline([changed]).explain({"x": [1]})["tidy"]
    assert found.findings[0].reason == "code of clean() changed: value LIMIT (__main__)"


def test_lambdas_are_told_apart_by_what_they_make() -> None:
    def one(output: str, function: Any) -> Pipeline:
        return Pipeline([node(function, output_name=output)])

    one("y", lambda x: x).run({"x": 1})
    assert one("z", lambda x: x + 1).explain({"x": 1})["z"].findings[0].reason == "never computed"
    assert "changed" in one("y", lambda x: x + 1).explain({"x": 1})["y"].findings[0].reason


@pytest.mark.usefixtures("recorded")
def test_a_version_that_stands_for_the_code_is_named() -> None:
    assert reason(PROGRAM, version="2") == "version= of clean(): none → '2', which stands for its code now"
    pipeline(PROGRAM, version="2").map({"x": [1]})
    assert reason(PROGRAM, version="3") == "version= of clean(): '2' → '3'"


@pytest.mark.usefixtures("recorded")
def test_the_closest_earlier_code_is_compared_with() -> None:
    helper = PROGRAM.replace("x + LIMIT", "x - LIMIT")
    pipeline(helper).map({"x": [1]})
    assert reason(helper.replace("LIMIT = 3", "LIMIT = 4")).endswith(" changed: value LIMIT (__main__)")


@pytest.mark.usefixtures("recorded")
def test_code_that_comes_back_is_found_again() -> None:
    pipeline(PROGRAM.replace("LIMIT = 3", "LIMIT = 4")).map({"x": [1]})
    assert pipeline(PROGRAM).explain({"x": [1, 2]}).misses == 0


def test_another_node_is_not_compared_with() -> None:
    pipeline(PROGRAM).map({"x": [1]})
    assert reason(PROGRAM.replace("def clean", "def tidy") + "clean = tidy", output_name="clean") == (
        "never computed"
    )


def test_the_form_that_an_argument_is_delivered_in_is_named() -> None:
    source = "def total({}):\n    return float(sum(y))"

    def pipeline(parameter: str) -> Pipeline:
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(source.format(parameter), "text.py", "exec"), space)
        return Pipeline([node(lambda x: x, output_name="y", mapspec="x[i] -> y[i]"), space["total"]])

    pipeline("y").map({"x": [1.0]})
    found = pipeline("y: list").explain({"x": [1.0]})["total"]
    assert found.findings[0].reason == "y is delivered to total() as list, and was delivered as array"


def test_a_global_that_changes_at_every_call_is_listed() -> None:
    source = """
    n = 0
    def clean(x):
        global n
        n += 1
        return x + n
    """
    found = pipeline(source).explain({"x": [1]})
    assert "changes the global `n`" in found["clean"].unfollowed[0]
    assert "not followed: clean (text.py:3) changes the global `n`" in str(found)


def record(**changes: Any) -> CodeRecord:
    fields: dict[str, Any] = {
        "node": "text:clean",
        "outputs": ("clean",),
        "fingerprint": Digest(bytes(16)),
        "python": "3.11",
        "parameters": {"x": "value"},
        "parts": (part("function", "clean", 1), part("distribution", "numpy 1", 1, "1.26.4")),
        "written": 0.0,
    }
    return CodeRecord(**{**fields, **changes})


def part(kind: str, name: str, number: int, location: str = "text.py:1") -> Part:
    return Part(kind, name, location, Digest(number.to_bytes(16, "big")))


OTHER = Digest(b"1" * 16)


def test_a_library_that_was_upgraded_is_named() -> None:
    parts = (part("function", "clean", 1), part("distribution", "numpy 2", 2, "2.4.0"))
    assert code_reason(record(), record(fingerprint=OTHER, parts=parts)) == (
        "numpy 1.26.4 → 2.4.0, which clean() calls into"
    )


def test_another_python_is_named() -> None:
    assert code_reason(record(), record(fingerprint=OTHER, python="3.12")) == "Python 3.11 → 3.12"


def test_parameters_that_came_and_went_are_named() -> None:
    two = record(parameters={"x": "value", "k": "value"})
    assert code_reason(record(), two) == "clean() has a new parameter k"
    assert code_reason(two, record()) == "clean() no longer has the parameter k"


def test_many_changes_are_cut_short() -> None:
    def parts(number: int) -> tuple[Part, ...]:
        return tuple(part("function", f"helper_{k}", number) for k in range(9))

    text = code_reason(record(parts=parts(1)), record(fingerprint=OTHER, parts=parts(2)))
    assert text.endswith("helper helper_3 (text.py:1), and 5 more")


def test_the_latest_of_equally_close_records_counts() -> None:
    records = [record(written=1.0), record(written=3.0), record(written=2.0)]
    assert closest(record(), records) is records[1]


def test_a_record_survives_its_encoding() -> None:
    made = code_record(pipeline(PROGRAM).nodes[0], ())
    assert CodeRecord.decode(made.encode()) == made


# -- in other processes, with modules edited on disk


def test_an_edited_module_is_explained_in_the_next_process(tmp_path: Path) -> None:
    package = tmp_path / "jobs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    text = package / "text.py"
    text.write_text("def _strip(x):\n    return x + 1\n")
    (package / "work.py").write_text(
        "from gristmill import Pipeline\nfrom jobs.text import _strip\n"
        "def clean(x):\n    return _strip(x)\n"
        "pipeline = Pipeline([(clean, 'x[i] -> clean[i]')])\n"
    )

    def python(code: str) -> str:
        command = [sys.executable, "-c", f"from jobs.work import pipeline as p; {code}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    python("p.map({'x': [1, 2]}, map_executor='parallel', max_workers=2)")
    assert "2 hits" in python("print(p.explain({'x': [1, 2]}))")
    text.write_text("# moved down\n\ndef _strip(x):\n    return x + 2\n")
    assert python("print(p.explain({'x': [1, 2]}))").splitlines() == [
        "clean → clean[i]: 2 calls, 2 misses",
        "  miss  0–1  code of clean() changed: helper _strip (text.py:3)",
    ]


def test_an_edit_beside_an_upgrade_is_named_too() -> None:
    before = record(parts=(*record().parts, part("function", "text.clean.<locals>.strip", 1)))
    parts = (
        part("function", "clean", 1),
        part("function", "text.clean.<locals>.strip", 2, "text.py:12"),
        part("distribution", "numpy 2", 2, "2.4.0"),
    )
    assert code_reason(before, record(fingerprint=OTHER, parts=parts)) == (
        "numpy 1.26.4 → 2.4.0, which clean() calls into; code of clean() changed: helper strip (text.py:12)"
    )
