"""Encodings of polars frames, series and dtypes.

Owns a form of polars data in which chunks and what lies under nulls do not count. It needs nothing but polars
and numpy, so that a digest does not depend on whether Arrow is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from polars.datatypes import DataTypeClass

from gristmill.identity import tags
from gristmill.identity.arrays import write_array
from gristmill.identity.encoder import Encoder, NoIdentityError, Writer
from gristmill.identity.primitives import length, text


def writers() -> Mapping[type, Writer]:
    """Return the writers of polars' types."""
    return {
        pl.DataFrame: _write_frame,
        pl.LazyFrame: _refuse_lazy,
        pl.Series: _write_series,
        DataTypeClass: _write_dtype_class,
        **dict.fromkeys(_subclasses(pl.DataType), _write_dtype),
    }


def _subclasses(kind: type) -> set[type]:
    return {kind}.union(*map(_subclasses, kind.__subclasses__()))


def _refuse_lazy(_: Encoder, value: pl.LazyFrame) -> None:
    raise NoIdentityError(value, "a LazyFrame is a query, whose sources may change; pass what it collects")


def _write_dtype_class(encoder: Encoder, value: Any) -> None:
    """Append a dtype that was given as its class; ``pl.Int8`` is used like ``pl.Int8()``."""
    encoder.parts.append(tags.NAMED + text("polars.DataType.class") + text(value.__name__))


def _write_dtype(encoder: Encoder, value: Any) -> None:
    """Append name and parameters of a dtype; those of dtypes inside it come from them."""
    encoder.parts.append(tags.NAMED + text("polars.DataType") + text(type(value).__name__))
    for name in ("time_unit", "time_zone", "precision", "scale", "inner", "shape"):
        encoder.value(getattr(value, name, None))
    if isinstance(value, pl.Struct):
        encoder.value([(field.name, field.dtype) for field in value.fields])
    if isinstance(value, pl.Enum):
        encoder.value(value.categories.to_list())


def _write_frame(encoder: Encoder, value: pl.DataFrame) -> None:
    encoder.parts.append(tags.NAMED + text("polars.DataFrame") + length(value.height) + length(value.width))
    for column in value.get_columns():
        encoder.part(f"[{column.name!r}]", column)


def _write_series(encoder: Encoder, value: pl.Series) -> None:
    encoder.parts.append(tags.NAMED + text("polars.Series") + text(value.name))
    _write_content(encoder, value)


def _write_content(encoder: Encoder, value: pl.Series) -> None:
    """Append dtype, length, which values are null, and then the others."""
    encoder.value(value.dtype)
    encoder.parts.append(length(len(value)))
    if value.null_count():
        write_array(encoder, value.is_null().to_numpy())
        value = value.drop_nulls()
    else:
        encoder.parts.append(tags.NONE)
    _write_valid(encoder, value)


def _write_valid(encoder: Encoder, value: pl.Series) -> None:
    kind = value.dtype
    if isinstance(kind, pl.String | pl.Binary):
        _write_strings(encoder, value)
    elif isinstance(kind, pl.Categorical | pl.Enum):
        _write_strings(encoder, value.cast(pl.String))
    elif isinstance(kind, pl.List):
        write_array(encoder, value.list.len().to_numpy())
        _write_content(encoder, value.filter(value.list.len() > 0).explode())
    elif isinstance(kind, pl.Array):
        _write_content(encoder, value.arr.to_list().explode() if kind.size else value.clear())
    elif isinstance(kind, pl.Struct):
        for field in value.struct.fields:
            _write_content(encoder, value.struct.field(field))
    elif isinstance(kind, pl.Null):
        return
    elif (kind.is_numeric() and not isinstance(kind, pl.Decimal | pl.Int128)) or isinstance(kind, pl.Boolean):
        write_array(encoder, value.to_numpy())
    elif kind.is_temporal():
        write_array(encoder, value.to_physical().to_numpy())
    else:
        encoder.value(value.to_list())


def _write_strings(encoder: Encoder, value: pl.Series) -> None:
    """Append the lengths and the joined bytes of strings."""
    if isinstance(value.dtype, pl.Binary):
        encoder.value(value.to_list())
        return
    write_array(encoder, value.str.len_bytes().to_numpy())
    encoder.value(value.str.join("").item() if len(value) else "")
