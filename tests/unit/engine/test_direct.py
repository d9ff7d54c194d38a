"""Runs without a store are made directly: what calls are handed and give is what it is with a store."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.values import VALUES, same

from gristmill import GristmillError, ItemTimeoutError, Pipeline, Store, node
from gristmill.engine.engine import Engine
from gristmill.errors import GraphError, InputError


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each engine that has been started."""
    started: list[int] = []
    real = Engine.execute

    def execute(*given: Any, **options: Any) -> Any:
        started.append(1)
        return real(*given, **options)

    monkeypatch.setattr(Engine, "execute", execute)
    return started


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_values_go_from_node_to_node_as_they_do_with_a_store(
    value: Any, tmp_path: Path, engines: list[int]
) -> None:
    seen: list[Any] = []

    def keep(value: Any) -> Any:
        seen.append(value)
        return value

    def passed_on(keep: Any) -> tuple[Any, Any]:
        seen.append(keep)
        return keep, (keep, 1)

    nodes = [node(keep), node(passed_on, output_name=("one", "pair"))]
    for store in (None, Store(tmp_path)):
        pipeline = Pipeline(nodes, store=store)
        for _ in range(2):
            result = pipeline.run({"value": value})
            assert same(result, {"one": value, "pair": (value, 1)})
        assert bool(engines) == (store is not None)
    assert all(same(one, value) for one in seen)


def test_arguments_are_private_copies_or_cannot_be_written() -> None:
    array, container = np.arange(3), {"a": [1]}

    def spoil(array: Any, container: dict[str, list[int]]) -> int:
        container["a"].append(2)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
        return len(container["a"])

    def spoil_too(array: Any, container: dict[str, list[int]], spoil: int) -> Any:
        array[0] = 9
        return array, container, spoil

    pipeline = Pipeline([node(spoil), node(spoil_too, output_name="y", writable=True)], store=None)
    for _ in range(2):
        made, given, count = pipeline.run({"array": array, "container": container})["y"]
        assert (made.tolist(), given, count) == ([9, 1, 2], {"a": [1]}, 2)
        made[1], given["b"] = 5, 1
    assert array.tolist() == [0, 1, 2]
    assert container == {"a": [1]}


def test_a_buffer_that_is_used_again_changes_nothing_that_was_returned() -> None:
    buffer = np.zeros(2)

    def first() -> Any:
        buffer[:] = 1
        return buffer

    def second(first: Any) -> Any:
        buffer[:] = 2
        return buffer, first

    pipeline = Pipeline([node(first), node(second)], store=None)
    for _ in range(2):
        result = pipeline.run({}, output_name=["first", "second"])
        assert result["first"].tolist() == [1, 1]
        assert [one.tolist() for one in result["second"]] == [[2, 2], [1, 1]]
        result["first"][:] = 7
        assert result["first"].flags.writeable


def test_bound_values_defaults_and_names() -> None:
    def many(a: int, /, b: int, *, c: int = 3, d: list[int]) -> tuple[int, ...]:
        d.append(0)
        return a, b, c, len(d)

    bound = [1]
    pipeline = Pipeline([node(many, renames={"b": "x"}, bound={"d": bound})], store=None)
    for given, expected in ({"a": 1, "x": 2}, (1, 2, 3, 2)), ({"c": 5, "x": 2, "a": 1}, (1, 2, 5, 2)):
        for _ in range(2):
            assert pipeline.run(given) == {"many": expected}
    bound.append(1)
    assert pipeline.run({"a": 1, "x": 2}) == {"many": (1, 2, 3, 3)}


def test_picked_outputs_and_hooks() -> None:
    told: list[Any] = []
    pick = node(
        lambda x: {"a": x, "b": [x]},
        output_name=("a", "b"),
        output_picker=lambda result, name: result[name],
        post_execution_hook=lambda _node, result, given: told.append((result, given)),
    )
    pipeline = Pipeline([pick], store=None)
    for x in (1, 2):
        assert pipeline.run({"x": x}) == {"a": x, "b": [x]}
    assert told == [({"a": x, "b": [x]}, {"x": x}) for x in (1, 2)]


