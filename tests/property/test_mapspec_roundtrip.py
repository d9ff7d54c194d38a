"""Reading and writing mapspecs are inverse, and no text makes the reader fail in another way."""

import contextlib
import keyword

from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import MapSpecError
from gristmill.graph.mapspec import ArraySpec, MapSpec

identifiers = st.from_regex(r"[a-zA-Zé_][a-z0-9_]{0,5}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name)
)
names = st.lists(identifiers, min_size=1, max_size=3).map(".".join)


@st.composite
def specs(draw: st.DrawFn) -> MapSpec:
    """Any valid spec: outer axes spread over inputs with `:` between, inner ones, several outputs."""
    outer = draw(st.lists(identifiers, unique=True, max_size=3))
    inner = draw(
        st.lists(identifiers.filter(lambda n: n not in outer), unique=True, min_size=not outer, max_size=2)
    )
    ragged = frozenset(draw(st.lists(st.sampled_from(inner), unique=True)) if inner else [])
    taken = draw(st.lists(names, unique=True, min_size=len(outer), max_size=len(outer) + 2))
    made = draw(st.lists(names.filter(lambda n: n not in taken), unique=True, min_size=1, max_size=3))
    inputs = []
    for position, name in enumerate(taken):
        # The first inputs take one outer axis each, so that none is left without an input.
        first = outer[position : position + 1]
        others = draw(st.lists(st.sampled_from(outer), unique=True)) if outer else []
        axes = draw(st.permutations([*dict.fromkeys([*first, *others]), *[None] * draw(st.integers(0, 2))]))
        inputs.append(ArraySpec(name, tuple(axes)))
    return MapSpec(tuple(inputs), tuple(ArraySpec(name, (*outer, *inner), ragged) for name in made))


@given(specs())
def test_a_spec_reads_back_as_itself(spec: MapSpec) -> None:
    assert MapSpec.parse(str(spec)) == spec


@given(specs(), st.data())
def test_spaces_between_tokens_do_not_count(spec: MapSpec, data: st.DataObject) -> None:
    spaces = st.sampled_from(["", " ", "\n\t"])
    text = "".join(
        f"{data.draw(spaces)}{mark}{data.draw(spaces)}" if mark in "[],:*" else mark for mark in str(spec)
    )
    assert MapSpec.parse(text) == spec


@given(specs())
def test_the_axes_of_calls_and_of_results_make_up_every_output(spec: MapSpec) -> None:
    assert spec.axes + spec.inner_axes == spec.output_axes
    assert set(spec.axes) == {axis for array in spec.inputs for axis in array.named}
    assert spec.ragged <= set(spec.inner_axes)


@given(st.text(alphabet="xy[],:*.-> ij\n", max_size=25))
def test_any_text_is_read_or_refused_as_a_mapspec(text: str) -> None:
    with contextlib.suppress(MapSpecError):
        spec = MapSpec.parse(text)
        assert MapSpec.parse(str(spec)) == spec
