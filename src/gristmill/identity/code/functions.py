"""What counts about a function: its code, what it closes over, and what its names refer to.

Owns the resolution of global names, attributes of modules, and imports in bodies. Knows nothing of classes
and values.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import weakref
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from gristmill.identity.code import flow
from gristmill.identity.code.names import Chain, Import, Names, names
from gristmill.identity.code.operations import operations
from gristmill.identity.code.reads import MISSING
from gristmill.identity.code.walk import Vertex, Walk, place_of

# What the import system writes into a module: where it lies, not what it does.
_BY_NAME = frozenset(
    ("__file__", "__path__", "__spec__", "__loader__", "__cached__", "__package__", "__builtins__", "__doc__")
)


# Functions that run code found by a name that is only known when they are called.
_IMPORTERS = frozenset(("importlib.import_module", "runpy.run_path", "runpy.run_module"))


@dataclass(frozen=True, slots=True)
class Reading:
    """A code object, read once."""

    digest: bytes
    names: Names


_readings: dict[int, tuple[weakref.ref[CodeType], Reading]] = {}
"""Readings by the identity of live code objects. Module state because code is immutable and reading it is
most of the cost of a fingerprint; an entry goes when its code object goes. Not a WeakKeyDictionary: code
objects compare by content."""


def read(code: CodeType) -> Reading:
    """Read a code object, once in its life."""
    entry = _readings.get(id(code))
    if entry is not None and entry[0]() is code:
        return entry[1]
    found = operations(code)
    reading = Reading(flow.digest(code, found), names(found))
    key = id(code)

    def forget(reference: weakref.ref[CodeType], readings: dict[int, Any] = _readings) -> None:
        # `readings` is bound, since at the interpreter's exit modules are emptied first.
        if key in readings and readings[key][0] is reference:
            del readings[key]

    _readings[key] = (weakref.ref(code, forget), reading)
    return reading


def module_of(function: FunctionType) -> str | None:
    """The module whose names a function sees; `__module__` is what a decorator may have copied."""
    return function.__globals__.get("__name__")


def describe_function(walk: Walk, vertex: Vertex, function: FunctionType, *, defaults: bool = True) -> None:
    """Describe one of the user's functions.

    Parameters
    ----------
    defaults
        False for a node's own function: there they count as arguments.
    """
    code = function.__code__
    vertex.kind, vertex.name, vertex.location = "function", function.__qualname__, place_of(code)
    walk.reads.function(function)
    reading = read(code)
    vertex.note(reading.digest)
    if defaults:
        describe_defaults(walk, vertex, function)
    describe_closure(walk, vertex, function)
    scope = _Scope(walk, vertex, function.__globals__)
    for chain in sorted(reading.names.read):
        scope.chain(chain)
    for bound in sorted(reading.names.imported):
        scope.imported(bound)
    for name in sorted(reading.names.dynamic):
        walk.unfollowed.add(f"{vertex.name} ({vertex.location}) calls `{name}`, which may reach any code")
    for name in sorted(reading.names.written & {chain[0] for chain in reading.names.read}):
        if name not in walk.ignored:
            walk.unfollowed.add(
                f"{vertex.name} ({vertex.location}) changes the global `{name}`, which it also reads"
            )


def describe_defaults(walk: Walk, vertex: Vertex, function: FunctionType) -> None:
    """Count the defaults of parameters."""
    for i, value in enumerate(function.__defaults__ or ()):
        walk.edge(vertex, f"default {i}", value, f"default {i} of {function.__name__}")
    if function.__kwdefaults__:
        for name, value in walk.reads.items(function.__kwdefaults__):
            walk.edge(vertex, f"default {name}", value, f"default {name} of {function.__name__}")


def describe_closure(walk: Walk, vertex: Vertex, function: FunctionType) -> None:
    """Count what a function closes over and what it says that it wraps."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        value = MISSING if name in walk.ignored else walk.reads.cell(cell)
        if value is MISSING:
            vertex.note(f"closure {name}", "empty")
        else:
            walk.edge(vertex, f"closure {name}", value, name)
    wrapped = walk.reads.get(function.__dict__, "__wrapped__")
    if wrapped is not MISSING:
        walk.edge(vertex, "wrapped", wrapped)


