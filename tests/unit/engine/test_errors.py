"""A failing call fails alone, with its type, traceback and arguments; what depends on it is skipped."""

import asyncio
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import GristmillError, ItemError, MapResult, Pipeline, node


class TwoArgumentError(Exception):
    """Pickles, but does not unpickle: the classic."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class UnpicklableError(Exception):
    """Does not pickle at all."""

    def __reduce__(self) -> NoReturn:
        raise TypeError("this exception stays here")


class RichError(ValueError):
    """Carries more than a text."""

    def __init__(self, text: str, detail: Any = None) -> None:
        super().__init__(text, detail)
        self.detail = detail


def invert(x: float) -> float:
    return 1 / x


def after(invert: float) -> float:
    return 2 * invert


INVERT = node(invert, mapspec="x[i] -> invert[i]")
AFTER = node(after, mapspec="invert[i] -> after[i]")


def only_error(result: MapResult) -> ItemError:
    (error,) = result.errors
    return error


# -- on_error="raise"


def test_the_users_exception_is_raised_with_its_type(executor: str) -> None:
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        Pipeline([INVERT]).map({"x": [1, 0, 2]}, map_executor=executor)


def test_a_note_says_which_node_index_and_key(executor: str) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        Pipeline([INVERT, AFTER]).map({"x": [1, 2, 0]}, map_executor=executor)
    note = caught.value.__notes__[0]
    assert "invert" in note
    assert "(2,)" in note
    assert "x3:" in note


def test_the_traceback_shows_the_users_line(executor: str) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        Pipeline([INVERT]).map({"x": [0]}, map_executor=executor)
    text = "".join(traceback.format_exception(caught.value))
    assert "return 1 / x" in text
    assert "in invert" in text


def test_attributes_of_an_exception_survive(executor: str) -> None:
    def refuse(x: int) -> NoReturn:
        raise RichError("no", {"x": x})

    with pytest.raises(RichError) as caught:
        Pipeline([node(refuse, mapspec="x[i] -> refuse[i]")]).map({"x": [7]}, map_executor=executor)
    assert caught.value.detail == {"x": 7}


def test_causes_are_shown(executor: str) -> None:
    def refuse(x: dict[str, int]) -> int:
        try:
            return x["a"]
        except KeyError as error:
            raise ValueError("no a") from error

    result = Pipeline([node(refuse, mapspec="x[i] -> refuse[i]")]).map(
        {"x": [{"b": 1}]}, on_error="continue", map_executor=executor
    )
    assert "KeyError: 'a'" in only_error(result).traceback


def test_what_was_finished_is_kept(log: CallLog, executor: str) -> None:
    path = log.path

    def careful(x: int, limit: int) -> int:
        record(path, x)
        if x == 50:
            raise ValueError("fifty")
        return x

    pipeline = Pipeline([node(careful, mapspec="x[i] -> careful[i]")])
    with pytest.raises(ValueError, match="fifty"):
        pipeline.map({"x": range(100), "limit": 0}, map_executor=executor)
    before = {int(x) for x in log.take()} - {50}
    with pytest.raises(ValueError, match="fifty"):
        pipeline.map({"x": range(100), "limit": 0}, map_executor=executor)
    again = {int(x) for x in log.take()} - {50}
    assert before
    assert not before & again


def test_the_first_failure_ends_the_map(log: CallLog) -> None:
    path = log.path

    def fail(x: int) -> NoReturn:
        record(path, x)
        raise ValueError(x)

    with pytest.raises(ValueError, match=r"^0\n"):
        Pipeline([node(fail, mapspec="x[i] -> fail[i]")]).map({"x": range(10_000)}, map_executor="sequential")
    assert len(log.take()) < 10_000


def test_run_raises_the_users_exception() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        Pipeline([node(invert)]).run({"x": 0})
    assert "invert" in caught.value.__notes__[0]
    assert "index" not in caught.value.__notes__[0]


# -- on_error="continue"


def test_only_dependents_are_skipped(log: CallLog, executor: str) -> None:
    path = log.path

    def dependent(invert: float) -> float:
        record(path, invert)
        return invert

    dependents = node(dependent, mapspec="invert[i] -> dependent[i]")
    side = node(lambda x: -x, output_name="side", mapspec="x[i] -> side[i]")
    pipeline = Pipeline([INVERT, dependents, side])
    result = pipeline.map(
        {"x": [1, 0, 4]},
        output_name=["invert", "dependent", "side"],
        on_error="continue",
        map_executor=executor,
    )
    assert result["invert"].tolist() == [1.0, None, 0.25]
    assert result["dependent"].tolist() == [1.0, None, 0.25]
    assert result["side"].tolist() == [-1, 0, -4]
    assert log.take() == ["0.25", "1.0"]
    assert (result.stats.failed, result.stats.skipped) == (1, 1)


def test_a_reduction_over_a_failed_element_does_not_run(log: CallLog, executor: str) -> None:
    path = log.path

    def total(invert: Any) -> float:
        record(path, "total")
        return float(invert.sum())

    result = Pipeline([INVERT, node(total)]).map({"x": [1, 0]}, on_error="continue", map_executor=executor)
    assert log.take() == []
    assert (result.stats.failed, result.stats.skipped) == (1, 1)
    with pytest.raises(GristmillError, match="'total' has no value"):
        result["total"]


def test_a_reduction_over_a_failed_element_does_not_run_because_something_beside_it_does(
    log: CallLog, executor: str
) -> None:
    path = log.path

    def total(invert: Any) -> float:
        record(path, "total")
        return float(invert.sum())

    def after(total: float) -> float:
        record(path, "after")
        return total

    def beside(k: int) -> int:
        record(path, "beside")
        return k

    nodes = [INVERT, node(total), node(after), node(beside)]
    result = Pipeline(nodes).map(
        {"x": [1, 0], "k": 3}, output_name=["after", "beside"], on_error="continue", map_executor=executor
    )
    assert log.take() == ["beside"]
    assert result["beside"] == 3


def test_only_the_rows_with_a_failure_are_not_reduced(executor: str) -> None:
    def ratio(x: int, y: int) -> float:
        return x / y

    pipeline = Pipeline(
        [
            node(ratio, mapspec="x[i], y[j] -> ratio[i, j]"),
            node(lambda ratio: float(ratio.sum()), output_name="row", mapspec="ratio[i, :] -> row[i]"),
            node(lambda ratio: float(ratio.sum()), output_name="column", mapspec="ratio[:, j] -> column[j]"),
        ]
    )
    result = pipeline.map({"x": [1, 2], "y": [1, 0]}, on_error="continue", map_executor=executor)
    assert result["row"].tolist() == [None, None]
    assert result["column"].tolist() == [3.0, None]


def test_errors_say_what_failed_where_and_on_what(executor: str) -> None:
    result = Pipeline([INVERT, AFTER]).map({"x": [1, 0, 2, 0.0]}, on_error="continue", map_executor=executor)
    assert [(e.output_name, e.index) for e in result.errors] == [("invert", (1,)), ("invert", (3,))]
    first, second = result.errors
    assert isinstance(first.error, ZeroDivisionError)
    assert "return 1 / x" in first.traceback
    assert first.attempts == 1
    assert (dict(first.inputs), type(first.inputs["x"])) == ({"x": 0}, int)
    assert (dict(second.inputs), type(second.inputs["x"])) == ({"x": 0.0}, float)


def test_reproduce_makes_the_same_call_here(executor: str) -> None:
    result = Pipeline([INVERT]).map({"x": [0]}, on_error="continue", map_executor=executor)
    with pytest.raises(ZeroDivisionError):
        only_error(result).reproduce()


def test_a_failed_call_is_saved_for_another_process(executor: str, tmp_path: Path) -> None:
    factor = 3

    def check(make: Any, k: int) -> Any:
        if make[0] == 2:
            raise ValueError("two")
        return factor * make + k

    pipeline = Pipeline([node(check, mapspec="make[i] -> check[i]", retries=1)])
    given = {"make": [np.full(3, n) for n in range(4)], "k": 5}
    error = only_error(pipeline.map(given, on_error="continue", map_executor=executor))
    error.save(tmp_path / "error")
    program = """if True:
        import sys
        from gristmill import ItemError
        found = ItemError.load(sys.argv[1])
        print(found, found.index, found.attempts, found.inputs["make"].tolist(), found.inputs["k"])
        print("two" in found.traceback)
        try:
            found.reproduce()
        except ValueError as error:
            print("again", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "error")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "<ItemError check[2]: ValueError: two> (2,) 2 [2, 2, 2] 5",
        "True",
        "again two",
    ]


@pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x05N."])
def test_what_is_no_saved_call_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "error").write_bytes(content)
    with pytest.raises(GristmillError, match="is no saved call"):
        ItemError.load(tmp_path / "error")


def test_what_cannot_be_pickled_is_not_saved(tmp_path: Path) -> None:
    def check(x: int, lock: Any) -> None:
        raise ValueError(x)

    lock = node(lambda: threading.Lock(), output_name="lock", cache=False, version="1")
    pipeline = Pipeline([lock, node(check, mapspec="x[i] -> check[i]")])
    error = only_error(pipeline.map({"x": [1]}, on_error="continue", map_executor="sequential"))
    with pytest.raises(GristmillError, match="cannot be saved"):
        error.save(tmp_path / "error")
    assert not (tmp_path / "error").exists()


def test_inputs_of_a_later_node_are_what_it_was_given(executor: str) -> None:
    def make(x: int) -> Any:
        return np.full(20_000, x)

    def check(make: Any, k: int = 3) -> int:
        if make[0] == 2:
            raise ValueError("two")
        return int(make[0]) + k

    pipeline = Pipeline([(make, "x[i] -> make[i]"), (check, "make[i] -> check[i]")])
    error = only_error(pipeline.map({"x": [1, 2]}, on_error="continue", map_executor=executor))
    assert error.inputs["make"].tolist() == [2] * 20_000
    assert error.inputs["k"] == 3
    with pytest.raises(ValueError, match="two"):
        error.reproduce()


