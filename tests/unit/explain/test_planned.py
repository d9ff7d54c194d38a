"""`plan`: what would run, as a value."""

import json
from typing import Any

import pytest

from gristmill import InputError, Pipeline, node


def double(x: int) -> int:
    return 2 * x


def total(y: Any) -> int:
    return int(y.sum())


def pipeline() -> Pipeline:
    return Pipeline([node(double, output_name="y", mapspec="x[i] -> y[i]"), node(total, output_name="t")])


def test_everything_is_to_be_computed_at_first() -> None:
    plan = pipeline().plan({"x": [1, 2, 3]})
    assert (plan.compute, plan.depends) == (3, 1)
    assert [stage.axes for stage in plan.stages] == [("i",), ()]
    assert [stage.after for stage in plan.stages] == [(), (0,)]


def test_what_is_in_the_store_is_not_computed() -> None:
    pipeline().map({"x": [1, 2, 3]})
    assert (pipeline().plan({"x": [1, 2, 3]}).compute, pipeline().plan({"x": [1, 2, 3]}).depends) == (0, 0)
    [first, second] = (stage.nodes[0] for stage in pipeline().plan({"x": [1, 2, 3, 4]}).stages)
    assert (first.found, first.compute, first.depends) == (3, 1, 0)
    assert (second.found, second.compute, second.depends) == (0, 0, 1)


def test_it_prints_as_a_list_of_stages() -> None:
    assert str(pipeline().plan({"x": [1, 2]})).splitlines() == [
        "1. over i=2",
        "   double → y: 2 calls, 2 to compute",
        "2. once, after 1",
        "   total → t: 1 call, 0 to compute, 1 depending on others",
    ]


def test_it_is_plain_json() -> None:
    plan = pipeline().plan({"x": [1, 2]})
    assert json.loads(plan.to_json())["stages"][0]["nodes"][0]["compute"] == 2


def test_it_takes_what_map_takes() -> None:
    flat = Pipeline([node(lambda a, b: a + b, output_name="c")])
    plan = flat.plan({"a": [1, 2], "b": [1, 2, 3]}, map_over=["a", "b"], map_mode="product")
    assert plan.stages[0].shape == (2, 3)
    with pytest.raises(InputError, match="map_mode"):
        pipeline().plan({"x": [1]}, map_mode="both")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'x' is missing"):
        pipeline().explain({})
