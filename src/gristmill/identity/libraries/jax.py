"""Encodings of jax arrays and random keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax  # type: ignore[import-not-found, unused-ignore]
import numpy as np

from gristmill.identity import tags
from gristmill.identity.encoder import Encoder, Writer
from gristmill.identity.primitives import text


def writers() -> Mapping[type, Writer]:
    """Return the writers of jax's types; the public names of the concrete ones are those of their values."""
    return {type(jax.numpy.zeros(0)): _write_array, type(jax.random.key(0)): _write_key}


def _write_array(encoder: Encoder, value: Any) -> None:
    """Append content and whether its dtype is weak; on which devices it is does not count."""
    encoder.parts.append(tags.NAMED + text("jax.Array"))
    encoder.value(bool(value.weak_type))
    encoder.value(np.asarray(value))


def _write_key(encoder: Encoder, value: Any) -> None:
    encoder.parts.append(tags.NAMED + text("jax.random.key"))
    encoder.value(str(jax.random.key_impl(value)))
    encoder.value(np.asarray(jax.random.key_data(value)))
