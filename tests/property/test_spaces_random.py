"""Random pipelines over spaces of every shape: zips, products, reductions, axes that calls make, ragged ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill import Node, Pipeline, Store, node
from gristmill.identity.digest import checksum

INPUTS = {"xi": ("i",), "yi": ("i",), "xj": ("j",), "xij": ("i", "j"), "k": ()}
ORDER = "ijabcdef"


@dataclass(frozen=True)
class Spec:
    """One node: what it takes, over which axes it runs, which axis it makes."""

    name: str
    parameters: tuple[str, ...]
    axes: tuple[str, ...]
    makes: str
    """The axis that each call makes; empty for none."""
    ragged: bool

    @property
    def mapspec(self) -> str | None:
        """The text after the inputs."""
        made = (f"*{self.makes}" if self.ragged else self.makes,) if self.makes else ()
        return f"{self.name}[{', '.join((*self.axes, *made))}]" if self.axes or made else None


@st.composite
def specs(draw: st.DrawFn) -> tuple[Spec, ...]:
    known: dict[str, tuple[str, ...]] = dict(INPUTS)
    ragged: set[str] = set()
    fresh = iter("abcdef")
    made = []
    for number in range(draw(st.integers(2, 6))):
        name = f"n{number}"
        newest = sorted(known)[-3:]
        parameters = draw(
            st.lists(st.sampled_from([*sorted(known), *newest]), min_size=1, max_size=2, unique=True)
        )
        possible = sorted({axis for p in parameters for axis in known[p]}, key=ORDER.index)
        axes = {axis for axis in possible if draw(st.integers(0, 3))}
        for parameter in parameters:  # a ragged axis is kept only with all that come before it
            for place, axis in enumerate(known[parameter]):
                if axis in axes and axis in ragged:
                    axes |= set(known[parameter][:place])
        over = tuple(sorted(axes, key=ORDER.index))
        makes = next(fresh) if draw(st.booleans()) and len(over) < 3 else ""
        is_ragged = bool(makes and over) and draw(st.booleans())
        ragged |= {makes} if is_ragged else set()
        made.append(Spec(name, tuple(parameters), over, makes, is_ragged))
        known[name] = (*over, makes) if makes else over
    return tuple(made)


def plain(value: Any) -> Any:
    """A slice of an input is an array; here lists stand for all of them."""
    return value.tolist() if isinstance(value, np.ndarray) else value


def compute(spec: Spec, arguments: Sequence[Any]) -> Any:
    arguments = [plain(value) for value in arguments]
    number = int.from_bytes(checksum(repr((spec.name, arguments)).encode())[:4], "little")
    if not spec.makes:
        return number % 5
    length = number % 3 if spec.ragged else 2
    return [(number + k) % 5 for k in range(length)]


def make_node(spec: Spec, known: Mapping[str, tuple[str, ...]]) -> Node:
    def one(a: list[Any]) -> Any:
        return compute(spec, [a])

    def two(a: list[Any], b: list[Any]) -> Any:
        return compute(spec, [a, b])

    function: Callable[..., Any] = (one, two)[len(spec.parameters) - 1]
    shown = {p: [axis if axis in spec.axes else ":" for axis in known[p]] for p in spec.parameters}
    indexed = ", ".join(f"{p}[{', '.join(axes)}]" for p, axes in shown.items() if set(axes) - {":"}) or "..."
    mapspec = f"{indexed} -> {spec.mapspec}" if spec.mapspec else None
    renames = dict(zip("ab", spec.parameters, strict=False))
    return node(function, output_name=spec.name, mapspec=mapspec, renames=renames)


class Loops:
    """The same pipeline in plain loops, every array as nested lists."""

    def __init__(self, nodes: Sequence[Spec], inputs: Mapping[str, Any]) -> None:
        self._axes = dict(INPUTS)
        self.values: dict[str, Any] = dict(inputs)
        for spec in nodes:
            self.values[spec.name] = self._run(spec, {}, spec.axes)
            self._axes[spec.name] = (*spec.axes, spec.makes) if spec.makes else spec.axes

    def _run(self, spec: Spec, fixed: dict[str, int], left: tuple[str, ...]) -> Any:
        if not left:
            return compute(
                spec, [self._take(p, self.values[p], self._axes[p], fixed) for p in spec.parameters]
            )
        axis, *rest = left
        return [
            self._run(spec, {**fixed, axis: k}, tuple(rest)) for k in range(self._length(spec, axis, fixed))
        ]

    def _length(self, spec: Spec, axis: str, fixed: dict[str, int]) -> int:
        """The length of an axis where those before it are fixed, from any parameter that has it."""
        for parameter in spec.parameters:
            value = self.values[parameter]
            for own in self._axes[parameter]:
                if own == axis:
                    return len(value)
                if own not in fixed and not value:
                    break
                value = value[fixed.get(own, 0)]
        return 0

    def _take(self, name: str, value: Any, axes: tuple[str, ...], fixed: dict[str, int]) -> Any:
        if not axes:
            return value
        if axes[0] in fixed:
            return self._take(name, value[fixed[axes[0]]], axes[1:], fixed)
        return [self._take(name, item, axes[1:], fixed) for item in value]


@st.composite
def inputs(draw: st.DrawFn) -> dict[str, Any]:
    numbers = st.integers(0, 3)
    n, m = draw(st.integers(1, 3)), draw(st.integers(1, 3))

    def many(count: int) -> Any:
        return draw(st.lists(numbers, min_size=count, max_size=count))

    return {
        "xi": many(n),
        "yi": many(n),
        "xj": many(m),
        "xij": [many(m) for _ in range(n)],
        "k": draw(numbers),
    }


def check(nodes: Sequence[Spec], given_: Mapping[str, Any], executor: str) -> None:
    known = dict(INPUTS) | {s.name: (*s.axes, s.makes) if s.makes else s.axes for s in nodes}
    expected = Loops(nodes, given_).values
    with Store.temporary() as store:
        pipeline = Pipeline([make_node(spec, known) for spec in nodes], store=store)
        used = {name: value for name, value in given_.items() if name in pipeline.inputs}
        names = [spec.name for spec in nodes]
        for computed in (None, 0):
            result = pipeline.map(used, output_name=names, map_executor=executor)
            found = {name: result[name].tolist() if known[name] else result[name] for name in names}
            assert found == {name: expected[name] for name in names}
            assert computed is None or result.stats.computed == computed
        pipeline.explain(used)
        pipeline.plan(used)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), inputs())
def test_sequential_maps_give_what_loops_give(nodes: tuple[Spec, ...], given_: dict[str, Any]) -> None:
    check(nodes, given_, "sequential")


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(specs(), inputs())
def test_parallel_maps_give_what_loops_give(nodes: tuple[Spec, ...], given_: dict[str, Any]) -> None:
    check(nodes, given_, "parallel")


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_an_axis_without_any_element(executor: str) -> None:
    nodes = (
        Spec("n0", ("xi",), ("i",), "a", ragged=True),
        Spec("n1", ("n0",), ("i", "a"), "", ragged=False),
        Spec("n2", ("n1",), ("i",), "", ragged=False),
        Spec("n3", ("n2", "n1"), (), "", ragged=False),
    )
    check(nodes, {"xi": [], "yi": [], "xj": [], "xij": [], "k": 0}, executor)
