"""What counts about values, wrappers and compiled functions that code refers to.

Owns the kinds of objects a walk may meet and which of them are state that does not count. Knows nothing of
how values are digested.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

from xxhash import xxh3_128_digest

from gristmill.errors import DigestError
from gristmill.identity.code.classes import describe_class
from gristmill.identity.code.functions import (
    describe_closure,
    describe_defaults,
    describe_function,
    module_of,
)
from gristmill.identity.code.walk import Vertex, Walk
from gristmill.identity.scalars import SCALARS

_BLANK = bytes(16)
_IMMUTABLE = frozenset((int, float, complex, bool, str, bytes, type(None), type(...), range))

# Modules whose instances are state or hold a resource: what they were at some moment says nothing about code.
_STATE = frozenset(
    (
        "_thread", "threading", "logging", "socket", "_socket", "ssl", "_ssl", "select", "selectors", "subprocess",
        "sqlite3", "asyncio", "_asyncio", "concurrent", "multiprocessing", "contextvars", "_contextvars", "weakref",
        "_weakref", "queue", "_queue", "tempfile", "mmap", "gc", "sched", "signal", "http", "smtplib", "ftplib",
    )
)  # fmt: skip
_STREAMS = frozenset(("FileIO", "BufferedReader", "BufferedWriter", "BufferedRandom", "TextIOWrapper"))

_COMPILED = (
    BuiltinFunctionType,
    MethodDescriptorType,
    WrapperDescriptorType,
    MethodWrapperType,
    ClassMethodDescriptorType,
    GetSetDescriptorType,
    MemberDescriptorType,
)

Describer = Callable[[Walk, Vertex, Any], None]


def describe(walk: Walk, vertex: Vertex) -> None:
    """Describe whatever a vertex stands for."""
    thing = vertex.thing
    kind = type(thing)
    if kind in _IMMUTABLE:
        vertex.note(SCALARS[kind](thing))
        return
    describer = _DESCRIBERS.get(kind) or _inherited(thing)
    describer(walk, vertex, thing)


def _inherited(thing: object) -> Describer:
    if isinstance(thing, type):
        return _class
    if isinstance(thing, ModuleType):
        return _module
    if isinstance(thing, functools.partial):
        return _partial
    if _is_state(thing):
        return _state
    return _value


def describe_root(walk: Walk, vertex: Vertex) -> None:
    """Describe the function that a fingerprint is asked for: the defaults of its parameters are arguments."""
    thing = vertex.thing
    if isinstance(thing, FunctionType) and walk.is_own(module_of(thing)):
        describe_function(walk, vertex, thing, defaults=False)
    elif isinstance(thing, MethodType) and isinstance(thing.__func__, FunctionType):
        _bound(walk, vertex, thing, "root")
    elif isinstance(thing, functools.partial):
        _partial(walk, vertex, thing, "root")
    else:
        describe(walk, vertex)


def _function(walk: Walk, vertex: Vertex, thing: FunctionType) -> None:
    module = module_of(thing)
    if walk.is_own(module):
        describe_function(walk, vertex, thing)
    elif _is_findable(thing):
        walk.library(vertex, thing.__module__, thing.__qualname__)
    else:
        _product(walk, vertex, thing)


def _is_findable(thing: FunctionType) -> bool:
    """Whether a library's function is what its name says, and not one that it made for the user."""
    import sys

    found: Any = sys.modules.get(thing.__module__)
    for part in thing.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is thing


def _product(walk: Walk, vertex: Vertex, thing: FunctionType) -> None:
    """Describe a function that a library made, such as a decorator's wrapper: its name and what it closes
    over.
    """
    code = thing.__code__
    walk.reads.function(thing)
    walk.library(vertex, module_of(thing) or "", code.co_qualname)
    if "registry" in vars(thing) and "dispatch" in vars(thing):
        _dispatch(walk, vertex, thing)
    else:
        describe_defaults(walk, vertex, thing)
        describe_closure(walk, vertex, thing)


def _dispatch(walk: Walk, vertex: Vertex, thing: Any) -> None:
    """Describe `functools.singledispatch`: its closure also holds a cache, so the registry speaks for it."""
    registered = [(f"{kind.__module__}.{kind.__qualname__}", kind) for kind in thing.registry]
    for name, kind in sorted(registered, key=lambda pair: pair[0]):
        walk.edge(vertex, f"on {name}", kind)
        walk.edge(vertex, f"does {name}", thing.registry[kind])
    walk.reads.value(lambda: tuple(map(id, thing.registry.values())), tuple(map(id, thing.registry.values())))


