"""Slices: the elements that a reduction's argument is gathered from, its identity, and how it is handed over.

Carries positions of elements and their digests; the elements themselves only when a call needs them. An
argument that is asked for as `zarr.Array` or `MappedOutput` reads them when the function does.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gristmill.engine.deliver import assemble
from gristmill.engine.job import Job
from gristmill.engine.mapped import MappedOutput
from gristmill.engine.sources import DIGEST, OutputSource, Source
from gristmill.errors import IntegrityError
from gristmill.identity.digest import merkle
from gristmill.plan.space import Space
from gristmill.plan.stage import Slice
from gristmill.storage.index import MISSING

Array = np.ndarray[Any, Any]
LAZY = ("zarr", "lazy")


def parts(argument: Slice, job: Job, positions: Array) -> Iterator[tuple[Array, tuple[int, ...]]]:
    """Yield, for each of `positions`, the elements that its slice takes and the shape they are delivered in.

    Elements whose calls failed are left out; what remains of several axes is delivered along one.
    """
    rows, taken = _rows(argument, job, positions)
    for row in taken.tolist():
        yield _left(argument, job, rows[row])


def digests(source: Source, argument: Slice, job: Job, positions: Array) -> bytes:
    """Return the Merkle root of each call's slice, or the one of all: elements are not read for that."""
    rows, taken = _rows(argument, job, positions)
    used, places = np.unique(taken, return_inverse=True)
    roots = []
    for row in used.tolist():
        elements, shape = _left(argument, job, rows[row])
        roots.append(merkle(shape, source.digests(elements).tobytes()))
    if argument.is_whole and len(positions):
        return roots[0]
    return np.array(roots, dtype=DIGEST)[places].tobytes()


def gathered(source: Source, argument: Slice, elements: Array, shape: tuple[int, ...]) -> Any:
    """Return the slice as its parameter asks for it, of private copies of the elements.

    Raises
    ------
    IntegrityError
        An element cannot be read.
    """
    if argument.form in LAZY:
        return reader(source, argument, elements, shape, _nothing)
    return assembled([source.load(form) for form in source.forms(elements)], argument, shape)


def assembled(values: Sequence[Any], argument: Slice, shape: tuple[int, ...]) -> Any:
    """Return elements in C order in the form that their parameter asks for."""
    return assemble(values, shape, "list" if argument.form == "list" else "array")


def reader(
    source: Source, argument: Slice, elements: Array, shape: tuple[int, ...], lost: Callable[[Array], None]
) -> Any:
    """Return what reads the elements of a slice when it is asked for them.

    Parameters
    ----------
    source, argument, elements, shape
        What it reads.
    lost
        Called with the positions, in the source, of elements that cannot be read; an `IntegrityError` in the
        function that reads them follows.
    """
    assert isinstance(source, OutputSource)  # noqa: S101 - for the type checker: only outputs are sliced
    part = source.part(elements)
    axes = argument.reduced if len(shape) == len(argument.reduced) else ("_".join(argument.reduced),)

    def mend(places: Array) -> None:
        if len(gone := elements[part.damaged(places)]):
            lost(gone)
            raise IntegrityError(
                f"{len(gone)} elements of {argument.source!r} are lost; they are computed again"
            )

    output = MappedOutput(argument.source.partition("[")[0], Space(axes, shape), part, mend)
    return output.zarr if argument.form == "zarr" else output


def vanished(source: Source, elements: Array) -> Array:
    """Return those of `elements` of which this process does not know where they are."""
    assert isinstance(source, OutputSource)  # noqa: S101 - as above
    return np.asarray(elements[source.locators[elements] == MISSING])


def lacking(argument: Slice, job: Job, positions: Array) -> Array:
    """Mask of the positions whose slice lacks an element, because its call failed."""
    dead = job.dead.get(argument.source)
    if dead is None:
        return np.zeros(len(positions), dtype=bool)
    return job.space.meets(dead, positions, argument.axes, job.shapes[argument.source])


def _rows(argument: Slice, job: Job, positions: Array) -> tuple[Array, Array]:
    return job.space.slices(positions, argument.axes, job.shapes[argument.source])


def _left(argument: Slice, job: Job, elements: Array) -> tuple[Array, tuple[int, ...]]:
    dead = job.dead.get(argument.source)
    if dead is not None and dead[elements].any():
        left = elements[~dead[elements]]
        return left, (len(left),)
    shape = job.shapes[argument.source]
    return elements, tuple(n for n, axis in zip(shape, argument.axes, strict=True) if axis is None)


def _nothing(_positions: Array) -> None:
    """Leave it to the error."""
