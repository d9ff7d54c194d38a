"""Nodes: callable as the plain function, named for the graph, refused early when an option does not fit."""

import asyncio
import dataclasses
import functools
import inspect
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle
import pydantic
import pytest

from gristmill.errors import GraphError, MapSpecError
from gristmill.graph.mapspec import MapSpec
from gristmill.graph.node import Node, node


@node(output_name="y", mapspec="x[i] -> y[i]")
def double(x: int, factor: int = 2) -> int:
    """Multiply."""
    return x * factor


def plain(x: int) -> int:
    return x + 1


class Scale:
    """Both a callable instance and the owner of a method."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> str:
        return str(x * self.factor)

    def apply(self, x: int) -> int:
        return x * self.factor


@dataclasses.dataclass
class Point:
    """A class as a node."""

    x: int
    tags: list[str] = dataclasses.field(default_factory=list)


class Model(pydantic.BaseModel):
    """A pydantic class as a node."""

    x: int
    tags: dict[str, int] = pydantic.Field(default_factory=dict)


# -- calling


def test_a_node_is_called_like_the_function() -> None:
    assert double(4) == 8
    assert double(4, factor=3) == 12


def test_a_node_looks_like_the_function() -> None:
    assert vars(double)["__name__"] == "double"
    assert (double.__doc__, double.__module__) == ("Multiply.", __name__)
    assert str(inspect.signature(double)) == "(x: int, factor: int = 2) -> int"


def test_a_call_uses_the_functions_own_names_and_none_of_the_graphs_values() -> None:
    renamed = double.with_(renames={"x": "a"}, bound={"factor": 100})
    assert renamed(x=4) == 8


def test_the_hook_fires_after_a_call_with_the_node_the_result_and_all_arguments() -> None:
    seen: list[Any] = []
    hooked = double.with_(post_execution_hook=lambda *given: seen.append(given))
    assert hooked(4) == 8
    assert seen == [(hooked, 8, {"x": 4, "factor": 2})]


def test_the_hook_of_an_async_function_fires_when_the_result_is_there() -> None:
    seen: list[Any] = []

    @node(post_execution_hook=lambda _, result, kwargs: seen.append((result, kwargs)))
    async def fetch(url: str) -> str:
        return url.upper()

    assert fetch.is_async
    assert asyncio.run(fetch("a")) == "A"
    assert seen == [("A", {"url": "a"})]


# -- what can be a node


@pytest.mark.parametrize(
    ("function", "parameters", "outputs"),
    [
        (plain, ("x",), ("plain",)),
        (Scale(3).apply, ("x",), ("apply",)),
        (Point, ("x", "tags"), ("Point",)),
        (Model, ("x", "tags"), ("Model",)),
        (math.sqrt, ("x",), ("sqrt",)),
        (len, ("obj",), ("len",)),
    ],
)
def test_the_output_is_named_after_whatever_has_a_name(
    function: Callable[..., Any], parameters: tuple[str, ...], outputs: tuple[str, ...]
) -> None:
    made = node(function)
    assert (made.parameters, made.output_names) == (parameters, outputs)


@pytest.mark.parametrize("nameless", [lambda x: x, Scale(3), functools.partial(plain, 1)])
def test_what_has_no_name_needs_an_output_name(nameless: Callable[..., Any]) -> None:
    with pytest.raises(GraphError, match="give output_name="):
        node(nameless)
    assert node(nameless, output_name="y").output_names == ("y",)


def test_a_partial_takes_what_is_left() -> None:
    by_position = node(functools.partial(double.function, 3), output_name="y")
    by_name = node(functools.partial(double.function, factor=5), output_name="y")
    assert by_position.parameters == ("factor",)
    assert (by_name.parameters, dict(by_name.defaults)) == (("x", "factor"), {"factor": 5})
    assert by_name(2) == 10


def test_a_class_makes_an_instance_and_its_factories_are_defaults() -> None:
    assert node(Point)(3) == Point(3, [])
    assert dict(node(Point).defaults) == {"tags": []}
    assert dict(node(Model).defaults) == {"tags": {}}


@pytest.mark.parametrize(
    ("function", "advice"),
    [
        (lambda *args: args, "name each parameter"),
        (lambda **kwargs: kwargs, "functools.wraps"),
        (dict, "wrap it in a function"),
        (3, "not callable"),
    ],
)
def test_what_has_no_fixed_parameter_names_is_refused(function: Any, advice: str) -> None:
    with pytest.raises(GraphError, match=advice):
        node(function, output_name="y")


def test_positional_only_parameters_are_passed_by_position() -> None:
    args, kwargs = node(divmod, output_name=("q", "r")).arguments({"y": 3, "x": 7})
    assert (args, kwargs) == ([7, 3], {})
    assert double.arguments({"x": 1, "factor": 2}) == ([], {"x": 1, "factor": 2})


# -- names


def test_renames_defaults_and_bound_speak_of_graph_names() -> None:
    made = node(double.function, renames={"x": "a", "factor": "k"}, defaults={"k": 7}, bound={"a": 1})
    assert made.parameters == ("k",)
    assert dict(made.defaults) == {"k": 7}
    assert dict(made.bound) == {"a": 1}
    assert (made.own_name("k"), made.own_name("a")) == ("factor", "x")


def test_a_rename_may_swap_parameters_and_name_an_output() -> None:
    made = node(lambda a, b: a - b, output_name="c", renames={"a": "b", "b": "a", "c": "d"})
    assert (made.parameters, made.output_names, made.own_name("a")) == (("b", "a"), ("d",), "b")


def test_a_scope_goes_before_every_name_without_a_dot() -> None:
    made = node(
        double.function, output_name="y", mapspec="x[i] -> y[i]", scope="s", renames={"factor": "all.factor"}
    )
    assert (made.parameters, made.output_names) == (("s.x", "all.factor"), ("s.y",))
    assert str(made.mapspec) == "s.x[i] -> s.y[i]"
    assert made.with_(scope="t").parameters == ("t.x", "all.factor")


def test_a_mapspec_follows_when_names_change() -> None:
    assert str(double.with_(renames={"x": "a"}).mapspec) == "a[i] -> y[i]"
    assert str(double.with_(output_name=("p", "q")).mapspec) == "x[i] -> p[i], q[i]"
    assert str(double.with_(scope="s").mapspec) == "s.x[i] -> s.y[i]"
    assert str(double.renamed({"x": "a", "y": "b", "other": "c"}).mapspec) == "a[i] -> b[i]"


def test_renaming_by_graph_names_spells_a_scope_out() -> None:
    scoped = double.with_(scope="s").renamed({"s.x": "a"})
    assert (scoped.parameters, scoped.output_names) == (("a", "s.factor"), ("s.y",))
    assert scoped.own_name("a") == "x"


def test_changes_leave_the_node_as_it_was() -> None:
    changed = double.with_(cache=False, version="2", mapspec=None)
    assert (changed.cache, changed.version, changed.mapspec) == (False, "2", None)
    assert (double.cache, double.version, str(double.mapspec)) == (True, None, "x[i] -> y[i]")
    with pytest.raises(dataclasses.FrozenInstanceError):
        double.cache = False  # type: ignore[misc]


def test_a_node_can_be_made_of_a_node() -> None:
    made = node(double, output_name="z", cache=False)
    assert (made.output_names, made.cache, str(made.mapspec)) == (("z",), False, "x[i] -> z[i]")


def test_private_names_graph_parameters_even_bound_ones() -> None:
    made = node(double.function, renames={"x": "token"}, bound={"token": "secret"}, private=["token"])
    assert made.private == ("token",)


# -- several outputs


def test_several_outputs_come_from_a_tuple() -> None:
    made = node(divmod, output_name=("quotient", "rest"))
    assert made.split((2, 1)) == (2, 1)
    assert node(plain).split((2, 1)) == ((2, 1),)


def test_a_picker_is_given_the_functions_own_output_names() -> None:
    made = node(
        lambda: {"a": 1, "b": 2},
        output_name=("a", "b"),
        renames={"a": "first"},
        output_picker=lambda result, name: result[name],
    )
    assert made.output_names == ("first", "b")
    assert made.split(made()) == (1, 2)


@pytest.mark.parametrize("result", [1, (1, 2, 3), "ab", {"a": 1, "b": 2}, {1, 2}, iter([1, 2])])
def test_a_result_that_is_not_one_value_for_each_output_is_refused(result: Any) -> None:
    made = node(lambda: result, output_name=("a", "b"))
    with pytest.raises(GraphError, match=r"2 outputs 'a' and 'b' but returned .* output_picker="):
        made.split(result)


# -- refused options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_name": "not a name"}, "use a name like 'y'"),
        ({"output_name": "class"}, "use a name like 'y'"),
        ({"output_name": ()}, "a tuple of two or more"),
        ({"output_name": ("y",)}, "for one output write 'y'"),
        ({"output_name": ("y", "y")}, "has 'y' twice"),
        ({"output_name": 3}, "use a name, or a tuple"),
        ({"mapspec": 3}, "use text like"),
        ({"renames": {"factr": "k"}}, r"no such parameter or output \(did you mean 'factor'\?\)"),
        ({"renames": {"x": "1"}}, "new name of 'x'"),
        ({"renames": {"x": "factor"}}, "two parameters named 'factor'"),
        ({"renames": "x"}, "use a mapping"),
        ({"defaults": {"fctor": 1}}, r"no parameter 'fctor' \(did you mean 'factor'\?\)"),
        ({"bound": {"z": 1}}, "no parameter 'z'; it has 'x' and 'factor'"),
        ({"renames": {"x": "a"}, "bound": {"x": 1}}, "'x', which is called 'a' here"),
        ({"bound": [1]}, "use a mapping"),
        ({"scope": "a b"}, "scope of .*double is 'a b'"),
        ({"cache": 1}, "use True or False"),
        ({"writable": "yes"}, "use True or False"),
        ({"version": 2}, "use a string like '2'"),
        ({"version": ""}, "use a string like '2'"),
        ({"errors": "skp"}, r"did you mean 'skip'\?\); use 'skip', 'drop' or 'pass'"),
        ({"output_picker": "a"}, r"use a function of \(result, name\)"),
        ({"post_execution_hook": 1}, r"use a function of \(node, result, kwargs\)"),
        ({"ignore_globals": "calls"}, r"use a tuple of names like \('calls',\)"),
        ({"private": "x"}, r"use a tuple of names like \('x',\)"),
        ({"private": ["z"]}, "no parameter 'z'"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        node(double.function, **options)


def test_an_option_that_does_not_exist_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="did you mean 'cache'"):
        double.with_(cahce=False)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "caret", "message"),
    [
        ({"mapspec": "facto[i] -> y[i]"}, "^^^^^", r"no parameter 'facto' \(did you mean 'factor'\?\)"),
        ({"mapspec": "x[i] -> z[i]"}, "        ^", "makes 'y', the mapspec 'z'"),
        ({"mapspec": "x[i] -> y[i]", "bound": {"x": [1]}}, "^", "map it or bind it, not both"),
        ({"mapspec": "x[i] -> y[i]", "renames": {"x": "a"}}, "^", "'x', which is called 'a' here"),
        ({"mapspec": "x[i] -> p[i]", "output_name": ("p", "q")}, "        ^", "makes 'p' and 'q'"),
    ],
)
def test_a_mapspec_that_does_not_fit_the_function_is_pointed_at(
    options: dict[str, Any], caret: str, message: str
) -> None:
    with pytest.raises(MapSpecError, match=message) as caught:
        node(double.function, **{"output_name": "y", **options})
    assert str(caught.value).split("\n")[2] == "    " + caret


# -- identity


def test_the_fingerprint_is_that_of_the_function() -> None:
    assert double.fingerprint == double.with_(renames={"x": "a"}, cache=False).fingerprint
    assert double.fingerprint != node(plain).fingerprint
    assert node(plain, version="1").fingerprint != node(plain, version="2").fingerprint


def calling(helper: str) -> Node:
    """A node whose function calls another node."""
    scope: dict[str, Any] = {"__name__": "userland", "node": node}
    exec(f"@node\n{helper}\n@node\ndef outer(x): return helper(x)", scope)
    return scope["outer"]  # type: ignore[no-any-return]


def test_the_fingerprint_follows_nodes_that_the_function_calls() -> None:
    one, same, other = (calling(f"def helper(x): return x + {k}").fingerprint for k in (1, 1, 2))
    assert one == same
    assert one != other


def test_a_node_that_calls_itself_has_a_fingerprint() -> None:
    one, other = (calling(f"def helper(x): return helper(x - {k})").fingerprint for k in (1, 2))
    assert one != other


# -- annotations


def test_annotations_are_resolved_and_those_that_cannot_be_are_left_out() -> None:
    def some(x: "int", y: "Missing", *, z: "list[float]") -> "str": ...  # type: ignore[name-defined,empty-body] # noqa: F821

    assert dict(node(some).annotations) == {"x": int, "z": list[float], "return": str}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Scale(2), {"x": int, "return": str}),
        (Scale(2).apply, {"x": int, "return": int}),
        (functools.partial(plain), {"x": int, "return": int}),
        (Point, {"x": int, "tags": list[str], "return": Point}),
        (Model, {"x": int, "tags": dict[str, int], "return": Model}),
        (Scale, {"factor": int, "return": Scale}),
        (len, {}),
    ],
)
def test_annotations_are_found_wherever_the_callable_keeps_them(
    function: Callable[..., Any], expected: dict[str, Any]
) -> None:
    assert dict(node(function, output_name="y").annotations) == expected


# -- pickling


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_a_decorated_function_travels_by_reference(pickler: Any) -> None:
    assert pickler.loads(pickler.dumps(double)) is double
    assert len(pickler.dumps(double)) < 100


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_a_changed_node_travels_with_its_options_and_a_reference_to_the_function(pickler: Any) -> None:
    changed = double.with_(renames={"x": "a"}, bound={"factor": 5}, cache=False)
    back = pickler.loads(pickler.dumps(changed))
    assert back.function is double.function
    assert (back.parameters, dict(back.bound), back.cache) == (("a",), {"factor": 5}, False)
    assert str(back.mapspec) == "a[i] -> y[i]"


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
@pytest.mark.parametrize("made", [double, double.with_(cache=False), node(plain)])
def test_the_plain_function_can_be_sent_alone(pickler: Any, made: Node) -> None:
    assert pickler.loads(pickler.dumps(made.portable())) is made.function


def test_a_local_node_travels_by_value() -> None:
    offset = 3
    made = node(lambda x: x + offset, output_name="y", mapspec="x[i] -> y[i]")
    back = cloudpickle.loads(cloudpickle.dumps(made))
    assert (back(1), back.mapspec) == (4, MapSpec.parse("x[i] -> y[i]"))


def test_a_node_of_a_script_reaches_a_process_that_has_not_run_the_script() -> None:
    script = (
        "import cloudpickle, sys\n"
        "from gristmill.graph.node import node\n"
        "@node\n"
        "def inner(x): return x + 1\n"
        "@node\n"
        "def outer(x): return inner(x) * 2\n"
        "sys.stdout.buffer.write(cloudpickle.dumps(outer))\n"
    )
    sent = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    assert pickle.loads(sent)(3) == 8


def test_declaring_nodes_imports_no_heavy_library() -> None:
    script = "import sys, gristmill.graph.graph; print({'numpy', 'zarr', 'cloudpickle'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout
    assert said.strip() == "set()"
