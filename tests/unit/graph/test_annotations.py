"""Annotations along edges: a pipeline that surely cannot work is refused when it is built."""

import collections.abc as c
import dataclasses
import decimal
import pathlib
import sys
import typing
from typing import Any, Literal, NewType, Optional, Protocol, TypedDict, TypeVar

import numpy as np
import numpy.typing as npt
import pydantic
import pytest
import zarr

from gristmill import Pipeline
from gristmill.errors import GraphError
from gristmill.graph.annotations import check_annotations
from gristmill.graph.compatible import compatible, holds_many
from gristmill.graph.graph import Graph
from gristmill.graph.node import Node, node


class Base: ...


class Derived(Base): ...


class Unrelated: ...


class HasRun(Protocol):
    def run(self) -> None: ...


class Row(TypedDict):
    a: int


class Pair(typing.NamedTuple):
    a: int


UserId = NewType("UserId", int)
T = TypeVar("T")
BOUND = TypeVar("BOUND", bound=int)
EITHER = TypeVar("EITHER", str, bytes)

FITTING: list[tuple[Any, Any]] = [
    (int, float),
    (bool, int),
    (int, bool),
    (int, complex),
    (np.float64, float),
    (float, np.float32),
    (np.int64, int),
    (decimal.Decimal, float),
    (list, np.ndarray),
    (np.ndarray, list[float]),
    (np.ndarray, zarr.Array),
    (npt.NDArray[np.float64], npt.ArrayLike),
    (Derived, Base),
    (Base, Derived),
    (Base, HasRun),
    (int | None, int),
    (Optional[str], str),  # noqa: UP045 - both spellings are in use
    (int, str | float),
    (dict[str, int], Row),
    (Row, c.Mapping[str, int]),
    (tuple[int], Pair),
    (UserId, int),
    (int, UserId),
    (T, int),
    (str, T),
    (Any, int),
    (str, object),
    (None, None),
    (list, "unresolved"),
    (list[int], c.Sequence[float]),
    (list[int], c.Iterable),
    (list[Any], list[int]),
    (tuple[int, ...], list[int]),
    (Literal["a"], str),
    (c.Callable[[int], int], c.Callable[..., Any]),
    (type[int], type),
    (npt.NDArray[np.int64], npt.NDArray[np.float64]),
    (npt.NDArray[Any], npt.NDArray[np.str_]),
    (npt.NDArray[np.float64], list[list[float]]),
    (list[list[int]], npt.NDArray[np.float64]),
    (npt.NDArray[np.str_], npt.NDArray[np.object_]),
    (np.ndarray, npt.NDArray[np.str_]),
    (dict[str, int], dict[str, float]),
    (dict[str, int], c.Mapping[Any, Any]),
    (dict[str, int], dict),
    (tuple[int, str], tuple[float, str]),
    (tuple[int, str], tuple),
    (tuple[int, int], list[int]),
    (int, BOUND),
    (BOUND, int),
    (str, EITHER),
    (EITHER, str),
    (c.Generator[int, None, None], c.Iterator[int]),
]

CLASHING: list[tuple[Any, Any]] = [
    (str, int),
    (int, str),
    (str, float),
    (float, int),
    (None, int),
    (bytes, str),
    (str, pathlib.Path),
    (str, list),
    (dict, list),
    (list, dict),
    (int, list[int]),
    (list[int], int),
    (np.ndarray, str),
    (np.ndarray, dict),
    (str, np.float64),
    (Base, Unrelated),
    (Base, int),
    (int | float, str),
    (Literal["a"], int),
    (list[int], list[str]),
    (list[list[int]], list[list[str]]),
    (list[str], c.Sequence[int]),
    (npt.NDArray[np.float64], npt.NDArray[np.str_]),
    (npt.NDArray[np.str_], npt.NDArray[np.float64]),
    (npt.NDArray[np.datetime64], npt.NDArray[np.float64]),
    (list[str], npt.NDArray[np.float64]),
    (npt.NDArray[np.float64], list[str]),
    (dict[str, int], dict[str, str]),
    (dict[str, int], dict[int, int]),
    (dict[str, int], c.Mapping[str, str]),
    (tuple[int, str], tuple[int, int]),
    (tuple[int, int], tuple[int, int, int]),
    (str, BOUND),
    (BOUND, str),
    (float, EITHER),
    (int | None, str),
    (list[int] | None, list[str]),
]


@pytest.mark.parametrize(("given", "wanted"), FITTING)
def test_types_that_may_work_together_do(given: Any, wanted: Any) -> None:
    assert compatible(given, wanted)


@pytest.mark.parametrize(("given", "wanted"), CLASHING)
def test_types_that_surely_do_not_work_together_do_not(given: Any, wanted: Any) -> None:
    assert not compatible(given, wanted)


