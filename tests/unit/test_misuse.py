"""Misuse answers before anything runs, saying what was asked, what was found and what to do."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import (
    DigestError,
    Engine,
    GraphError,
    InputError,
    MapSpecError,
    Pipeline,
    Store,
    node,
)


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def pipeline(log: CallLog) -> Pipeline:
    path = log.path

    def scaled(values: float, factor: float, offset: float = 0.0) -> float:
        record(path, "scaled")
        return values * factor + offset

    def average(scaled: Any) -> float:
        record(path, "average")
        return float(scaled.mean())

    return Pipeline([(scaled, "values[i] -> scaled[i]"), average])


@pytest.fixture(autouse=True)
def nothing_ran(log: CallLog, default_store: Path) -> Any:
    """No call was made, and the store was not even made, whatever the test asked for."""
    yield
    assert log.calls() == []
    assert not default_store.exists()


def generator() -> Iterator[int]:
    yield 1


GOOD = {"values": [1.0, 2.0], "factor": 3.0}


# -- inputs


def test_an_unknown_input_is_named_with_a_close_match(log: CallLog) -> None:
    with pytest.raises(InputError, match=r"'faktor' is no input.*'factor'"):
        pipeline(log).map({"values": [1.0], "faktor": 3.0})


def test_an_unknown_input_far_from_any_lists_what_there_is(log: CallLog) -> None:
    with pytest.raises(InputError, match=r"'zzz' is no input.*'values'.*'factor'"):
        pipeline(log).map({**GOOD, "zzz": 3.0})


def test_a_missing_input_is_named_with_who_needs_it(log: CallLog) -> None:
    with pytest.raises(InputError, match=r"'factor' is missing: needed by .*scaled"):
        pipeline(log).map({"values": [1.0]})


def test_all_problems_are_told_at_once(log: CallLog) -> None:
    with pytest.raises(InputError, match=r"(?s)'value'.*'faktor'.*'values' is missing.*'factor' is missing"):
        pipeline(log).map({"value": [1.0], "faktor": 3.0})


def test_run_checks_inputs_too(log: CallLog) -> None:
    with pytest.raises(InputError, match="'factor' is missing"):
        pipeline(log).run({"values": [1.0]})
    with pytest.raises(InputError, match="'valuess' is no input"):
        pipeline(log)("average", valuess=[1.0], factor=2.0)


@pytest.mark.parametrize("inputs", [None, [1, 2], "values", 5])
def test_inputs_that_are_no_mapping_are_refused(inputs: Any, log: CallLog) -> None:
    with pytest.raises(InputError, match="mapping"):
        pipeline(log).map(inputs)


@pytest.mark.parametrize(
    "value", ["abc", b"abc", {"a": 1}, {1, 2}, 5, None, iter([1]), generator(), np.array(1)]
)
def test_what_cannot_be_mapped_is_refused_by_name(value: Any, log: CallLog) -> None:
    with pytest.raises(InputError, match="'values'"):
        pipeline(log).map({"values": value, "factor": 1.0})


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        ("x[i, j] -> y[i, j]", [1, 2]),
        ("x[i, j] -> y[i, j]", np.arange(3)),
        ("x[i, j] -> y[i, j]", [[1, 2], [3]]),
    ],
)
def test_an_input_of_too_few_dimensions_or_unequal_rows_is_refused(spec: str, value: Any) -> None:
    with pytest.raises(InputError, match=r"'x' is indexed by \[i, j\]"):
        Pipeline([node(lambda x: x, output_name="y", mapspec=spec)]).map({"x": value})


def test_unequal_zip_lengths_name_both(log: CallLog) -> None:
    pair = node(lambda x, y: (x, y), output_name="z", mapspec="x[i], y[i] -> z[i]")
    with pytest.raises(InputError, match=r"'x' .*length 2.* 'y' .*length 3"):
        Pipeline([pair]).map({"x": [1, 2], "y": [1, 2, 3]})


def test_unequal_lengths_over_two_nodes_name_both(log: CallLog) -> None:
    first = node(lambda x: x, output_name="a", mapspec="x[i] -> a[i]")
    second = node(lambda a, y: a + y, output_name="b", mapspec="a[i], y[i] -> b[i]")
    with pytest.raises(InputError, match=r"(?s)(?=.*'y')(?=.*length 3)(?=.*length 2)"):
        Pipeline([first, second]).map({"x": [1, 2], "y": [1, 2, 3]})


def test_unequal_lengths_of_map_over_name_both(log: CallLog) -> None:
    plain = Pipeline([node(lambda x, y: x + y, output_name="z")])
    with pytest.raises(InputError, match=r"(?s)(?=.*'x')(?=.*'y')(?=.*length 2)(?=.*length 3)"):
        plain.map({"x": [1, 2], "y": [1, 2, 3]}, map_over=["x", "y"])


# -- identity


class Opaque:
    """Has no identity."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


