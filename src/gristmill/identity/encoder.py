"""The walk over a value: what is inside it, where it refers back to itself, and where it cannot go on.

Owns the state of one encoding and the path that an error names. Knows the kinds of values only through the
writers that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from xxhash import xxh3_128_digest

from gristmill.identity import tags
from gristmill.identity.scalars import SCALARS, length
from gristmill.identity.types import SCHEME

PREFIX = SCHEME.encode()

Writer = Callable[["Encoder", Any], None]
"""Appends the encoding of a value to an encoder."""

Code = Callable[[Any], bytes]
"""Identity of a function or class."""


class Unidentifiable(Exception):
    """A value inside the root has no stable identity; gathers the path on its way up."""

    def __init__(self, value: object, reason: str) -> None:
        super().__init__(reason)
        self.child: object = value
        self.reason = reason
        self.steps: list[str] = []

    def rise(self, parent: object) -> None:
        """Note where in `parent` the culprit is."""
        if self.child is not None and self.child is not parent:
            self.steps.append(_step(parent, self.child))
        self.child = parent

    @property
    def path(self) -> str:
        return "".join(reversed(self.steps))


def _step(parent: object, child: object) -> str:
    """Find `child` in `parent` by identity, only once something has failed: the hot path keeps no positions."""
    if isinstance(parent, dict):
        for key, value in parent.items():
            if value is child:
                return f"[{key!r}]"
        return ".keys()"
    if isinstance(parent, list | tuple):
        return next((f"[{i}]" for i, item in enumerate(parent) if item is child), "")
    return next((f".{name}" for name, value in _attributes(parent) if value is child), "")


def _attributes(parent: object) -> Iterable[tuple[str, object]]:
    yield from getattr(parent, "__dict__", {}).items()
    for base in type(parent).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            yield slot, getattr(parent, slot, None)


class Encoder:
    """State of one encoding.

    Parameters
    ----------
    writer_of
        Chooses how values of a type are written.
    code
        Identity of functions and classes met on the way.
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
        append, scalar_of = self.parts.append, SCALARS.get
        for value in values:
            scalar = scalar_of(type(value))
            if scalar is not None:
                append(scalar(value))
            else:
                self.compound(value)

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
        except Unidentifiable as failure:
            failure.rise(value)
            raise
        del ancestors[identity]

    def labelled(self, label: str, value: object) -> None:
        """Append a value that an error shall call ``<parent><label>``."""
        try:
            self.value(value)
        except Unidentifiable as failure:
            failure.steps.append(label)
            failure.child = None
            raise

    def separate(self, value: object) -> bytes:
        """Return the digest of one value, on its own and yet aware of the ancestors here."""
        outer, self.parts = self.parts, [PREFIX]
        try:
            self.value(value)
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