def test_inputs_of_a_reduction_are_what_it_was_given(executor: str) -> None:
    def refuse(square: Any) -> NoReturn:
        raise ValueError(str(square.tolist()))

    square = node(lambda x: x * x, output_name="square", mapspec="x[i] -> square[i]")
    pipeline = Pipeline([square, node(refuse)])
    error = only_error(pipeline.map({"x": [1, 2]}, on_error="continue", map_executor=executor))
    assert (error.index, error.inputs["square"].tolist(), str(error.error)) == ((), [1, 4], "[1, 4]")


def test_a_failure_is_not_remembered(log: CallLog, executor: str) -> None:
    path = log.path

    def flaky(x: int) -> int:
        record(path, x)
        if len(Path(path).read_text().splitlines()) == 1:
            raise OSError("for now")
        return x

    pipeline = Pipeline([node(flaky, mapspec="x[i] -> flaky[i]")])
    assert pipeline.map({"x": [5]}, on_error="continue", map_executor=executor).stats.failed == 1
    assert pipeline.map({"x": [5]}, on_error="continue", map_executor=executor)["flaky"].tolist() == [5]


def test_all_calls_may_fail(executor: str) -> None:
    result = Pipeline([INVERT, AFTER]).map({"x": [0] * 100}, on_error="continue", map_executor=executor)
    assert result["after"].tolist() == [None] * 100
    assert result.stats.computed == 0
    assert {error.index for error in result.errors} == {(k,) for k in range(100)}


def test_the_repr_of_an_error_is_short() -> None:
    result = Pipeline([INVERT]).map({"x": [0]}, on_error="continue", map_executor="sequential")
    assert repr(only_error(result)) == "<ItemError invert[0]: ZeroDivisionError: division by zero>"


# -- exceptions of every kind


def raise_(kind: str) -> NoReturn:
    error = KINDS[kind]()
    raise error


