"""Encodings of Arrow tables, arrays, scalars and types.

Owns a form of Arrow data in which chunks, offsets into shared buffers and what lies under nulls do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from xxhash import xxh3_128_digest

from gristmill.identity import tags
from gristmill.identity.arrays import write_array
from gristmill.identity.encoder import Encoder, Writer
from gristmill.identity.primitives import length, text


def writers() -> Mapping[type, Writer]:
    """Return the writers of Arrow's types."""
    arrays = dict.fromkeys(_subclasses(pa.Array), _write_array)
    return {
        **arrays,
        **dict.fromkeys(_subclasses(pa.DataType), _write_type),
        **dict.fromkeys(_subclasses(pa.Scalar), _write_scalar),
        pa.ChunkedArray: _write_array,
        pa.Table: _write_table,
        pa.RecordBatch: _write_table,
        pa.Schema: _write_schema,
        pa.Field: _write_field,
    }


def _subclasses(kind: type) -> set[type]:
    """Find the library's own subclasses; a user's extension type is another one."""
    found = {kind}
    subclasses: list[type] = kind.__subclasses__()
    for sub in subclasses:
        if sub.__module__.partition(".")[0] == "pyarrow":
            found |= _subclasses(sub)
    return found


def _head(encoder: Encoder, name: str) -> None:
    encoder.parts.append(tags.NAMED + text("pyarrow." + name))


def _write_type(encoder: Encoder, value: pa.DataType) -> None:
    """Append a type: its id, parameters, and the types inside it."""
    _head(encoder, "DataType")
    width = value.byte_width if pa.types.is_fixed_size_binary(value) else None
    encoder.values((value.id, width, *(getattr(value, name, None) for name in _PARAMETERS)))
    if isinstance(value, pa.BaseExtensionType):
        encoder.values((value.extension_name, value.storage_type))
        encoder.value(value.__arrow_ext_serialize__() if hasattr(value, "__arrow_ext_serialize__") else None)
        return
    encoder.parts.append(length(value.num_fields))
    for i in range(value.num_fields):
        _write_field(encoder, value.field(i))
    if pa.types.is_dictionary(value):
        encoder.values((value.index_type, value.value_type))
    elif pa.types.is_run_end_encoded(value):
        encoder.values((value.run_end_type, value.value_type))
    elif pa.types.is_union(value):
        encoder.values((value.mode, list(value.type_codes)))


_PARAMETERS = ("unit", "tz", "precision", "scale", "list_size", "ordered", "keys_sorted")


def _write_field(encoder: Encoder, value: pa.Field) -> None:
    encoder.parts.append(tags.NAMED + text("pyarrow.Field") + text(value.name))
    encoder.values((value.type, value.nullable, value.metadata))


def _write_schema(encoder: Encoder, value: pa.Schema) -> None:
    _head(encoder, "Schema")
    encoder.values((value.metadata, list(value)))


def _write_table(encoder: Encoder, value: Any) -> None:
    _head(encoder, "Table" if isinstance(value, pa.Table) else "RecordBatch")
    encoder.value(value.schema)
    encoder.parts.append(length(value.num_rows))
    for name, column in zip(value.schema.names, value.columns, strict=True):
        encoder.part(f"[{name!r}]", column)


def _write_scalar(encoder: Encoder, value: pa.Scalar) -> None:
    _head(encoder, "Scalar")
    if isinstance(value, pa.ExtensionScalar):
        encoder.values((value.type, value.value))
        return
    write_content(encoder, pa.array([value.as_py()], value.type))


def _write_array(encoder: Encoder, value: Any) -> None:
    _head(encoder, "ChunkedArray" if isinstance(value, pa.ChunkedArray) else "Array")
    write_content(encoder, value)


def write_content(encoder: Encoder, value: Any) -> None:
    """Append type, length, nulls and values, however they are chunked and laid out."""
    if isinstance(value, pa.ChunkedArray):
        value = value.combine_chunks()
        value = pa.concat_arrays(value.chunks) if isinstance(value, pa.ChunkedArray) else value
    encoder.value(value.type)
    encoder.parts.append(length(len(value)))
    _write_values(encoder, value)


def _write_values(encoder: Encoder, value: Any) -> None:
    """Append which values are null, then the others; for each type by the buffers that hold them."""
    kind = value.type
    if isinstance(kind, pa.BaseExtensionType):
        _write_values(encoder, value.storage)
        return
    if pa.types.is_null(kind):
        return
    if pa.types.is_dictionary(kind):
        _write_values(encoder, value.indices)
        write_content(encoder, value.dictionary)
        return
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        value, kind = value.cast(pa.large_binary()), pa.large_binary()
    if value.null_count:
        write_array(encoder, value.is_null().to_numpy(zero_copy_only=False))
        value = value.drop_null()
    else:
        encoder.parts.append(tags.NONE)
    _write_valid(encoder, kind, value)


def _write_valid(encoder: Encoder, kind: pa.DataType, value: Any) -> None:
    if pa.types.is_boolean(kind):
        write_array(encoder, value.to_numpy(zero_copy_only=False))
    elif any(test(kind) for test in _VARIABLE):
        _write_strings(encoder, value)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        write_array(encoder, value.value_lengths().to_numpy().astype(np.int64))
        write_content(encoder, value.flatten())
    elif pa.types.is_fixed_size_list(kind):
        write_content(encoder, value.flatten())
    elif pa.types.is_struct(kind):
        for part in value.flatten():
            write_content(encoder, part)
    elif any(test(kind) for test in _FIXED):
        _write_fixed(encoder, value)
    else:
        encoder.value(value.to_pylist())


_FIXED = (pa.types.is_primitive, pa.types.is_decimal, pa.types.is_fixed_size_binary, pa.types.is_interval)
_LARGE = (pa.types.is_large_string, pa.types.is_large_binary)
_VARIABLE = (pa.types.is_string, pa.types.is_binary, *_LARGE)


def _write_fixed(encoder: Encoder, value: Any) -> None:
    """Append values of one width straight from their buffer."""
    width = value.type.bit_width // 8
    data = value.buffers()[1]
    start = value.offset * width
    content = memoryview(data)[start : start + len(value) * width] if data is not None else b""
    encoder.parts.append(xxh3_128_digest(content))


def _write_strings(encoder: Encoder, value: Any) -> None:
    """Append the lengths and the joined bytes of strings."""
    if not len(value):
        return
    _, offsets, data = value.buffers()
    width = np.dtype(np.int64 if any(test(value.type) for test in _LARGE) else np.int32)
    ends = np.frombuffer(offsets, width, len(value) + 1, value.offset * width.itemsize)
    write_array(encoder, np.diff(ends).astype(np.int64))
    content = memoryview(data)[int(ends[0]) : int(ends[-1])] if data is not None else b""
    encoder.parts.append(xxh3_128_digest(content))
