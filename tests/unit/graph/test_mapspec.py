"""Mapspecs: what each form means, and where a wrong one is pointed at."""

import pickle

import pytest

from gristmill.errors import MapSpecError
from gristmill.graph.mapspec import ArraySpec, MapSpec


@pytest.mark.parametrize(
    ("text", "axes", "inner"),
    [
        ("x[i] -> y[i]", ("i",), ()),
        ("x[i], y[i] -> z[i]", ("i",), ()),
        ("x[i], y[j] -> z[i, j]", ("i", "j"), ()),
        ("x[i], y[j] -> z[j, i]", ("j", "i"), ()),
        ("x[a], y[a], z[b] -> r[a, b]", ("a", "b"), ()),
        ("x[i, j] -> y[i, j]", ("i", "j"), ()),
        ("x[i, :] -> y[i]", ("i",), ()),
        ("x[:, j] -> y[j]", ("j",), ()),
        ("... -> x[i]", (), ("i",)),
        ("... -> x[i, j]", (), ("i", "j")),
        ("k -> x[i]", (), ("i",)),
        ("x[i] -> y[i, j]", ("i",), ("j",)),
        ("x[i] -> y[i, *j]", ("i",), ("j",)),
        ("x[i] -> y[i, *j, k]", ("i",), ("j", "k")),
        ("x[i] -> p[i], q[i]", ("i",), ()),
        ("x[i], k -> y[i]", ("i",), ()),
        ("train.x[i] -> train.y[i]", ("i",), ()),
    ],
)
def test_a_spec_tells_the_axes_of_its_calls_from_those_each_call_makes(
    text: str, axes: tuple[str, ...], inner: tuple[str, ...]
) -> None:
    spec = MapSpec.parse(text)
    assert (spec.axes, spec.inner_axes) == (axes, inner)
    assert spec.output_axes == axes + inner
    assert str(spec) == text


def test_spaces_do_not_count() -> None:
    assert MapSpec.parse(" x[ i,: ]\n, k->y [i] ") == MapSpec.parse("x[i, :], k -> y[i]")


def test_a_colon_is_a_dimension_that_each_call_gets_all_of() -> None:
    spec = MapSpec.parse("x[:, j, :] -> y[j]")
    assert spec.input("x").reduced == (0, 2)
    assert spec.input("x").named == ("j",)
    assert spec.input("x").select({"j": 4}) == (slice(None), 4, slice(None))
    assert spec.reduced == ("x",)


def test_a_parameter_that_is_left_out_is_passed_whole_like_one_without_axes() -> None:
    spec = MapSpec.parse("x[i], k -> y[i]")
    assert spec.input("k") == ArraySpec("k")
    assert spec.input("other") == ArraySpec("other")


def test_only_the_starred_axis_is_ragged() -> None:
    assert MapSpec.parse("x[i] -> y[i, *j, k]").ragged == {"j"}
    assert MapSpec.parse("x[i] -> y[i, j]").ragged == frozenset()


def test_an_output_that_the_spec_does_not_have_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="z"):
        MapSpec.parse("x[i] -> y[i]").output("z")


def test_names_can_be_exchanged() -> None:
    spec = MapSpec.parse("x[i], y[j] -> z[i, j]")
    assert str(spec.renamed({"x": "y", "y": "x"}, {"z": "a.z"})) == "y[i], x[j] -> a.z[i, j]"


def test_a_spec_survives_pickling() -> None:
    spec = MapSpec.parse("x[i, :], k -> y[i, *j]")
    assert pickle.loads(pickle.dumps(spec)) == spec


REFUSED = [
    ("", "^", "expected an array"),
    ("x[i]", "    ^", "expected ',' or '->', found the end"),
    ("-> y[i]", "^^", "expected the name of a parameter"),
    ("x[i] ->", "       ^", "expected the name of a parameter or output, found the end"),
    ("x[i] garbage y[i] -> z[i]", "     ^^^^^^^", "expected ',' or '->', found 'garbage'"),
    ("x[i] -> y[i] -> z[i]", "             ^^", "expected ',' or the end"),
    ("x[i], -> y[i]", "      ^^", "expected the name of a parameter"),
    ("x[i -> y[i]", "    ^^", "close the bracket"),
    ("x[] -> y[i]", "  ^", "without brackets"),
    ("x[i,] -> y[i]", "    ^", "expected an axis"),
    ("x[1] -> y[i]", "  ^", "'1' has no meaning"),
    ("x$ -> y[i]", " ^", "'$' has no meaning"),
    ("x[a.b] -> y[i]", "  ^^^", "a plain name"),
    ("..., x[i] -> y[i]", "   ^", "stands alone"),
    ("x[i] -> ...", "        ^^^", "expected the name"),
    ("x[i] -> y", "        ^", "leave the mapspec out"),
    ("x[i] -> y[:]", "          ^", "named axes only"),
    ("x[*i] -> y[i]", "  ^^", "of an input write 'i'"),
    ("x[i] -> y[*i]", "          ^^", "drop the '*'"),
    ("x[i, j] -> y[i]", "     ^", "use ':' to reduce it"),
    ("x[i, i] -> y[i]", "     ^", "stands twice in 'x'"),
    ("... -> y[i, *i]", "            ^^", "stands twice in 'y'"),
    ("x[i], x[j] -> y[i, j]", "      ^", "a second time"),
    ("x[i] -> x[i]", "        ^", "a second time"),
    ("x[i] -> y[i], y[i]", "              ^", "a second time"),
    ("x[i] -> y[j, i]", "             ^", "put it before 'j'"),
    ("x[i], y[j] -> p[i, j], q[j, i]", "                       ^", "write q[i, j]"),
    ("x[i] -> p[i, *j], q[i, j]", "                  ^", "write q[i, *j]"),
]


@pytest.mark.parametrize(("text", "caret", "problem"), REFUSED)
def test_a_wrong_spec_is_refused_with_a_caret_under_the_place(text: str, caret: str, problem: str) -> None:
    with pytest.raises(MapSpecError) as caught:
        MapSpec.parse(text)
    message, shown, place = str(caught.value).split("\n")
    assert problem in message
    assert (shown[4:], place[4:]) == (text, caret)


def test_the_caret_stays_in_place_when_the_spec_has_several_lines() -> None:
    with pytest.raises(MapSpecError) as caught:
        MapSpec.parse("x[i],\n\ty[i] ? -> z[i]")
    assert str(caught.value).splitlines()[1:] == ["    x[i],  y[i] ? -> z[i]", "                ^"]


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(MapSpecError, match="is a string, found 3"):
        MapSpec.parse(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ((ArraySpec("x", ("i",)),), (ArraySpec("y", ("j", "i")),)),
        ((ArraySpec("x", ("i",)),), ()),
        ((ArraySpec("x[i], z", ("i",)),), (ArraySpec("y", ("i",)),)),
        ((), (ArraySpec("y", ("i",), frozenset({"j"})),)),
    ],
)
def test_a_spec_made_of_values_keeps_the_same_rules(
    inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...]
) -> None:
    with pytest.raises(MapSpecError):
        MapSpec(inputs, outputs)