def test_coroutine_functions_retries_and_time_limits(engines: list[int]) -> None:
    tried: list[int] = []

    async def wait(x: int) -> int:
        await asyncio.sleep(0.001)
        return x + 1

    def often(wait: int) -> int:
        tried.append(wait)
        if len(tried) % 3:
            raise OSError("not yet")
        return -wait

    def slow(often: int) -> int:
        threading.Event().wait(30 if often < -2 else 0)
        return often

    pipeline = Pipeline([node(wait), node(often, retries=2), node(slow, timeout=0.2)], store=None)
    assert pipeline.run({"x": 1}) == {"slow": -2}
    assert tried == [2, 2, 2]
    with pytest.raises(ItemTimeoutError):
        pipeline.run({"x": 2})
    assert engines == []


@pytest.mark.parametrize("attempts", [0, 2])
def test_an_error_says_which_node_it_was(attempts: int) -> None:
    def fails(x: int) -> int:
        raise LookupError(x)

    pipeline = Pipeline([node(fails, output_name="y", retries=attempts)], store=None)
    for x in (1, 2):
        with pytest.raises(LookupError) as caught:
            pipeline.run({"x": x})
        often = ", tried 3 times" if attempts else ""
        assert caught.value.__notes__ == [f"in node fails (output 'y'){often}"]
        assert caught.value.args == (x,)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None


def test_what_a_function_must_return() -> None:
    pipeline = Pipeline([node(lambda x: [x] * x, output_name=("a", "b"))], store=None)
    assert pipeline.run({"x": 2}) == {"a": 2, "b": 2}
    with pytest.raises(GraphError, match="3 values"):
        pipeline.run({"x": 3})


def test_changed_arguments_are_noticed_where_that_is_asked_for() -> None:
    def change(x: list[int]) -> int:
        x.append(1)
        return len(x)

    pipeline = Pipeline([change], store=None)
    for _ in range(2):
        assert pipeline.run({"x": [1]}) == {"change": 2}
        with pytest.raises(GristmillError, match="changed its argument 'x'"):
            pipeline.run({"x": [1]}, check_mutation=True)


def test_what_has_no_identity_goes_through_as_it_is() -> None:
    lock = threading.Lock()
    pipeline = Pipeline(
        [
            node(lambda lock: (lock, iter([1])), output_name=("same", "some")),
            node(lambda same: same, output_name="y"),
        ],
        store=None,
    )
    for _ in range(2):
        result = pipeline.run({"lock": lock}, output_name=["y", "some"])
        assert result["y"] is lock
        assert list(result["some"]) == [1]


def test_bad_input_is_an_error_every_time() -> None:
    pipeline = Pipeline([node(lambda x: x, output_name="y")], store=None)
    for _ in range(2):
        assert pipeline.run({"x": 1}) == {"y": 1}
        for wrong in ({}, {"z": 1}, {"x": 1, "z": 1}):
            with pytest.raises(InputError):
                pipeline.run(wrong)


def test_what_is_no_run_of_single_values_goes_the_long_way() -> None:
    half = node(lambda x: x / 2, output_name="half", mapspec="x[i] -> half[i]")
    assert Pipeline([half], store=None).run({"x": [2, 4]})["half"].tolist() == [1, 2]
    total = Pipeline([node(sum_of, output_name="total")], store=None)
    mapped = Pipeline([half], store=None).map({"x": [2, 4]})["half"]
    for given in ([1, 2], mapped, [1, 2], mapped):
        assert total.run({"v": given}) == {"total": 3}
    inner = Pipeline([node(lambda x: x + 1, output_name="y")], store=None).as_node(output_name="y")
    assert Pipeline([inner], store=None).run({"x": 1}) == {"y": 2}


def sum_of(v: Any) -> int:
    return int(sum(v))


def test_a_map_inside_a_call_leaves_no_record(tmp_path: Path) -> None:
    def outer(n: int) -> int:
        inner = Pipeline(
            [node(lambda x: x + 1, output_name="y", mapspec="x[i] -> y[i]")], store=tmp_path / "store"
        )
        return sum(inner.map({"x": range(n)})["y"].tolist())

    pipeline = Pipeline([outer], store=None)
    for _ in range(2):
        assert pipeline.run({"n": 3}) == {"outer": 6}
    assert Store(tmp_path / "store").runs() == []