MANY: list[Any] = [list, list[int], tuple, np.ndarray, npt.NDArray[np.float64], npt.ArrayLike, zarr.Array]
MANY += [c.Sequence, c.Iterable[int], Any, object, Unrelated, list[int] | None]


@pytest.mark.parametrize("wanted", MANY)
def test_whatever_may_be_many_elements_accepts_a_reduction(wanted: Any) -> None:
    assert holds_many(wanted)


@pytest.mark.parametrize("wanted", [int, float, str, bool, np.float64, dict, Row, int | None, UserId, None])
def test_what_is_one_value_accepts_no_reduction(wanted: Any) -> None:
    assert not holds_many(wanted)


# -- edges


def function(returns: Any, **parameters: Any) -> c.Callable[..., Any]:
    """A function with these annotations."""
    scope: dict[str, Any] = {}
    exec(f"def function({', '.join(parameters)}): ...", scope)
    made: c.Callable[..., Any] = scope["function"]
    made.__annotations__ = {**parameters, "return": returns}
    return made


def made(returns: Any, mapspec: str | None = None) -> Node:
    names = {"x": int} if mapspec and mapspec.startswith("x") else {}
    return node(function(returns, **names), output_name="y", mapspec=mapspec)


def taken(wanted: Any, mapspec: str | None = None) -> Node:
    return node(function(Any, y=wanted), output_name="z", mapspec=mapspec)


EDGES: list[tuple[Node, Node, str]] = [
    (made(str), taken(int), "takes y: int, but function returns str"),
    (made(str), taken(str), ""),
    (made(list[str]), taken(int), "returns list"),
    # elementwise: one element with one element
    (made(str, "x[i] -> y[i]"), taken(int, "y[i] -> z[i]"), "returns str"),
    (made(int, "x[i] -> y[i]"), taken(int, "y[i] -> z[i]"), ""),
    # reductions: something that holds many, whose elements fit
    (made(int, "x[i] -> y[i]"), taken(list[float]), ""),
    (made(int, "x[i] -> y[i]"), taken(np.ndarray), ""),
    (made(int, "x[i] -> y[i]"), taken(zarr.Array), ""),
    (made(int, "x[i] -> y[i]"), taken(list[str]), r"returns int \(each element of y\)"),
    (made(int, "x[i] -> y[i]"), taken(int), r"many elements of y\[i\]; map it"),
    (made(int, "x[i, j] -> y[i, j]"), taken(list[list[int]]), ""),
    (made(int, "x[i, j] -> y[i, j]"), taken(list[list[str]]), "each element"),
    (made(int, "x[i, j] -> y[i, j]"), taken(list[int], "y[i, :] -> z[i]"), ""),
    (made(int, "x[i, j] -> y[i, j]"), taken(int, "y[i, :] -> z[i]"), "many elements"),
    (made(int, "x[i] -> y[i]"), taken(npt.NDArray[np.float64]), ""),
    (made(str, "x[i] -> y[i]"), taken(npt.NDArray[np.object_]), ""),
    (made(str, "x[i] -> y[i]"), taken(npt.NDArray[np.float64]), "each element of y"),
    (made(npt.NDArray[np.float64], "x[i] -> y[i]"), taken(npt.NDArray[np.float64]), ""),
    (made(npt.NDArray[np.float64], "x[i] -> y[i]"), taken(npt.NDArray[np.str_]), "each element of y"),
    (made(int, "x[i, j] -> y[i, j]"), taken(npt.NDArray[np.float64]), ""),
    (made(str, "x[i, j] -> y[i, j]"), taken(npt.NDArray[np.float64], "y[:, j] -> z[j]"), "each element"),
    (made(int, "x[i] -> y[i]"), taken(list[int] | None), ""),
    (made(int, "x[i] -> y[i]"), taken(list[str] | None), "each element of y"),
    (made(int, "x[i] -> y[i]"), taken(list[str] | list[int]), ""),
    (made(int | None, "x[i] -> y[i]"), taken(list[int]), ""),
    (made(int, "x[i] -> y[i]"), taken(list[Any]), ""),
    (made(Any, "x[i] -> y[i]"), taken(list[str]), ""),
    (made(int, "x[i] -> y[i]"), taken(list.__class_getitem__(T)), ""),
    (made(int, "x[i] -> y[i]"), taken(list.__class_getitem__(BOUND)), ""),
    (made(str, "x[i] -> y[i]"), taken(list.__class_getitem__(BOUND)), "each element of y"),
    (made(dict[str, int], "x[i] -> y[i]"), taken(list[dict[str, str]]), "each element of y"),
    (made(int, "x[i] -> y[i]"), taken("list[str]"), "each element of y"),
    (made(int, "x[i] -> y[i]"), taken("list[Nowhere]"), ""),
    (made("int", "x[i] -> y[i]"), taken("str", "y[i] -> z[i]"), "returns int"),
    # inner axes: what is in the container that one call returns
    (made(list[str], "... -> y[i]"), taken(str, "y[i] -> z[i]"), ""),
    (made(list[str], "... -> y[i]"), taken(int, "y[i] -> z[i]"), r"returns list\[str\]"),
    (made(np.ndarray, "... -> y[i]"), taken(int, "y[i] -> z[i]"), ""),
    (made(c.Generator[str, None, None], "... -> y[i]"), taken(int, "y[i] -> z[i]"), "returns"),
    (made(c.Iterator[int], "... -> y[i]"), taken(int, "y[i] -> z[i]"), ""),
    (made(list[int], "x[i] -> y[i, *j]"), taken(int, "y[i, j] -> z[i, j]"), ""),
    (made(list[int], "x[i] -> y[i, *j]"), taken(list[str], "y[i, :] -> z[i]"), "each element"),
]


