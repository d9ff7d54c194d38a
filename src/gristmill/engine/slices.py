"""Slices: which elements a reduction's argument is gathered from, and its identity."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gristmill.engine.job import Job
from gristmill.engine.sources import Source
from gristmill.identity.digest import merkle
from gristmill.plan.stage import Slice

Array = np.ndarray[Any, Any]


def parts(argument: Slice, job: Job, positions: Array) -> Iterator[tuple[Array, tuple[int, ...]]]:
    """Yield, for each of `positions`, the elements that its slice takes and the shape they are delivered in.

    Elements whose calls failed are left out; what remains of several axes is delivered along one.
    """
    shape = job.shapes[argument.source]
    reduced = tuple(n for n, axis in zip(shape, argument.axes, strict=True) if axis is None)
    dead = job.dead.get(argument.source)
    for elements in job.space.slices(positions, argument.axes, shape):
        if dead is not None and dead[elements].any():
            left = elements[~dead[elements]]
            yield left, (len(left),)
        else:
            yield elements, reduced


def digests(source: Source, argument: Slice, job: Job, positions: Array) -> bytes:
    """Return the Merkle root of each call's slice: its elements are not read for that."""
    roots = [
        merkle(shape, source.digests(elements).tobytes())
        for elements, shape in parts(argument, job, positions)
    ]
    return b"".join(roots)
