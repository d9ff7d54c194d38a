"""Deaths: what becomes of the calls of a batch whose process has ended.

What had been finished is kept. What the process was at is run alone, and is given up in the end; the rest is run as
before.
"""

from typing import Any

import numpy as np

from gristmill.engine.active import Active, Flight
from gristmill.engine.calls import describe_failure
from gristmill.engine.executors.base import SlotDiedError
from gristmill.engine.onecall import late
from gristmill.engine.report import Failure
from gristmill.engine.seat import Underway
from gristmill.errors import WorkerDiedError

Array = np.ndarray[Any, Any]


def bury(flight: Flight, error: SlotDiedError, most: int) -> Failure | None:
    """Queue what a process left that died; return the call that is given up, if one is.

    Where it is not known what it was at, every call of the batch is run alone.

    Parameters
    ----------
    flight, error
        The batch, and its end.
    most
        How often a call may kill its process, alone in it, or, if that is once, seen at work.
    """
    active, positions = flight.active, flight.positions
    left = active.run.examine(positions).positions.tolist()
    seen = error.call if error.call is not None and error.call.position in left else None
    if seen is not None:
        active.queue(np.array([one for one in left if one != seen.position], dtype=np.int64))
        left = [seen.position]
    is_alone = flight.is_alone and len(positions) == 1
    if left and (is_alone or (seen is not None and most == 1)):
        position = left[0]
        active.deaths[position] = active.deaths.get(position, 0) + 1
        if active.deaths[position] >= most:
            return _given_up(active, position, error, most)
    active.suspects.extend(left)
    return None


def _given_up(active: Active, position: int, error: SlotDiedError, most: int) -> Failure:
    run = active.run
    step = next(k for k, locators in enumerate(run.locators) if locators[position] < 0)
    name = run.stage.steps[step].node.name
    often = f" {most} times" if most > 1 else ""
    death = WorkerDiedError(
        f"the process that ran {name} at index {run.space.index(position)} died{often} "
        f"(killed, crashed, or out of memory): {error}"
    )
    return describe_failure(position, step, death, portable=False, attempts=most)


def time_out(flight: Flight, call: Underway) -> Failure | None:
    """Queue what is left of a batch that was ended because a call took too long; return that call, if it fails."""
    active = flight.active
    left = active.run.examine(flight.positions).positions
    active.queue(left[left != call.position])
    if call.position not in left:  # it ended at the last moment
        return None
    node = active.run.stage.steps[call.step].node
    error = late(node, "its process was ended")
    if node.retries.wants(call.attempt, error):
        active.attempts[call.step, call.position] = call.attempt
        active.suspects.append(call.position)
        return None
    return describe_failure(call.position, call.step, error, portable=False, attempts=call.attempt)
