"""What a function does to its arguments disturbs nobody else; cold and warm runs are alike."""

import functools
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import Engine, Pipeline, node
from gristmill.errors import GristmillError

SMALL, LARGE = 4, 20_000


@functools.cache
def buffer(size: int) -> Any:
    """One array for all who ask, like a C library that reuses its memory."""
    return np.empty(size)


def filled(x: int, size: int) -> Any:
    array = buffer(size)
    array[:] = x
    return array


def first(filled: Any) -> float:
    return float(filled[0])


ONE_AT_A_TIME = pytest.mark.parametrize("executor", ["sequential", "parallel"])
"""In threads, such a function would overwrite what another call of it is just returning."""


@ONE_AT_A_TIME
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_function_may_return_the_same_buffer_again_and_again(size: int, executor: str) -> None:
    pipeline = Pipeline([(filled, "x[i] -> filled[i]"), (first, "filled[i] -> first[i]")])
    given = {"x": range(50), "size": size}
    for _ in range(2):
        result = pipeline.map(given, output_name=["filled", "first"], map_executor=executor)
        assert result["first"].tolist() == list(map(float, range(50)))
        assert [array[0] for array in result["filled"]] == list(map(float, range(50)))


@ONE_AT_A_TIME
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_buffer_returned_in_a_container_is_kept_as_it_was(size: int, executor: str) -> None:
    def boxed(x: int, size: int) -> Any:
        return {"data": filled(x, size)}

    def second(boxed: Any) -> float:
        return float(boxed["data"][1])

    pipeline = Pipeline([(boxed, "x[i] -> boxed[i]"), (second, "boxed[i] -> second[i]")])
    result = pipeline.map({"x": range(50), "size": size}, map_executor=executor)
    assert result["second"].tolist() == list(map(float, range(50)))


@functools.cache
def growing() -> list[int]:
    return []


def test_a_list_that_grows_is_kept_as_it_was(executor: str) -> None:
    def so_far(x: int) -> list[int]:
        growing().append(x)
        return growing()

    def last(so_far: list[int]) -> int:
        return so_far[-1]

    growing().clear()
    pipeline = Pipeline([(so_far, "x[i] -> so_far[i]"), (last, "so_far[i] -> last[i]")])
    result = pipeline.map({"x": range(20)}, output_name=["so_far", "last"], map_executor=executor)
    assert result["last"].tolist() == [found[-1] for found in result["so_far"]] == list(range(20))


# -- what a function does to its arguments


def spoil(value: Any) -> int:
    """Change a container, and return how long it was."""
    length = len(value)
    if isinstance(value, dict):
        value["spoilt"] = True
    elif isinstance(value, set):
        value.add("spoilt")
    else:
        value.append("spoilt")
    return length


CONTAINERS: dict[str, Any] = {"list": [1, 2], "dict": {"a": 1}, "set": {1}}


@pytest.mark.parametrize("value", CONTAINERS.values(), ids=CONTAINERS)
def test_a_broadcast_container_is_private_to_each_call(value: Any, executor: str) -> None:
    def spoilt(x: int, value: Any) -> int:
        return spoil(value)

    length = len(value)
    pipeline = Pipeline([node(spoilt, mapspec="x[i] -> spoilt[i]")])
    result = pipeline.map({"x": range(20), "value": value}, map_executor=executor)
    assert result["spoilt"].tolist() == [length] * 20
    assert len(value) == length


@pytest.mark.parametrize("value", CONTAINERS.values(), ids=CONTAINERS)
def test_a_mapped_container_is_private_to_each_call(value: Any, executor: str) -> None:
    length = len(value)
    pipeline = Pipeline(
        [
            node(spoil, output_name="a", mapspec="value[i] -> a[i]"),
            node(lambda value: (spoil(value), 0)[0], output_name="b", mapspec="value[i] -> b[i]"),
        ]
    )
    result = pipeline.map({"value": [value, value]}, map_executor=executor)
    assert (result["a"].tolist(), result["b"].tolist()) == ([length, length], [length, length])
    assert len(value) == length


@pytest.mark.parametrize("value", CONTAINERS.values(), ids=CONTAINERS)
def test_a_defaults_container_is_private_to_each_call(value: Any, executor: str) -> None:
    def spoilt(x: int, value: Any) -> int:
        return spoil(value)

    pipeline = Pipeline([node(spoilt, mapspec="x[i] -> spoilt[i]", defaults={"value": value})])
    assert pipeline.map({"x": range(5)}, map_executor=executor)["spoilt"].tolist() == [len(value)] * 5


