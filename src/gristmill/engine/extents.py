"""Extents: a ragged space as bytes, and back, so that a record can say where each element of an output is."""

import json
import zlib
from typing import Any

import numpy as np

from gristmill.errors import IntegrityError
from gristmill.plan.space import Space

Array = np.ndarray[Any, Any]


def encode_space(space: Space) -> bytes:
    """Return a space as bytes: a line of JSON for it and for the spaces outside it, then where positions are."""
    levels, places = [], []
    level: Space | None = space
    while level is not None:
        there = level.places
        count = -1 if there is None else len(there)
        levels.append([list(level.axes), list(level.shape), sorted(level.ragged), count])
        if there is not None:
            places.append(np.diff(there, prepend=0).astype("<i8").tobytes())
        level = level.outer
    return json.dumps(levels).encode() + b"\n" + zlib.compress(b"".join(places), 1)


def decode_space(body: bytes) -> Space:
    """Return the space that `encode_space` made a body of.

    Raises
    ------
    IntegrityError
        The body is not one of these.
    """
    try:
        head, _, packed = body.partition(b"\n")
        steps = np.frombuffer(zlib.decompress(packed), dtype="<i8")
        return _space(json.loads(head), steps)
    except (ValueError, TypeError, zlib.error) as error:
        raise IntegrityError(f"the space of an output cannot be decoded: {error!r}") from error


def _space(levels: list[Any], steps: Array) -> Space:
    (axes, shape, ragged, count), *rest = levels
    places = None if count < 0 else np.cumsum(steps[:count])
    outer = _space(rest, steps[max(count, 0) :]) if rest else None
    return Space(tuple(axes), tuple(shape), frozenset(ragged), places, outer)
