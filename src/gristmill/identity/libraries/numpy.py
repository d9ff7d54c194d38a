"""Encodings of what numpy has besides arrays and scalars: dtypes, masked arrays, random generators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gristmill.identity import tags
from gristmill.identity.arrays import write_array
from gristmill.identity.dtypes import dtype_bytes
from gristmill.identity.encoder import Encoder, Writer
from gristmill.identity.primitives import text


def writers() -> Mapping[type, Writer]:
    """Return the writers of numpy's types."""
    codes = [*np.typecodes["All"], "V8"]
    return {
        **{type(np.dtype(code)): _write_dtype for code in codes},
        np.ma.MaskedArray: _write_masked,
        type(np.ma.masked): _write_masked_constant,
        np.random.Generator: _write_generator,
        np.random.RandomState: _write_random_state,
        np.random.SeedSequence: _write_seed_sequence,
        **dict.fromkeys(np.random.BitGenerator.__subclasses__(), _write_bit_generator),
    }


def _write_dtype(encoder: Encoder, value: np.dtype[Any]) -> None:
    encoder.parts.append(dtype_bytes(value))


def _write_masked(encoder: Encoder, value: np.ma.MaskedArray[Any, Any]) -> None:
    """Append data, mask and fill value; what lies under the mask is nobody's value, so it is blanked."""
    mask = np.ma.getmaskarray(value)
    data = np.array(value.data, copy=True)
    _blank(data, mask)
    encoder.parts.append(tags.NAMED + text("numpy.ma.MaskedArray"))
    write_array(encoder, data)
    write_array(encoder, mask)
    encoder.value(value.fill_value)
    encoder.value(bool(value.hardmask))


def _write_masked_constant(encoder: Encoder, _: object) -> None:
    encoder.parts.append(tags.NAMED + text("numpy.ma.masked"))


def _blank(data: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]) -> None:
    if mask.dtype.names is None:
        data[mask] = np.zeros((), data.dtype)
        return
    for name in mask.dtype.names:
        _blank(data[name], mask[name])


def _write_generator(encoder: Encoder, value: np.random.Generator) -> None:
    encoder.parts.append(tags.NAMED + text("numpy.random.Generator"))
    encoder.part(".bit_generator", value.bit_generator)


def _write_bit_generator(encoder: Encoder, value: Any) -> None:
    """Append the state, and the seed sequence that `spawn` would draw children from."""
    encoder.parts.append(tags.NAMED + text("numpy.random") + text(type(value).__name__))
    _write_nested(encoder, value.state)
    encoder.part(".seed_seq", value.seed_seq)


def _write_random_state(encoder: Encoder, value: np.random.RandomState) -> None:
    encoder.parts.append(tags.NAMED + text("numpy.random.RandomState"))
    _write_nested(encoder, value.get_state(legacy=False))


def _write_seed_sequence(encoder: Encoder, value: np.random.SeedSequence) -> None:
    encoder.parts.append(tags.NAMED + text("numpy.random.SeedSequence"))
    encoder.values((value.entropy, value.spawn_key, value.pool_size, value.n_children_spawned))


def _write_nested(encoder: Encoder, state: Any) -> None:
    """Append a dict of dicts sorted by name at every level: their order is numpy's business."""
    if type(state) is not dict:
        encoder.value(state)
        return
    encoder.parts.append(tags.FIELDS + len(state).to_bytes(8, "little"))
    for name in sorted(state):
        encoder.parts.append(text(name))
        _write_nested(encoder, state[name])
