"""What is computed: what is asked for and what that needs, once."""

from tests.support.calls import CallLog, record

from gristmill import Pipeline, node


def add(x: int, y: int) -> int:
    return x + y


# -- what is asked for


def chain(log: CallLog) -> Pipeline:
    path = log.path

    def first(x: int) -> int:
        record(path, "first", x)
        return x + 1

    def second(first: int) -> int:
        record(path, "second", first)
        return first * 10

    def side(x: int) -> int:
        record(path, "side", x)
        return -x

    return Pipeline(
        [(first, "x[i] -> first[i]"), (second, "first[i] -> second[i]"), (side, "x[i] -> side[i]")]
    )


def test_all_leaves_are_computed_by_default(log: CallLog, executor: str) -> None:
    result = chain(log).map({"x": [1]}, map_executor=executor)
    assert sorted(result) == ["second", "side"]
    assert log.take() == ["first 1", "second 2", "side 1"]


def test_output_name_prunes_what_it_does_not_need(log: CallLog, executor: str) -> None:
    result = chain(log).map({"x": [1, 2]}, output_name="first", map_executor=executor)
    assert list(result) == ["first"]
    assert log.take() == ["first 1", "first 2"]


def test_several_output_names(log: CallLog, executor: str) -> None:
    result = chain(log).map({"x": [1]}, output_name=["side", "first"], map_executor=executor)
    assert {name: result[name].tolist() for name in result} == {"side": [-1], "first": [2]}
    assert log.take() == ["first 1", "side 1"]


def test_a_supplied_intermediate_cuts_what_is_above_it(log: CallLog, executor: str) -> None:
    result = chain(log).map({"first": [5, 6]}, output_name="second", map_executor=executor)
    assert result["second"].tolist() == [50, 60]
    assert log.take() == ["second 5", "second 6"]


def test_a_mapped_output_can_be_supplied_as_an_intermediate(log: CallLog, executor: str) -> None:
    pipeline = chain(log)
    first = pipeline.map({"x": [1, 2]}, output_name="first", map_executor=executor)["first"]
    log.take()
    assert pipeline.map({"first": first}, output_name="second", map_executor=executor)["second"].tolist() == [
        20,
        30,
    ]
    assert log.take() == ["second 2", "second 3"]


# -- map_over


def plain() -> Pipeline:
    return Pipeline([node(add, output_name="s"), node(lambda s, k: s * k, output_name="p")])


def test_map_over_one_input(executor: str) -> None:
    result = plain().map({"x": [1, 2], "y": 10, "k": 3}, map_over="x", map_executor=executor)
    assert result["p"].tolist() == [33, 36]


def test_map_over_zips_by_default(executor: str) -> None:
    result = plain().map({"x": [1, 2], "y": 10, "k": [3, 4]}, map_over=["x", "k"], map_executor=executor)
    assert result["p"].tolist() == [33, 48]


def test_map_over_a_product(executor: str) -> None:
    result = plain().map(
        {"x": [1, 2], "y": 10, "k": [3, 4, 5]}, map_over=["x", "k"], map_mode="product", map_executor=executor
    )
    assert result["p"].tolist() == [[33, 44, 55], [36, 48, 60]]


def test_map_over_computes_what_does_not_depend_on_it_once(log: CallLog, executor: str) -> None:
    path = log.path

    def base(y: int) -> int:
        record(path, "base", y)
        return y

    pipeline = Pipeline([node(base), node(lambda base, x: base + x, output_name="z")])
    assert pipeline.map({"x": [1, 2, 3], "y": 10}, map_over="x", map_executor=executor)["z"].tolist() == [
        11,
        12,
        13,
    ]
    assert log.take() == ["base 10"]


def test_map_over_a_pipeline_that_maps_and_reduces(executor: str) -> None:
    pipeline = Pipeline(
        [
            node(add, output_name="z", mapspec="x[i] -> z[i]"),
            node(lambda z: int(z.sum()), output_name="t"),
        ]
    )
    result = pipeline.map({"x": [1, 2, 3], "y": [0, 100]}, map_over="y", map_executor=executor)
    assert result["t"].tolist() == [6, 306]


def test_map_over_gives_what_a_loop_over_run_gives(executor: str) -> None:
    pipeline = plain()
    mapped = pipeline.map({"x": range(5), "y": 2, "k": 3}, map_over="x", map_executor=executor)
    assert mapped["p"].tolist() == [pipeline("p", x=x, y=2, k=3) for x in range(5)]
