"""Encodings of the standard library's values.

Owns which parts make them up, so that their digests do not follow how a Python version pickles them.
"""

from __future__ import annotations

import array
import collections
import datetime as dt
import decimal
import fractions
import functools
import io
import os
import pathlib
import random
import re
import types
import uuid
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any

from xxhash import xxh3_128_digest

from gristmill.identity import tags
from gristmill.identity.encoder import Encoder, NoIdentityError, Writer
from gristmill.identity.primitives import text

Parts = Callable[[Any], tuple[object, ...]]
"""A fixed number of values that tell one value of a type from another."""


def by_parts(name: str, parts: Parts) -> Writer:
    """Write values of the type called `name` as their parts."""
    head = tags.NAMED + text(name)

    def write(encoder: Encoder, value: object) -> None:
        encoder.parts.append(head)
        encoder.values(parts(value))

    return write


def _decimal(value: decimal.Decimal) -> tuple[object, ...]:
    sign, digits, exponent = value.as_tuple()
    return sign, bytes(digits), exponent


def _zone(value: zoneinfo.ZoneInfo) -> tuple[object, ...]:
    if value.key is None:
        raise NoIdentityError(value, "a ZoneInfo that was read from a file has no key")
    return (value.key,)


def _times(value: Any) -> tuple[object, ...]:
    return value.hour, value.minute, value.second, value.microsecond, value.fold, value.tzinfo


def _path(value: pathlib.PurePath) -> tuple[object, ...]:
    return (os.fspath(value),)


def _random(value: random.Random) -> tuple[object, ...]:
    try:
        return (value.getstate(),)
    except NotImplementedError:
        raise NoIdentityError(value, "its numbers come from the system") from None


def _write_builtin(encoder: Encoder, value: types.BuiltinFunctionType) -> None:
    """Append a C function, or a C method with what it is bound to."""
    owner = value.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        encoder.code(value)
        return
    encoder.parts.append(tags.NAMED + text("method") + text(value.__name__))
    encoder.value(owner)


def _write_code(encoder: Encoder, value: object) -> None:
    encoder.code(value)


def _write_slice(encoder: Encoder, value: slice) -> None:
    encoder.parts.append(tags.SLICE)
    encoder.values((value.start, value.stop, value.step))


def _write_namespace(encoder: Encoder, value: types.SimpleNamespace) -> None:
    encoder.parts.append(tags.NAMED + text("types.SimpleNamespace"))
    encoder.fields(vars(value))


def write_enum(encoder: Encoder, value: Any) -> None:
    """Append class and name; a combination of flags has no name of its own, so its value."""
    encoder.parts.append(tags.NAMED + text("enum.Enum") + encoder.class_identity(type(value)))
    encoder.value(value.name if value.name in type(value).__members__ else value.value)


STANDARD: Mapping[type, Writer] = {
    slice: _write_slice,
    type: _write_code,
    types.FunctionType: _write_code,
    types.BuiltinFunctionType: _write_builtin,
    types.MethodType: by_parts("method", lambda v: (v.__func__, v.__self__)),
    types.SimpleNamespace: _write_namespace,
    types.MappingProxyType: by_parts("types.MappingProxyType", lambda v: (dict(v),)),
    functools.partial: by_parts("functools.partial", lambda v: (v.func, v.args, v.keywords, vars(v))),
    type(functools.lru_cache(len)): _write_code,
    dt.date: by_parts("datetime.date", lambda v: (v.year, v.month, v.day)),
    dt.time: by_parts("datetime.time", _times),
    dt.datetime: by_parts("datetime.datetime", lambda v: (v.year, v.month, v.day, *_times(v))),
    dt.timedelta: by_parts("datetime.timedelta", lambda v: (v.days, v.seconds, v.microseconds)),
    dt.timezone: by_parts("datetime.timezone", lambda v: (v.utcoffset(None), v.tzname(None))),
    zoneinfo.ZoneInfo: by_parts("zoneinfo.ZoneInfo", _zone),
    decimal.Decimal: by_parts("decimal.Decimal", _decimal),
    fractions.Fraction: by_parts("fractions.Fraction", lambda v: (v.numerator, v.denominator)),
    uuid.UUID: by_parts("uuid.UUID", lambda v: (v.int,)),
    pathlib.PurePosixPath: by_parts("pathlib.PurePosixPath", _path),
    pathlib.PureWindowsPath: by_parts("pathlib.PureWindowsPath", _path),
    pathlib.PosixPath: by_parts("pathlib.PosixPath", _path),
    pathlib.WindowsPath: by_parts("pathlib.WindowsPath", _path),
    re.Pattern: by_parts("re.Pattern", lambda v: (v.pattern, v.flags)),
    random.Random: by_parts("random.Random", _random),
    array.array: by_parts("array.array", lambda v: (v.typecode, len(v), xxh3_128_digest(v))),
    io.BytesIO: by_parts("io.BytesIO", lambda v: (v.getvalue(), v.tell())),
    io.StringIO: by_parts("io.StringIO", lambda v: (v.getvalue(), v.tell())),
    collections.deque: by_parts("collections.deque", lambda v: (v.maxlen, list(v))),
    collections.defaultdict: by_parts("collections.defaultdict", lambda v: (v.default_factory, dict(v))),
    collections.OrderedDict: by_parts("collections.OrderedDict", lambda v: (dict(v),)),
    collections.Counter: by_parts("collections.Counter", lambda v: (dict(v),)),
}
