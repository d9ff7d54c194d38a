"""Which names a code object reads from outside itself, and through which attributes.

Owns the reading of global names, imports in bodies, and what hides a name from such a reading. Knows nothing
of what the names refer to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import CodeType

from gristmill.identity.code.operations import Operation, operations

Chain = tuple[str, ...]
"""A name and the attributes read from it: ``np.linalg.norm`` is ``("np", "linalg", "norm")``."""

# Builtins that reach code by a name that is only known when they run.
_DYNAMIC = frozenset(("eval", "exec", "compile", "__import__", "globals", "locals", "vars"))


@dataclass(frozen=True, slots=True, order=True)
class Import:
    """A module that a body imports, or a name that it takes from one."""

    module: str
    """As written, without the leading dots."""
    level: int
    """Number of leading dots."""
    chain: Chain
    """Attributes read below the module."""


@dataclass(slots=True)
class Names:
    """What a code object and those nested in it read and write."""

    read: set[Chain] = field(default_factory=set)
    imported: set[Import] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    """Global names that are assigned or deleted."""
    dynamic: set[str] = field(default_factory=set)
    """Builtins called that make code reach for names unseen."""


def names(found: Sequence[Operation]) -> Names:
    """Collect the names that operations read, those of nested code objects included."""
    scan = _Scan()
    scan.body(found)
    return scan.names


class _Scan:
    def __init__(self) -> None:
        self.names = Names()
        # What imports bound, by local name. A nested function sees its parents' names, so one table serves
        # all; a name bound twice stands for both.
        self._bound: dict[str, set[Import]] = {}

    def body(self, found: Sequence[Operation]) -> None:
        self._imports(found)
        stored = {op.value for op in found if op.name == "STORE_NAME"}
        if any(op.name == "SETUP_ANNOTATIONS" for op in found):
            stored.add("__annotations__")
        for i, operation in enumerate(found):
            if isinstance(operation.value, CodeType):
                self._nested(operation.value)
            elif operation.name in _GLOBAL:
                self._global(found, i, stored)
            elif operation.name in _LOCAL and operation.value in self._bound:
                self._through_import(found, i)
            elif operation.name in ("STORE_GLOBAL", "DELETE_GLOBAL"):
                self.names.written.add(operation.value)

    def _nested(self, code: CodeType) -> None:
        self.body(operations(code))

    def _global(self, found: Sequence[Operation], i: int, stored: set[str]) -> None:
        name = found[i].value
        if name in self._bound:
            self._through_import(found, i)
        if found[i].name in _GLOBAL_ONLY or name not in stored:
            self.names.read.add((name, *_attributes(found, i + 1)))
        if name in _DYNAMIC or (name == "getattr" and not _literal(found, i)):
            self.names.dynamic.add(name)

    def _through_import(self, found: Sequence[Operation], i: int) -> None:
        chain = tuple(_attributes(found, i + 1))
        for bound in self._bound[found[i].value]:
            self.names.imported.add(Import(bound.module, bound.level, bound.chain + chain))

    def _imports(self, found: Sequence[Operation]) -> None:
        for i, operation in enumerate(found):
            if operation.name == "IMPORT_NAME":
                self._import(found, i)

    def _import(self, found: Sequence[Operation], i: int) -> None:
        """Follow one statement: IMPORT_NAME, then IMPORT_FROM and a STORE for each name, or one STORE."""
        module, names_ = found[i].value, found[i - 1].value
        level = found[i - 2].value
        level = level if isinstance(level, int) else 0
        if names_:
            for name, store in _taken(found, i + 1):
                self._bind(store, Import(module, level, (name,)))
            self.names.imported |= {Import(module, level, (name,)) for name in names_}
            return
        self.names.imported.add(Import(module, level, ()))
        following = found[i + 1]
        if following.name == "IMPORT_FROM":  # import a.b.c as d
            store = next(op for op in found[i + 1 :] if op.name.startswith("STORE_"))
            self._bind(store, Import(module, level, ()))
        else:
            self._bind(following, Import(module.partition(".")[0], level, ()))

    def _bind(self, store: Operation, bound: Import) -> None:
        if store.name.startswith("STORE_"):
            self._bound.setdefault(store.value, set()).add(bound)


_GLOBAL_ONLY = frozenset(("LOAD_GLOBAL",))
_GLOBAL = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"))
_LOCAL = frozenset(("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_DEREF", "LOAD_CLASSDEREF"))


def _attributes(found: Sequence[Operation], i: int) -> Iterator[str]:
    while i < len(found) and found[i].name in ("LOAD_ATTR", "LOAD_METHOD"):
        yield found[i].value
        i += 1


def _taken(found: Sequence[Operation], i: int) -> Iterator[tuple[str, Operation]]:
    while found[i].name == "IMPORT_FROM":
        yield found[i].value, found[i + 1]
        i += 2


def _literal(found: Sequence[Operation], i: int) -> bool:
    """Whether the attribute that ``getattr`` is called for stands in the code."""
    return any(op.name == "LOAD_CONST" and isinstance(op.value, str) for op in found[i + 1 : i + 5])
