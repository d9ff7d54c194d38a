"""Recalling: the results of a `run` that has been made before, found without planning it anew or starting an engine.

With the wiring of a run of single values, and the identity of the code, the keys of all its calls follow from the
digests of the inputs, by the same rule as everywhere else; where one of them is not in the store, or anything is out
of the ordinary, the run is planned and made.
"""

from collections.abc import Collection, Mapping
from typing import Any

from gristmill.engine.interrupts import Interrupts, guarded
from gristmill.errors import IntegrityError
from gristmill.identity.keys import call_key
from gristmill.plan.compile import Plan
from gristmill.plan.inputs import WholeInput
from gristmill.plan.wiring import Made, Wiring
from gristmill.storage.index import MISSING, KeyIndex
from gristmill.storage.local import LocalStorage


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
        self._wiring = Wiring(plan, names)

    @staticmethod
    def is_possible(plan: Plan) -> bool:
        """Whether a run is one of single values that are all kept."""
        kept = all(node.cache and node.errors != "pass" for node in plan.graph.nodes)
        return kept and Wiring.is_possible(plan)

    def values(self, given: Mapping[str, WholeInput], storage: LocalStorage) -> dict[str, Any] | None:
        """Return what a run with these inputs gives, or None where it has to be made.

        Parameters
        ----------
        given
            All inputs.
        storage
            Where results are kept.
        """
        if any(bytes(call.node.fingerprint) != call.step.fingerprint for call in self._wiring.calls):
            return None
        if not (storage.is_current or _has_caught_up(storage)):
            return None
        try:
            if (found := self._find(given, storage)) is None:
                return None
            return {
                name: storage.value(storage.form(*found[one.call], one.output))
                for name, one in self._wiring.wanted.items()
            }
        except IntegrityError:  # what is lost is computed again
            return None

    def _find(
        self, given: Mapping[str, WholeInput], storage: LocalStorage
    ) -> list[tuple[KeyIndex, int]] | None:
        """Where the results of each call are; None where there is one that has none."""
        found: list[tuple[KeyIndex, int]] = []
        for call in self._wiring.calls:
            digests = []
            for argument in call.arguments:
                if isinstance(argument, Made):
                    digests.append(found[argument.call][0].digest(found[argument.call][1], argument.output))
                    continue
                if isinstance(argument, str):
                    one = given[argument]
                else:
                    one = WholeInput(argument.name, argument.place[argument.name])
                digest, holds_files = one.identify()
                if holds_files:
                    return None
                digests.append(digest)
            index = storage.index(call.step.prefix, len(call.step.outputs))
            locator = index.find_one(call_key(call.step.prefix, digests))
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
