"""Recalling: the results of a `run` that has been made before, found without planning it anew or starting an engine.

What a plan says of a run of single values depends on the names of its inputs and not on the values: which node takes
what from where, and the identity of the code. With that, the keys of all its calls follow from the digests of the
inputs, by the same rule as everywhere else; where one of them is not in the store, or anything is out of the ordinary,
the run is planned and made.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gristmill.engine.interrupts import Interrupts, guarded
from gristmill.errors import IntegrityError
from gristmill.graph.nested import is_carrier
from gristmill.graph.node import Node
from gristmill.identity.keys import call_key
from gristmill.plan.compile import Plan
from gristmill.plan.inputs import Reference, WholeInput
from gristmill.plan.stage import Constant, Element, Step
from gristmill.storage.elements import SCALARS
from gristmill.storage.index import MISSING, KeyIndex
from gristmill.storage.local import LocalStorage


@dataclass(frozen=True, slots=True)
class _Output:
    """What a call makes."""

    call: int
    output: int


@dataclass(frozen=True, slots=True)
class _Own:
    """A default or a bound value, which is looked at each time: it may have been changed in place."""

    place: Mapping[str, Any]
    name: str

    @property
    def now(self) -> WholeInput:
        return WholeInput(self.name, self.place[self.name])


@dataclass(frozen=True, slots=True)
class _Call:
    """One node of a run."""

    node: Node
    fingerprint: bytes
    prefix: bytes
    arguments: "tuple[str | _Output | _Own, ...]"
    """By parameter, where each comes from: the name of an input, another call, or the node itself."""


_MOST = 64
"""How many kinds of runs of one pipeline are remembered; a program that makes its names up has no use for any."""


class Recalls:
    """What a pipeline remembers of its runs: how their results are found when they are made again."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Recall] = {}

    def find(self, kind: tuple[object, ...]) -> "Recall | None":
        """Return what is known of a run, by all about it but the values of its inputs."""
        try:
            return self._known.get(kind)
        except TypeError:  # an executor that cannot be hashed, say
            return None

    def learn(self, kind: tuple[object, ...], given: Mapping[str, WholeInput], plan: Plan) -> None:
        """Remember a run that has been made."""
        with suppress(TypeError):
            if (kind in self._known or len(self._known) < _MOST) and Recall.is_possible(plan):
                self._known[kind] = Recall(plan, given)


class Recall:
    """What is known of a run by the names of its inputs.

    Parameters
    ----------
    plan
        Of such a run.
    names
        The inputs that were given.
    """

    def __init__(self, plan: Plan, names: Collection[str]) -> None:
        steps = [step for stage in plan.stages for step in stage.steps]
        made = {
            n: _Output(k, output) for k, step in enumerate(steps) for output, n in enumerate(step.outputs)
        }
        self._calls = [_call(step, made, frozenset(names)) for step in steps]
        self._wanted = {name: made[name] for name in plan.outputs}

    @staticmethod
    def is_possible(plan: Plan) -> bool:
        """Whether a run is one of single values that are all kept, with no node that stands for several."""
        nodes = plan.graph.nodes
        return not (plan.inputs or any(plan.axes.values())) and all(
            node.cache and node.errors != "pass" and not is_carrier(node) for node in nodes
        )

    def values(self, given: Mapping[str, WholeInput], storage: LocalStorage) -> dict[str, Any] | None:
        """Return what a run with these inputs gives, or None where it has to be made.

        Parameters
        ----------
        given
            All inputs.
        storage
            Where results are kept.
        """
        if any(type(one.value) not in SCALARS and isinstance(one.value, Reference) for one in given.values()):
            return None
        if any(bytes(call.node.fingerprint) != call.fingerprint for call in self._calls):
            return None
        if not (storage.is_current or _has_caught_up(storage)):
            return None
        try:
            if (found := self._find(given, storage)) is None:
                return None
            return {
                name: storage.value(storage.form(*found[one.call], one.output))
                for name, one in self._wanted.items()
            }
        except IntegrityError:  # what is lost is computed again
            return None

    def _find(
        self, given: Mapping[str, WholeInput], storage: LocalStorage
    ) -> list[tuple[KeyIndex, int]] | None:
        """Where the results of each call are; None where there is one that has none."""
        found: list[tuple[KeyIndex, int]] = []
        for call in self._calls:
            digests = []
            for argument in call.arguments:
                if isinstance(argument, _Output):
                    digests.append(found[argument.call][0].digest(found[argument.call][1], argument.output))
                    continue
                one = given[argument] if isinstance(argument, str) else argument.now
                if one.holds_files:
                    return None
                digests.append(one.digest)
            index = storage.index(call.prefix, len(call.node.output_names))
            locator = int(index.find(call_key(call.prefix, digests))[0])
            if locator == MISSING or index.has_files:
                return None
            found.append((index, locator))
        return found


def _has_caught_up(storage: LocalStorage) -> bool:
    """Take in what others have done; return whether what can be found now is in the store itself."""
    with Interrupts():
        _catch_up(storage)
    return storage.is_whole


@guarded
def _catch_up(storage: LocalStorage) -> None:
    storage.reopen()
    storage.refresh()


def _call(step: Step, made: Mapping[str, _Output], given: frozenset[str]) -> _Call:
    node = step.node
    taken: dict[str, str | _Output | _Own] = {
        node.own_name(name): _Own(node.bound, name) for name in node.bound
    }
    for name in node.parameters:
        taken[node.own_name(name)] = name if name in given else _Own(node.defaults, name)
    for argument in step.arguments:
        if isinstance(argument, Element):
            taken[argument.parameter] = made[argument.source]
    order = [argument.parameter for argument in step.arguments if isinstance(argument, Constant | Element)]
    return _Call(node, step.fingerprint, step.prefix, tuple(taken[name] for name in order))
