"""Random pipelines in pipelines, against the same steps as plain loops."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gristmill import Node, Pipeline, Store, node

Value = Any
"""An int, or lists in lists of ints."""


def mix(value: int, k: int) -> int:
    return 3 * value + k


def fold(value: Value) -> int:
    return value if isinstance(value, int) else len(value) + 7 * sum(fold(one) for one in value)


def explode(value: int) -> list[int]:
    return [value + step for step in range(value % 4)]


PLAIN: dict[str, tuple[Callable[..., Value], int, bool]] = {
    "mix": (mix, 0, True),
    "fold": (fold, 0, False),
    "explode": (explode, 1, False),
}
"""By name: a function, the depth of what it gives, and whether it takes `k`."""


@dataclass(frozen=True)
class Step:
    """A function, or a pipeline of steps: once, or for each element of a list."""

    name: str
    inside: "tuple[Step, ...]" = ()

    def value(self, value: Value, k: int) -> Value:
        if self.name == "each":
            return [evaluated(self.inside, one, k) for one in value]
        if self.name == "once":
            return evaluated(self.inside, value, k)
        function, _, takes_k = PLAIN[self.name]
        return function(value, k) if takes_k else function(value)


def evaluated(steps: Iterable[Step], value: Value, k: int) -> Value:
    for step in steps:
        value = step.value(value, k)
    return value


def as_node(step: Step, takes: str, makes: str) -> Node:
    if not step.inside:
        return node(PLAIN[step.name][0], output_name=makes, renames={"value": takes})
    inner = pipeline(step.inside, None)
    return inner.as_node(
        name=f"{step.name}_{makes}",
        map_over="x0" if step.name == "each" else None,
        input_mapping={takes: "x0"},
        output_mapping={f"x{len(step.inside)}": makes},
    )


def pipeline(steps: tuple[Step, ...], store: Store | None) -> Pipeline:
    return Pipeline([as_node(one, f"x{n}", f"x{n + 1}") for n, one in enumerate(steps)], store=store)


@st.composite
def levels(draw: st.DrawFn, depth: int, nesting: int = 3) -> tuple[tuple[Step, ...], int]:
    """Steps for a value of some depth, and the depth of what they give."""
    steps: list[Step] = []
    for _ in range(draw(st.integers(1, 3))):
        choices = ["fold", *(["mix", "explode"] if depth == 0 else []), *(["once"] if nesting else [])]
        choices += ["each", "each", "each"] if depth and nesting else []
        name = draw(st.sampled_from(choices))
        if name in PLAIN:
            steps.append(Step(name))
            depth = PLAIN[name][1]
        else:
            inside, given_back = draw(levels(depth - (name == "each"), nesting - 1))
            steps.append(Step(name, inside))
            depth = given_back + (name == "each")
    return tuple(steps), depth


def values(depth: int) -> st.SearchStrategy[Value]:
    return st.integers(-3, 9) if depth == 0 else st.lists(values(depth - 1), max_size=3)


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[Step, ...], list[Value]]:
    depth = draw(st.integers(0, 3))
    steps, _ = draw(levels(depth))
    return steps, draw(st.lists(values(depth), max_size=3))


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_nested_pipelines_give_what_plain_loops_give(executor: str) -> None:
    count = 45 if executor == "sequential" else 6

    @settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
    @given(cases())
    def check(case: tuple[tuple[Step, ...], list[Value]]) -> None:
        steps, given_ = case
        last = f"x{len(steps)}"
        expected = [evaluated(steps, one, 5) for one in given_]
        with Store.temporary() as store:
            made = pipeline(steps, store)
            k = {"k": 5} if "k" in made.inputs else {}
            for one, value in zip(given_, expected, strict=True):
                assert made.run({"x0": one, **k}, output_name=last)[last] == value
            result = made.map({"x0": given_, **k}, map_over="x0", map_executor=executor, output_name=last)
            assert result[last].tolist() == expected
            again = made.map({"x0": given_, **k}, map_over="x0", map_executor=executor, output_name=last)
            assert (again[last].tolist(), again.stats.computed) == (expected, 0)
            assert result.stats.computed == 0, "calls of a map are those of single runs"

    check()
