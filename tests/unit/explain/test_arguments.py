"""`explain` for code that is recorded: which argument, input or upstream output makes the difference."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill import Explanation, Finding, Pipeline, node


def scale(x: Any, factor: float = 0.5) -> Any:
    return x * factor


def add(x: int, y: int) -> int:
    return x + y


def total(y: Any) -> float:
    return float(y.sum())


def grow(y: Any) -> Any:
    return y + 1


def scaling(**options: Any) -> Pipeline:
    return Pipeline([node(scale, output_name="y", mapspec="x[i] -> y[i]", **options)])


def said(explanation: Explanation, output: str) -> list[tuple[str, str, str]]:
    return [(one.verdict, one.where, one.reason) for one in explanation[output].findings]


def test_what_was_computed_is_a_hit() -> None:
    scaling().map({"x": [1, 2, 3]})
    found = scaling().explain({"x": [1, 2, 3]})
    assert said(found, "y") == [("hit", "0–2", "")]
    assert (found.hits, found.misses) == (3, 0)


def test_what_nobody_has_computed_was_never_computed() -> None:
    assert said(scaling().explain({"x": [1, 2]}), "y") == [("miss", "0–1", "never computed")]


def test_one_new_input_is_named() -> None:
    scaling().map({"x": list(range(20))})
    found = scaling().explain({"x": [*range(17), 99, 18, 19]})
    assert said(found, "y") == [
        ("hit", "0–16, 18–19", ""),
        ("miss", "17", "input x[17] is new"),
    ]


def test_several_new_inputs_are_named_together() -> None:
    scaling().map({"x": [1, 2]})
    assert said(scaling().explain({"x": [1, 2, 3, 4, 5]}), "y")[1:] == [
        ("miss", "2–4", "inputs x[2:5] are new")
    ]
    assert said(scaling().explain({"x": [8, 1, 9, 2, 7, 6]}), "y")[:1] == [
        ("miss", "0, 2, 4–5", "inputs x[0], x[2], x[4], … (4 of them) are new")
    ]


def test_a_constant_that_changed_is_shown_before_and_after() -> None:
    scaling().map({"x": [1, 2], "factor": 0.5})
    found = scaling().explain({"x": [1, 2], "factor": 0.6})
    assert said(found, "y") == [("miss", "0–1", "argument factor: 0.5 → 0.6")]


def test_inputs_that_are_new_besides_are_told_apart() -> None:
    scaling().map({"x": [1, 2], "factor": 0.5})
    assert said(scaling().explain({"x": [1, 2, 3], "factor": 0.6}), "y") == [
        ("miss", "0–1", "argument factor: 0.5 → 0.6"),
        ("miss", "2", "input x[2] is new, argument factor: 0.5 → 0.6"),
    ]


def test_the_closest_recorded_call_is_compared_with() -> None:
    def three(x: int, a: int, b: int) -> int:
        return x + a + b

    pipeline = Pipeline([(three, "x[i] -> three[i]")])
    pipeline.map({"x": [1], "a": 1, "b": 1})
    pipeline.map({"x": [1], "a": 2, "b": 2})
    assert said(pipeline.explain({"x": [1], "a": 1, "b": 3}), "three")[0][2] == "argument b: 1 → 3"


def test_a_default_that_changed_is_an_argument() -> None:
    scaling(defaults={"factor": 2}).map({"x": [1]})
    found = scaling(defaults={"factor": 3}).explain({"x": [1]})
    assert said(found, "y")[0][2] == "argument factor: 2 → 3"


def test_a_bound_value_that_changed_is_an_argument() -> None:
    scaling(bound={"factor": 2}).map({"x": [1]})
    assert said(scaling(bound={"factor": 3}).explain({"x": [1]}), "y")[0][2] == "argument factor: 2 → 3"


def test_arguments_go_by_their_names_in_the_graph() -> None:
    scaling(renames={"factor": "gain"}).map({"x": [1], "gain": 2})
    found = scaling(renames={"factor": "gain"}).explain({"x": [1], "gain": 3})
    assert said(found, "y")[0][2] == "argument gain: 2 → 3"


def test_an_array_that_changed_is_not_spelt_out() -> None:
    scaling().map({"x": [1], "factor": np.zeros(10)})
    found = scaling().explain({"x": [1], "factor": np.ones(10)})
    assert said(found, "y")[0][2] == "argument factor changed: array(10,) float64"


def test_private_parameters_are_never_shown(default_store: Path) -> None:
    scaling(private=["factor"]).map({"x": [1], "factor": 123454321})
    found = scaling(private=["factor"]).explain({"x": [1], "factor": 987656789})
    assert said(found, "y")[0][2] == "argument factor changed"
    for path in filter(Path.is_file, default_store.rglob("*")):
        assert b"123454321" not in path.read_bytes()


def test_what_was_recorded_before_a_parameter_became_private_is_not_shown() -> None:
    scaling().map({"x": [1], "factor": 123454321})
    found = scaling(private=["factor"]).explain({"x": [1], "factor": 987656789})
    assert said(found, "y")[0][2] == "argument factor changed"


def test_inputs_never_computed_together_are_said_so() -> None:
    pipeline = Pipeline([node(add, output_name="z", mapspec="x[i], y[i] -> z[i]")])
    pipeline.map({"x": [1, 2], "y": [10, 20]})
    assert said(pipeline.explain({"x": [1, 2], "y": [20, 20]}), "z") == [
        ("miss", "0", "never computed with these arguments together"),
        ("hit", "1", ""),
    ]


def test_only_the_input_that_is_new_is_named() -> None:
    pipeline = Pipeline([node(add, output_name="z", mapspec="x[i], y[j] -> z[i, j]")])
    pipeline.map({"x": [1, 2], "y": [10, 20]})
    assert said(pipeline.explain({"x": [1, 2], "y": [10, 30]}), "z") == [
        ("hit", "(0, 0), (1, 0)", ""),
        ("miss", "(0, 1), (1, 1)", "input y[1] is new"),
    ]


def test_elements_of_inputs_of_several_dimensions_are_named_by_index() -> None:
    pipeline = Pipeline([node(lambda x: x, output_name="y", mapspec="x[i, j] -> y[i, j]")])
    pipeline.map({"x": [[1, 2], [3, 4]]})
    assert said(pipeline.explain({"x": [[1, 2], [3, 5]]}), "y")[1:] == [
        ("miss", "(1, 1)", "input x[1, 1] is new")
    ]


def test_a_value_that_was_mapped_over_may_now_be_shared() -> None:
    Pipeline([node(add, output_name="z", mapspec="x[i], y[i] -> z[i]")]).map({"x": [1, 2], "y": [10, 20]})
    found = Pipeline([node(add, output_name="z", mapspec="x[i] -> z[i]")]).explain({"x": [1, 3], "y": 10})
    assert said(found, "z") == [("hit", "0", ""), ("miss", "1", "input x[1] is new")]


def chain() -> Pipeline:
    return Pipeline(
        [
            node(scale, output_name="y", mapspec="x[i] -> y[i]"),
            node(grow, output_name="z", mapspec="y[i] -> z[i]"),
            node(total, output_name="t"),
        ]
    )


def test_what_is_below_a_call_that_will_run_depends_on_it() -> None:
    chain().map({"x": [1, 2]}, output_name=["z", "t"])
    found = chain().explain({"x": [1, 2, 3]}, output_name=["z", "t"])
    assert said(found, "z") == [("hit", "0–1", ""), ("miss", "2", "depends on y, which will run")]
    assert said(found, "t") == [("miss", "", "depends on y, which will run")]


def test_what_depends_on_several_names_them_all() -> None:
    pipeline = Pipeline([node(grow, output_name="x"), node(scale, output_name="z", renames={"factor": "y2"})])
    pipeline = Pipeline([*pipeline.nodes, node(lambda y: -y, output_name="y2")])
    found = pipeline.explain({"y": 1})
    assert said(found, "z") == [("miss", "", "depends on y2 and x, which will run")]


def test_an_upstream_value_that_differs_from_the_recorded_ones_is_named() -> None:
    one = Pipeline([node(scale, output_name="y", mapspec="x[i] -> y[i]")])
    chain().map({"x": [1, 2]}, output_name=["z", "t"])
    one.map({"x": [1, 5]})
    found = chain().explain({"x": [1, 5]}, output_name=["z", "t"])
    assert said(found, "z") == [("hit", "0", ""), ("miss", "1", "y[1] has a new value")]
    assert said(found, "t") == [("miss", "", "what is gathered from y changed")]


def test_map_over_gives_the_whole_pipeline_an_axis() -> None:
    pipeline = Pipeline([node(scale, output_name="y")])
    pipeline.map({"x": [1, 2]}, map_over="x")
    assert said(pipeline.explain({"x": [1, 3]}, map_over="x"), "y") == [
        ("hit", "0", ""),
        ("miss", "1", "input x[1] is new"),
    ]


def test_a_single_run_is_explained_like_a_map() -> None:
    pipeline = Pipeline([node(scale, output_name="y")])
    pipeline.run({"x": 1})
    assert said(pipeline.explain({"x": 1}), "y") == [("hit", "", "")]
    assert said(pipeline.explain({"x": 1, "factor": 2}), "y") == [("miss", "", "argument factor: 0.5 → 2")]


def test_uncached_nodes_always_run() -> None:
    pipeline = Pipeline(
        [node(scale, output_name="y", cache=False), node(lambda y: y, output_name="z")], store=None
    )
    found = pipeline.explain({"x": 1})
    assert said(found, "y")[0][2].startswith("cache=False")
    assert said(found, "z")[0][2] == "depends on y, which will run"


def test_without_a_store_nothing_is_kept() -> None:
    found = Pipeline([node(scale, output_name="y")], store=None).explain({"x": 1})
    assert said(found, "y") == [("miss", "", "nothing is kept (store=None)")]


def test_a_map_over_nothing_has_nothing_to_explain() -> None:
    found = scaling().explain({"x": []})
    assert (found["y"].total, found["y"].findings) == (0, ())
    assert "0 calls" in str(found)


# -- the value


def explained() -> Explanation:
    scaling().map({"x": [1, 2]})
    return scaling().explain({"x": [1, 2, 3]})


def test_it_prints_as_a_few_lines() -> None:
    assert str(explained()).splitlines() == [
        "scale → y[i]: 3 calls, 2 hits, 1 miss",
        "  hit  0–1",
        "  miss  2  input x[2] is new",
    ]


def test_it_is_plain_json() -> None:
    found = explained()
    assert json.loads(found.to_json()) == found.to_dict()
    assert found.to_dict()["nodes"][0]["findings"][1] == {
        "verdict": "miss",
        "count": 1,
        "indices": [[[2], [2]]],
        "reason": "input x[2] is new",
    }


def test_it_is_a_table_in_a_notebook_with_its_words_escaped() -> None:
    def tag(x: str, prefix: str) -> str:
        return prefix + x

    pipeline = Pipeline([(tag, "x[i] -> tag[i]")])
    pipeline.map({"x": ["a"], "prefix": "<b>"})
    table = pipeline.explain({"x": ["a"], "prefix": "<i>"})._repr_html_()
    assert table.startswith("<table>")
    assert "<b>" not in table
    assert "&lt;b&gt;" in table


def test_it_is_frozen_and_equal_to_its_like() -> None:
    found = explained()
    assert found == scaling().explain({"x": [1, 2, 3]})
    with pytest.raises(AttributeError):
        found.nodes[0].hits = 3  # type: ignore[misc]


def test_an_output_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="q"):
        explained()["q"]


def test_many_ranges_are_cut_short_as_text_only() -> None:
    finding = Finding(tuple(((k,), (k,)) for k in range(0, 20, 2)), 10, "miss", "")
    assert finding.where == "0, 2, 4, 6, … 6 more ranges"
    assert len(finding.to_dict()["indices"]) == 10
