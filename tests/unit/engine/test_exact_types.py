"""A value comes back, and goes on, with exactly the type and the bits that the function returned."""

from typing import Any

import numpy as np
import pytest
from tests.support.values import VALUES, same

from gristmill import Pipeline, Store, node


def keep(value: Any) -> Any:
    return value


def passed_on(kept: Any) -> Any:
    return kept


KEEP = node(keep, output_name="kept", mapspec="value[i] -> kept[i]")
PASS_ON = node(passed_on, mapspec="kept[i] -> passed_on[i]")
EXECUTORS = ("sequential", "parallel")


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_comes_back_as_it_was(value: Any, executor: str, default_store: Any) -> None:
    for _ in ("computed", "read by another process's store object"):
        with Store(default_store) as store:
            result = Pipeline([KEEP], store=store).map({"value": [value]}, map_executor=executor)
            assert same(result["kept"].tolist(), [value])
            assert same(result["kept"][0], value)
            assert same(list(result["kept"]), [value])


@pytest.mark.parametrize("executor", EXECUTORS)
def test_values_of_all_types_share_one_output(executor: str) -> None:
    values = list(VALUES.values())
    pipeline = Pipeline([KEEP, PASS_ON])
    for _ in range(2):
        result = pipeline.map({"value": values}, map_executor=executor, output_name=["kept", "passed_on"])
        for name, one, other, value in zip(
            VALUES, result["kept"].tolist(), result["passed_on"].tolist(), values, strict=True
        ):
            assert same(one, value), name
            assert same(other, value), name


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_stored_value_is_handed_on_like_a_fresh_one(value: Any) -> None:
    with Store.temporary() as fresh, Store.temporary() as stored:
        given = {"value": [value, value]}
        Pipeline([KEEP], store=stored).map(given, map_executor="sequential")
        for store in (fresh, stored):
            result = Pipeline([KEEP, PASS_ON], store=store).map(given, map_executor="sequential")
            assert same(result["passed_on"][1], value)


def test_stored_values_are_handed_on_like_fresh_ones_in_other_processes() -> None:
    with Store.temporary() as fresh, Store.temporary() as stored:
        given = {"value": list(VALUES.values())}
        Pipeline([KEEP], store=stored).map(given, map_executor="parallel")
        for store in (fresh, stored):
            result = Pipeline([KEEP, PASS_ON], store=store).map(given, map_executor="parallel")
            for name, one, value in zip(VALUES, result["passed_on"].tolist(), VALUES.values(), strict=True):
                assert same(one, value), name


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_run_returns_a_value_as_it_was(value: Any) -> None:
    pipeline = Pipeline([node(keep, output_name="kept")])
    for _ in range(2):
        assert same(pipeline("kept", value=value), value)


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_ints_keep_their_type_beside_one_that_is_too_big_for_a_machine_word(count: int) -> None:
    values = [*range(count), 2**64]
    result = Pipeline([KEEP]).map({"value": values}, map_executor="sequential")
    assert same(result["kept"].tolist(), values)


def test_bools_among_ints_stay_bools() -> None:
    values = [True, 1, 0, False, 1.0]
    result = Pipeline([KEEP]).map({"value": values}, map_executor="sequential")
    assert same(result["kept"].tolist(), values)


def test_elements_of_a_numpy_input_are_numpy_scalars() -> None:
    result = Pipeline([KEEP]).map({"value": np.arange(3, dtype="i2")}, map_executor="sequential")
    assert same(result["kept"].tolist(), [np.int16(0), np.int16(1), np.int16(2)])


@pytest.mark.parametrize("executor", EXECUTORS)
def test_rows_of_an_array_input_are_arrays(executor: str) -> None:
    rows = np.arange(6.0).reshape(3, 2)
    result = Pipeline([KEEP]).map({"value": rows}, map_executor=executor)
    assert same(result["kept"].tolist(), list(rows))


def test_an_array_that_was_returned_is_the_callers_own() -> None:
    result = Pipeline([KEEP]).map({"value": [np.zeros(3), np.zeros(100_000)]}, map_executor="sequential")
    for position in range(2):
        result["kept"][position][:] = 1
        assert not result["kept"][position].any()
    assert isinstance(result["kept"][0], np.ndarray)


def test_a_container_that_was_returned_is_the_callers_own() -> None:
    result = Pipeline([KEEP]).map({"value": [[1]]}, map_executor="sequential")
    result["kept"][0].append(2)
    assert result["kept"][0] == [1]