UNDIGESTIBLE: dict[str, tuple[Any, str]] = {
    "itself": (generator(), r"factor"),
    "in a dict": ({"a": [1, generator()]}, r"factor\['a'\]\[1\]"),
    "in an object": (Opaque(), r"factor\.lock"),
    "in a tuple in a dict": ({"cfg": (1, {"f": threading.Lock()})}, r"factor\['cfg'\]\[1\]\['f'\]"),
    "in an object array": (np.array([1, threading.Lock()], dtype=object), r"factor\[1\]"),
}


@pytest.mark.parametrize(("value", "path"), UNDIGESTIBLE.values(), ids=UNDIGESTIBLE)
def test_an_input_without_identity_is_refused_with_the_path(value: Any, path: str, log: CallLog) -> None:
    with pytest.raises(DigestError, match=path):
        pipeline(log).map({"values": [1.0], "factor": value})


def test_an_element_without_identity_is_refused_with_its_index(log: CallLog) -> None:
    with pytest.raises(DigestError, match=r"values\[2\]\['a'\]"):
        pipeline(log).map({"values": [1, 2, {"a": threading.Lock()}], "factor": 1})


def test_a_bound_value_and_a_default_without_identity_are_refused_with_the_path() -> None:
    plain = node(lambda x, k: x, output_name="y", mapspec="x[i] -> y[i]")
    value = {"k": [threading.Lock()]}
    for given in (plain.with_(bound=value), plain.with_(defaults=value)):
        with pytest.raises(DigestError, match=r"k\[0\]"):
            Pipeline([given]).map({"x": [1]})


# -- the graph


def test_two_nodes_with_one_output_name_name_both() -> None:
    def first(x: int) -> int:
        return x

    def second(x: int) -> int:
        return x

    with pytest.raises(GraphError, match=r"'y' is made twice: by .*first and by .*second"):
        Pipeline([node(first, output_name="y"), node(second, output_name="y")])


def test_a_cycle_is_shown_as_a_path() -> None:
    nodes = [
        node(lambda a: a, output_name="b"),
        node(lambda b: b, output_name="c"),
        node(lambda c: c, output_name="a"),
    ]
    with pytest.raises(GraphError, match=r"(a → b → c → a|b → c → a → b|c → a → b → c)"):
        Pipeline(nodes)


def test_a_node_that_takes_what_it_makes_is_refused() -> None:
    with pytest.raises(GraphError, match="takes and makes 'x'"):
        Pipeline([node(lambda x: x, output_name="x")])


@pytest.mark.parametrize("bad", [5, "scale", None, (1, 2), (len,), [len]])
def test_what_is_no_node_is_refused(bad: Any) -> None:
    with pytest.raises(GraphError, match="nodes"):
        Pipeline([bad])


def test_annotations_that_contradict_each_other_are_refused() -> None:
    def number() -> int:
        return 1

    def shout(number: str) -> str:
        return number.upper()

    with pytest.raises(GraphError, match=r"(?s)(?=.*number)(?=.*shout)(?=.*int)(?=.*str)"):
        Pipeline([number, shout])
    Pipeline([number, shout], validate_types=False)


MALFORMED = [
    ("x[i] > y[i]", None),
    ("x[i -> y[i]", None),
    ("x[i]] -> y[i]", None),
    ("x[] -> y[i]", None),
    ("x[i] -> y[i", None),
    ("x[1] -> y[i]", None),
    ("x[i] -> y[j, i,, k]", None),
    ("x[i], -> y[i]", None),
    ("-> y[i]", None),
    ("", None),
    ("x[i] -> y[i] -> z[i]", None),
    ("z[i] -> y[i]", "'z'"),
    ("x[i] -> q[i]", "'q'"),
    ("x[i, :] -> y[i, :]", None),
    ("x[i, i] -> y[i]", None),
]


