"""Why calls of code that is recorded are not: their arguments compared with those of the recorded calls."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import numpy as np

from gristmill.engine.notes import constant_notes
from gristmill.errors import IntegrityError
from gristmill.explain.report import counted, shown
from gristmill.explain.survey import StepSurvey
from gristmill.plan.space import Space
from gristmill.plan.stage import Constant, Element
from gristmill.storage.index import KeyIndex
from gristmill.storage.local import LocalStorage
from gristmill.storage.segment import Provenance

Array = np.ndarray[Any, Any]
Noted = tuple[str, str]
"""A digest in hex, and a short repr."""

_SEGMENTS_READ = 4_096
_CALLS_READ = 8_000_000
"""How far back records are read: the latest so many segments and calls."""

_PLACES_NAMED = 3


@dataclass(frozen=True)
class Profile:
    """The recorded calls that share all the arguments that their segments name once."""

    constants: Mapping[str, Noted]
    columns: Mapping[str, Array]
    """The first halves of the digests of what each call was given; in any order."""
    latest: int
    """The latest of their segments."""

    def has(self, parameter: str, halves: Array) -> Array:
        """Return which of `halves` some of these calls were given for `parameter`."""
        if parameter in self.columns:
            return np.isin(halves, self.columns[parameter])
        if parameter in self.constants:
            return np.asarray(halves == _half(self.constants[parameter]))
        return np.zeros(len(halves), dtype=bool)


def profiles(storage: LocalStorage, index: KeyIndex) -> list[Profile]:
    """Return what the latest recorded calls of a group were given; what cannot be read is left out."""
    constants: dict[tuple[tuple[str, str], ...], Mapping[str, Noted]] = {}
    columns: dict[tuple[tuple[str, str], ...], dict[str, list[Array]]] = {}
    latest: dict[tuple[tuple[str, str], ...], int] = {}
    for number, given in _provenances(storage, index):
        name = tuple(sorted((parameter, digest) for parameter, (digest, _) in given.constants.items()))
        constants.setdefault(name, given.constants)
        latest.setdefault(name, number)
        parts = columns.setdefault(name, {})
        for parameter, digests in given.columns.items():
            parts.setdefault(parameter, []).append(np.frombuffer(digests, dtype="<u8")[::2])
    return [
        Profile(
            constants[name],
            {parameter: np.concatenate(parts) for parameter, parts in columns[name].items()},
            latest[name],
        )
        for name in constants
    ]


def _provenances(storage: LocalStorage, index: KeyIndex) -> Iterator[tuple[int, Provenance]]:
    """Yield what the calls of each segment were given, the latest first."""
    left = _CALLS_READ
    for segment in index.segments[: -_SEGMENTS_READ - 1 : -1]:
        if left <= 0:
            return
        left -= segment.count
        try:
            yield segment.number, storage.provenance(index, segment)
        except (IntegrityError, ValueError):
            continue


Reason = Callable[[Array], str]
"""Why the calls at some positions of a step are not recorded, in words."""


class Comparison:
    """The arguments of some calls of one step beside those of the recorded ones.

    Parameters
    ----------
    survey
        The step.
    positions
        Calls whose arguments are known.
    recorded
        What recorded calls of the same code were given.
    """

    def __init__(self, survey: StepSurvey, positions: Array, recorded: Sequence[Profile]) -> None:
        self._survey = survey
        self._positions = positions
        arguments = survey.step.arguments
        self._arguments = {argument.parameter: argument for argument in arguments}
        self._constants = constant_notes(arguments, survey.step.node.own_private)
        self._halves = {
            a.parameter: _halves(survey.run.digests(a, positions))
            for a in arguments
            if not isinstance(a, Constant)
        }
        self._changes = {id(profile): self._changed(profile) for profile in recorded}
        self._recorded = sorted(recorded, key=lambda one: (len(self._changes[id(one)]), -one.latest))

    def reasons(self) -> Iterator[tuple[Array, Reason]]:
        """Yield positions, and why their calls are not recorded; each position once."""
        left = np.ones(len(self._positions), dtype=bool)
        for profile in self._recorded:
            fits = left.copy()
            for parameter, halves in self._halves.items():
                fits[fits] = profile.has(parameter, halves[fits])
            if fits.any():
                yield self._positions[fits], self._other_constants(profile)
                left &= ~fits
            if not left.any():
                return
        yield from self._new(np.flatnonzero(left))

    def _changed(self, profile: Profile) -> tuple[str, ...]:
        """Parameters with one value for all calls now, which none of the recorded calls was given."""
        return tuple(
            parameter
            for parameter, noted in self._constants.items()
            if not profile.has(parameter, np.array([_half(noted)], dtype="<u8")).any()
        )

    def _other_constants(self, profile: Profile) -> Reason:
        """Why calls are not recorded that only differ in what all of them share."""
        changes = self._change_texts(profile)
        if changes:
            return lambda _positions: ", ".join(changes)
        return lambda _positions: "never computed with these arguments together"

    def _change_texts(self, profile: Profile) -> list[str]:
        return [
            self._change(parameter, profile.constants.get(parameter))
            for parameter in self._changes[id(profile)]
        ]

    def _change(self, parameter: str, before: Noted | None) -> str:
        name, now = self._name(parameter), self._constants[parameter][1]
        hidden = parameter in self._survey.step.node.own_private
        if before is None or hidden or not before[1] or not now:
            return f"argument {name} changed"
        return (
            f"argument {name} changed: {now}" if before[1] == now else f"argument {name}: {before[1]} → {now}"
        )

    def _new(self, rows: Array) -> Iterator[tuple[Array, Reason]]:
        """Why calls are not recorded that got something that none of the recorded ones was given."""
        masks = []
        for bit, (parameter, halves) in enumerate(self._halves.items()):
            known = [profile.has(parameter, halves[rows]) for profile in self._recorded]
            seen = reduce(or_, known) if known else np.zeros(len(rows), dtype=bool)
            masks.append(np.where(seen, 0, 1 << bit))
        if not masks:
            if len(rows):
                yield self._positions[rows], lambda _positions: "never computed with these arguments"
            return
        combined = reduce(or_, masks)
        for chosen in np.unique(combined).tolist():
            names = [name for bit, name in enumerate(self._halves) if chosen >> bit & 1]
            yield self._positions[rows[combined == chosen]], self._new_reason(names)

    def _new_reason(self, parameters: Sequence[str]) -> Reason:
        if not parameters:
            return lambda _positions: "never computed with these arguments together"
        changes = self._change_texts(self._recorded[0]) if self._recorded else []

        def reason(positions: Array) -> str:
            return ", ".join([*(self._news(name, positions) for name in parameters), *changes])

        return reason

    def _name(self, parameter: str) -> str:
        """The graph's name of an argument."""
        argument = self._arguments[parameter]
        return argument.given.name if isinstance(argument, Constant) else argument.source.partition("[")[0]

    def _news(self, parameter: str, positions: Array) -> str:
        argument = self._arguments[parameter]
        name = self._name(parameter)
        if not isinstance(argument, Element):
            return f"what is gathered from {name} changed"
        places, count = self._places(argument, name, positions)
        if argument.source not in self._survey.survey.plan.inputs:
            return f"{places} {'has a new value' if count == 1 else 'have new values'}"
        return f"input {places} is new" if count == 1 else f"inputs {places} are new"

    def _places(self, argument: Element, name: str, positions: Array) -> tuple[str, int]:
        """Where in what it comes from an argument is, like ``x[17]`` or ``x[3:5]``, and how many there are."""
        if not argument.axes:
            return name, 1
        space = self._survey.survey.space(argument.source)
        elements = np.unique(self._survey.run.space.elements(positions, argument.axes, space))
        count = len(elements)
        if len(space.shape) == 1 and count > 1 and int(elements[-1] - elements[0]) == count - 1:
            return f"{name}[{elements[0]}:{elements[-1] + 1}]", count
        some = elements[:_PLACES_NAMED].tolist()
        texts = [f"{name}[{_index(place, space)}]" for place in some]
        more = f", … ({counted(count, 'of them', 'of them')})" if count > len(some) else ""
        return ", ".join(texts) + more, count


def _index(position: int, space: Space) -> str:
    return shown(space.index(position)).strip("()")


def _half(noted: Noted) -> int:
    return int.from_bytes(bytes.fromhex(noted[0])[:8], "little")


def _halves(digests: Array) -> Array:
    return np.ascontiguousarray(digests).view("<u8")[::2]