def _class(walk: Walk, vertex: Vertex, thing: type) -> None:
    if walk.is_own(thing.__module__):
        describe_class(walk, vertex, thing)
    else:
        walk.library(vertex, thing.__module__, thing.__qualname__)


def _module(_: Walk, vertex: Vertex, thing: ModuleType) -> None:
    vertex.kind = "module"
    vertex.note(thing.__name__)


def _bound(walk: Walk, vertex: Vertex, thing: MethodType, role: str = "helper") -> None:
    vertex.kind = "method"
    _callee(walk, vertex, thing.__func__, role)
    walk.edge(vertex, "self", thing.__self__, f"self of {vertex.name}")


def _callee(walk: Walk, vertex: Vertex, function: Any, role: str) -> None:
    """Depend on the function below a method or partial."""
    if role == "root" and isinstance(function, FunctionType) and walk.is_own(module_of(function)):
        describe_function(walk, vertex, function, defaults=False)
    else:
        walk.edge(vertex, "function", function)


def _partial(walk: Walk, vertex: Vertex, thing: functools.partial[Any], role: str = "helper") -> None:
    vertex.kind = "partial"
    _callee(walk, vertex, thing.func, role)
    for i, value in enumerate(thing.args):
        walk.edge(vertex, f"argument {i}", value, f"argument {i} of {vertex.name}")
    for name, value in sorted(thing.keywords.items()):
        walk.edge(vertex, f"argument {name}", value, f"argument {name} of {vertex.name}")


def _cached(walk: Walk, vertex: Vertex, thing: Any) -> None:
    vertex.kind = "cached function"
    walk.edge(vertex, "parameters", tuple(sorted(thing.cache_parameters().items())))
    walk.edge(vertex, "function", thing.__wrapped__)


def _compiled(walk: Walk, vertex: Vertex, thing: Any) -> None:
    """Describe a function of the interpreter or an extension: by its name, and by what it is bound to."""
    owner = getattr(thing, "__self__", None)
    if owner is not None and not isinstance(owner, ModuleType):
        vertex.note(thing.__name__)
        walk.edge(vertex, "self", owner)
        return
    kind = getattr(thing, "__objclass__", None)
    if kind is not None:
        vertex.note(thing.__name__)
        walk.edge(vertex, "class", kind)
        return
    module = getattr(thing, "__module__", None) or getattr(owner, "__name__", None) or "builtins"
    walk.library(vertex, module, getattr(thing, "__qualname__", thing.__name__))
    if walk.is_own(module):
        walk.unfollowed.add(f"{module}.{thing.__name__} is compiled: changes to it are not seen")


def _is_state(thing: object) -> bool:
    return any(
        base.__module__.partition(".")[0] in _STATE
        or (base.__module__ == "_io" and base.__name__ in _STREAMS)
        for base in type(thing).__mro__
    )


def _state(walk: Walk, vertex: Vertex, thing: object) -> None:
    """Describe what is state, not code, by its kind."""
    vertex.kind = "state"
    _class_of(walk, vertex, thing)


def _class_of(walk: Walk, vertex: Vertex, thing: object) -> None:
    walk.edge(vertex, "class", type(thing))


def _value(walk: Walk, vertex: Vertex, thing: Any) -> None:
    """Describe a value by its digest, which is taken again whenever it may have changed.

    Functions and classes inside a value become edges. Their digests are not known yet, and may depend on this
    very value: they are blank at first and filled in when the value is combined.
    """
    from gristmill.identity.digest import digest

    def look() -> tuple[bytes | None, list[object]]:
        inside: list[object] = []

        def code(part: object) -> bytes:
            inside.append(part)
            return _BLANK

        try:
            return digest(thing, name=vertex.name or "value", code=code), inside
        except DigestError:
            return None, inside

    found, inside = look()
    walk.reads.value(look, (found, inside))
    if found is None:
        vertex.kind = "state"
        walk.unfollowed.add(
            f"`{vertex.name}` ({type(thing).__qualname__}) has no digest and counts by its kind only"
        )
        _class_of(walk, vertex, thing)
        return
    vertex.note(found)
    if not inside:
        return
    places = {id(part): walk.place(part, vertex.name, vertex.location) for part in inside}
    order = list(places)
    vertex.edges += places.values()

    def combine(targets: Sequence[bytes]) -> bytes:
        known = dict(zip(order, targets, strict=True))
        return xxh3_128_digest(digest(thing, code=lambda part: known[id(part)]))

    vertex.combine = combine


_DESCRIBERS: dict[type, Describer] = {
    FunctionType: _function,
    MethodType: _bound,
    functools.partial: _partial,
    type(functools.lru_cache(len)): _cached,
    **dict.fromkeys(_COMPILED, _compiled),
}
