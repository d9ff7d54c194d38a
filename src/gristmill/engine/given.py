"""What calls are given: identities and values of their arguments, read from open sources.

For a whole stage in the engine, and for one call that is made again elsewhere. Within a batch, values go from
node to node without this.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gristmill.engine import slices
from gristmill.engine.deliver import deliver
from gristmill.engine.job import Job
from gristmill.engine.sources import Source
from gristmill.plan.space import Space
from gristmill.plan.stage import Argument, Constant, Element

Array = np.ndarray[Any, Any]


def identities(argument: Argument, job: Job, source: Callable[[str], Source], positions: Array) -> bytes:
    """Return the digests of an argument at `positions`, 16 bytes each, or those of the one that all are given."""
    if isinstance(argument, Constant):
        return argument.given.digest
    if isinstance(argument, Element):
        elements = job.space.elements(positions, argument.axes, _space(job, argument.source))
        return source(argument.source).digests(elements).tobytes()
    return slices.digests(source(argument.source), argument, job, positions)


def value(argument: Argument, job: Job, source: Callable[[str], Source], position: int) -> Any:
    """Return what the call at `position` is given for an argument: a private copy.

    Raises
    ------
    IntegrityError
        It is not in the store any more.
    """
    if isinstance(argument, Constant):
        return argument.given.value
    where, read = np.array([position]), source(argument.source)
    if isinstance(argument, Element):
        forms = read.forms(job.space.elements(where, argument.axes, _space(job, argument.source)))
        return deliver(forms, read.load, writable=True)[0]
    elements, part = next(slices.parts(argument, job, where))
    return slices.gathered(read, argument, job, elements, part)


def _space(job: Job, source: str) -> Space:
    """The indices of a source; nodes of the stage have those of the stage."""
    return job.spaces.get(source, job.space)
