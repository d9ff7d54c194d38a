"""Findings: what becomes of each call of a step, and why."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gristmill.engine.notes import code_record
from gristmill.explain.arguments import Comparison, Reason, profiles
from gristmill.explain.code import closest, code_reason, namesakes
from gristmill.explain.report import Explanation, Finding, Index, NodeExplanation, Verdict
from gristmill.explain.survey import StepSurvey, Survey
from gristmill.plan.compile import Plan
from gristmill.plan.space import Space
from gristmill.plan.stage import Step
from gristmill.plan.tree import LEVEL
from gristmill.storage.gone import Gone
from gristmill.storage.index import KeyIndex
from gristmill.storage.local import LocalStorage, StoreSpec
from gristmill.storage.segment import COLLECTED, DAMAGED, EDITED

Array = np.ndarray[Any, Any]

_NOTHING = StoreSpec(os.devnull, readonly=True)

_MOST_BITS = 60
"""Sources that are told apart in one mask; a call that waits for more names the last of them together."""

_NOT_KEPT = "nothing is kept (store=None)"
_EDITED = "a file that it returned has been changed"
_LOST = {
    COLLECTED: "the result was collected, to make room",
    DAMAGED: "the stored result failed verification",
    EDITED: _EDITED,
}
_UNCACHED = "cache=False: it runs whenever something that needs it does"


def explain(plan: Plan, storage: LocalStorage | None) -> Explanation:
    """Say what of a plan is in the store, what would run, and why; run nothing, and write nothing.

    Parameters
    ----------
    plan
        What is asked about.
    storage
        Where results are; None where nothing is kept.
    """
    survey = Survey(plan, opened(storage))
    nodes = {step.place: _node(step, keeps=storage is not None) for step in survey.steps()}
    for stage in plan.stages:
        for number, step in enumerate(stage.steps if stage.number in survey.unknown else ()):
            nodes[stage.number, number] = _unknown(step, stage.axes, survey.unknown[stage.number])
    return Explanation(tuple(nodes[place] for place in sorted(nodes)))


def opened(storage: LocalStorage | None) -> LocalStorage:
    """Return `storage`, or an empty one where nothing is kept."""
    return LocalStorage(_NOTHING, make=False) if storage is None else storage


def _node(survey: StepSurvey, *, keeps: bool) -> NodeExplanation:
    node, found = survey.step.node, survey.found
    hits = int(np.count_nonzero(found))
    sorted_out = _Sorted(survey.run.space, np.zeros(survey.run.size, dtype=bool))
    sorted_out.add(found, "hit", _fixed(""))
    _explain_misses(survey, sorted_out, keeps=keeps)
    return NodeExplanation(
        node.name,
        node.output_names,
        survey.run.stage.axes,
        survey.run.size,
        hits,
        survey.run.size - hits,
        sorted_out.findings(),
        node.code.unfollowed,
    )


def _unknown(step: Step, axes: tuple[str, ...], reads: Sequence[str]) -> NodeExplanation:
    """What can be said of calls nobody can count yet."""
    reason = f"depends on {_listed(reads)}, which will run and says how many calls there are"
    node = step.node
    finding = Finding((), 0, "miss", reason)
    return NodeExplanation(node.name, node.output_names, axes, 0, 0, 0, (finding,), node.code.unfollowed)


@dataclass
class _Sorted:
    """Calls, as far as it is known what becomes of them."""

    space: Space
    done: Array
    """Mask of the positions that are in a finding."""
    _found: list[tuple[int, Finding]] = field(default_factory=list)

    @property
    def left(self) -> Array:
        """Positions that are in no finding yet."""
        return np.flatnonzero(~self.done)

    def add(self, mask: Array, verdict: Verdict, reason: Reason) -> None:
        """Put the calls of `mask` into one finding."""
        positions = np.flatnonzero(mask)
        if len(positions):
            self.done |= mask
            finding = Finding(_ranges(positions, self.space), len(positions), verdict, reason(positions))
            self._found.append((int(positions[0]), finding))

    def findings(self) -> tuple[Finding, ...]:
        """Return the findings by their first positions."""
        return tuple(finding for _, finding in sorted(self._found, key=lambda pair: pair[0]))


def _explain_misses(survey: StepSurvey, calls: _Sorted, *, keeps: bool) -> None:
    if not survey.step.node.cache:
        calls.add(~calls.done, "miss", _fixed(_UNCACHED))
        return
    _explain_waiting(survey, calls)
    if not len(calls.left):
        return
    if not keeps:
        calls.add(~calls.done, "miss", _fixed(_NOT_KEPT))
        return
    index = survey.run.indexes[survey.number]
    _explain_collected(survey, index, calls)
    if not len(calls.left):
        return
    if not index.segments:
        calls.add(~calls.done, "miss", _fixed(_code(survey, index)))
        return
    _explain_lost(survey, index, calls)
    if len(left := calls.left):
        recorded = profiles(survey.survey.storage, index)
        for positions, reason in Comparison(survey, left, recorded).reasons():
            calls.add(_mask(positions, survey.run.size), "miss", reason)


def _explain_waiting(survey: StepSurvey, calls: _Sorted) -> None:
    """Sort out what depends on calls that will run: one finding for each combination of them."""
    waiting = survey.waiting
    combined = np.zeros(survey.run.size, dtype=np.int64)
    for bit, mask in enumerate(waiting.values()):
        combined |= np.where(mask, 1 << min(bit, _MOST_BITS), 0)
    combined[calls.done] = 0
    for chosen in np.unique(combined[combined > 0]).tolist():
        names = [name for bit, name in enumerate(waiting) if chosen >> min(bit, _MOST_BITS) & 1]
        calls.add(combined == chosen, "miss", _fixed(f"depends on {_listed(names)}, which will run"))


def _explain_lost(survey: StepSurvey, index: KeyIndex, calls: _Sorted) -> None:
    """Sort out what was recorded and taken back, or will be."""
    calls.add(survey.run.edited[survey.number] & ~calls.done, "miss", _fixed(_EDITED))
    left = calls.left
    why = np.array(index.lost(survey.run.keys(survey.number, left)), dtype=object)
    for word in sorted({word for word in why.tolist() if word}):
        text = _LOST.get(word, _LOST[DAMAGED])
        calls.add(_mask(left[why == word], survey.run.size), "miss", _fixed(text))


def _explain_collected(survey: StepSurvey, index: KeyIndex, calls: _Sorted) -> None:
    """Sort out what was deleted to make room."""
    left = calls.left
    gone = Gone(survey.survey.storage.ledger, index.group).among(survey.run.keys(survey.number, left))
    calls.add(_mask(left[gone], survey.run.size), "miss", _fixed(_LOST[COLLECTED]))


def _code(survey: StepSurvey, index: KeyIndex) -> str:
    """Why no call of this code is recorded."""
    if index.damaged:
        return "the records of its calls cannot be read"
    now = code_record(survey.step.node, survey.step.arguments)
    known = survey.survey.storage.descriptions(now.place)
    known.pop(index.group, None)
    before = closest(now, namesakes(now, known.values()))
    return "never computed" if before is None else code_reason(before, now)


def _fixed(text: str) -> Callable[[Array], str]:
    return lambda _positions: text


def _mask(positions: Array, size: int) -> Array:
    mask = np.zeros(size, dtype=bool)
    mask[positions] = True
    return mask


def _ranges(positions: Array, space: Space) -> tuple[tuple[Index, Index], ...]:
    """Return increasing positions as ranges of indices."""
    cuts = np.flatnonzero(np.diff(positions) != 1) + 1
    firsts = positions[np.concatenate(([0], cuts))]
    lasts = positions[np.concatenate((cuts - 1, [len(positions) - 1]))]
    return tuple(zip(_indices(firsts, space), _indices(lasts, space), strict=True))


def _indices(positions: Array, space: Space) -> Iterator[Index]:
    if not space.axes:
        return iter([()] * len(positions))
    return zip(*(along.tolist() for along in space.coordinates(positions)), strict=True)


def _listed(names: Sequence[str]) -> str:
    names = [
        f"partial results of {name.partition(LEVEL)[0]}" if LEVEL in name else name
        for name in dict.fromkeys(names)
    ]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
