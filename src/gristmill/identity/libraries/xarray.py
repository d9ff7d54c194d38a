"""Encodings of xarray's variables, data arrays and datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from gristmill.identity import tags
from gristmill.identity.encoder import Encoder, Writer
from gristmill.identity.primitives import length, text


def writers() -> Mapping[type, Writer]:
    """Return the writers of xarray's types."""
    return {
        xr.Dataset: _write_dataset,
        xr.DataArray: _write_array,
        xr.Variable: _write_variable,
        xr.IndexVariable: _write_variable,
    }


def _write_dataset(encoder: Encoder, value: xr.Dataset) -> None:
    """Append variables, coordinates and attributes, in their order; how it was stored is not part of it."""
    encoder.parts.append(tags.NAMED + text("xarray.Dataset"))
    _write_variables(encoder, {name: value.variables[name] for name in value.data_vars})
    _write_variables(encoder, {name: value.variables[name] for name in value.coords})
    encoder.value(list(value.xindexes))
    encoder.part(".attrs", value.attrs)


def _write_array(encoder: Encoder, value: xr.DataArray) -> None:
    encoder.parts.append(tags.NAMED + text("xarray.DataArray"))
    encoder.value(value.name)
    _write_variable(encoder, value.variable)
    _write_variables(encoder, {name: value.coords[name].variable for name in value.coords})
    encoder.value(list(value.xindexes))


def _write_variables(encoder: Encoder, variables: Mapping[Any, xr.Variable]) -> None:
    encoder.parts.append(length(len(variables)))
    for name, variable in variables.items():
        encoder.value(name)
        encoder.part(f"[{name!r}]", variable)


def _write_variable(encoder: Encoder, value: xr.Variable) -> None:
    """Append dimensions, attributes and data; data that is loaded on demand is loaded."""
    encoder.parts.append(tags.NAMED + text("xarray.Variable"))
    encoder.value(value.dims)
    encoder.part(".attrs", value.attrs)
    data = value.data
    encoder.part(".data", data if isinstance(data, np.ndarray) else np.asarray(data))