@pytest.mark.parametrize(("spec", "named"), MALFORMED, ids=[spec or "empty" for spec, _ in MALFORMED])
def test_a_malformed_mapspec_has_a_caret_under_the_place(spec: str, named: str | None) -> None:
    with pytest.raises(MapSpecError) as caught:
        Pipeline([node(lambda x: x, output_name="y", mapspec=spec)])
    *_, shown, caret = str(caught.value).splitlines()
    assert spec.strip() in shown
    assert set(caret) <= {" ", "^"}
    assert "^" in caret
    if named:
        assert named in str(caught.value)
        start = caret.index("^")
        assert shown[start] == named[1]


# -- what is asked for


def test_map_mode_is_checked_with_a_suggestion(log: CallLog) -> None:
    for options in ({}, {"map_over": "values"}, {"map_over": ["values", "factor"]}):
        with pytest.raises(InputError, match=r"'zipp'.*'zip'"):
            pipeline(log).map(GOOD, map_mode="zipp", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("asked", ["averge", ["average", "averge"], ("averge",)])
def test_an_output_that_does_not_exist_is_named_with_a_close_match(asked: Any, log: CallLog) -> None:
    for call in (pipeline(log).map, pipeline(log).run):
        with pytest.raises(GraphError, match=r"'averge'.*'average'"):
            call(GOOD, output_name=asked)


def test_calling_for_an_output_that_does_not_exist(log: CallLog) -> None:
    with pytest.raises(GraphError, match=r"'averge'.*'average'"):
        pipeline(log)("averge", **GOOD)


def test_an_input_is_no_output(log: CallLog) -> None:
    with pytest.raises(GraphError, match="'factor' is an input"):
        pipeline(log).map(GOOD, output_name="factor")


def test_mapping_over_what_is_no_input(log: CallLog) -> None:
    with pytest.raises(InputError, match=r"'faktor'.*'factor'"):
        pipeline(log).map(GOOD, map_over="faktor")
    with pytest.raises(InputError, match="'average'"):
        pipeline(log).map(GOOD, map_over="average")


def test_mapping_over_nothing(log: CallLog) -> None:
    with pytest.raises(InputError, match="map_over"):
        pipeline(log).map(GOOD, map_over=[])


def test_mapping_over_one_input_twice(log: CallLog) -> None:
    with pytest.raises(InputError, match="'factor'"):
        pipeline(log).map({**GOOD, "factor": [1.0]}, map_over=["factor", "factor"])


def test_mapping_over_an_input_that_is_not_given(log: CallLog) -> None:
    with pytest.raises(InputError, match="'offset'"):
        pipeline(log).map(GOOD, map_over="offset")


@pytest.mark.parametrize("value", ["Raise", "skip", None, True])
def test_on_error_is_checked(value: Any, log: CallLog) -> None:
    with pytest.raises(InputError, match=r"on_error.*'raise'.*'continue'"):
        pipeline(log).map(GOOD, on_error=value)


def test_an_unknown_option_is_a_type_error_with_a_close_match(log: CallLog) -> None:
    for call in (pipeline(log).map, pipeline(log).run):
        with pytest.raises(TypeError, match=r"'max_worker'.*'max_workers'"):
            call(GOOD, max_worker=2)


@pytest.mark.parametrize(
    "executor", ["paralel", "parallel:0", "parallel:x", "parallel:", "", 5, None, ["parallel"]]
)
def test_executors_are_checked(executor: Any, log: CallLog) -> None:
    with pytest.raises(InputError, match="map_executor"):
        Engine(map_executor=executor)
    with pytest.raises(InputError, match="map_executor"):
        pipeline(log).map(GOOD, map_executor=executor)
    with pytest.raises(InputError, match="node_executor"):
        Engine(node_executor=executor)


def test_an_executor_for_an_output_that_does_not_exist(log: CallLog) -> None:
    with pytest.raises(GraphError, match=r"'scald'.*'scaled'"):
        pipeline(log).map(GOOD, map_executor={"scald": "parallel"})


@pytest.mark.parametrize("width", [0, -1, 1.5, "2", True])
def test_max_workers_is_checked(width: Any) -> None:
    with pytest.raises(InputError, match="max_workers"):
        Engine(max_workers=width)


def test_options_of_with_are_checked(log: CallLog) -> None:
    with pytest.raises(TypeError, match=r"'engin'.*'engine'"):
        pipeline(log).with_(engin=Engine())


@pytest.mark.parametrize("make", [lambda: Store("s3://bucket"), lambda: Store(durability="disk")])  # type: ignore[arg-type]
def test_stores_are_checked(make: Callable[[], Store]) -> None:
    from gristmill import StoreError

    with pytest.raises(StoreError):
        make()
