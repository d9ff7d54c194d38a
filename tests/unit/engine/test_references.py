"""Results that are passed on: known by their elements' digests, the same wherever they were made."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import MappedOutput, Pipeline, Store, digest, node
from gristmill.errors import GristmillError


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def double(x: int) -> int:
    return 2 * x


def grid(x: int, y: int) -> int:
    return 10 * x + y


def image(x: int) -> Any:
    return np.full(20_000, float(x))


ELEMENTS = [
    node(double, mapspec="x[i] -> double[i]"),
    node(grid, mapspec="x[i], y[j] -> grid[i, j]"),
    node(image, mapspec="x[i] -> image[i]"),
]


@pytest.fixture
def made() -> Any:
    return Pipeline(ELEMENTS).map({"x": [1, 2, 3], "y": [4, 5]}, output_name=["double", "grid", "image"])


@pytest.mark.parametrize("name", ["double", "grid", "image"])
@pytest.mark.parametrize("form", ["array", "list"])
def test_a_reduction_of_a_passed_output_is_the_one_that_was_made(
    name: str, form: str, made: Any, log: CallLog, executor: str
) -> None:
    path = log.path
    if form == "array":

        def total(values: Any) -> float:
            record(path, "total", type(values).__name__, values.shape)
            return float(values.sum())
    else:

        def total(values: list[Any]) -> float:  # type: ignore[misc]
            record(path, "total", type(values).__name__, len(values))
            return float(np.sum(values))

    reduction = node(total, renames={"values": name})
    inputs = {"x": [1, 2, 3], "y": [4, 5]}
    whole = Pipeline([*ELEMENTS, reduction])
    given = {key: inputs[key] for key in whole.inputs if key in inputs}
    before = whole.map(given, output_name="total", map_executor=executor)["total"]
    assert len(log.take()) == 1
    again = Pipeline([reduction]).map({name: made[name]}, map_executor=executor)
    assert log.take() == []
    assert again["total"] == before
    assert again.stats.computed == 0


def test_it_is_delivered_like_a_reductions_argument(made: Any, executor: str) -> None:
    def received(double: Any, grid: list[list[int]]) -> tuple[str, Any, list[list[int]]]:
        return str(double.dtype), double.tolist(), grid

    pipeline = Pipeline([received])
    result = pipeline.map({"double": made["double"], "grid": made["grid"]}, map_executor=executor)
    assert result["received"] == ("int64", [2, 4, 6], [[14, 15], [24, 25], [34, 35]])


def test_nothing_is_read_to_identify_it(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MappedOutput, "_load", None)
    assert digest(made["image"]) == digest(made["image"])
    assert digest(made["image"]) != digest(made["double"])


def test_a_copied_array_is_another_value(made: Any) -> None:
    assert digest(made["double"]) != digest(np.asarray(made["double"]))


def test_its_elements_are_what_they_were_when_it_is_mapped(made: Any, log: CallLog, executor: str) -> None:
    path = log.path

    def seen(grid: int) -> str:
        record(path, "seen", grid)
        return type(grid).__name__

    per_element = node(seen, mapspec="grid[i, j] -> seen[i, j]")
    Pipeline([*ELEMENTS, per_element]).map(
        {"x": [1, 2, 3], "y": [4, 5]}, output_name="seen", map_executor=executor
    )
    assert len(log.take()) == 6
    result = Pipeline([per_element]).map({"grid": made["grid"]}, map_executor=executor)
    assert log.take() == []
    assert result["seen"].tolist() == [["int", "int"]] * 3


def test_a_failed_element_cannot_be_passed_on(executor: str) -> None:
    def picky(x: int) -> int:
        return 1 // x

    def total(picky: Any) -> int:
        return int(picky.sum())

    result = Pipeline([node(picky, mapspec="x[i] -> picky[i]")]).map({"x": [1, 0]}, on_error="continue")
    for consumer in (node(total), node(double, renames={"x": "picky"}, mapspec="picky[i] -> double[i]")):
        with pytest.raises(GristmillError, match="missing"):
            Pipeline([consumer]).map({"picky": result["picky"]}, map_executor=executor)


def test_one_from_another_store_can_be_passed_on(tmp_path: Path, executor: str) -> None:
    def total(double: Any) -> int:
        return int(double.sum())

    with Store(tmp_path / "other") as other:
        made = Pipeline(ELEMENTS[:1], store=other).map({"x": [1, 2]})["double"]
        assert Pipeline([total]).map({"double": made}, map_executor=executor)["total"] == 6
