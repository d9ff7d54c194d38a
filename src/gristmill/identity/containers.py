"""Encodings of Python's own containers.

Owns how sequences, dicts and sets are written. Their children are encoded inline; only sets hash each child.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gristmill.identity import tags
from gristmill.identity.columns import WORTHWHILE, scalar_digests, scalar_rows
from gristmill.identity.encoder import PREFIX, Encoder, Writer
from gristmill.identity.primitives import length, text
from gristmill.identity.scalars import SCALARS
from gristmill.identity.types import SIZE


def write_items(encoder: Encoder, values: list[Any] | tuple[Any, ...]) -> None:
    """Append the children of a sequence, in columns where they are homogeneous numbers."""
    if len(values) >= WORTHWHILE:
        table = scalar_rows(values)
        if table is not None:
            encoder.parts.append(table.tobytes())
            return
    encoder.values(values)


def _write_list(encoder: Encoder, value: list[Any]) -> None:
    encoder.parts.append(tags.LIST + length(len(value)))
    write_items(encoder, value)


def _write_tuple(encoder: Encoder, value: tuple[Any, ...]) -> None:
    encoder.parts.append(tags.TUPLE + length(len(value)))
    write_items(encoder, value)


def _write_dict(encoder: Encoder, value: dict[Any, Any]) -> None:
    """Keys and values in insertion order, which functions can see."""
    append, compound, scalar_of = encoder.parts.append, encoder.compound, SCALARS.get
    append(tags.DICT + length(len(value)))
    for key, item in value.items():
        if type(key) is str:
            append(text(key))
        else:
            encoder.value(key)
        scalar = scalar_of(type(item))
        if scalar is not None:
            append(scalar(item))
        else:
            compound(item)


def write_unordered(encoder: Encoder, tag: bytes, value: Collection[Any]) -> None:
    """Digests of the children, sorted: the iteration order of a set depends on the process."""
    block = scalar_digests(PREFIX, list(value))
    if block is not None:
        digests = sorted([block[start : start + SIZE] for start in range(0, len(block), SIZE)])
    else:
        digests = sorted(map(encoder.separate, value))
    encoder.parts.append(tag + length(len(digests)) + b"".join(digests))


def _write_set(encoder: Encoder, value: set[Any]) -> None:
    write_unordered(encoder, tags.SET, value)


def _write_frozenset(encoder: Encoder, value: frozenset[Any]) -> None:
    write_unordered(encoder, tags.FROZENSET, value)


CONTAINERS: Mapping[type, Writer] = {
    list: _write_list,
    tuple: _write_tuple,
    dict: _write_dict,
    set: _write_set,
    frozenset: _write_frozenset,
}
