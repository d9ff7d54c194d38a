"""Tree reductions: level by level, every partial result a call like any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.calls import CallLog, record

from gristmill import Pipeline, Store, node
from gristmill.errors import GraphError, GristmillError, InputError


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def square(x: int) -> int:
    return x * x


def add(items: list[int]) -> int:
    return sum(items)


def join(items: list[str]) -> str:
    return f"({''.join(items)})"


SQUARES = node(square, mapspec="x[i] -> square[i]")
WORDS = node(lambda text: text.split(), output_name="word", mapspec="text[i] -> word[i, *j]")


def grouped(items: list[str], fan_in: int) -> str:
    """What `join` gives, group by group, in plain loops."""
    if len(items) == 1:
        return join(items)
    while len(items) > 1:
        groups = [items[k : k + fan_in] for k in range(0, len(items), fan_in)]
        items = [group[0] if len(group) == 1 else join(group) for group in groups]
    return items[0]


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(2, 7))
def test_groups_are_those_of_plain_loops(count: int, fan_in: int) -> None:
    letters = [chr(ord("a") + k % 26) for k in range(count)]
    reduction = node(join, output_name="all", reduce="letter", fan_in=fan_in)
    with Store.temporary() as store:
        result = Pipeline([reduction], store=store).map({"letter": letters}, map_executor="sequential")
        assert result["all"] == grouped(letters, fan_in)


def test_it_runs_in_every_executor_and_is_found_again(executor: str) -> None:
    total = node(add, output_name="total", reduce="square", fan_in=4)
    pipeline = Pipeline([SQUARES, total])
    result = pipeline.map({"x": list(range(50))}, map_executor=executor, max_workers=2)
    assert (result["total"], result.stats.computed) == (
        sum(k * k for k in range(50)),
        50 + 13 + 3 + 1,
    )  # of the second level, one passes
    again = pipeline.map({"x": list(range(50))}, map_executor=executor)
    assert (again["total"], again.stats.computed) == (result["total"], 0)


def test_one_more_element_computes_one_path(log: CallLog, executor: str) -> None:
    path = log.path

    def combined(items: list[int]) -> int:
        record(path, "combined", len(items))
        return sum(items)

    total = node(combined, output_name="total", reduce="x", fan_in=64)
    numbers = np.arange(100_000)
    Pipeline([total]).map({"x": numbers}, map_executor=executor)
    assert len(log.take()) == 1563 + 25 + 1
    result = Pipeline([total]).map({"x": np.append(numbers, 7)}, map_executor=executor)
    assert len(log.take()) <= 3
    assert result["total"] == numbers.sum() + 7


def test_a_group_of_one_passes_through_unless_it_is_all_there_is(log: CallLog, executor: str) -> None:
    path = log.path

    def combined(items: list[int]) -> int:
        record(path, "combined", *items)
        return sum(items)

    total = node(combined, output_name="total", reduce="x", fan_in=2)
    assert Pipeline([total]).map({"x": [1, 2, 3]}, map_executor=executor)["total"] == 6
    assert log.take() == ["combined 1 2", "combined 3 3"]
    assert Pipeline([total]).map({"x": [5]}, map_executor=executor)["total"] == 5
    assert log.take() == ["combined 5"]


def test_nothing_needs_an_initial_value(executor: str) -> None:
    total = node(add, output_name="total", reduce="square")
    with pytest.raises(InputError, match=r"nothing to reduce: 'square' is empty.*initial="):
        Pipeline([SQUARES, total]).map({"x": []}, map_executor=executor)
    assert (
        Pipeline([SQUARES, total.with_(initial=None)]).map({"x": []}, map_executor=executor)["total"] is None
    )
    assert Pipeline([SQUARES, total.with_(initial=7)]).map({"x": []}, map_executor=executor)["total"] == 7


@pytest.mark.parametrize("axis", ["i", "j"])
def test_it_goes_along_one_axis_of_several(axis: str, executor: str) -> None:
    grid = node(lambda a, b: 10 * a + b, output_name="y", mapspec="a[i], b[j] -> y[i, j]")
    sums = node(add, output_name="s", reduce="y", axis=axis, fan_in=2)
    given_ = {"a": [1, 2, 3], "b": [0, 1, 2, 3, 4]}
    result = Pipeline([grid, sums]).map(given_, map_executor=executor, output_name=["y", "s"])
    assert result["s"].tolist() == np.asarray(result["y"]).sum(axis=1 if axis == "j" else 0).tolist()
    with pytest.raises(GraphError, match=r"has the axes i, j; say along which: axis='j'"):
        Pipeline([grid, node(add, output_name="s", reduce="y")])
    with pytest.raises(GraphError, match="'k', which is not among its axes"):
        Pipeline([grid, node(add, output_name="s", reduce="y", axis="k")])


def test_a_reduction_of_reductions_goes_on_from_what_is_there(executor: str) -> None:
    grid = node(lambda a, b: 10 * a + b, output_name="y", mapspec="a[i], b[j] -> y[i, j]")
    sums = node(add, output_name="s", reduce="y", axis="j", fan_in=2)
    total = node(add, output_name="t", reduce="s", fan_in=2)
    pipeline = Pipeline([grid, sums, total])
    given_ = {"a": [1, 2, 3, 4, 5], "b": [0, 1, 2]}
    expected = sum(10 * a + b for a in given_["a"] for b in given_["b"])
    assert sum(pipeline.map(given_, map_executor=executor, output_name="s")["s"]) == expected
    for computed in (4, 0):  # groups of 2, 2 and the one that is left; of 2; of 2
        result = pipeline.map(given_, map_executor=executor)
        assert (result["t"], result.stats.computed) == (expected, computed)


def test_it_goes_along_a_ragged_axis(executor: str) -> None:
    lines = node(join, output_name="line", reduce="word", axis="j", fan_in=2, initial="-")
    result = Pipeline([WORDS, lines]).map({"text": ["a b c d e", "", "x"]}, map_executor=executor)
    assert result["line"].tolist() == ["(((ab)(cd))e)", "-", "(x)"]


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_other_parameters_are_the_same_in_every_call(count: int, executor: str) -> None:
    def capped(items: list[int], cap: int) -> int:
        return min(sum(items), cap)

    total = node(capped, output_name="total", reduce="square", fan_in=3)
    result = Pipeline([SQUARES, total]).map({"x": list(range(count)), "cap": 10}, map_executor=executor)
    assert result["total"] == min(sum(k * k for k in range(count)), 10)


def test_failed_elements_skip_it_or_are_dropped(executor: str) -> None:
    inverse = node(lambda x: 12 // x, output_name="y", mapspec="x[i] -> y[i]")
    for expected in (None, 12 + 6 + 4 + 3):
        errors: Any = "skip" if expected is None else "drop"
        total = node(add, output_name="total", reduce="y", fan_in=2, errors=errors)
        result = Pipeline([inverse, total]).map(
            {"x": [1, 2, 0, 3, 4]}, map_executor=executor, on_error="continue"
        )
        if expected is None:
            with pytest.raises(GristmillError, match="no value"):
                result["total"]
        else:
            assert result["total"] == expected


def test_a_failing_group_is_its_own_error(executor: str) -> None:
    def picky(items: list[int]) -> int:
        if 3 in items:
            raise ValueError("three")
        return sum(items)

    total = node(picky, output_name="total", reduce="x", fan_in=2)
    with pytest.raises(ValueError, match="three"):
        Pipeline([total]).map({"x": [1, 2, 3, 4, 5]}, map_executor=executor)


def test_large_partials_that_are_lost_are_made_again(tmp_path: Path, executor: str) -> None:
    frames = node(lambda x: np.full(20_000, float(x)), output_name="frame", mapspec="x[i] -> frame[i]")
    summed = node(lambda items, k: sum(items) * k, output_name="sum", reduce="frame", fan_in=2)
    with Store(tmp_path / "store") as store:
        Pipeline([frames, summed], store=store).map({"x": [1, 2, 3, 4], "k": 1}, map_executor=executor)
        for chunk in (store.location / "chunks").rglob("*"):
            if chunk.is_file() and np.frombuffer(chunk.read_bytes()[:8])[0] in (2.0, 7.0):
                chunk.unlink()
    with Store(tmp_path / "store") as store:
        pipeline = Pipeline([frames, summed], store=store)
        result = pipeline.map({"x": [1, 2, 3, 4, 5], "k": 1}, map_executor=executor)
        assert result["sum"][0] == 15.0


def test_what_has_no_axes_is_refused() -> None:
    with pytest.raises(GraphError, match=r"reduces 'y', which has no axes.*\.\.\. -> y\[i\]"):
        Pipeline([node(lambda x: [x], output_name="y"), node(add, output_name="total", reduce="y")])
    for options in ({"fan_in": 1}, {"fan_in": True}, {"reduce": ""}, {"axis": 3}):
        wrong: Any = {"reduce": "y", **options}
        with pytest.raises(GraphError):
            node(add, output_name="total", **wrong)


def test_explain_and_plan_know_it() -> None:
    pipeline = Pipeline([SQUARES, node(add, output_name="total", reduce="square", fan_in=2)])
    pipeline.map({"x": [1, 2, 3, 4]})
    assert pipeline.explain({"x": [1, 2, 3, 4]}).hits == 5
    assert "partial results of total" in str(pipeline.explain({"x": [1, 2, 3, 4, 5]})["total"])
    assert pipeline.plan({"x": [1, 2, 3, 4, 5]}).depends == 1
