"""Functions reach worker processes however they were defined."""

import functools
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from gristmill import Pipeline, node

OFFSET = 100


def shifted(x: int) -> int:
    return x + OFFSET


class Scale:
    """A callable instance and the owner of a method."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return self.factor * x

    def method(self, x: int) -> int:
        return self.factor * x


def outputs(function: Any, executor: str, **options: Any) -> Any:
    pipeline = Pipeline([node(function, output_name="y", mapspec="x[i] -> y[i]", **options)])
    return pipeline.map({"x": [1, 2]}, map_executor=executor)["y"].tolist()


def test_a_function_of_a_module(executor: str) -> None:
    assert outputs(shifted, executor) == [101, 102]


def test_a_lambda(executor: str) -> None:
    assert outputs(lambda x: x * 3, executor) == [3, 6]


def test_a_closure(executor: str) -> None:
    table = {1: "one", 2: "two"}
    assert outputs(lambda x: table[x], executor) == ["one", "two"]


def test_two_closures_of_one_function_are_two_functions(executor: str) -> None:
    def adder(k: int) -> Any:
        return lambda x: x + k

    assert [outputs(adder(k), executor) for k in (1, 10)] == [[2, 3], [11, 12]]


def test_a_partial(executor: str) -> None:
    assert outputs(functools.partial(pow, exp=3), executor, renames={"base": "x"}) == [1, 8]


def test_a_bound_method(executor: str) -> None:
    assert outputs(Scale(3).method, executor) == [3, 6]


def test_a_callable_instance(executor: str) -> None:
    assert outputs(Scale(4), executor) == [4, 8]


def test_a_builtin(executor: str) -> None:
    assert outputs(abs, executor, bound={}) == [1, 2] if "x" in node(abs).parameters else True


def test_a_class_defined_in_a_function(executor: str) -> None:
    class Box:
        def __init__(self, x: int) -> None:
            self.x = x

    def open_(box: Any) -> int:
        return int(box.x) + 1

    boxes = node(lambda x: Box(x), output_name="box", mapspec="x[i] -> box[i]")  # noqa: PLW0108 - as a user writes it
    pipeline = Pipeline([boxes, node(open_, output_name="y", mapspec="box[i] -> y[i]")])
    assert pipeline.map({"x": [1, 2]}, map_executor=executor)["y"].tolist() == [2, 3]


def test_a_function_that_uses_another_node(executor: str) -> None:
    helper = node(shifted, output_name="h")
    assert outputs(lambda x: helper(x) + 1, executor) == [102, 103]


def test_a_decorated_function(executor: str) -> None:
    def twice(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(x: int) -> Any:
            return function(function(x))

        return wrapper

    assert outputs(twice(shifted), executor) == [201, 202]


@node(output_name="decorated", mapspec="x[i] -> decorated[i]")
def decorated(x: int) -> int:
    return x - 1


def test_a_function_decorated_as_a_node(executor: str) -> None:
    assert Pipeline([decorated]).map({"x": [1, 2]}, map_executor=executor)["decorated"].tolist() == [0, 1]


def test_a_large_closure_travels(executor: str) -> None:
    table = np.arange(1_000_000)
    assert outputs(lambda x: int(table[-x]), executor) == [999_999, 999_998]


SCRIPT = dedent(
    """
    from dataclasses import dataclass
    import sys
    from gristmill import Engine, Pipeline, node

    FACTOR = 7

    @dataclass
    class Point:
        x: int

    def helper(x):
        return FACTOR * x

    def point(x):
        return Point(helper(x))

    def value(point):
        assert type(point) is Point
        return point.x

    @node(mapspec="value[i] -> text[i]")
    def text(value):
        return f"<{{value}}>"

    def joined(text: list):
        return "".join(text)

    {guard}
        nodes = [(point, "x[i] -> point[i]"), (value, "point[i] -> value[i]"), text, joined]
        pipeline = Pipeline(nodes, engine=Engine(map_executor="parallel", max_workers=2))
        result = pipeline.map({{"x": range(5)}}, output_name=["joined", "point"])
        print(result["joined"], result["point"][1], result.stats.computed)
    """
)


@pytest.mark.parametrize("guard", ['if __name__ == "__main__":', "if True:"], ids=["guarded", "unguarded"])
def test_functions_and_classes_of_a_script(guard: str, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT.format(guard=guard))
    printed = [
        subprocess.run(
            [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert printed == ["<0><7><14><21><28> Point(x=7) 16\n", "<0><7><14><21><28> Point(x=7) 0\n"]


def test_functions_from_standard_input(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-"],
        input=SCRIPT.format(guard="if True:"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "<0><7><14><21><28> Point(x=7) 16\n"
