"""Slices: the elements that a reduction's argument is gathered from, its identity, and how it is handed over.

Carries positions of elements and their digests; the elements themselves only when a call needs them. An
argument that is asked for as `zarr.Array` or `MappedOutput` reads them when the function does.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gristmill.engine.deliver import Alone, as_form, assemble
from gristmill.engine.job import Job
from gristmill.engine.mapped import MappedOutput, root
from gristmill.engine.sources import DIGEST, Source, StoredSource, load_input
from gristmill.errors import IntegrityError
from gristmill.identity.digest import merkle
from gristmill.plan.space import Slices, Space
from gristmill.plan.stage import Slice, Span
from gristmill.storage.index import MISSING

Array = np.ndarray[Any, Any]
LAZY = ("zarr", "lazy")


def parts(argument: Slice | Span, job: Job, positions: Array) -> Iterator[tuple[Array, Space]]:
    """Yield, for each of `positions`, the elements that its slice takes, and their space.

    Elements whose calls failed are left out; what remains of several dense axes is delivered along one.
    """
    if isinstance(argument, Span):
        for position in positions.tolist():
            elements = argument.members(position)
            yield elements, Space(argument.reduced, (len(elements),))
        return
    found = _slices(argument, job, positions)
    for row in found.taken.tolist():
        yield _part(argument, job, found, row)


def digests(source: Source, argument: Slice | Span, job: Job, positions: Array) -> bytes:
    """Return the Merkle root of each call's slice, or the one of all: elements are not read for that."""
    if isinstance(argument, Span):
        return b"".join([_span_root(source, argument, position) for position in positions.tolist()])
    found = _slices(argument, job, positions)
    used, places = np.unique(found.taken, return_inverse=True)
    roots = []
    for row in used.tolist():
        elements, part = _part(argument, job, found, row)
        roots.append(root(part, source.digests(elements).tobytes()))
    if argument.is_whole and len(positions):
        return bytes(roots[0])
    return np.array(roots, dtype=DIGEST)[places].tobytes()


def gathered(source: Source, argument: Slice | Span, elements: Array, part: Space) -> Any:
    """Return the slice as its parameter asks for it, of private copies of the elements.

    Raises
    ------
    IntegrityError
        An element cannot be read.
    """
    if argument.form in LAZY:
        return reader(source, argument, elements, part, _nothing)
    return assembled([source.load(form) for form in source.forms(elements)], argument, part)


def assembled(values: Sequence[Any], argument: Slice | Span, part: Space) -> Any:
    """Return elements in C order in the form that their parameter asks for."""
    return assemble(values, part, "list" if argument.form == "list" else "array")


def reader(
    source: Source, argument: Slice | Span, elements: Array, part: Space, lost: Callable[[Array], None]
) -> Any:
    """Return what reads the elements of a slice when it is asked for them.

    Parameters
    ----------
    source, argument, elements, part
        What it reads.
    lost
        Called with the positions, in the source, of elements that cannot be read; an `IntegrityError` in the
        function that reads them follows.
    """
    assert isinstance(source, StoredSource)  # noqa: S101 - for the type checker: only outputs are sliced
    chosen = source.part(elements)

    def mend(places: Array) -> None:
        if len(gone := elements[chosen.damaged(places)]):
            lost(gone)
            raise IntegrityError(
                f"{len(gone)} elements of {argument.source!r} are lost; they are computed again"
            )

    output = MappedOutput(argument.source.partition("[")[0], part, chosen, mend)
    return output.zarr if argument.form == "zarr" else output


def vanished(source: Source, elements: Array) -> Array:
    """Return those of `elements` of which this process does not know where they are."""
    assert isinstance(source, StoredSource)  # noqa: S101 - as above
    return np.asarray(elements[source.located(elements) == MISSING])


def lacking(argument: Slice | Span, job: Job, positions: Array) -> Array:
    """Mask of the positions whose slice lacks an element, because its call failed."""
    dead = job.dead.get(argument.source)
    if dead is None:
        return np.zeros(len(positions), dtype=bool)
    if isinstance(argument, Span):
        return np.array([dead[argument.members(p)].any() for p in positions.tolist()], dtype=bool)
    return job.space.meets(dead, positions, argument.axes, job.spaces[argument.source])


def handed(argument: Slice | Span, position: int, values: Sequence[Any], part: Space) -> Any:
    """Return what a call gets of the elements of its slice; `Alone` where there is nothing to call for."""
    if not isinstance(argument, Span) or not argument.passes[position]:
        return assembled(values, argument, part)
    if values:
        return Alone(values[0])
    assert argument.initial is not None  # noqa: S101 - else the levels would not have been made
    return Alone(load_input(as_form(argument.initial.value)))


def _span_root(source: Source, argument: Span, position: int) -> bytes:
    """Identity of a group; that of one element which goes on as it is differs from that of a list of one."""
    elements = argument.members(position)
    digests = source.digests(elements).tobytes()
    if not argument.passes[position]:
        return bytes(merkle((len(elements),), digests))
    if not len(elements) and argument.initial is not None:
        digests = argument.initial.digest
    return bytes(merkle((), digests + bytes(len(elements))))


def _slices(argument: Slice, job: Job, positions: Array) -> Slices:
    return job.space.slices(positions, argument.axes, job.spaces[argument.source])


def _part(argument: Slice, job: Job, found: Slices, row: int) -> tuple[Array, Space]:
    elements, part = found.members(row), found.part(row)
    part = replace(part, axes=argument.reduced)
    dead = job.dead.get(argument.source)
    if dead is not None and (gone := dead[elements]).any():
        return elements[~gone], part.without(gone)
    return elements, part


def _nothing(_positions: Array) -> None:
    """Leave it to the error."""
