"""Wiring: what each call of a run of single values takes from where.

It depends on the names of the inputs and not on their values, so that it can be used again by the next run.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from gristmill.graph.nested import is_carrier
from gristmill.graph.node import Node
from gristmill.plan.compile import Plan
from gristmill.plan.stage import Element, Step

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Made:
    """What a call makes."""

    call: int
    output: int


@dataclass(frozen=True, slots=True)
class Own:
    """A default or a bound value, which is looked at each time: it may have been changed in place."""

    place: Mapping[str, Any]
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """One node of a run."""

    step: Step
    parameters: tuple[str, ...]
    """The function's own, sorted."""
    arguments: tuple[str | Made | Own, ...]
    """For each of them where it comes from: the name of an input, another call, or the node itself."""

    @property
    def node(self) -> Node:
        """What is called."""
        return self.step.node


class Wiring:
    """The calls of a run of single values, in an order in which they can be made.

    Parameters
    ----------
    plan
        Of such a run.
    names
        The inputs that were given.
    """

    def __init__(self, plan: Plan, names: Collection[str]) -> None:
        steps = [step for stage in plan.stages for step in stage.steps]
        made = {name: Made(k, n) for k, step in enumerate(steps) for n, name in enumerate(step.outputs)}
        self.calls = tuple(_call(step, made, frozenset(names)) for step in steps)
        self.wanted = {name: made[name] for name in plan.outputs}
        """Where what the caller asked for is made."""

    @staticmethod
    def is_possible(plan: Plan) -> bool:
        """Whether a plan is that of a run of single values, with no node that only carries others'."""
        return not (plan.inputs or any(plan.axes.values()) or any(map(is_carrier, plan.graph.nodes)))


def _call(step: Step, made: Mapping[str, Made], given: frozenset[str]) -> Call:
    node = step.node
    taken: dict[str, str | Made | Own] = {node.own_name(name): Own(node.bound, name) for name in node.bound}
    for name in node.parameters:
        taken[node.own_name(name)] = name if name in given else Own(node.defaults, name)
    for argument in step.arguments:
        if isinstance(argument, Element):
            taken[argument.parameter] = made[argument.source]
    parameters = tuple(argument.parameter for argument in step.arguments)
    return Call(step, parameters, tuple(taken[name] for name in parameters))


_MOST = 64
"""How many kinds of runs of one pipeline are remembered; a program that makes its names up has no use for any."""


class Kinds(Generic[T]):
    """What is remembered of runs, by all about them but the values of their inputs."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], T] = {}

    def find(self, kind: tuple[object, ...] | None) -> T | None:
        """Return what is remembered of a run; nothing of one that has no kind."""
        return self._known.get(kind) if kind is not None else None

    def remember(self, kind: tuple[object, ...] | None, known: T) -> None:
        """Remember a run, instead of what was remembered of it before."""
        if kind is not None and (kind in self._known or len(self._known) < _MOST):
            self._known[kind] = known
