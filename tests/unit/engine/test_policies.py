"""What of other people's code counts is said once, for a whole pipeline, and holds in its workers too."""

import sys
from pathlib import Path
from typing import Any

import pytest

from gristmill import Pipeline, node
from gristmill.errors import GraphError


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function of the user's own that calls into another module of theirs."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "policy_tools.py").write_text("def g(x): return 2 * x")
    (tmp_path / "policy_job.py").write_text("import policy_tools\ndef f(x): return policy_tools.g(x)")
    import policy_job  # type: ignore[import-not-found]

    yield policy_job
    for name in ("policy_job", "policy_tools"):
        del sys.modules[name]


def test_it_is_the_same_in_a_worker(module: Any, executor: str) -> None:
    mapped = node(module.f, mapspec="x[i] -> f[i]")
    for options in ({"versions": "exact"}, {"library_modules": ["policy_tools"]}, {"own_modules": ["numpy"]}):
        pipeline = Pipeline([mapped], **options)
        assert pipeline.map({"x": [1, 2]}, map_executor=executor)["f"].tolist() == [2, 4]
        assert pipeline.map({"x": [1, 2]}, map_executor=executor).stats.computed == 0


def test_what_is_listed_as_a_library_may_be_edited(module: Any, executor: str) -> None:
    mapped = node(module.f, mapspec="x[i] -> f[i]")
    listed, followed = Pipeline([mapped], library_modules=["policy_tools"]), Pipeline([mapped])
    for pipeline in (listed, followed):
        pipeline.map({"x": [1]}, map_executor=executor)
    module.policy_tools.g.__code__ = (lambda x: 3 * x).__code__
    assert listed.map({"x": [1]}, map_executor="sequential")["f"].tolist() == [2]
    assert followed.map({"x": [1]}, map_executor="sequential")["f"].tolist() == [3]


def test_it_stays_with_a_changed_pipeline(module: Any) -> None:
    changed = Pipeline([module.f], versions="exact", own_modules=["numpy"]).with_(name="other")
    assert (changed.versions, changed.own_modules, changed.library_modules) == ("exact", ("numpy",), ())
    assert changed.with_(versions="ignore").nodes[0].policy.versions == "ignore"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"versions": "mayor"}, r"versions is 'mayor' \(did you mean 'major'\?\)"),
        ({"own_modules": "numpy"}, r"use a tuple of names like \('numpy',\)"),
        ({"own_modules": ["a"], "library_modules": ["a"]}, "both"),
    ],
)
def test_mistakes_are_told_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Pipeline([lambda x: x], **options)