def test_two_consumers_of_one_result_do_not_see_each_other(executor: str) -> None:
    def make(x: int) -> list[int]:
        return [x]

    consumers = [
        node(lambda make: spoil(make), output_name=name, mapspec=f"make[i] -> {name}[i]")
        for name in ("a", "b")
    ]
    summed = node(lambda make: sum(spoil(m) for m in make), output_name="c")
    pipeline = Pipeline([node(make, mapspec="x[i] -> make[i]"), *consumers, summed])
    for _ in range(2):
        result = pipeline.map({"x": range(3)}, output_name=["make", "a", "b", "c"], map_executor=executor)
        assert (result["a"].tolist(), result["b"].tolist(), result["c"]) == ([1, 1, 1], [1, 1, 1], 3)
        assert result["make"].tolist() == [[0], [1], [2]]


def test_run_hands_out_private_copies() -> None:
    given = [1]
    pipeline = Pipeline([node(spoil, output_name="n")])
    assert (pipeline("n", value=given), given) == (1, [1])


# -- arrays are read-only


def overwrite(array: Any) -> float:
    array[...] = 0
    return float(array.sum())


ARRAYS: dict[str, Any] = {
    "small": np.ones(SMALL),
    "large": np.ones(LARGE),
    "strings": np.array(["a", "b"]),
    "in a list": [np.ones(SMALL)],
    "in a dict in a tuple": ({"a": np.ones(LARGE)},),
}


def overwrite_inside(value: Any) -> int:
    while isinstance(value, list | tuple | dict):
        value = next(iter(value.values() if isinstance(value, dict) else value))
    value[...] = 0
    return 0


