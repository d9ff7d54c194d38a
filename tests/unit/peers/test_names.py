"""What users of other map libraries expect of names: renaming hides, scopes keep apart."""

import pytest

from gristmill import Pipeline, node
from gristmill.errors import GraphError, InputError


def double(x: int) -> int:
    return 2 * x


def shifted(double: int, by: int = 1) -> int:
    return double + by


def test_a_renamed_output_hides_the_original() -> None:
    pipeline = Pipeline([node(double, output_name="y"), node(shifted, renames={"double": "y"})])
    assert (pipeline.outputs, pipeline("shifted", x=2)) == (("y", "shifted"), 5)
    with pytest.raises(GraphError, match="'double' is no output"):
        pipeline("double", x=2)
    renamed = Pipeline([double, shifted]).rename({"double": "twice", "x": "start"})
    assert (renamed.inputs, renamed.outputs) == (("start", "by"), ("twice", "shifted"))
    assert renamed("twice", start=4) == 8
    with pytest.raises(InputError, match="'x' is no input"):
        renamed("twice", x=4)


def test_scopes_of_nodes_do_not_collide() -> None:
    nodes = [node(double, scope="a"), node(double, scope="b")]
    pipeline = Pipeline(nodes)
    assert (pipeline.inputs, pipeline.outputs) == (("a.x", "b.x"), ("a.double", "b.double"))
    assert pipeline.run({"a.x": 1, "b.x": 10}) == {"a.double": 2, "b.double": 20}


def test_a_scope_is_given_to_a_whole_pipeline(executor: str) -> None:
    mapped = Pipeline(
        [node(double, mapspec="x[i] -> double[i]"), node(shifted, mapspec="double[i] -> shifted[i]")]
    )
    scoped = mapped.scope("foo")
    assert (scoped.inputs, scoped.outputs) == (("foo.x", "foo.by"), ("foo.double", "foo.shifted"))
    assert scoped.mapspecs["foo.double"] == "foo.x[i] -> foo.double[i]"
    result = scoped.map({"foo.x": [1, 2]}, map_executor=executor)
    assert result["foo.shifted"].tolist() == [3, 5]
    assert mapped.map({"x": [1, 2]}).stats.computed == 0  # a name is not part of what a call is


def test_pipelines_with_the_same_names_are_joined_by_their_scopes(executor: str) -> None:
    part = Pipeline([double, shifted])
    both = part.scope("a", keep=["by"]) | part.scope("b", keep=["by"])
    assert both.inputs == ("a.x", "by", "b.x")
    result = both.map(
        {"a.x": [1, 2], "b.x": [10, 20], "by": 5}, map_over=["a.x", "b.x"], map_executor=executor
    )
    assert (result["a.shifted"].tolist(), result["b.shifted"].tolist()) == ([7, 9], [25, 45])
    nested = both.scope("outer")
    assert nested.inputs == ("a.x", "outer.by", "b.x")  # what has a scope keeps it


def test_a_scope_is_a_name() -> None:
    for scope in ("", "a.b.", "1", "a b"):
        with pytest.raises(GraphError, match="scope"):
            Pipeline([double]).scope(scope)
    with pytest.raises(GraphError, match=r"'y' is no name of this graph"):
        Pipeline([double]).scope("a", keep=["y"])