KINDS: dict[str, Callable[[], BaseException]] = {
    "of two arguments": lambda: TwoArgumentError(7, "odd"),
    "that does not pickle": lambda: UnpicklableError("odd"),
    "that holds a lambda": lambda: RichError("odd", lambda: 0),
    "SystemExit": lambda: SystemExit("odd"),
    "GeneratorExit": lambda: GeneratorExit("odd"),
    "StopIteration": lambda: StopIteration("odd"),
    "CancelledError": lambda: asyncio.CancelledError("odd"),
    "BaseException": lambda: BaseException("odd"),
    "an exception group": lambda: ExceptionGroup("odd", [ValueError(1)]),
    "a GristmillError": lambda: GristmillError("odd"),
    "a pickling error": lambda: pickle.PicklingError("odd"),
    "a warning": lambda: UserWarning("odd"),
    "MemoryError": lambda: MemoryError("odd"),
    "RecursionError": lambda: RecursionError("odd"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_exception_is_its_items_failure(kind: str, executor: str) -> None:
    def sometimes(x: int, kind: str) -> int:
        return raise_(kind) if x == 1 else x

    pipeline = Pipeline([node(sometimes, mapspec="x[i] -> sometimes[i]", ignore_globals=("raise_",))])
    result = pipeline.map({"x": range(5), "kind": kind}, on_error="continue", map_executor=executor)
    assert result["sometimes"].tolist() == [0, None, 2, 3, 4]
    error = only_error(result)
    assert error.index == (1,)
    assert "odd" in str(error.error)
    assert type(KINDS[kind]()).__name__ in error.traceback


@pytest.mark.parametrize("kind", ["of two arguments", "that does not pickle"])
def test_an_exception_that_cannot_travel_is_raised_as_what_it_says(kind: str) -> None:
    def refuse(x: int, kind: str) -> NoReturn:
        raise_(kind)

    pipeline = Pipeline([node(refuse, mapspec="x[i] -> refuse[i]")])
    with pytest.raises(GristmillError, match=f"{type(KINDS[kind]()).__name__}.*odd"):
        pipeline.map({"x": [1], "kind": kind}, map_executor="parallel")
    with pytest.raises(type(KINDS[kind]())):
        pipeline.map({"x": [1], "kind": kind}, map_executor="sequential")


def test_keyboard_interrupt_raised_in_a_worker_is_the_items_failure() -> None:
    def interrupt(x: int) -> int:
        if x == 1:
            raise KeyboardInterrupt
        return x

    pipeline = Pipeline([node(interrupt, mapspec="x[i] -> interrupt[i]")])
    result = pipeline.map({"x": range(3)}, on_error="continue", map_executor="parallel")
    assert result["interrupt"].tolist() == [0, None, 2]


def test_endless_recursion_is_the_items_failure(executor: str) -> None:
    def deeper(x: int) -> int:
        return x if x < 0 else deeper(x + 1)

    pipeline = Pipeline([node(deeper, mapspec="x[i] -> deeper[i]")])
    result = pipeline.map({"x": [-1, 1]}, on_error="continue", map_executor=executor)
    assert result["deeper"].tolist() == [-1, None]
    assert isinstance(only_error(result).error, RecursionError)


def test_sys_exit_does_not_end_the_program(executor: str) -> None:
    def leave(x: int) -> int:
        if x == 1:
            sys.exit(3)
        return x

    pipeline = Pipeline([node(leave, mapspec="x[i] -> leave[i]")])
    result = pipeline.map({"x": [0, 1, 2]}, on_error="continue", map_executor=executor)
    assert result["leave"].tolist() == [0, None, 2]


# -- results that cannot be kept


def generator(x: int) -> Iterator[int]:
    yield x


def test_a_generator_is_refused_with_the_nodes_name(executor: str) -> None:
    pipeline = Pipeline([node(generator, mapspec="x[i] -> generator[i]")])
    with pytest.raises(GristmillError, match=r"(?s)generator.*returned") as caught:
        pipeline.map({"x": [1]}, map_executor=executor)
    assert "in node generator" in "".join(caught.value.__notes__)


WITHOUT_IDENTITY: dict[str, Callable[[], Any]] = {
    "iterator": lambda: iter([]),
    "lock": threading.Lock,
    "nested generator": lambda: {"a": [generator(1)]},
}


@pytest.mark.parametrize("make", WITHOUT_IDENTITY.values(), ids=WITHOUT_IDENTITY)
def test_what_has_no_identity_fails_alone(make: Callable[[], Any], executor: str) -> None:
    def odd(x: int) -> Any:
        return x or make()

    result = Pipeline([node(odd, mapspec="x[i] -> odd[i]")]).map(
        {"x": [0, 1]}, on_error="continue", map_executor=executor
    )
    assert result["odd"].tolist() == [None, 1]
    assert "odd" in str(only_error(result).error)


class Identified:
    """Has an identity, and cannot be pickled."""

    def __digest__(self) -> str:
        return "one"

    def __reduce__(self) -> NoReturn:
        raise TypeError("stays here")


def test_what_cannot_be_pickled_fails_alone_and_says_so(executor: str) -> None:
    def odd(x: int) -> Any:
        return x or Identified()

    result = Pipeline([node(odd, mapspec="x[i] -> odd[i]")]).map(
        {"x": [0, 1]}, on_error="continue", map_executor=executor
    )
    assert result["odd"].tolist() == [None, 1]
    assert "Identified" in str(only_error(result).error)


@pytest.mark.parametrize("returned", [1, (1,), (1, 2, 3), "ab", None, {"a": 1, "b": 2}])
def test_a_wrong_number_of_outputs_is_refused(returned: Any, executor: str) -> None:
    pipeline = Pipeline([node(lambda x: returned, output_name=("a", "b"), mapspec="x[i] -> a[i], b[i]")])
    with pytest.raises(GristmillError, match="2 outputs 'a' and 'b'"):
        pipeline.map({"x": [1]}, map_executor=executor)


def test_an_output_picker_that_fails_is_its_items_failure(executor: str) -> None:
    def make(x: int) -> dict[str, int]:
        return {"a": 1, "b": 2} if x else {"a": 1}

    two = node(make, output_name=("a", "b"), mapspec="x[i] -> a[i], b[i]")
    pipeline = Pipeline([two.with_(output_picker=lambda result, name: result[name])])
    result = pipeline.map({"x": [0, 1]}, on_error="continue", map_executor=executor)
    assert (result["a"].tolist(), result["b"].tolist()) == ([None, 1], [None, 2])


def test_a_hook_that_fails_is_its_items_failure(executor: str) -> None:
    def hook(_node: Any, result: int, _kwargs: Any) -> None:
        if result == 2:
            raise ValueError("hook")

    pipeline = Pipeline(
        [node(lambda x: x, output_name="y", mapspec="x[i] -> y[i]", post_execution_hook=hook)]
    )
    result = pipeline.map({"x": [1, 2]}, on_error="continue", map_executor=executor)
    assert result["y"].tolist() == [1, None]
