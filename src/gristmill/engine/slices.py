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

    Elements whose calls failed are left out, unless errors are wanted in their places; what remains of several dense
    axes is delivered along one.
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
        return b"".join([_span_root(source, argument, job, position) for position in positions.tolist()])
    found = _slices(argument, job, positions)
    used, places = np.unique(found.taken, return_inverse=True)
    roots = []
    for row in used.tolist():
        elements, part = _part(argument, job, found, row)
        roots.append(root(part, _identities(source, argument, job, elements)))
    if argument.is_whole and len(positions):
        return bytes(roots[0])
    return np.array(roots, dtype=DIGEST)[places].tobytes()


def there(argument: Slice | Span, job: Job, elements: Array) -> Array | None:
    """Mask of those of `elements` that have a value, where errors stand for the others; None where all have."""
    dead = job.dead.get(argument.source) if argument.with_errors else None
    return None if dead is None or not dead[elements].any() else ~dead[elements]


def completed(
    argument: Slice | Span, job: Job, elements: Array, has: Array | None, values: Sequence[Any]
) -> Sequence[Any]:
    """Return the values of `elements`, of which those that it `has` are given, with errors in the other places."""
    if has is None:
        return values
    found = np.empty(len(elements), dtype=object)
    for chosen, parts in ((has, values), (~has, job.passed[argument.source].at(elements[~has]))):
        for place, value in zip(np.flatnonzero(chosen).tolist(), parts, strict=True):
            found[place] = value
    return list(found)


def gathered(source: Source, argument: Slice | Span, job: Job, elements: Array, part: Space) -> Any:
    """Return the slice as its parameter asks for it, of private copies of the elements.

    Raises
    ------
    IntegrityError
        An element cannot be read.
    """
    if argument.form in LAZY:
        return reader(source, argument, job, elements, part, _nothing)
    has = there(argument, job, elements)
    values = [source.load(form) for form in source.forms(elements if has is None else elements[has])]
    return assembled(completed(argument, job, elements, has, values), argument, part)


def assembled(values: Sequence[Any], argument: Slice | Span, part: Space) -> Any:
    """Return elements in C order in the form that their parameter asks for."""
    return assemble(values, part, "list" if argument.form == "list" else "array")


def reader(
    source: Source,
    argument: Slice | Span,
    job: Job,
    elements: Array,
    part: Space,
    lost: Callable[[Array], None],
) -> Any:
    """Return what reads the elements of a slice when it is asked for them.

    Parameters
    ----------
    source, argument, job, elements, part
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

    def errors(places: Array) -> list[Any]:
        return job.passed[argument.source].at(elements[places])

    has = there(argument, job, elements)
    stand_ins = None if has is None else errors
    output = MappedOutput(argument.source.partition("[")[0], part, chosen, mend, stand_ins=stand_ins)
    return output.zarr if argument.form == "zarr" else output


def vanished(source: Source, argument: Slice | Span, job: Job, elements: Array) -> Array:
    """Return those of `elements` that should have a value, and of which this process does not know where it is."""
    assert isinstance(source, StoredSource)  # noqa: S101 - as above
    has = there(argument, job, elements)
    expected = elements if has is None else elements[has]
    return np.asarray(expected[source.located(expected) == MISSING])


def lacking(argument: Slice | Span, job: Job, positions: Array) -> Array:
    """Mask of the positions whose slice lacks an element, because its call failed, and has no error for it."""
    dead = job.dead.get(argument.source)
    if dead is None:
        return np.zeros(len(positions), dtype=bool)
    without = dead
    if argument.with_errors and (passed := job.passed.get(argument.source)) is not None:
        without = dead & (passed.causes < 0)
    if isinstance(argument, Span):  # an error that is alone goes on as what failed
        masks = (dead if argument.passes[p] else without for p in positions.tolist())
        members = (argument.members(p) for p in positions.tolist())
        return np.array([mask[one].any() for mask, one in zip(masks, members, strict=True)], dtype=bool)
    dead = without
    return job.space.meets(dead, positions, argument.axes, job.spaces[argument.source])


def handed(argument: Slice | Span, position: int, values: Sequence[Any], part: Space) -> Any:
    """Return what a call gets of the elements of its slice; `Alone` where there is nothing to call for."""
    if not isinstance(argument, Span) or not argument.passes[position]:
        return assembled(values, argument, part)
    if values:
        return Alone(values[0])
    assert argument.initial is not None  # noqa: S101 - else the levels would not have been made
    return Alone(load_input(as_form(argument.initial.value)))


def _identities(source: Source, argument: Slice | Span, job: Job, elements: Array) -> bytes:
    """The digests of elements, or of the errors in their places."""
    has = there(argument, job, elements)
    if has is None:
        return source.digests(elements).tobytes()
    found = np.empty(len(elements), dtype=DIGEST)
    found[has] = source.digests(elements[has])
    found[~has] = job.passed[argument.source].identities(elements[~has])
    return found.tobytes()


def _span_root(source: Source, argument: Span, job: Job, position: int) -> bytes:
    """Identity of a group; that of one element which goes on as it is differs from that of a list of one."""
    elements = argument.members(position)
    digests = _identities(source, argument, job, elements)
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
    dead = None if argument.with_errors else job.dead.get(argument.source)
    if dead is not None and (gone := dead[elements]).any():
        return elements[~gone], part.without(gone)
    return elements, part


def _nothing(_positions: Array) -> None:
    """Leave it to the error."""
