"""The walk over a value: what is inside it, where it encloses itself, and where it cannot go on.

Owns the state of one encoding and the path that an error names. Knows the kinds of values only through the
writers that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from xxhash import xxh3_128_digest

from gristmill.identity import tags
from gristmill.identity.primitives import length, text
from gristmill.identity.scalars import SCALARS
from gristmill.identity.types import SCHEME

PREFIX = SCHEME.encode()

Writer = Callable[["Encoder", Any], None]
"""Appends the encoding of a value to an encoder."""

Code = Callable[[Any], bytes]
"""Identity of a function or class, prefix-free."""


LONGEST = 20
"""Steps of a path that an error shows."""

_BINDINGS = ("__self__", "func", "args", "keywords")
"""Attributes of bound methods and partials, which no ``__dict__`` or ``__slots__`` lists."""


class NoIdentityError(Exception):
    """A value inside the root has no stable content; gathers the path to it on its way up."""

    def __init__(self, value: object, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self._child: object = value
        self._steps: list[str] = []

    def rise(self, parent: object, step: str | None = None) -> None:
        """Note where in `parent` the culprit is."""
        if step is not None:
            self._steps.append(step)
            self._child = None
            return
        if self._child is not None and self._child is not parent:
            self._steps.append(_step(parent, self._child))
        self._child = parent

    @property
    def path(self) -> str:
        """Where the culprit is inside the root, like ``.cfg['a'][3]``."""
        steps = self._steps[::-1]
        return "".join(steps if len(steps) <= LONGEST else [*steps[:LONGEST], "…"])


def _step(parent: object, child: object) -> str:
    """Find `child` in `parent` by identity; only now, as the hot path keeps no positions."""
    if isinstance(parent, dict):
        return next((f"[{key!r}]" for key, value in parent.items() if value is child), "")
    if isinstance(parent, list | tuple):
        return next((f"[{i}]" for i, item in enumerate(parent) if item is child), "")
    if isinstance(parent, np.ndarray):
        return next((f"[{i}]" for i, item in enumerate(parent.ravel().tolist()) if item is child), "")
    return next((f".{name}" for name, value in _attributes(parent) if value is child), "")


def _attributes(parent: object) -> Iterator[tuple[str, object]]:
    yield from getattr(parent, "__dict__", {}).items()
    for base in type(parent).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            yield slot, getattr(parent, slot, None)
    yield from ((name, getattr(parent, name, None)) for name in _BINDINGS)


class Encoder:
    """State of one encoding.

    Parameters
    ----------
    writer_of
        Chooses how values of a type are written.
    code
        Identity of the functions and classes met on the way.
    """

    __slots__ = ("_ancestors", "_code", "_identities", "_writer_of", "_writers", "parts")

    def __init__(self, writer_of: Callable[[type], Writer], code: Code) -> None:
        self.parts: list[bytes] = [PREFIX]
        self._writer_of = writer_of
        self._code = code
        self._ancestors: dict[int, int] = {}
        self._writers: dict[type, Writer] = {}
        self._identities: dict[type, bytes] = {}

    def value(self, value: object) -> None:
        """Append one value of any kind."""
        scalar = SCALARS.get(type(value))
        if scalar is not None:
            self.parts.append(scalar(value))
        else:
            self.compound(value)

    def values(self, values: Iterable[object]) -> None:
        """Append values one after the other."""
        append, compound, scalar_of = self.parts.append, self.compound, SCALARS.get
        for value in values:
            scalar = scalar_of(type(value))
            if scalar is not None:
                append(scalar(value))
            else:
                compound(value)

    def fields(self, fields: Mapping[str, Any]) -> None:
        """Append attributes sorted by name: the order of assignment is no part of an object."""
        append, compound, scalar_of = self.parts.append, self.compound, SCALARS.get
        append(tags.FIELDS + length(len(fields)))
        for name in sorted(fields):
            append(text(name))
            value = fields[name]
            scalar = scalar_of(type(value))
            if scalar is not None:
                append(scalar(value))
            else:
                compound(value)

    def compound(self, value: object) -> None:
        """Append a value that is no scalar, or a reference back to where it encloses itself.

        A back reference counts levels upwards; only ancestors matter, so that shared parts equal copies.
        """
        ancestors = self._ancestors
        identity = id(value)
        if identity in ancestors:
            self.parts.append(tags.BACK + length(len(ancestors) - ancestors[identity]))
            return
        ancestors[identity] = len(ancestors)
        kind = type(value)
        writer = self._writers.get(kind)
        if writer is None:
            writer = self._writers[kind] = self._writer_of(kind)
        try:
            writer(self, value)
        except NoIdentityError as failure:
            failure.rise(value)
            raise
        del ancestors[identity]

    def part(self, step: str, value: object) -> None:
        """Append what an error shall name by `step`, for want of an attribute that holds it."""
        try:
            self.value(value)
        except NoIdentityError as failure:
            failure.rise(None, step)
            raise

    def separate(self, value: object) -> bytes:
        """Return the digest of one value, on its own and yet aware of the ancestors here."""
        scalar = SCALARS.get(type(value))
        if scalar is not None:
            return xxh3_128_digest(PREFIX + scalar(value))
        outer, self.parts = self.parts, [PREFIX]
        try:
            self.compound(value)
            return self.digest()
        finally:
            self.parts = outer

    def class_identity(self, kind: type) -> bytes:
        """Identity of a class, looked up once per encoding."""
        identity = self._identities.get(kind)
        if identity is None:
            identity = self._identities[kind] = tags.CODE + self._code(kind)
        return identity

    def code(self, function: object) -> None:
        """Append a function or class by its code."""
        self.parts.append(tags.CODE + self._code(function))

    def digest(self) -> bytes:
        """Digest of what was appended; a root is its own."""
        parts = self.parts
        if len(parts) == 2 and parts[1][:1] == tags.ROOT:
            return parts[1][1:]
        return xxh3_128_digest(b"".join(parts))
