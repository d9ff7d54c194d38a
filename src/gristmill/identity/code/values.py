"""What counts about values, wrappers and compiled functions that code refers to.

Owns the kinds of objects a walk may meet and which of them are state that does not count. Knows nothing of
how values are digested.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
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
from gristmill.identity.code.flow import constant
from gristmill.identity.code.functions import (
    describe_closure,
    describe_defaults,
    describe_function,
    module_of,
)
from gristmill.identity.code.walk import Vertex, Walk

_BLANK = bytes(16)
_IMMUTABLE = frozenset((int, float, complex, bool, str, bytes, type(None), type(...)))

# Modules whose instances are state or hold a resource: what they were at some moment says nothing about code.
_STATE = frozenset(
    (
        *(
            "_thread",
            "threading",
            "_threading_local",
            "multiprocessing",
            "concurrent",
            "subprocess",
            "signal",
            "sched",
        ),
        *(
            "asyncio",
            "_asyncio",
            "queue",
            "_queue",
            "contextvars",
            "_contextvars",
            "weakref",
            "_weakref",
            "gc",
        ),
        *("logging", "socket", "_socket", "ssl", "_ssl", "select", "selectors", "http", "smtplib", "ftplib"),
        *("sqlite3", "mmap", "tempfile"),
    )
)
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
        vertex.note(constant(thing))
        return
    describer = _DESCRIBERS.get(kind) or _inherited(walk, thing)
    describer(walk, vertex, thing)


def _inherited(walk: Walk, thing: object) -> Describer:
    kind = type(thing)  # never isinstance: a proxy may claim any class, and look for what it stands for
    for base, describer in _BASES.items():
        if issubclass(kind, base):
            return describer
    if _is_state(kind):
        return _state
    if _library_name(walk, thing):
        return _named
    return _made_ufunc if kind.__name__ == "ufunc" else _value


def describe_root(walk: Walk, vertex: Vertex) -> None:
    """Describe a node's function: the defaults of its parameters are arguments."""
    thing = vertex.thing
    if isinstance(thing, FunctionType) and walk.is_own(module_of(thing)):
        describe_function(walk, vertex, thing, defaults=False)
    elif isinstance(thing, MethodType):
        _bound(walk, vertex, thing, root=True)
    elif isinstance(thing, functools.partial):
        _partial(walk, vertex, thing, root=True)
    else:
        describe(walk, vertex)


def _function(walk: Walk, vertex: Vertex, thing: FunctionType) -> None:
    if walk.is_own(module_of(thing)):
        describe_function(walk, vertex, thing)
    elif _library_name(walk, thing):
        _named(walk, vertex, thing)
    else:
        _product(walk, vertex, thing)


def _library_name(walk: Walk, thing: Any) -> tuple[str, str] | None:
    """Module and name under which a library keeps a function: not one that it made for the user."""
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None)
    module = getattr(thing, "__module__", None)
    # Universal functions do not say where they are from.
    modules = ("numpy", "scipy.special") if type(thing).__name__ == "ufunc" else (module,)
    for module in modules:
        if isinstance(module, str) and isinstance(name, str) and not walk.is_own(module):
            found: Any = sys.modules.get(module)
            for part in name.split("."):
                found = getattr(found, part, None)
            if found is thing:
                return module, name
    return None


def _named(walk: Walk, vertex: Vertex, thing: Any) -> None:
    walk.library(vertex, *(_library_name(walk, thing) or ("", "")))


def _made_ufunc(walk: Walk, vertex: Vertex, thing: Any) -> None:
    """Describe a universal function that no library keeps; numpy does not show what it was made from."""
    vertex.note(thing.__name__, str(thing.nin), str(thing.nout))
    walk.unfollowed.add(f"`{vertex.name}` is a ufunc made from a function that cannot be seen")


def _product(walk: Walk, vertex: Vertex, thing: FunctionType) -> None:
    """Describe what a library made, such as a wrapper: by its name and what it closes over."""
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
    walk.reads.group(thing.registry.values)


def _class(walk: Walk, vertex: Vertex, thing: type) -> None:
    if walk.is_own(thing.__module__):
        describe_class(walk, vertex, thing)
    else:
        walk.library(vertex, str(thing.__module__), thing.__qualname__)


def _module(_: Walk, vertex: Vertex, thing: ModuleType) -> None:
    vertex.kind = "module"
    vertex.note(thing.__name__)


