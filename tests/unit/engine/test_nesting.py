"""Pipelines in pipelines: each call inside is cached like any other, at any depth, mapped over or not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import Node, Pipeline, Store, node
from gristmill.errors import GraphError, GristmillError, InputError


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def double(x: int) -> int:
    return 2 * x


def total(ys: list[int]) -> int:
    return sum(ys)


def add(x: int, y: int) -> int:
    return x + y


def recorded(log: CallLog) -> Pipeline:
    """A pipeline of one function that says when it runs."""
    path = log.path

    def square(x: int) -> int:
        record(path, f"square {x}")
        return x * x

    return Pipeline([square], store=None)


def summed(log: CallLog) -> Any:
    path = log.path

    def sum_(squares: list[int]) -> int:
        record(path, "sum")
        return sum(squares)

    return node(sum_, output_name="sum")


def squares(log: CallLog, *, cache: bool = True) -> Node:
    """The pipeline above, mapped over a list."""
    names, made = {"xs": "x"}, {"square": "squares"}
    return recorded(log).as_node(map_over="x", input_mapping=names, output_mapping=made, cache=cache)


def test_an_inner_map_shares_its_calls_between_runs(log: CallLog) -> None:
    """Six and a reduction; nothing; two more and a reduction."""
    outer = Pipeline([squares(log), summed(log)])
    for xs, calls in (([*range(6)], 6 + 1), ([*range(6)], 0), ([*range(8)], 2 + 1)):
        assert outer("sum", xs=xs) == sum(x * x for x in xs)
        assert len(log.take()) == calls
    result = outer.map({"xs": [*range(9)]}, map_executor="sequential")
    assert (result["sum"], result.stats.computed, result.stats.cached) == (204, 2, 8)


def test_an_inner_map_over_an_empty_list_reduces_over_an_empty_list(log: CallLog) -> None:
    outer = Pipeline([squares(log), summed(log)])
    assert (outer("sum", xs=[]), outer("squares", xs=[])) == (0, [])
    assert log.take() == ["sum"]


def test_lists_are_given_and_come_back(executor: str) -> None:
    twice = Pipeline([double], store=None).as_node(map_over="x")
    values: list[Any] = [1, 2**70, True, 2.5, np.float32(1.5), "ab", (1,)]
    result = Pipeline([twice]).map({"x": values}, map_executor=executor)["double"]
    assert result == [2 * value for value in values]
    assert [type(one) for one in result] == [type(2 * one) for one in values]
    arrays = [np.arange(3), np.arange(4.0)]
    found = Pipeline([twice])("double", x=arrays)
    assert isinstance(found, list)
    assert [one.tolist() for one in found] == [[0, 2, 4], [0.0, 2.0, 4.0, 6.0]]


def test_lists_may_differ_in_length_in_an_outer_map(log: CallLog, executor: str) -> None:
    outer = Pipeline([squares(log), summed(log)])
    lists = [[1, 2], [], [3], [2, 3, 1]]
    result = outer.map({"xs": lists}, map_over="xs", map_executor=executor, output_name=["squares", "sum"])
    assert result["squares"].tolist() == [[x * x for x in xs] for xs in lists]
    assert result["sum"].tolist() == [5, 0, 9, 14]
    assert sorted(log.take()) == ["square 1", "square 2", "square 3", *["sum"] * 4]
    assert result.stats.computed == 3 + 4
    assert outer.map({"xs": lists}, map_over="xs", map_executor=executor).stats.computed == 0
    more = outer.map({"xs": [[1, 2], [9]]}, map_over="xs", map_executor=executor)
    assert (more["sum"].tolist(), log.take()) == ([5, 81], ["square 9", "sum"])


def test_a_pipeline_with_mapspecs_gets_and_gives_arrays(executor: str) -> None:
    inner = Pipeline(
        [(double, "x[i] -> double[i]"), node(lambda double: double.sum(), output_name="sum")], store=None
    )
    made = inner.as_node(name="inner", output_name=("double", "sum"))
    result = Pipeline([made]).run({"x": [1, 2, 3]})
    assert (result["double"].tolist(), result["sum"]) == ([2, 4, 6], 12)
    mapped = Pipeline([made]).map({"x": [[1, 2], [3]]}, map_over="x", map_executor=executor)
    assert [one.tolist() for one in mapped["double"]] == [[2, 4], [6]]
    assert mapped["sum"].tolist() == [6, 6]
    over = inner.as_node(output_name=("double", "sum"), map_over="x")
    listed = Pipeline([over]).map({"x": [[1, 2], [3]]}, map_executor=executor)
    assert [one.tolist() for one in listed["double"]] == [[2, 4], [6]]
    assert all(isinstance(one, np.ndarray) for one in listed["double"])
    assert listed["sum"] == [6, 6]


def test_both_modes_and_values_that_all_share(executor: str) -> None:
    inner = Pipeline([add, node(lambda add, k: add * k, output_name="scaled")], store=None)
    lists: dict[str, Any] = {"x": [1, 2], "y": [10, 20], "k": 3}
    zipped = Pipeline([inner.as_node(map_over=["x", "y"])]).map(lists, map_executor=executor)
    assert zipped["scaled"] == [33, 66]
    product = inner.as_node(map_over=["x", "y"], map_mode="product", output_name=("add", "scaled"))
    result = Pipeline([product]).map(lists, map_executor=executor)
    assert result["scaled"] == [[33, 63], [36, 66]]
    assert result["add"] == [[11, 21], [12, 22]]
    with pytest.raises(InputError, match=r"x.*2.*y.*3|y.*3.*x.*2"):
        Pipeline([inner.as_node(map_over=["x", "y"])]).map({**lists, "y": [1, 2, 3]})


def test_a_list_of_its_own_is_zipped_with_one_for_all(executor: str) -> None:
    """`x` is another list at each index, `y` the same one."""
    outer = Pipeline([Pipeline([add], store=None).as_node(map_over=["x", "y"])])
    given: dict[str, Any] = {"x": [[1, 2], [3, 4]], "y": [10, 20]}
    assert outer.map(given, map_over="x", map_executor=executor)["add"].tolist() == [[11, 22], [13, 24]]
    with pytest.raises(GristmillError, match=r"length|elements"):
        outer.map({**given, "x": [[1, 2], [3]]}, map_over="x", map_executor=executor)
    product = Pipeline([Pipeline([add], store=None).as_node(map_over=["x", "y"], map_mode="product")])
    result = product.map({**given, "x": [[1], [3, 4], []]}, map_over="x", map_executor=executor)
    assert result["add"].tolist() == [[[11, 21]], [[13, 23], [14, 24]], []]


def test_what_does_not_depend_on_a_list_is_repeated_along_it(log: CallLog, executor: str) -> None:
    path = log.path

    def base(k: int) -> int:
        record(path, "base")
        return 10 * k

    inner = Pipeline([base, double], store=None).as_node(map_over="x", output_name=("base", "double"))
    result = Pipeline([inner]).map({"x": [1, 2, 3], "k": 4}, map_executor=executor)
    assert (result["base"], result["double"], log.take()) == ([40] * 3, [2, 4, 6], ["base"])
    outer = Pipeline([inner]).map({"x": [[1, 2], [3]], "k": 4}, map_over="x", map_executor=executor)
    assert (outer["base"].tolist(), outer["double"].tolist()) == ([[40, 40], [40]], [[2, 4], [6]])
    by_k = Pipeline([inner]).map({"x": [1, 2], "k": [4, 5]}, map_over="k", map_executor=executor)
    assert (by_k["base"].tolist(), by_k["double"].tolist()) == ([[40, 40], [50, 50]], [[2, 4], [2, 4]])


def test_any_depth(log: CallLog, executor: str) -> None:
    """Lists of lists of lists, each level with a reduction of its own."""
    path = log.path

    def increment(x: int) -> int:
        record(path, f"increment {x}")
        return x + 1

    def line(ys: list[int]) -> int:
        return sum(ys)

    def page(lines: list[int]) -> int:
        return max(lines)

    words = Pipeline([increment], store=None).as_node(
        map_over="x", input_mapping={"xs": "x"}, output_mapping={"increment": "ys"}
    )
    lines = Pipeline([words, line], store=None).as_node(
        map_over="xs", input_mapping={"rows": "xs"}, output_mapping={"line": "lines"}
    )
    pages = Pipeline([lines, page], store=None).as_node(
        map_over="rows", input_mapping={"book": "rows"}, output_mapping={"page": "pages"}
    )
    book = [[[1, 2], [3]], [[4], [1, 1, 1]], [[5, 6, 7]]]
    expected = [max(sum(x + 1 for x in row) for row in rows) for rows in book]
    outer = Pipeline([pages, node(lambda pages: list(pages), output_name="all")])
    result = outer.map({"book": book}, map_executor=executor)
    assert result["all"] == expected
    assert sorted(log.take()) == [f"increment {x}" for x in range(1, 8)]
    assert outer.map({"book": book}, map_executor=executor).stats.computed == 0
    grown = [*book, [[8]]]
    assert outer.map({"book": grown}, map_executor=executor)["all"] == [*expected, 9]
    assert log.take() == ["increment 8"]
    shelf = outer.map({"book": [book, grown, [[[9]]]]}, map_over="book", map_executor=executor)
    assert shelf["all"].tolist() == [expected, [*expected, 9], [10]]
    assert log.take() == ["increment 9"]


def test_axes_that_are_made_inside(executor: str) -> None:
    inner = Pipeline(
        [
            node(
                str.split,
                output_name="word",
                mapspec="... -> word[*j]",
                renames={"self": "text"},
                bound={"sep": None, "maxsplit": -1},
            ),
            node(len, output_name="length", mapspec="word[j] -> length[j]", renames={"obj": "word"}),
            node(lambda length: int(length.sum()), output_name="letters"),
        ],
        store=None,
    ).as_node(output_name=("length", "letters"))
    one = Pipeline([inner]).run({"text": "a bcd"})
    assert (one["length"].tolist(), one["letters"]) == ([1, 3], 4)
    given = {"text": ["a bcd", "", "ef gh ijk"]}
    result = Pipeline([inner]).map(given, map_over="text", map_executor=executor)
    assert [each.tolist() for each in result["length"]] == [[1, 3], [], [2, 2, 3]]
    assert result["letters"].tolist() == [4, 0, 7]


def test_tree_reductions_inside(executor: str) -> None:
    tree = node(lambda parts: sum(parts), output_name="sum", reduce="double", fan_in=2)
    inner = Pipeline([(double, "x[i] -> double[i]"), tree], store=None).as_node()
    assert Pipeline([inner])("sum", x=[1, 2, 3, 4, 5]) == 30
    result = Pipeline([inner]).map({"x": [[1, 2, 3], [4], [5] * 7]}, map_over="x", map_executor=executor)
    assert result["sum"].tolist() == [12, 8, 70]
    plain = Pipeline([tree.with_(reduce="parts", fan_in=2)], store=None).as_node()
    result = Pipeline([plain]).map(
        {"parts": [[1, 2, 3], [4], [5] * 7]}, map_over="parts", map_executor=executor
    )
    assert result["sum"].tolist() == [6, 4, 35]


def test_only_what_is_wanted_runs_at_every_level(log: CallLog) -> None:
    path = log.path

    def left(x: int) -> int:
        record(path, "left")
        return x

    def right(x: int, k: int) -> int:
        record(path, "right")
        return x + k

    inner = Pipeline([left, right], store=None).as_node(output_name=("left", "right"))
    middle = Pipeline([inner], store=None).as_node(map_over="x", output_name=("left", "right"))
    outer = Pipeline([middle])
    assert outer("left", x=[1, 2]) == [1, 2]  # and `k` is not missed
    assert log.take() == ["left", "left"]
    assert outer.run({"left": 3, "x": [1], "k": 1}) == {"right": [2]}
    assert log.take() == ["right"]
    with pytest.raises(InputError, match="'k' is missing: needed by right"):
        outer.run({"x": [1]})


def test_names_values_and_scopes_of_its_node() -> None:
    inner = Pipeline([add, node(lambda add, factor=2: add * factor, output_name="scaled")], store=None)
    made = inner.as_node(name="work", input_mapping={"a": "x"}, output_mapping={"scaled": "result"})
    assert (made.parameters, made.output_names, dict(made.defaults)) == (
        ("a", "y", "factor"),
        ("result",),
        {"factor": 2},
    )
    assert Pipeline([made])("result", a=1, y=2) == 6
    assert Pipeline([made.with_(bound={"y": 5})])("result", a=1) == 12
    assert Pipeline([made.with_(defaults={"factor": 3})])("result", a=1, y=2) == 9
    assert Pipeline([made]).bind(factor=10).unbind("factor")("result", a=1, y=2) == 6
    assert Pipeline([made]).rename({"a": "b", "result": "r"})("r", b=1, y=2) == 6
    scoped = Pipeline([made.with_(scope="p"), made.with_(scope="q")])
    result = scoped.run({"p.a": 1, "p.y": 2, "q.a": 3, "q.y": 4})
    assert result == {"p.result": 6, "q.result": 14}
    over = inner.as_node(map_over="x").with_(bound={"x": [1, 2], "y": 0})
    assert Pipeline([over])("scaled") == [2, 4]


def test_a_list_that_two_nested_pipelines_and_a_function_take() -> None:
    one = Pipeline([double], store=None).as_node(name="one", map_over="x")
    other = Pipeline([node(lambda x: -x, output_name="minus")], store=None).as_node(
        name="other", map_over="x"
    )
    outer = Pipeline([one, other, node(len, output_name="count", renames={"obj": "x"})])
    assert outer.run({"x": [3, 4]}) == {"double": [6, 8], "minus": [-3, -4], "count": 2}
    chained = Pipeline(
        [
            Pipeline([double], store=None).as_node(map_over="x"),
            Pipeline([node(lambda double: double + 1, output_name="more")], store=None).as_node(
                map_over="double"
            ),
        ]
    )
    assert chained("more", x=[1, 2]) == [3, 5]
    result = chained.map({"x": [[1], [2, 3]]}, map_over="x", map_executor="sequential")
    assert result["more"].tolist() == [[3], [5, 7]]


def test_what_an_outer_function_returns_is_mapped_over(executor: str) -> None:
    def listed(n: int) -> list[int]:
        return list(range(n))

    outer = Pipeline([node(listed, output_name="x"), Pipeline([double], store=None).as_node(map_over="x")])
    assert outer("double", n=3) == [0, 2, 4]
    result = outer.map({"n": [2, 0, 3]}, map_over="n", map_executor=executor)
    assert result["double"].tolist() == [[0, 2], [], [0, 2, 4]]
    reduced = Pipeline(
        [
            node(double, output_name="x", mapspec="x0[i] -> x[i]", renames={"x": "x0"}),
            Pipeline([add], store=None).as_node(map_over="x"),
        ]
    )
    assert reduced.map({"x0": [1, 2], "y": 1}, map_executor=executor)["add"] == [3, 5]


def test_a_mapspec_of_its_node(executor: str) -> None:
    inner = Pipeline([add, node(lambda add: str(add), output_name="text")], store=None)
    made = inner.as_node().with_(mapspec="x[i], y[j] -> text[i, j]")
    result = Pipeline([made]).map({"x": [1, 2], "y": [10, 20]}, map_executor=executor)
    assert result["text"].tolist() == [["11", "21"], ["12", "22"]]
    rows = Pipeline([node(lambda row: int(row.sum()), output_name="sum")], store=None).as_node()
    result = Pipeline([rows.with_(mapspec="row[i, :] -> sum[i]")]).map(
        {"row": [[1, 2], [3, 4]]}, map_executor=executor
    )
    assert result["sum"].tolist() == [3, 7]
    letters = Pipeline([node(list, output_name="letter", renames={"iterable": "word"})], store=None).as_node()
    spread = letters.with_(mapspec="word[i] -> letter[i, *j]")
    found = Pipeline([spread]).map({"word": ["ab", "c"]}, map_executor=executor)["letter"]
    assert found.tolist() == [["a", "b"], ["c"]]


def test_failures_inside_skip_what_depends_on_them(executor: str) -> None:
    def picky(x: int) -> int:
        if x == 2:
            raise ValueError("no twos")
        return x

    made = Pipeline([picky], store=None).as_node(map_over="x", output_mapping={"picky": "ys"})
    given = {"x": [[1, 2], [3]]}
    for errors, expected in (("skip", [None, 3]), ("drop", [1, 3])):
        outer = Pipeline([made.with_(errors=errors), total])  # type: ignore[arg-type]
        result = outer.map(given, map_over="x", on_error="continue", map_executor=executor)
        assert result["total"].tolist() == expected
        assert [(one.output_name, one.index) for one in result.errors] == [("picky.picky", (0, 1))]
    with pytest.raises(ValueError, match="no twos"):
        outer.map(given, map_over="x", map_executor=executor)


def test_nothing_is_kept_of_a_node_that_is_not_cached(log: CallLog) -> None:
    with Store.temporary() as store:
        outer = Pipeline([squares(log, cache=False), summed(log)], store=store)
        for _ in range(2):
            assert outer("sum", xs=[1, 2]) == 5
            assert [call for call in log.take() if call != "sum"] == ["square 1", "square 2"]


def test_it_can_be_called() -> None:
    made = Pipeline([double], store=None).as_node(map_over="x")
    assert made(x=[1, 2]) == [2, 4]
    both = Pipeline([double, node(lambda x: -x, output_name="minus")], store=None).as_node()
    assert both(x=3) == (6, -3)


def test_pipelines_among_nodes_give_theirs() -> None:
    inner = Pipeline([double], store=None)
    assert Pipeline([inner, node(lambda double: double + 1, output_name="more")])("more", x=2) == 5


def test_bad_nesting_says_what_is_wrong() -> None:
    inner = Pipeline([double], store=None)
    with pytest.raises(GraphError, match=r"'z', which the pipeline does not have; it has 'x'"):
        inner.as_node(input_mapping={"a": "z"})
    with pytest.raises(GraphError, match=r"output_mapping has 'dubble'.*did you mean 'double'"):
        inner.as_node(output_mapping={"dubble": "y"})
    with pytest.raises(GraphError, match="gives 'x' several names"):
        inner.as_node(input_mapping={"a": "x", "b": "x"})
    with pytest.raises(GraphError, match="is no output of this graph"):
        inner.as_node(output_name="z")
    with pytest.raises(InputError, match=r"cannot map over 'z': it is no input"):
        inner.as_node(map_over="z")
    with pytest.raises(GraphError, match="map_mode is 'zipp'"):
        inner.as_node(map_mode="zipp")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="is a pipeline, for which version means nothing"):
        Pipeline([inner.as_node().with_(version="2")])
    with pytest.raises(GraphError, match="shout takes text: str, but double returns int"):
        Pipeline([inner.as_node(), node(shout, renames={"text": "double"})])


def shout(text: str) -> str:
    return text.upper()
