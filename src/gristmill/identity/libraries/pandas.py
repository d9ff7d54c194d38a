"""Encodings of pandas frames, series, indexes, arrays, dtypes and scalars.

Owns what the schema of a frame is. Columns are encoded by their content, so that neither blocks nor memory
layout count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped, unused-ignore]
from pandas.api.extensions import ExtensionArray  # type: ignore[import-untyped, unused-ignore]

from gristmill.identity import tags
from gristmill.identity.arrays import write_columns
from gristmill.identity.encoder import Encoder, Writer
from gristmill.identity.primitives import text
from gristmill.identity.standard import Parts, by_parts


def writers() -> Mapping[type, Writer]:
    """Return the writers of pandas' types."""
    indexes = (pd.Index, pd.DatetimeIndex, pd.TimedeltaIndex, pd.PeriodIndex, pd.CategoricalIndex)
    return {
        pd.DataFrame: _write_frame,
        pd.Series: _write_series,
        **dict.fromkeys((*indexes, pd.IntervalIndex), _write_index),
        pd.RangeIndex: by_parts("pandas.RangeIndex", lambda v: (v.name, v.start, v.stop, v.step)),
        pd.MultiIndex: by_parts("pandas.MultiIndex", _multi_index),
        **{kind: _array_writer(kind, parts) for kind, parts in _ARRAYS.items()},
        ExtensionArray: _array_writer(ExtensionArray, lambda v: (np.asarray(v, dtype=object),)),
        **{kind: by_parts(f"pandas.{kind.__name__}", parts) for kind, parts in _DTYPES.items()},
        **{kind: by_parts(f"pandas.{kind.__name__}", lambda _: ()) for kind in _masked_dtypes()},
        pd.Timestamp: by_parts("pandas.Timestamp", lambda v: (v.unit, v._value, v.tz, v.fold)),  # noqa: SLF001 - `value` is in ns and overflows
        pd.Timedelta: by_parts("pandas.Timedelta", lambda v: (v.unit, v._value)),  # noqa: SLF001 - as above
        pd.Period: by_parts("pandas.Period", lambda v: (v.ordinal, v.freqstr)),
        pd.Interval: by_parts("pandas.Interval", lambda v: (v.left, v.right, v.closed)),
        type(pd.NaT): by_parts("pandas.NaT", lambda _: ()),
        type(pd.NA): by_parts("pandas.NA", lambda _: ()),
    }


def _masked(value: Any) -> tuple[object, ...]:
    """Values and mask; what lies under the mask is blanked."""
    return value.dtype.name, value.to_numpy(value.dtype.numpy_dtype, na_value=0), value.isna()


def _sparse(value: Any) -> tuple[object, ...]:
    index = value.sp_index.to_int_index().indices
    return value.dtype, len(value), index, value.sp_values


_ARRAYS: Mapping[type, Parts] = {
    pd.Categorical: lambda v: (v.codes, v.categories, v.ordered),
    pd.arrays.DatetimeArray: lambda v: (v.dtype, v.asi8),
    pd.arrays.TimedeltaArray: lambda v: (v.dtype, v.asi8),
    pd.arrays.PeriodArray: lambda v: (v.freqstr, v.asi8),
    pd.arrays.IntegerArray: _masked,
    pd.arrays.FloatingArray: _masked,
    pd.arrays.BooleanArray: _masked,
    pd.arrays.IntervalArray: lambda v: (v.closed, v.left, v.right),
    pd.arrays.SparseArray: _sparse,
    pd.arrays.NumpyExtensionArray: lambda v: (v.to_numpy(),),
    pd.arrays.StringArray: lambda v: (v.dtype, v.to_numpy()),
    pd.arrays.ArrowStringArray: lambda v: (v.dtype, v.__arrow_array__()),
    pd.arrays.ArrowExtensionArray: lambda v: (v.__arrow_array__(),),
}

_DTYPES: Mapping[type, Parts] = {
    pd.CategoricalDtype: lambda v: (v.categories, v.ordered),
    pd.DatetimeTZDtype: lambda v: (v.unit, v.tz),
    pd.PeriodDtype: lambda v: (v.freq.freqstr,),
    pd.IntervalDtype: lambda v: (v.subtype, v.closed),
    pd.StringDtype: lambda v: (v.storage, v.na_value),
    pd.ArrowDtype: lambda v: (v.pyarrow_dtype,),
    pd.SparseDtype: lambda v: (v.subtype, v.fill_value),
}


def _masked_dtypes() -> list[type]:
    names = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64")
    return [getattr(pd, f"{name}Dtype") for name in (*names, "Boolean")]


def _array_writer(kind: type, parts: Parts) -> Writer:
    return by_parts(f"pandas.{kind.__name__}", parts)


def _multi_index(value: pd.MultiIndex) -> tuple[object, ...]:
    return list(value.names), list(value.levels), [np.asarray(codes) for codes in value.codes]


def _write_index(encoder: Encoder, value: Any) -> None:
    encoder.parts.append(tags.NAMED + text(f"pandas.{type(value).__name__}"))
    encoder.values((value.name, getattr(value, "freq", None)))
    encoder.value(_content(value))


def _write_series(encoder: Encoder, value: pd.Series[Any]) -> None:
    encoder.parts.append(tags.NAMED + text("pandas.Series"))
    encoder.value(value.name)
    encoder.part(".index", value.index)
    _write_extras(encoder, value)
    encoder.part(".array", _content(value))


def _write_frame(encoder: Encoder, value: pd.DataFrame) -> None:
    """Append the columns' names, the index, and the columns."""
    encoder.parts.append(tags.NAMED + text("pandas.DataFrame"))
    encoder.part(".columns", value.columns)
    encoder.part(".index", value.index)
    _write_extras(encoder, value)
    columns = [_content(value.iloc[:, position]) for position in range(value.shape[1])]
    write_columns(encoder, value.columns, columns)


def _write_extras(encoder: Encoder, value: Any) -> None:
    """Append what pandas carries along with a frame, and what a subclass has it carry along."""
    carried = {name: getattr(value, name, None) for name in type(value)._metadata if name != "_name"}  # noqa: SLF001 - the documented seam for subclasses
    encoder.part(".attrs", value.attrs)
    encoder.value(value.flags.allows_duplicate_labels)
    encoder.fields(carried)


def _content(value: Any) -> Any:
    """Unwrap the array of a series or index: a view of numpy's where that is all there is to it."""
    array = value.array
    return array.to_numpy() if type(array) is pd.arrays.NumpyExtensionArray else array
