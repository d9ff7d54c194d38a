"""The identity of code: `fingerprint`.

Owns the entry point, the memo of earlier fingerprints, and the account of what one was made from. Knows
nothing of nodes, and leaves values to `digest`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Literal, NamedTuple, overload

from xxhash import xxh3_128_digest

from gristmill.errors import DigestError
from gristmill.identity.code.functions import module_of
from gristmill.identity.code.origin import Policy, Versions, is_home, top_level
from gristmill.identity.code.reads import Reads
from gristmill.identity.code.values import describe, describe_root
from gristmill.identity.code.walk import Vertex, Walk, python_version
from gristmill.identity.primitives import text
from gristmill.identity.types import SCHEME, Digest


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that a fingerprint depends on."""

    kind: str
    """``function``, ``class``, ``value``, ``library``, …"""
    name: str
    """What its code or the code that uses it calls it."""
    location: str
    """Where to find it, for people; it does not count."""
    digest: Digest
    """Identity of the part alone, so that the part that changed is the one whose digest did; versions of
    distributions are parts of their own."""


@dataclass(frozen=True, slots=True)
class CodeReport:
    """A fingerprint and what it was made from."""

    digest: Digest
    """The fingerprint."""
    parts: tuple[Part, ...]
    """Everything that it depends on, sorted."""
    unfollowed: tuple[str, ...]
    """What the code may depend on and the fingerprint does not."""


class _Options(NamedTuple):
    ignored: frozenset[str]
    policy: Policy
    defaults: bool


@dataclass(frozen=True, slots=True)
class _Found:
    report: CodeReport
    reads: Reads


_MEMO_SIZE = 1024

_memo: dict[tuple[object, ...], tuple[weakref.ref[Any], _Found]] = {}
"""Fingerprints by the identity of live functions and the options. Module state because a function is
fingerprinted by whoever meets it. An entry is used only while everything it read is unchanged. It goes when
its function goes; the size is bounded for functions that refer to themselves, which their own entries keep
alive."""


@overload
def fingerprint(
    function: Callable[..., object],
    *,
    version: str | None = None,
    ignore_globals: Collection[str] = (),
    versions: Versions = "major",
    own_modules: Collection[str] = (),
    library_modules: Collection[str] = (),
    defaults: bool = False,
    explain: Literal[False] = False,
) -> Digest: ...


@overload
def fingerprint(
    function: Callable[..., object],
    *,
    version: str | None = None,
    ignore_globals: Collection[str] = (),
    versions: Versions = "major",
    own_modules: Collection[str] = (),
    library_modules: Collection[str] = (),
    defaults: bool = False,
    explain: Literal[True],
) -> CodeReport: ...


def fingerprint(
    function: Callable[..., object],
    *,
    version: str | None = None,
    ignore_globals: Collection[str] = (),
    versions: Versions = "major",
    own_modules: Collection[str] = (),
    library_modules: Collection[str] = (),
    defaults: bool = False,
    explain: bool = False,
) -> Digest | CodeReport:
    """Return the identity of a function's behaviour: its live code and everything of the user's that it uses.

    Parameters
    ----------
    function
        Anything that can be called.
    version
        Stands for the code, together with module and qualified name.
    ignore_globals
        Names of globals, closure variables or ``Class.attribute`` that do not count.
    versions
        How much of the version of an installed distribution counts: its `"major"` version, the `"exact"` one, or
        `"ignore"`.
    own_modules
        Modules and packages whose code is followed wherever they are installed.
    library_modules
        Modules and packages that count by name and version wherever they are.
    defaults
        Count the defaults of the function's own parameters, as for a function that is a value. For a node's
        function they do not count: they are arguments.
    explain
        Return a `CodeReport` instead of the digest alone.

    Raises
    ------
    ValueError
        For an unknown `versions`.

    Examples
    --------
    >>> def half(x):
    ...     return x / 2
    >>> first = fingerprint(half)
    >>> def half(x):
    ...     return x * 0.5
    >>> fingerprint(half) == first
    False
    """
    if versions not in ("major", "exact", "ignore"):
        raise ValueError(f"versions={versions!r}: expected 'major', 'exact' or 'ignore'")
    if version is not None:
        report = _by_version(function, version)
    else:
        policy = Policy(versions, frozenset(own_modules), frozenset(library_modules))
        report = _remembered(function, _Options(frozenset(ignore_globals), policy, defaults))
    return report if explain else report.digest


