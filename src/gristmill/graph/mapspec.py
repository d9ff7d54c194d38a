"""Mapspecs as values: which axes of which arrays one call takes and makes.

Owns the meaning of a spec and the rules that one spec must keep. Knows neither functions nor other specs;
how specs of a graph fit together is in `axes`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from gristmill.errors import MapSpecError
from gristmill.graph.mapspec_grammar import EXAMPLE, Sides, Span, Term, read, refuse


@dataclass(frozen=True)
class ArraySpec:
    """How one name takes part in a call.

    Examples
    --------
    >>> spec = MapSpec.parse("x[i, :], k -> y[i]").input("x")
    >>> spec.axes, spec.named, spec.reduced
    (('i', None), ('i',), (1,))
    """

    name: str
    """The parameter or output, by its name in the graph."""
    axes: tuple[str | None, ...] = ()
    """One per dimension; None is `:`, all of that dimension. Empty: all of the value."""
    ragged: frozenset[str] = frozenset()
    """Axes whose length may differ between calls; of outputs only."""

    @property
    def named(self) -> tuple[str, ...]:
        """The axes that are not `:`, in order."""
        return tuple(axis for axis in self.axes if axis is not None)

    @property
    def reduced(self) -> tuple[int, ...]:
        """Positions of the dimensions that one call gets all of."""
        return tuple(position for position, axis in enumerate(self.axes) if axis is None)

    def select(self, positions: Mapping[str, int]) -> tuple[int | slice, ...]:
        """The numpy index that takes one call's part, given the call's position on each axis.

        Examples
        --------
        >>> ArraySpec("x", ("i", None)).select({"i": 3, "j": 0})
        (3, slice(None, None, None))
        """
        return tuple(slice(None) if axis is None else positions[axis] for axis in self.axes)

    def __str__(self) -> str:
        if not self.axes:
            return self.name
        return f"{self.name}[{', '.join(self._shown(axis) for axis in self.axes)}]"

    def _shown(self, axis: str | None) -> str:
        if axis is None:
            return ":"
        return f"*{axis}" if axis in self.ragged else axis


@dataclass(frozen=True)
class MapSpec:
    """Which axes of its inputs a node is mapped over, and which axes its outputs have.

    Raises
    ------
    MapSpecError
        If the arrays do not make a spec; the message points at the place.

    Examples
    --------
    >>> spec = MapSpec.parse("x[i], w[j, :], k -> y[i, j, *n]")
    >>> str(spec)
    'x[i], w[j, :], k -> y[i, j, *n]'
    >>> spec.axes, spec.inner_axes, sorted(spec.ragged)
    (('i', 'j'), ('n',), ['n'])
    """

    inputs: tuple[ArraySpec, ...]
    """Empty for `...`: nothing is indexed, one call makes all axes."""
    outputs: tuple[ArraySpec, ...]

    def __post_init__(self) -> None:
        # A spec is right if its text reads back as itself: one set of rules, and always a place to point at.
        sides = read(str(self))
        _check(sides)
        if (_specs(sides.inputs), _specs(sides.outputs)) != (self.inputs, self.outputs):
            raise MapSpecError(f"these arrays read back differently from {str(self)!r}; {EXAMPLE}")

    @classmethod
    def parse(cls, text: str) -> "MapSpec":
        """Read a spec; the inverse of `str`.

        Examples
        --------
        >>> MapSpec.parse("x[i] garbage y[i] -> z[i]")
        Traceback (most recent call last):
        gristmill.errors.MapSpecError: mapspec 'x[i] garbage y[i] -> z[i]': expected ',' or '->', ...
            x[i] garbage y[i] -> z[i]
                 ^^^^^^^
        """
        if not isinstance(text, str):
            raise MapSpecError(f"a mapspec is a string, found {text!r}; {EXAMPLE}")
        sides = read(text)
        _check(sides)
        return cls(_specs(sides.inputs), _specs(sides.outputs))

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes of the call space: those that come from inputs, in the order of the outputs."""
        outer = {axis for spec in self.inputs for axis in spec.named}
        return tuple(axis for axis in self.output_axes if axis in outer)

    @property
    def inner_axes(self) -> tuple[str, ...]:
        """The axes that each call makes; they follow those of the call space."""
        outer = {axis for spec in self.inputs for axis in spec.named}
        return tuple(axis for axis in self.output_axes if axis not in outer)

    @property
    def output_axes(self) -> tuple[str, ...]:
        """All axes of each output: `axes + inner_axes`."""
        return self.outputs[0].named

    @property
    def ragged(self) -> frozenset[str]:
        """The inner axes whose length may differ between calls."""
        return self.outputs[0].ragged

    @property
    def reduced(self) -> tuple[str, ...]:
        """The inputs that have a `:`, of which one call gets a slice."""
        return tuple(spec.name for spec in self.inputs if spec.reduced)

    def input(self, name: str) -> ArraySpec:
        """How a parameter is indexed; one that is left out is passed whole, as if listed without axes.

        Examples
        --------
        >>> MapSpec.parse("x[i] -> y[i]").input("k")
        ArraySpec(name='k', axes=(), ragged=frozenset())
        """
        return next((spec for spec in self.inputs if spec.name == name), ArraySpec(name))

    def output(self, name: str) -> ArraySpec:
        """The axes of an output.

        Raises
        ------
        KeyError
            If the spec has no such output.
        """
        for spec in self.outputs:
            if spec.name == name:
                return spec
        raise KeyError(name)

    def renamed(self, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> "MapSpec":
        """The same spec under other names; those not given stay.

        Examples
        --------
        >>> str(MapSpec.parse("x[i], k -> y[i]").renamed({"x": "a"}, {"y": "b"}))
        'a[i], k -> b[i]'
        """
        return MapSpec(_renamed(self.inputs, inputs), _renamed(self.outputs, outputs))

    def refuse(self, name: str, problem: str) -> NoReturn:
        """Raise a `MapSpecError` that points at `name` in this spec."""
        sides = read(str(self))
        refuse(sides.text, next(t.span for t in (*sides.inputs, *sides.outputs) if t.name == name), problem)

    def __str__(self) -> str:
        left = ", ".join(map(str, self.inputs)) or "..."
        return f"{left} -> {', '.join(map(str, self.outputs))}"


def _renamed(specs: tuple[ArraySpec, ...], names: Mapping[str, str]) -> tuple[ArraySpec, ...]:
    return tuple(ArraySpec(names.get(spec.name, spec.name), spec.axes, spec.ragged) for spec in specs)


def _specs(terms: tuple[Term, ...]) -> tuple[ArraySpec, ...]:
    return tuple(_spec(term) for term in terms)


def _spec(term: Term) -> ArraySpec:
    axes = tuple(None if axis == ":" else axis.removeprefix("*") for axis in term.axes)
    return ArraySpec(term.name, axes, frozenset(axis[1:] for axis in term.axes if axis.startswith("*")))


def _check(sides: Sides) -> None:
    for span, problem in _problems(sides):
        refuse(sides.text, span, problem)


def _problems(sides: Sides) -> Iterator[tuple[Span, str]]:
    yield from _names_twice(sides)
    for term in (*sides.inputs, *sides.outputs):
        yield from _axes_twice(term)
    for term in sides.outputs:
        yield from _output_problems(term, sides)
    for term in sides.inputs:
        yield from _input_problems(term, sides)


def _names_twice(sides: Sides) -> Iterator[tuple[Span, str]]:
    seen: set[str] = set()
    for term in (*sides.inputs, *sides.outputs):
        if term.name in seen:
            yield term.span, f"{term.name!r} stands here a second time; list each name once"
        seen.add(term.name)


def _axes_twice(term: Term) -> Iterator[tuple[Span, str]]:
    seen: set[str] = set()
    for axis, span in zip(term.axes, term.axis_spans, strict=True):
        plain = axis.removeprefix("*")
        if plain in seen:
            yield (
                span,
                f"axis {plain!r} stands twice in {term.name!r}; give each dimension an axis of its own",
            )
        if plain != ":":
            seen.add(plain)


def _input_problems(term: Term, sides: Sides) -> Iterator[tuple[Span, str]]:
    made = {axis.removeprefix("*") for output in sides.outputs for axis in output.axes}
    for axis, span in zip(term.axes, term.axis_spans, strict=True):
        if axis.startswith("*"):
            yield span, f"'*' marks an axis that a call makes; of an input write {axis[1:]!r}"
        elif axis != ":" and axis not in made:
            yield span, f"axis {axis!r} is in no output; use ':' to reduce it, or add it to the outputs"


def _output_problems(term: Term, sides: Sides) -> Iterator[tuple[Span, str]]:
    if not term.axes:
        yield term.span, f"output {term.name!r} has no axes; for a full reduction leave the mapspec out"
    if term.axes != (first := sides.outputs[0]).axes:
        shown = ", ".join(first.axes)
        yield term.span, f"all outputs of a node have the same axes; write {term.name}[{shown}]"
    outer = {axis for spec in sides.inputs for axis in spec.axes}
    inner_seen = ""
    for axis, span in zip(term.axes, term.axis_spans, strict=True):
        if axis == ":":
            yield span, "an output has named axes only; ':' belongs to inputs"
        elif axis.startswith("*") and axis[1:] in outer:
            yield span, f"axis {axis[1:]!r} comes from an input, so no call makes it; drop the '*'"
        elif axis not in outer:
            inner_seen = axis
        elif inner_seen:
            yield (
                span,
                f"axis {axis!r} comes from an input; put it before {inner_seen!r}, which each call makes",
            )