class _Scope:
    """The names that one function sees."""

    def __init__(self, walk: Walk, vertex: Vertex, space: dict[str, Any]) -> None:
        self._walk = walk
        self._vertex = vertex
        self._space = space
        self._seen: set[str] = set()

    def chain(self, chain: Chain) -> None:
        """Count what a global name and the attributes read from it refer to."""
        name, walk = chain[0], self._walk
        if name in walk.ignored or name in _BY_NAME:
            return
        value = walk.reads.get(self._space, name)
        if value is MISSING:
            self._builtin(name)
        elif isinstance(value, ModuleType):
            self._module(value, chain[1:], name)
        else:
            self._target(f"global {name}", value, name)
            self._attribute(value, chain)

    def _attribute(self, value: object, chain: Chain) -> None:
        """Count an attribute that is read from a function by name: nothing else of its `__dict__` does."""
        if isinstance(value, FunctionType) and len(chain) > 1 and self._walk.is_own(module_of(value)):
            attribute = self._walk.reads.get(value.__dict__, chain[1])
            if attribute is not MISSING:
                self._target(f"global {chain[0]}.{chain[1]}", attribute, f"{chain[0]}.{chain[1]}")

    def _target(self, label: str, value: object, name: str) -> None:
        if label not in self._seen:
            self._seen.add(label)
            self._walk.edge(self._vertex, label, value, name, self._space.get("__name__", ""))

    def _builtin(self, name: str) -> None:
        builtins = self._space.get("__builtins__", {})
        space = vars(builtins) if isinstance(builtins, ModuleType) else builtins
        value = self._walk.reads.get(space, name)
        self._vertex.note(f"builtin {name}" if value is not MISSING else f"missing {name}")
        if value is MISSING:
            self._unfollowed(f"the name `{name}`, which is not defined")

    def _unfollowed(self, what: str) -> None:
        self._walk.unfollowed.add(f"{self._vertex.name} ({self._vertex.location}) uses {what}")

    def _module(self, module: ModuleType, rest: Chain, path: str) -> None:
        """Count an attribute of a module; a module by itself counts by its name."""
        name = module.__name__
        if not self._walk.is_own(name):
            self._foreign(module, name, rest, path)
        elif not rest:
            self._vertex.note(f"module {path}", name)
        else:
            self._attribute_of(module, rest, path)

    def _attribute_of(self, module: ModuleType, rest: Chain, path: str) -> None:
        path = f"{path}.{rest[0]}"
        value = self._walk.reads.get(vars(module), rest[0])
        if value is MISSING:
            try:
                value = getattr(module, rest[0])
            except Exception:  # noqa: BLE001 - a module's `__getattr__` is the user's code
                self._vertex.note(f"missing {path}")
                self._unfollowed(f"`{path}`, which is not defined")
                return
        if rest[0] in self._walk.ignored:
            return
        if isinstance(value, ModuleType):
            self._module(value, rest[1:], path)
        else:
            self._target(f"global {path}", value, path)

    def _foreign(self, module: ModuleType, name: str, rest: Chain, path: str) -> None:
        """Count a library's attribute as it is written: whether its submodules are loaded must not matter."""
        value: object = module
        for attribute in rest:
            if not isinstance(value, ModuleType):
                break
            value = self._walk.reads.get(vars(value), attribute)
        if isinstance(value, FunctionType) and self._walk.is_own(module_of(value)):
            self._target(f"global {path}", value, path)  # the user has put it there
            return
        attribute = ".".join(rest)
        if f"{name}.{attribute}" in _IMPORTERS:
            self._unfollowed(f"`{name}.{attribute}`, which may reach any code")
        self._vertex.note(f"library {path}", name, attribute)
        self._walk.count_version(self._vertex, name)

    def imported(self, bound: Import) -> None:
        """Count what a body imports."""
        name = self._absolute(bound)
        if name in self._walk.ignored:
            return
        if name is None or not _exists(name):
            self._vertex.note("missing import", bound.module)
            self._unfollowed(f"the module `{'.' * bound.level}{bound.module}`, which is not there to import")
        elif not self._walk.is_own(name):
            self._vertex.note("import", name, ".".join(bound.chain))
            self._walk.count_version(self._vertex, name)
        else:
            self._own_import(name, bound.chain)

    def _absolute(self, bound: Import) -> str | None:
        if not bound.level:
            return bound.module
        package = self._space.get("__package__")
        if package is None:
            package = str(self._space.get("__name__", "")).rpartition(".")[0]
        try:
            return importlib.util.resolve_name("." * bound.level + bound.module, package)
        except ImportError:
            return None

    def _own_import(self, name: str, chain: Chain) -> None:
        try:
            module = self._load(name)
            if chain and chain[0] not in vars(module) and _is_package(module):
                self._load(f"{name}.{chain[0]}", optional=True)
        except Exception as error:  # noqa: BLE001 - importing runs the user's code
            self._vertex.note("missing import", name)
            self._unfollowed(f"the module `{name}`, which does not import ({type(error).__name__})")
            return
        if module is not None:
            self._module(module, chain, name)

    def _load(self, name: str, *, optional: bool = False) -> ModuleType:
        loaded = self._walk.reads.get(sys.modules, name)
        if isinstance(loaded, ModuleType):
            return loaded
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            if not optional:
                raise
            return ModuleType(name)


def _is_package(module: ModuleType) -> bool:
    return hasattr(module, "__path__")


def _exists(name: str) -> bool:
    """Whether a module can be found; nothing is imported for it."""
    if name in sys.modules:
        return True
    top = name.partition(".")[0]
    try:
        return top in sys.modules or importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):
        return False