@pytest.mark.parametrize("value", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize("spec", ["value[i] -> out[i]", "x[i] -> out[i]"], ids=["mapped", "broadcast"])
def test_writing_to_an_input_array_fails_loudly(spec: str, value: Any, executor: str) -> None:
    def out(value: Any, x: int = 0) -> int:
        return overwrite_inside(value)

    given = {"value": [value]} if spec.startswith("value") else {"value": value, "x": [1]}
    pipeline = Pipeline([node(out, mapspec=spec)])
    with pytest.raises(ValueError, match="read-only") as caught:
        pipeline.map(given, map_executor=executor)
    assert "writable=True" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("value", ARRAYS.values(), ids=ARRAYS)
def test_writing_to_a_results_array_fails_cold_and_warm(value: Any, executor: str) -> None:
    pipeline = Pipeline(
        [
            node(lambda x: value, output_name="made", mapspec="x[i] -> made[i]"),
            node(overwrite_inside, output_name="out", mapspec="made[i] -> out[i]", renames={"value": "made"}),
        ]
    )
    for _ in ("cold", "warm"):
        with pytest.raises(ValueError, match="read-only"):
            pipeline.map({"x": [1]}, map_executor=executor)


def test_what_a_reduction_receives_is_read_only(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(lambda x: x, output_name="array", mapspec="x[i] -> array[i]"),
            node(overwrite, output_name="total"),
        ]
    )
    with pytest.raises(ValueError, match="read-only"):
        pipeline.map({"x": [1.0, 2.0]}, map_executor=executor)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_writable_node_gets_private_copies(size: int, executor: str) -> None:
    given = np.ones(size)

    def scratch(array: Any, x: int) -> float:
        array += x
        return float(array[0])

    pipeline = Pipeline([node(scratch, mapspec="x[i] -> scratch[i]", writable=True)])
    result = pipeline.map({"array": given, "x": [1, 2, 3]}, map_executor=executor)
    assert result["scratch"].tolist() == [2.0, 3.0, 4.0]
    assert given.max() == 1.0


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_writable_node_does_not_spoil_the_stored_result(size: int, executor: str) -> None:
    def make(x: int) -> Any:
        return np.full(size, float(x))

    def scratch(make: Any) -> float:
        make += 10
        return float(make[0])

    nodes = [
        node(make, mapspec="x[i] -> make[i]"),
        node(scratch, mapspec="make[i] -> scratch[i]", writable=True),
        node(lambda make: float(make.max()), output_name="top", mapspec="make[i] -> top[i]"),
    ]
    pipeline = Pipeline(nodes)
    for _ in range(2):
        result = pipeline.map({"x": range(5)}, output_name=["make", "scratch", "top"], map_executor=executor)
        assert result["scratch"].tolist() == [10.0, 11.0, 12.0, 13.0, 14.0]
        assert result["top"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert [array[0] for array in result["make"]] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_arrays_arrive_as_plain_ndarrays(executor: str) -> None:
    def kind(array: Any) -> tuple[str, bool, bool]:
        return type(array).__name__, bool(array.flags.c_contiguous), bool(array.flags.aligned)

    made = node(lambda x: np.full(LARGE, x), output_name="array", mapspec="x[i] -> array[i]")
    pipeline = Pipeline([made, node(kind, mapspec="array[i] -> kind[i]")])
    for _ in range(2):
        assert pipeline.map({"x": [1]}, map_executor=executor)["kind"].tolist() == [("ndarray", True, True)]
    direct = Pipeline([node(kind, output_name="direct", mapspec="array[i] -> direct[i]")])
    memory = np.ones((3, LARGE))
    assert direct.map({"array": memory}, map_executor=executor)["direct"][0][0] == "ndarray"


# -- cold and warm


def test_a_function_that_returns_its_argument_does_not_tie_them_together(executor: str) -> None:
    def same_array(x: Any) -> Any:
        return x

    def plus_one(same_array: Any) -> Any:
        same_array += 1
        return same_array

    pipeline = Pipeline(
        [
            node(same_array, mapspec="x[i] -> same_array[i]"),
            node(plus_one, mapspec="same_array[i] -> plus_one[i]", writable=True),
        ]
    )
    given = np.zeros((3, LARGE))
    result = pipeline.map({"x": given}, output_name=["same_array", "plus_one"], map_executor=executor)
    assert np.asarray(result["same_array"]).max() == 0
    assert np.asarray(result["plus_one"]).min() == 1
    assert given.max() == 0


def test_changing_an_input_after_the_map_changes_no_result(executor: str) -> None:
    given = [np.zeros(SMALL), np.zeros(LARGE)]
    pipeline = Pipeline([node(lambda x: x, output_name="y", mapspec="x[i] -> y[i]")])
    output = pipeline.map({"x": given}, map_executor=executor)["y"]
    for array in given:
        array[:] = 7
    assert [array.max() for array in output] == [0, 0]


def test_an_input_changed_between_two_maps_is_another_input(log: CallLog, executor: str) -> None:
    path = log.path

    def total(x: Any) -> float:
        record(path, "total")
        return float(x.sum())

    given = np.ones(SMALL)
    pipeline = Pipeline([node(total)])
    assert pipeline.map({"x": given}, map_executor=executor)["total"] == SMALL
    given[0] = 5
    assert pipeline.map({"x": given}, map_executor=executor)["total"] == SMALL + 4
    assert len(log.take()) == 2


# -- check_mutation


def append(items: list[int]) -> int:
    items.append(1)
    return len(items)


def look(items: list[int]) -> int:
    return len(items)


@pytest.mark.parametrize("items", [[[1], [2, 3]], ([1], [2, 3])])
def test_check_mutation_fails_what_changes_its_arguments(items: Any, executor: str) -> None:
    pipeline = Pipeline(
        [node(append, mapspec="items[i] -> append[i]"), node(look, mapspec="items[i] -> look[i]")]
    )
    strict = Engine(map_executor=executor, check_mutation=True)
    with pytest.raises(GristmillError, match=r"append changed its argument 'items' in place"):
        pipeline.with_(engine=strict).map({"items": items})
    result = pipeline.with_(engine=strict).map({"items": items}, on_error="continue")
    assert result["look"].tolist() == [1, 2]
    assert [error.output_name for error in result.errors] == ["append", "append"]
    assert pipeline.map({"items": items}, map_executor=executor)["append"].tolist() == [2, 3]


def test_check_mutation_looks_into_writable_arrays_and_constants(executor: str) -> None:
    strict = Engine(node_executor=executor, check_mutation=True)
    with pytest.raises(GristmillError, match="overwrite changed its argument 'array'"):
        Pipeline([node(overwrite, writable=True)], engine=strict).run({"array": np.ones(3)})
    with pytest.raises(GristmillError, match="append changed its argument 'items'"):
        Pipeline([append], engine=strict).run({"items": []})
    assert Pipeline([look], engine=strict).run({"items": [1]}) == {"look": 1}