def _by_version(function: Callable[..., object], version: str) -> CodeReport:
    """Name and version; with what is bound, which tells partials, methods and instances from each other."""
    # Here, because values are identified by code, and code by values.
    from gristmill.identity.digest import digest as value_digest

    named, bound = _unbound(function)
    name = _full_name(named)
    parts = [text(SCHEME), text("version"), text(version), text(name)]
    for value in bound:
        with suppress(DigestError):  # a connection, say: its version stands for that, too
            parts.append(value_digest(value, code=lambda thing: text(_full_name(thing))))
    digest = Digest(xxh3_128_digest(b"".join(parts)))
    return CodeReport(digest, (Part("version", name, version, digest),), ())


def _full_name(named: Any) -> str:
    module = getattr(named, "__module__", None)
    return f"{'__main__' if module == '__mp_main__' else module}.{named.__qualname__}"


def _unbound(function: Any) -> tuple[Any, list[object]]:
    """The function or class that has the name, and what is bound to it."""
    bound: list[object] = []
    while True:
        if isinstance(function, partial):
            bound.append((function.args, sorted(function.keywords.items())))
            function = function.func
        elif isinstance(function, MethodType):
            bound.append(function.__self__)
            function = function.__func__
        elif not hasattr(function, "__qualname__"):
            bound.append(function)
            function = type(function)
        else:
            return function, bound


def _remembered(function: Callable[..., object], options: _Options) -> CodeReport:
    key = (id(function), options)
    entry = _memo.get(key)
    if entry is not None and entry[0]() is function and entry[1].reads.hold():
        return entry[1].report
    found = _find(function, options)

    def forget(reference: weakref.ref[Any], memo: dict[Any, Any] = _memo) -> None:
        # `memo` is bound, since at the interpreter's exit modules are emptied first.
        if key in memo and memo[key][0] is reference:
            del memo[key]

    # What cannot be referred to weakly cannot be told from its successor.
    with suppress(TypeError):
        _memo[key] = (weakref.ref(function, forget), found)
    if len(_memo) > _MEMO_SIZE:
        with suppress(RuntimeError):  # another thread was here; it has made room, too
            _memo.pop(next(iter(_memo)), None)
    return found.report


def _find(function: Callable[..., object], options: _Options) -> _Found:
    walk = Walk(_home(function, options.policy), options.policy, options.ignored, describe)
    root = Vertex("function", getattr(function, "__qualname__", type(function).__qualname__), "", function)
    digests = walk.run(root, describe if options.defaults else describe_root)
    head = text(SCHEME) + text("fingerprint") + text(python_version())
    report = CodeReport(
        Digest(xxh3_128_digest(head + digests[0])),
        _parts(walk, digests),
        tuple(sorted(walk.unfollowed)),
    )
    return _Found(report, walk.reads)


def _home(function: object, policy: Policy) -> str | None:
    """The top-level package of a function if it is the user's, wherever it is installed."""
    function = getattr(function, "func", function)
    function = getattr(function, "__func__", function)
    module = (
        module_of(function) if isinstance(function, FunctionType) else getattr(function, "__module__", None)
    )
    top = top_level(module) if isinstance(module, str) else ""
    listed = top in policy.libraries
    return top if top and not listed and is_home(top) else None


def _parts(walk: Walk, digests: list[bytes]) -> tuple[Part, ...]:
    parts = [
        Part(v.kind, v.name, v.location, Digest(digests[i] if v.kind == "value" else v.text_digest()))
        for i, v in enumerate(walk.vertices)
    ]
    parts += [
        Part("distribution", f"{name} {counted}".strip(), version, Digest(xxh3_128_digest(text(counted))))
        for name, (version, counted) in walk.libraries.items()
    ]
    return tuple(sorted(set(parts), key=lambda part: (part.kind, part.name, part.location, part.digest)))
