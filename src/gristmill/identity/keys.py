"""Call keys: the identity of one evaluation of one node.

Owns how a key is made: of code, output structure, and the arguments' names, delivered forms and digests.
Carries keys as one block of bytes, 16 per call. Knows nothing of nodes, values or stores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from xxhash import xxh3_128_digest

from gristmill.identity import tags
from gristmill.identity.columns import BLOCK, Rows, hash_rows, prefixed
from gristmill.identity.encoder import PREFIX
from gristmill.identity.primitives import length, octets, text
from gristmill.identity.types import SIZE


def call_prefix(fingerprint: bytes, structure: bytes, parameters: Sequence[tuple[str, str]]) -> bytes:
    """Return what all calls of a node share: 16 bytes.

    Parameters
    ----------
    fingerprint
        Identity of the node's code.
    structure
        Identity of the form of its outputs.
    parameters
        The function's own parameter names, each with the form its argument is delivered in; in any order.
    """
    parts = [PREFIX, tags.CALL, octets(fingerprint), octets(structure), length(len(parameters))]
    for parameter, form in sorted(parameters):
        parts += text(parameter), text(form)
    return xxh3_128_digest(b"".join(parts))


def call_keys(prefix: bytes, columns: Sequence[bytes], n: int) -> bytes:
    """Return the keys of n calls, 16 bytes each.

    Parameters
    ----------
    prefix
        What `call_prefix` returned.
    columns
        The arguments' digests in the order of the sorted parameter names; each either one digest, which
        counts for all calls, or n.
    n
        Number of calls.

    Raises
    ------
    ValueError
        When a column holds neither one digest nor n.
    """
    for column in columns:
        if len(column) not in (SIZE, n * SIZE):
            raise ValueError(f"a column holds {len(column)} bytes, expected {SIZE} or {n * SIZE}")
    views = [np.frombuffer(part, np.uint8).reshape(-1, SIZE) for part in (prefix, *columns)]
    return b"".join([hash_rows(_table(views, low, min(n, low + BLOCK))) for low in range(0, n, BLOCK)])


def call_key(prefix: bytes, digests: Sequence[bytes]) -> bytes:
    """Return the key of one call: the same as `call_keys` gives.

    Parameters
    ----------
    prefix
        What `call_prefix` returned.
    digests
        The arguments' digests in the order of the sorted parameter names.
    """
    return xxh3_128_digest(b"".join([prefix, *digests]))


def elements_group(prefix: bytes, output: int) -> bytes:
    """Return what the keys of all elements share that calls have made along axes of their own: 16 bytes.

    Parameters
    ----------
    prefix
        What the calls share.
    output
        Which output of theirs it is.
    """
    return xxh3_128_digest(b"".join([PREFIX, tags.ELEMENT, prefix, length(output)]))


def element_keys(calls: bytes, places: np.ndarray[Any, Any]) -> bytes:
    """Return the keys of elements that calls have made along axes of their own, 16 bytes each.

    Parameters
    ----------
    calls
        For each element, the key of its call.
    places
        Shape (elements, axes): where in what the call made it is.
    """
    table = np.empty((len(places), SIZE + 8 * places.shape[1]), np.uint8)
    table[:, :SIZE] = np.frombuffer(calls, np.uint8).reshape(-1, SIZE)
    table[:, SIZE:] = np.ascontiguousarray(places, "<i8").view(np.uint8).reshape(len(places), -1)
    head = PREFIX + tags.ELEMENT
    return b"".join(
        [hash_rows(prefixed(head, table[low : low + BLOCK])) for low in range(0, len(table), BLOCK)]
    )


def made_identity(key: bytes, output: int) -> bytes:
    """Return what identifies a value that has no digest of its own: the call that made it, and which output it is."""
    return xxh3_128_digest(b"".join([PREFIX, tags.MADE, key, length(output)]))


def _table(columns: Sequence[Rows], low: int, high: int) -> Rows:
    """Put the columns of some calls side by side; one row counts for all."""
    table = np.empty((high - low, len(columns), SIZE), np.uint8)
    for position, column in enumerate(columns):
        table[:, position] = column if len(column) == 1 else column[low:high]
    return table.reshape(high - low, len(columns) * SIZE)