def _bound(walk: Walk, vertex: Vertex, thing: MethodType, *, root: bool = False) -> None:
    vertex.kind = "method"
    _callee(walk, vertex, thing.__func__, root=root)
    walk.edge(vertex, "self", thing.__self__, f"self of {vertex.name}")


def _callee(walk: Walk, vertex: Vertex, function: Any, *, root: bool) -> None:
    """Depend on the function below a method or partial."""
    if root and isinstance(function, FunctionType) and walk.is_own(module_of(function)):
        describe_function(walk, vertex, function, defaults=False)
    else:
        walk.edge(vertex, "function", function)


def _partial(walk: Walk, vertex: Vertex, thing: functools.partial[Any], *, root: bool = False) -> None:
    vertex.kind = "partial"
    _callee(walk, vertex, thing.func, root=root)
    for i, value in enumerate(thing.args):
        walk.edge(vertex, f"argument {i}", value, f"argument {i} of {vertex.name}")
    for name, value in sorted(thing.keywords.items()):
        walk.edge(vertex, f"argument {name}", value, f"argument {name} of {vertex.name}")


def _cached(walk: Walk, vertex: Vertex, thing: Any) -> None:
    vertex.kind = "cached function"
    walk.edge(vertex, "parameters", tuple(sorted(thing.cache_parameters().items())))
    walk.edge(vertex, "function", thing.__wrapped__)


def _cached_property(walk: Walk, vertex: Vertex, thing: functools.cached_property[Any]) -> None:
    vertex.kind = "property"
    walk.edge(vertex, "function", thing.func)


def _dispatched(walk: Walk, vertex: Vertex, thing: functools.singledispatchmethod[Any]) -> None:
    vertex.kind = "method"
    walk.edge(vertex, "dispatcher", thing.dispatcher)
    walk.edge(vertex, "function", thing.func)


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


def _is_state(kind: type) -> bool:
    return any(
        base.__module__.partition(".")[0] in _STATE
        or (base.__module__ == "_io" and base.__name__ in _STREAMS)
        for base in kind.__mro__
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
    if not _is_constant(thing):
        walk.reads.value(look, (found, inside))
    if found is None:
        _in_pieces(walk, vertex, thing)
        return
    vertex.note(found)
    if not inside:
        return
    vertex.edges += [walk.place(part, vertex.name, vertex.location) for part in inside]

    def combine(targets: Sequence[bytes]) -> bytes:
        # In the order met, not by object: pickling may make a function anew each time it is asked.
        following = iter(targets)
        return xxh3_128_digest(digest(thing, code=lambda _: next(following)))

    vertex.combine = combine


def _is_constant(thing: object) -> bool:
    """Tell whether a value can only change by being replaced, which is noted where it is looked up."""
    return type(thing) is tuple and _IMMUTABLE.issuperset(map(type, thing))


def _in_pieces(walk: Walk, vertex: Vertex, thing: Any) -> None:
    """Describe a value that has no digest by what it holds, so that only the culprit counts by its kind."""
    vertex.kind = "object"
    _class_of(walk, vertex, thing)
    pieces = list(_pieces(thing))
    walk.reads.group(lambda: (piece for _, piece in _pieces(thing)))
    for label, piece in pieces:
        walk.edge(vertex, label, piece, f"{vertex.name}{label}")
    if not pieces:
        what = f"`{vertex.name}` ({type(thing).__qualname__})"
        walk.unfollowed.add(f"{what} has no digest and counts by its kind only")


def _pieces(thing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, list | tuple):
        yield from ((f"[{i}]", item) for i, item in enumerate(thing))
    elif isinstance(thing, dict):
        for i, (key, value) in enumerate(thing.items()):
            yield f" key {i}", key
            yield f"[{key!r}]" if isinstance(key, str) else f" value {i}", value
    for name, value in sorted(getattr(thing, "__dict__", {}).items()):
        yield f".{name}", value
    for kind in type(thing).__mro__:
        for name, slot in sorted(vars(kind).items()):
            if isinstance(slot, MemberDescriptorType) and name != "__dict__" and hasattr(thing, name):
                yield f".{name}", getattr(thing, name)


_DESCRIBERS: dict[type, Describer] = {
    FunctionType: _function,
    MethodType: _bound,
    functools.partial: _partial,
    type(functools.lru_cache(len)): _cached,
    functools.cached_property: _cached_property,
    functools.singledispatchmethod: _dispatched,
    **dict.fromkeys(_COMPILED, _compiled),
}

_BASES: dict[type, Describer] = {type: _class, ModuleType: _module, functools.partial: _partial}
