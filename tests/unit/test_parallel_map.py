"""Functions mapped over iterables, without a pipeline."""

import asyncio
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import InputError, ItemError, Store, node, parallel_map

EXECUTORS = ("sequential", "threaded", "async", "parallel", "auto")


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def square(x: int) -> int:
    return x * x


def inverse(x: int) -> float:
    return 1 / x


def test_it_is_map_in_order(executor: str) -> None:
    assert parallel_map(square, range(50), executor=executor) == [x * x for x in range(50)]


def test_lambdas_and_closures(executor: str) -> None:
    offset = 7
    assert parallel_map(lambda x: x + offset, [1, 2], executor=executor) == [8, 9]


def test_several_iterables_go_side_by_side(executor: str) -> None:
    def joined(a: int, b: str, c: Any = None) -> Any:
        return a, b, c

    assert parallel_map(joined, [1, 2], "xy", executor=executor) == [(1, "x", None), (2, "y", None)]
    assert parallel_map(joined, [1], "x", ({"k": 0},), executor=executor) == [(1, "x", {"k": 0})]


def test_iterables_of_unequal_length_are_refused() -> None:
    def joined(first: int, second: int) -> int:
        return first + second

    with pytest.raises(InputError, match=r"(?s)'first'.*'second'"):
        parallel_map(joined, [1, 2], [1, 2, 3])


def test_anything_iterable() -> None:
    assert parallel_map(abs, (k for k in (-1, 2))) == [1, 2]
    assert parallel_map(len, {"a": 1, "bcd": 2}) == [1, 3]
    assert parallel_map(ord, "ab") == [97, 98]
    assert parallel_map(square, np.array([1, 2])) == [1, 4]
    assert parallel_map(lambda row: int(row.sum()), np.arange(6).reshape(3, 2)) == [1, 5, 9]
    assert sorted(parallel_map(abs, {-1, 2})) == [1, 2]


def test_any_callable() -> None:
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return -x

    assert parallel_map(math.sqrt, [4.0, 9.0]) == [2.0, 3.0]
    assert parallel_map(partial(pow, 2), [1, 3]) == [2, 8]
    assert parallel_map(later, [1, 2]) == [-1, -2]
    assert parallel_map(complex, [1, 2], [3, 4]) == [1 + 3j, 2 + 4j]
    assert parallel_map(node(square, version="3"), [3]) == [9]


def test_names_of_parameters_do_not_matter() -> None:
    def odd(i: int, result: int, j: int) -> tuple[int, int, int]:
        return i, result, j

    assert parallel_map(odd, [1], [2], [3]) == [(1, 2, 3)]


def test_no_items(executor: str) -> None:
    assert parallel_map(square, [], executor=executor) == []


def test_values_are_exactly_what_was_returned(executor: str) -> None:
    given = [1, True, 2.5, None, "a", (1, [2]), np.float32(1)]
    found = parallel_map(lambda v: v, given, executor=executor)
    assert (found, [type(v) for v in found]) == (given, [type(v) for v in given])


def test_the_first_exception_is_raised(executor: str) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        parallel_map(inverse, [1, 0], executor=executor)
    assert "in node inverse" in caught.value.__notes__[0]


def test_going_on_puts_errors_in_the_places_of_what_failed(executor: str) -> None:
    found = parallel_map(inverse, [1, 0, 2, 0], executor=executor, on_error="continue")
    assert [found[0], found[2]] == [1.0, 0.5]
    for place in (1, 3):
        assert isinstance(found[place], ItemError)
        assert isinstance(found[place].error, ZeroDivisionError)
        assert found[place].inputs == {"x": 0}


def test_with_a_store_nothing_is_computed_twice(executor: str, tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls.log")
    path = log.path

    def logged(x: int) -> int:
        record(path, x)
        return -x

    for store in (tmp_path / "store", Store(tmp_path / "store")):
        assert parallel_map(logged, range(20), executor=executor, store=store) == [-x for x in range(20)]
    assert len(log.take()) == 20
    parallel_map(logged, range(20), executor=executor)  # and without one, again
    assert len(log.take()) == 20


def test_bad_calls_are_refused() -> None:
    with pytest.raises(TypeError, match="at least one iterable"):
        parallel_map(square)
    with pytest.raises(InputError, match="only 1 parameter"):
        parallel_map(square, [1], [2])
    with pytest.raises(InputError, match="outputs"):
        parallel_map(node(divmod, output_name=("q", "r")), [1], [2])
    with pytest.raises(InputError, match="executor"):
        parallel_map(square, [1], executor="paralel")
    with pytest.raises(InputError, match="on_error"):
        parallel_map(square, [1], on_error="stop")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not iterable"):
        parallel_map(square, 3)  # type: ignore[arg-type]
