"""`errors="pass"`: a reduction is handed an `ItemError` in the place of each element that failed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from tests.support.calls import CallLog, record

from gristmill import GristmillError, ItemError, MappedOutput, Pipeline, Store, node
from gristmill.errors import GraphError


def invert(x: int) -> float:
    return 1 / x


def twice(invert: float) -> float:
    return 2 * invert


def shown(item: Any) -> Any:
    """An element, or where and why there is none."""
    return (item.output_name, item.index, type(item.error).__name__) if isinstance(item, ItemError) else item


INVERT = node(invert, mapspec="x[i] -> invert[i]")
TWICE = node(twice, mapspec="invert[i] -> twice[i]")
IN_PARTS = node(
    lambda part: [type(one.error).__name__ if isinstance(one, ItemError) else one for one in part],
    output_name="seen",
    errors="pass",
)
FAILED = ("invert", (1,), "ZeroDivisionError")


def in_order(twice: list[float]) -> list[Any]:
    return [shown(one) for one in twice]


def in_array(twice: Any) -> tuple[str, list[Any]]:
    return str(twice.dtype), [shown(one) for one in twice]


def lazily(twice: MappedOutput) -> list[Any]:
    arrays = [np.asarray(twice), twice[:]]
    assert twice.shape == (3,)
    assert twice.dtype == object
    assert all([shown(one) for one in array] == [shown(one) for one in twice.tolist()] for array in arrays)
    assert twice.missing.tolist() == [False, True, False]
    assert shown(twice[1]) == FAILED
    return [shown(one) for one in twice]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (in_order, [2.0, FAILED, 1.0]),
        (in_array, ("object", [2.0, FAILED, 1.0])),
        (lazily, [2.0, FAILED, 1.0]),
    ],
)
def test_a_full_reduction_gets_errors_in_their_places(function: Any, expected: Any, executor: str) -> None:
    pipeline = Pipeline([INVERT, TWICE, node(function, output_name="out", errors="pass")])
    result = pipeline.map({"x": [1, 0, 2]}, on_error="continue", map_executor=executor)
    assert result["out"] == expected
    assert (result.stats.failed, result.stats.skipped) == (1, 1)


def test_arrays_stay_arrays_beside_errors(executor: str) -> None:
    def image(x: int) -> Any:
        return np.full(20_000, 1 // x)

    def kinds(image: Any) -> list[Any]:
        return [one.shape if isinstance(one, np.ndarray) else shown(one) for one in image]

    nodes = [node(image, mapspec="x[i] -> image[i]"), node(kinds, errors="pass")]
    result = Pipeline(nodes).map({"x": [1, 0]}, on_error="continue", map_executor=executor)
    assert result["kinds"] == [(20_000,), ("image", (1,), "ZeroDivisionError")]


def test_what_is_made_of_errors_is_not_kept(tmp_path: Path, log: CallLog, executor: str) -> None:
    path, broken = log.path, tmp_path / "broken"

    def fetch(x: int, place: str) -> int:
        if x == 1 and Path(place).exists():
            raise OSError("down")
        return x

    def table(fetch: list[Any]) -> int:
        record(path, "table")
        return sum(one if isinstance(one, int) else -100 for one in fetch)

    def after(table: int) -> int:
        record(path, "after", table)
        return table + 1

    nodes: list[Any] = [node(fetch, mapspec="x[i] -> fetch[i]"), node(table, errors="pass"), after]
    broken.touch()
    with Store(tmp_path / "store") as store:
        pipeline = Pipeline(nodes, store=store)
        given = {"x": [0, 1, 2], "place": str(broken)}
        for found in (["after -98", "table"], ["table"]):
            result = pipeline.map(given, on_error="continue", map_executor=executor)
            assert (result["after"], sorted(log.take())) == (-97, found)
        broken.unlink()
        whole = pipeline.map(given, on_error="continue", map_executor=executor)
        assert (whole["after"], sorted(log.take())) == (4, ["after 3", "table"])
        whole = pipeline.map(given, map_executor=executor)
        assert (whole["after"], whole.stats.computed, log.take()) == (4, 0, [])


def test_each_slice_gets_its_own_errors(executor: str) -> None:
    def divide(a: int, b: int) -> float:
        return a / b

    def row(divide: Any) -> list[Any]:
        return [shown(one) for one in divide]

    def column(divide: list[float]) -> list[Any]:
        return [shown(one) for one in divide]

    nodes = [
        node(divide, mapspec="a[i], b[j] -> divide[i, j]"),
        node(row, mapspec="divide[i, :] -> row[i]", errors="pass"),
        node(column, mapspec="divide[:, j] -> column[j]", errors="pass"),
    ]
    result = Pipeline(nodes).map({"a": [1, 2], "b": [1, 0]}, on_error="continue", map_executor=executor)
    failed = [("divide", (i, 1), "ZeroDivisionError") for i in range(2)]
    assert result["row"].tolist() == [[1.0, failed[0]], [2.0, failed[1]]]
    assert result["column"].tolist() == [[1.0, 2.0], failed]


def test_slices_that_differ_in_their_errors_alone_are_two_calls(executor: str) -> None:
    def divide(a: int, b: int) -> float:
        return 1.0 if b else a / b

    def row(divide: list[Any]) -> list[Any]:
        return [shown(one) for one in divide]

    nodes = [
        node(divide, mapspec="a[i], b[j] -> divide[i, j]"),
        node(row, mapspec="divide[i, :] -> row[i]", errors="pass"),
    ]
    result = Pipeline(nodes).map({"a": [1, 2], "b": [1, 0]}, on_error="continue", map_executor=executor)
    assert result["row"].tolist() == [[1.0, ("divide", (i, 1), "ZeroDivisionError")] for i in range(2)]


def test_calls_that_get_no_errors_are_kept(tmp_path: Path, log: CallLog, executor: str) -> None:
    path = log.path

    def divide(a: int, b: int) -> float:
        return a / b

    def row(divide: list[Any]) -> int:
        record(path, "row", len(divide))
        return sum(isinstance(one, ItemError) for one in divide)

    def after(row: int) -> int:
        record(path, "after", row)
        return -row

    nodes = [
        node(divide, mapspec="a[i], b[i, j] -> divide[i, j]"),
        node(row, mapspec="divide[i, :] -> row[i]", errors="pass"),
        node(after, mapspec="row[i] -> after[i]"),
    ]
    given = {"a": [1, 2, 3], "b": [[1, 2], [0, 1], [1, 4]]}
    with Store(tmp_path / "store") as store:
        pipeline = Pipeline(nodes, store=store)
        names = ["row", "after"]
        for made, computed in (
            (["after 0", "after 1", "row 2", "row 2", "row 2"], 5 + 3 + 2),
            (["row 2"], 1),
        ):
            result = pipeline.map(given, on_error="continue", map_executor=executor, output_name=names)
            assert (result["row"].tolist(), result["after"].tolist()) == ([0, 1, 0], [0, -1, 0])
            assert (sorted(log.take()), result.stats.computed) == (made, computed)
            assert (result.stats.failed, result.stats.skipped) == (1, 0)
        assert result.stats.cached == 5 + 2 + 3


def test_partial_results_without_errors_are_kept(tmp_path: Path, log: CallLog, executor: str) -> None:
    path = log.path

    def add(items: list[Any]) -> int:
        record(path, "add", sum(isinstance(one, ItemError) for one in items))
        return sum(-100 if isinstance(one, ItemError) else one for one in items)

    whole = node(lambda x: 12 // x, output_name="whole", mapspec="x[i] -> whole[i]")
    total = node(add, output_name="total", reduce="whole", fan_in=3, errors="pass")
    with Store(tmp_path / "store") as store:
        pipeline = Pipeline([whole, total], store=store)
        for made in (["add 0"] * 3 + ["add 1"], ["add 1"]):
            result = pipeline.map(
                {"x": [1, 2, 0, 3, 4, 6, 1, 1, 1]}, on_error="continue", map_executor=executor
            )
            assert (result["total"], sorted(log.take())) == (18 - 100 + 9 + 36, made)


def test_a_call_that_gets_no_errors_may_fail_itself(executor: str) -> None:
    def picky(divide: list[Any]) -> int:
        if not any(isinstance(one, ItemError) for one in divide):
            raise ValueError("nothing wrong")
        return len(divide)

    nodes = [
        node(lambda a, b: a / b, output_name="divide", mapspec="a[i], b[j] -> divide[i, j]"),
        node(picky, mapspec="divide[:, j] -> picky[j]", errors="pass"),
        node(lambda picky: [shown(one) for one in picky], output_name="all", errors="pass"),
    ]
    result = Pipeline(nodes).map({"a": [1, 2], "b": [1, 0]}, on_error="continue", map_executor=executor)
    assert result["all"] == [("picky", (0,), "ValueError"), 2]
    assert sorted(shown(one) for one in result.errors) == [
        ("divide", (0, 1), "ZeroDivisionError"),
        ("divide", (1, 1), "ZeroDivisionError"),
        ("picky", (0,), "ValueError"),
    ]
    with pytest.raises(ValueError, match="nothing wrong"):
        result.errors[-1].reproduce()


def test_along_a_ragged_axis(executor: str) -> None:
    def letters(word: str) -> list[str]:
        if word == "bad":
            raise ValueError("no word")
        return list(word)

    def code(letter: str) -> int:
        if letter == "x":
            raise ValueError("no letter")
        return ord(letter) - ord("a")

    def line(code: list[int]) -> list[Any]:
        return [shown(one) for one in code]

    def page(code: list[list[int]]) -> list[list[Any]]:
        return [[shown(one) for one in row] for row in code]

    nodes = [
        node(letters, output_name="letter", mapspec="word[i] -> letter[i, *j]"),
        node(code, mapspec="letter[i, j] -> code[i, j]"),
        node(line, mapspec="code[i, :] -> line[i]", errors="pass"),
        node(page, errors="pass"),
    ]
    result = Pipeline(nodes).map(
        {"word": ["ab", "bad", "", "xa"]}, on_error="continue", map_executor=executor
    )
    expected = [[0, 1], [("letter", (1,), "ValueError")], [], [("code", (3, 0), "ValueError"), 0]]
    assert result["line"].tolist() == expected
    assert result["page"] == expected


def test_a_tree_reduction_gets_errors_in_its_groups(log: CallLog, executor: str) -> None:
    path = log.path

    def add(items: list[Any]) -> int:
        record(path, "add", len(items))
        return sum(-100 if isinstance(one, ItemError) else one for one in items)

    whole = node(lambda x: 12 // x, output_name="whole", mapspec="x[i] -> whole[i]")
    total = node(add, output_name="total", reduce="whole", fan_in=3, errors="pass")
    pipeline = Pipeline([whole, total])
    given = {"x": [1, 2, 0, 3, 4, 6, 0]}
    result = pipeline.map(given, on_error="continue", map_executor=executor)
    assert result["total"] == 12 + 6 - 100 + 4 + 3 + 2 - 100
    assert sorted(log.take()) == ["add 3"] * 3  # the seventh is alone, and goes on as an error
    again = pipeline.map(given, on_error="continue", map_executor=executor)
    assert again["total"] == result["total"]


def test_a_partial_result_that_fails_is_an_error_one_level_up(executor: str) -> None:
    def add(items: list[Any]) -> int:
        return sum(0 if isinstance(one, ItemError) else one for one in items)

    def picky(items: list[Any]) -> int:
        if 3 in items:
            raise ValueError("three")
        return add(items)

    total = node(picky, output_name="total", reduce="x", fan_in=2, errors="pass")
    result = Pipeline([total]).map({"x": [1, 5, 4, 3]}, on_error="continue", map_executor=executor)
    assert result["total"] == 6
    assert [type(one.error) for one in result.errors] == [ValueError]


def test_without_failures_it_is_kept_like_any_other(executor: str) -> None:
    pipeline = Pipeline([INVERT, TWICE, node(in_order, errors="pass")])
    for computed in (7, 0):
        result = pipeline.map({"x": [1, 4, 2]}, on_error="continue", map_executor=executor)
        assert (result["in_order"], result.stats.computed) == ([2.0, 0.5, 1.0], computed)


def test_what_was_not_asked_for_is_no_error(executor: str) -> None:
    pipeline = Pipeline([INVERT, TWICE, node(in_order, errors="pass")])
    for x in ([1, 4, 2], [1, 0, 2]):
        result = pipeline.map(
            {"x": x}, fixed_indices={"i": slice(1, 3)}, on_error="continue", map_executor=executor
        )
        with pytest.raises(GristmillError, match="no value"):
            result["in_order"]


def test_an_error_can_be_kept_but_reads_nothing(executor: str) -> None:
    def first(twice: list[Any]) -> Any:
        return twice[1]

    def ask(twice: list[Any]) -> str:
        try:
            twice[1].reproduce()
        except GristmillError as error:
            return str(error)
        return ""

    nodes = [INVERT, TWICE, node(first, errors="pass"), node(ask, errors="pass")]
    result = Pipeline(nodes).map({"x": [1, 0, 2]}, on_error="continue", map_executor=executor)
    assert shown(result["first"]) == FAILED
    assert "result.errors can" in result["ask"]
    assert "return 1 / x" in result["first"].traceback


def test_a_failing_reduction_can_be_called_again_with_its_errors(executor: str) -> None:
    def careless(twice: list[float]) -> float:
        return sum(twice)

    nodes = [INVERT, TWICE, node(careless, errors="pass")]
    result = Pipeline(nodes).map({"x": [1, 0, 2]}, on_error="continue", map_executor=executor)
    assert [(one.output_name, one.index) for one in result.errors] == [("invert", (1,)), ("careless", ())]
    assert [shown(one) for one in result.errors[1].inputs["twice"]] == [2.0, FAILED, 1.0]
    with pytest.raises(TypeError, match="ItemError"):
        result.errors[1].reproduce()


def test_outputs_know_why_elements_are_missing(executor: str) -> None:
    def late(twice: float) -> float:
        if twice == 1.0:
            raise ValueError("late")
        return twice

    nodes = [INVERT, TWICE, node(late, mapspec="twice[i] -> late[i]")]
    names = ["twice", "late"]
    result = Pipeline(nodes).map(
        {"x": [1, 0, 2]}, output_name=names, on_error="continue", map_executor=executor
    )
    assert [shown(one) for one in result["twice"].errors] == [FAILED]
    assert [shown(one) for one in result["late"].errors] == [FAILED, ("late", (2,), "ValueError")]
    assert set(result["late"].errors) == set(result.errors)
    with pytest.raises(ZeroDivisionError):
        result["twice"].errors[0].reproduce()


def test_zarr_arrays_hold_no_errors() -> None:
    def total(twice: zarr.Array[Any]) -> float:
        return float(np.asarray(twice[:]).sum())

    with pytest.raises(GraphError, match=r"zarr\.Array, which cannot hold errors"):
        Pipeline([INVERT, TWICE, node(total, errors="pass")])
    unchecked = Pipeline([INVERT, TWICE, node(total, errors="pass")], validate_types=False)
    with pytest.raises(GraphError, match=r"zarr\.Array, which cannot hold errors"):
        unchecked.map({"x": [1]})


def test_a_record_says_that_nothing_was_kept(tmp_path: Path, executor: str) -> None:
    with Store(tmp_path / "store") as store:
        pipeline = Pipeline([INVERT, TWICE, node(in_order, errors="pass")], store=store)
        result = pipeline.map(
            {"x": [1, 0, 2]}, on_error="continue", map_executor=executor, output_name=["twice", "in_order"]
        )
        loaded = store.load(result.run_id)
        assert loaded["twice"].tolist() == [2.0, None, 1.0]
        assert (loaded["twice"].errors, "in_order" in loaded) == ([], True)
        with pytest.raises(GristmillError, match="was handed errors, and nothing of it was kept"):
            loaded["in_order"]


def test_inside_a_nested_pipeline(tmp_path: Path, executor: str) -> None:
    inner = Pipeline([node(lambda x: 6 // x, output_name="part", mapspec="x[i] -> part[i]"), IN_PARTS])
    outer = Pipeline(
        [inner.as_node(map_over="x", input_mapping={"rows": "x"}, output_mapping={"seen": "all"})]
    )
    with Store(tmp_path / "store") as store:
        for computed in (6, 1):
            result = outer.with_(store=store).map(
                {"rows": [[1, 2], [0, 3], [3, 1]]}, on_error="continue", map_executor=executor
            )
            assert result["all"] == [[6, 3], ["ZeroDivisionError", 2], [2, 6]]
            assert result.stats.computed == computed
