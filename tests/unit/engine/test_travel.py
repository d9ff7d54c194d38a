"""Functions reach worker processes however they were defined."""

import functools
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import zarr

from gristmill import Pipeline, node
from gristmill.errors import InputError, StoreError

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

    boxes = node(lambda x: Box(x), output_name="box", mapspec="x[i] -> box[i]")
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


class Unsendable:
    """Can be identified, and nothing else."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __digest__(self) -> int:
        return 1


def test_an_input_that_cannot_travel_is_named() -> None:
    mapped = node(lambda x, tool: x, output_name="y", mapspec="x[i] -> y[i]")
    with pytest.raises(
        InputError, match=r"tool cannot be sent .* a Unsendable cannot be pickled; .* 'sequential'"
    ):
        Pipeline([mapped]).map({"x": [1], "tool": Unsendable()}, map_executor="parallel")
    with pytest.raises(InputError, match=r"x\[1\] cannot be sent .* a Unsendable"):
        Pipeline([mapped]).map({"x": [1, Unsendable()], "tool": 1}, map_executor="parallel")


def test_a_function_that_cannot_travel_is_named() -> None:
    tool = Unsendable()
    mapped = node(lambda x: (x, tool.lock is None), output_name="y", mapspec="x[i] -> y[i]", version="1")
    with pytest.raises(InputError, match=r"function .*<lambda> cannot be sent to a worker process"):
        Pipeline([mapped]).map({"x": [1]}, map_executor="parallel")


def test_auto_keeps_here_what_cannot_travel() -> None:
    def wait(x: int, tool: Unsendable) -> int:
        with tool.lock:
            time.sleep(0.02)
        return os.getpid()

    mapped = node(wait, mapspec="x[i] -> wait[i]")
    result = Pipeline([mapped]).map({"x": list(range(80)), "tool": Unsendable()}, map_executor="auto")
    assert set(result["wait"].tolist()) == {os.getpid()}


def test_a_zarr_array_is_read_where_it_is_and_not_written(tmp_path: Path, executor: str) -> None:
    given = zarr.create_array(str(tmp_path / "given.zarr"), shape=(4,), chunks=(2,), dtype="i8")
    given[...] = [1, 2, 3, 4]

    def careless(k: int, given: Any, nested: Any) -> tuple[int, bool, str]:
        try:
            nested["here"][0][k] = 99
        except ValueError as error:
            return int(given[k]), given.read_only, str(error)
        return 0, False, ""

    mapped = node(careless, mapspec="k[i] -> careless[i]")
    inputs = {"k": [0, 3], "given": given, "nested": {"here": [given]}}
    for value, locked, error in Pipeline([mapped]).map(inputs, map_executor=executor)["careless"]:
        assert (value in (1, 4), locked, "read-only" in error) == (True, True, True)
    assert np.asarray(given[...]).tolist() == [1, 2, 3, 4]


def test_a_zarr_array_is_no_result(tmp_path: Path, executor: str) -> None:
    path = str(tmp_path / "made.zarr")

    def make() -> Any:
        made = zarr.create_array(path, shape=(2,), dtype="i8", overwrite=True)
        made[...] = 7
        return {"made": made}

    def total(make: Any) -> int:
        return int(np.asarray(make["made"][...]).sum())

    with pytest.raises(StoreError, match=r"made\.zarr.* its content is elsewhere"):
        Pipeline([make]).map({}, map_executor=executor)
    assert Pipeline([node(make, cache=False), total]).map({}, map_executor=executor)["total"] == 14
