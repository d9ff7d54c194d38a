"""Direct runs: single values, one call after the other in this thread, nothing of which is kept.

Without a store there is nothing to be found, claimed or written, so that nothing has to be identified. What functions
are handed, and what belongs to a call, is what it is everywhere else.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from gristmill.engine.calls import calling_order, describe_failure
from gristmill.engine.deliver import as_form, deliver
from gristmill.engine.onecall import GaveUpError, Manner, OneCall
from gristmill.engine.sources import load_input
from gristmill.graph.wording import joined
from gristmill.plan.compile import Plan
from gristmill.plan.wiring import Call, Made, Wiring
from gristmill.storage.claims import NESTED
from gristmill.storage.elements import SCALARS


class DirectRun:
    """Runs of one kind.

    Parameters
    ----------
    plan
        Of one of them.
    names
        The inputs that were given.
    check_mutation
        Whether a call fails that changes its arguments.
    """

    def __init__(self, plan: Plan, names: Collection[str], *, check_mutation: bool) -> None:
        wiring, manner = Wiring(plan, names), Manner(check_mutation)
        self._wanted = wiring.wanted
        self._calls = [_DirectCall(call, number, manner) for number, call in enumerate(wiring.calls)]

    @staticmethod
    def is_possible(plan: Plan) -> bool:
        """Whether a run is one of single values, of which none is to be made of errors."""
        return Wiring.is_possible(plan) and all(node.errors != "pass" for node in plan.graph.nodes)

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Make all calls; return what the caller asked for.

        Parameters
        ----------
        given
            All inputs.

        Raises
        ------
        Exception
            What a call has raised, with a note that says which it was.
        """
        inputs = {name: value if type(value) in SCALARS else as_form(value) for name, value in given.items()}
        made: list[tuple[Any, ...]] = []
        nested = NESTED.set(True)
        try:
            for call in self._calls:
                made.append(call.make(inputs, made))
        finally:
            NESTED.reset(nested)
        return {name: _private(made[one.call][one.output]) for name, one in self._wanted.items()}


class _DirectCall:
    """One node."""

    def __init__(self, call: Call, number: int, manner: Manner) -> None:
        node = call.node
        self._call = call
        self._manner = manner
        self._number = number
        positional, keywords = calling_order(node.function, call.parameters)
        self._positional = [call.arguments[k] for k in positional]
        self._keywords = [(call.parameters[k], call.arguments[k]) for k in keywords]
        self._names = [call.parameters[k] for k in positional]
        self._is_plain = OneCall(node, self._names, manner, number).is_plain
        self._single = len(node.output_names) == 1 and node.output_picker is None

    def make(self, inputs: Mapping[str, Any], made: list[tuple[Any, ...]]) -> tuple[Any, ...]:
        """Make the call; return what copies of each output are made from."""
        node = self._call.node
        try:
            positional = [self._argument(one, inputs, made) for one in self._positional]
            named = {name: self._argument(one, inputs, made) for name, one in self._keywords}
            result = (node.function if self._is_plain else self._made)(*positional, **named)
            if self._single:
                return (result if type(result) in SCALARS else _kept(result),)
            return tuple(_kept(part) for part in node.split(result))
        except KeyboardInterrupt:
            raise
        except GaveUpError as error:
            failure, attempts = error.error, error.attempts
        except BaseException as error:  # noqa: BLE001 - raised below, as what the user raised and nothing else
            failure, attempts = error, 1
        raise self._explained(failure, attempts)

    def _argument(self, where: Any, inputs: Mapping[str, Any], made: list[tuple[Any, ...]]) -> Any:
        if isinstance(where, str):
            form = inputs[where]
        elif isinstance(where, Made):
            form = made[where.call][where.output]
        else:
            form = as_form(where.place[where.name])
        if type(form) in SCALARS:
            return form
        return deliver([form], load_input, writable=self._call.node.writable)[0]

    def _made(self, *positional: Any, **named: Any) -> Any:
        """What a call returns that is more than a call of the function."""
        call = OneCall(self._call.node, self._names, self._manner, self._number)
        try:
            return call.make(0, positional, named)
        finally:
            call.close()

    def _explained(self, error: BaseException, attempts: int) -> BaseException:
        step = self._call.step
        describe_failure(0, self._number, error, portable=False)
        often = f", tried {attempts} times" if attempts > 1 else ""
        error.add_note(f"in node {step.node.name} (output {joined(step.outputs)}){often}")
        return error


def _kept(value: Any) -> Any:
    """What copies are made from: the function may go on to write to what it has returned."""
    return value.copy() if type(value) is np.ndarray else as_form(value)


def _private(form: Any) -> Any:
    return form if type(form) in SCALARS else deliver([form], load_input, writable=True)[0]