@pytest.mark.parametrize(("maker", "taker", "message"), EDGES)
def test_an_edge_carries_what_its_mapspecs_leave_of_a_value(maker: Node, taker: Node, message: str) -> None:
    graph = Graph([maker, taker])
    if not message:
        check_annotations(graph)
        return
    with pytest.raises(GraphError, match=message):
        check_annotations(graph)


@pytest.mark.parametrize(
    ("returns", "takes", "fits"),
    [
        (int, list[int], True),
        (int, list[float], True),
        (str, list[int], False),
        (int, "Nowhere", True),
        (Any, list[str], True),
        (list[int], list[int], False),
    ],
)
def test_a_tree_reduction_takes_lists_of_what_it_returns(returns: Any, takes: Any, fits: bool) -> None:  # noqa: FBT001
    tree = node(function(returns, y=takes), output_name="z", reduce="y")
    graph = Graph([made(Any, "x[i] -> y[i]"), tree])
    if fits:
        check_annotations(graph)
        return
    with pytest.raises(GraphError, match="level by level, so it gets lists of what it returns"):
        check_annotations(graph)


def test_types_are_not_looked_at_when_that_is_turned_off() -> None:
    def shout(text: str) -> str:
        return text.upper()

    def add(shout: list[int]) -> int:
        return len(shout)

    nodes = [node(shout, mapspec="text[i] -> shout[i]"), node(add)]
    with pytest.raises(GraphError, match=r"returns str \(each element of shout\)"):
        Pipeline(nodes)
    assert Pipeline(nodes, validate_types=False).map({"text": ["a", "b"]})["add"] == 2


def test_each_of_several_outputs_has_its_part_of_the_tuple() -> None:
    several = node(function(tuple[int, str]), output_name=("y", "other"))
    check_annotations(Graph([several, taken(int)]))
    with pytest.raises(GraphError, match="takes y: str"):
        check_annotations(Graph([several, taken(str)]))


def test_a_picker_may_return_anything() -> None:
    several = node(function(dict[str, int]), output_name=("y", "o"), output_picker=lambda r, name: r[name])
    check_annotations(Graph([several, taken(str)]))


def test_what_a_renamed_parameter_is_annotated_with_counts() -> None:
    taker = node(function(Any, text=str), output_name="z", renames={"text": "y"})
    with pytest.raises(GraphError, match="function takes text: str, but function returns int"):
        check_annotations(Graph([made(int), taker]))


def test_pydantic_converts_so_anything_may_be_given() -> None:
    class Model(pydantic.BaseModel):
        y: int

    check_annotations(Graph([made(str), node(Model)]))


def test_a_dataclass_does_not_convert() -> None:
    @dataclasses.dataclass
    class Data:
        y: int

    with pytest.raises(GraphError, match="Data takes y: int"):
        check_annotations(Graph([made(str), node(Data)]))


def test_a_supplied_value_is_not_checked_against_the_node_it_stands_for() -> None:
    graph = Graph([made(str), taken(int)]).prune("z", supplied={"y"})
    check_annotations(graph)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="type statements came with Python 3.12")
def test_an_alias_is_what_it_stands_for() -> None:
    names: dict[str, Any] = {}
    exec(
        "type Ints = list[int]\ntype Pair[T] = tuple[T, str]\ntype Json = list[Json] | int\ntype Bad = nothing",
        names,
    )
    assert not compatible(names["Ints"], list[str])
    assert compatible(names["Ints"], list[float])
    assert not compatible(names["Pair"][int], tuple[str, str])
    assert compatible(tuple[int, str], names["Pair"][int])
    assert compatible(names["Json"], names["Json"])
    assert compatible(names["Bad"], int)
