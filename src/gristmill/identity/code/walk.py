"""The graph of everything that a function's behaviour depends on.

Owns the walk from object to object and the digest of what it found. Knows the kinds of objects only through
the describer that it is given.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from types import CodeType
from typing import Any

from xxhash import xxh3_128_digest

from gristmill.identity.code.colour import digests
from gristmill.identity.code.origin import Origin, Policy, counted, distribution
from gristmill.identity.code.reads import Reads
from gristmill.identity.primitives import length, text


@dataclass(slots=True, eq=False)
class Vertex:
    """One thing that counts: a function, a class, a value, a library's function."""

    kind: str
    name: str
    location: str
    thing: Any
    local: list[bytes] = field(default_factory=list)
    """What counts about the thing itself."""
    versions: list[int] = field(default_factory=list)
    """Which places of `local` are versions of distributions."""
    edges: list[int] = field(default_factory=list)
    """What else it depends on."""
    combine: Callable[[Sequence[bytes]], bytes] | None = None
    """Digest from those of the edges' ends, where it is not just local bytes and those."""

    def note(self, *parts: str | bytes) -> None:
        """Count some text or bytes."""
        self.local += [length(len(part)) + part if isinstance(part, bytes) else text(part) for part in parts]

    def own_digest(self) -> bytes:
        """Digest of the thing alone."""
        return xxh3_128_digest(text(self.kind) + b"".join(self.local))

    def text_digest(self) -> bytes:
        """Digest of the thing alone, whatever versions of distributions it meets."""
        kept = (part for place, part in enumerate(self.local) if place not in self.versions)
        return xxh3_128_digest(text(self.kind) + b"".join(kept))

    def digest(self, targets: Sequence[bytes]) -> bytes:
        """Digest of the thing and all that it depends on."""
        if self.combine is not None:
            return self.combine(targets)
        return xxh3_128_digest(self.own_digest() + b"".join(targets))


@dataclass(slots=True, eq=False)
class Walk:
    """A walk over everything that can be reached from one function.

    Each thing is met once, told apart by its identity; `describe` says what counts about it and where to go
    on.
    """

    home: str | None
    policy: Policy
    ignored: frozenset[str]
    describe: Callable[[Walk, Vertex], None]
    reads: Reads = field(default_factory=Reads)
    vertices: list[Vertex] = field(default_factory=list)
    unfollowed: set[str] = field(default_factory=set)
    libraries: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Version and counted version of each distribution met, by name."""
    _known: dict[object, int] = field(default_factory=dict)

    def run(self, root: Vertex, describe_root: Callable[[Walk, Vertex], None]) -> list[bytes]:
        """Walk from `root`, which is described in its own way; the first digest is its."""
        self.vertices.append(root)
        describe_root(self, root)
        for i, vertex in enumerate(self.vertices):  # grows meanwhile
            if i:
                self.describe(self, vertex)
        edges = [vertex.edges for vertex in self.vertices]
        return digests(edges, lambda i, targets: self.vertices[i].digest(targets))

    def edge(self, source: Vertex, label: str, thing: Any, name: str = "", location: str = "") -> None:
        """Make `source` depend on `thing` under a label."""
        source.note(label)
        source.edges.append(self.place(thing, name or label, location or source.location))

    def place(self, thing: Any, name: str, location: str, key: object = None) -> int:
        """The number of the vertex for a thing."""
        key = id(thing) if key is None else key
        number = self._known.get(key)
        if number is None:
            number = self._known[key] = len(self.vertices)
            self.vertices.append(Vertex("value", name, location, thing))
        return number

    def is_own(self, module: object) -> bool:
        """Whether a module is the user's, by what should be its name."""
        return isinstance(module, str) and self.policy.origin(module, self.home) is Origin.OWN

    def library(self, vertex: Vertex, module: str, name: str) -> None:
        """Describe something by its name and the version of what it is installed with."""
        vertex.kind, vertex.name = "library", f"{module}.{name}"
        vertex.note(module, name)
        self.count_version(vertex, module)

    def count_version(self, vertex: Vertex, module: str) -> None:
        """Count the distribution of a module and its version; Python's own counts once for all."""
        found = None if self.policy.origin(module, self.home) is Origin.STDLIB else distribution(module)
        name, version = found or ("", "")
        part = counted(version, self.policy.versions)
        if found:
            self.libraries[name] = (version, part)
        vertex.note(name)
        vertex.versions.append(len(vertex.local))
        vertex.note(part)


def place_of(code: CodeType) -> str:
    """File name and line of a code object, for people."""
    return f"{PurePath(code.co_filename).name}:{code.co_firstlineno}"


def python_version() -> str:
    """Major and minor version of the interpreter."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"
