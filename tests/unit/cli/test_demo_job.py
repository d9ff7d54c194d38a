"""The demo's functions are nodes like a user's: their identity follows their helpers, wherever they live."""

from pathlib import Path

import numpy as np
import pytest

from gristmill import File, Store, fingerprint
from gristmill.cli import demo_job


@pytest.mark.parametrize(("node", "helper"), [("summary", "_summarised"), ("similar", "_products")])
def test_identity_follows_the_helpers(node: str, helper: str, monkeypatch: pytest.MonkeyPatch) -> None:
    function = getattr(demo_job, node)
    before = fingerprint(function)
    monkeypatch.setattr(demo_job, helper, lambda *arguments: arguments)
    assert fingerprint(function) != before


def test_files_of_nothing_are_examined_too(tmp_path: Path) -> None:
    for name in ("empty.py", "short.py"):
        (tmp_path / name).write_text("" if name == "empty.py" else "x")
    sources = [File(path) for path in sorted(tmp_path.glob("*.py"))]
    with Store.temporary() as store:
        pipeline = demo_job.demo_pipeline(store).with_(engine=None)
        inputs = {"source": sources, "module": ["empty", "short"]}
        result = pipeline.map(inputs, output_name=pipeline.outputs)
        assert not np.asarray(result["bigrams"]).any()
        assert result["identifiers"] == [("x", 1)]
        assert (result["similar"], result["problems"]) == ([], {})


def test_what_is_not_python_is_marked_and_counted_by_bytes(tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    path.write_bytes(b"\xff\x00\xff\x00")
    assert demo_job.summary(File(path)).problem is not None
    assert demo_job.bigrams(File(path))[0xFF, 0x00] == 2
