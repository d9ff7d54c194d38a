"""Whether a value of one annotated type can be an argument of another.

Answers no only where it surely cannot: an annotation that is missing, unresolved or not understood accepts
everything, and so do base classes, protocols, and array-likes among each other. Knows nothing of nodes.
"""

import inspect
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, NewType, TypeVar, Union, get_args, get_origin

SCALARS = (bool, int, float, complex, str, bytes, bytearray, type(None))
TOWER = {bool: 0, int: 1, float: 2, complex: 3}
"""Each of these may stand for those with a higher number (PEP 484, "The numeric tower")."""


def compatible(given: Any, wanted: Any) -> bool:
    """Whether some value of type `given` may be passed where `wanted` is annotated.

    Examples
    --------
    >>> compatible(int, float), compatible(str, int), compatible(list[int], list[str])
    (True, False, False)
    >>> compatible(int | None, int), compatible(Any, int), compatible(list[int], Iterable[float])
    (True, True, True)
    """
    return any(_one_fits(one, other) for one in _alternatives(given) for other in _alternatives(wanted))


def holds_many(wanted: Any) -> bool:
    """Whether `wanted` may be what a reduction receives: an array, a list, or something unknown.

    Examples
    --------
    >>> holds_many(list[int]), holds_many(Any), holds_many(float), holds_many(str | None)
    (True, True, False, False)
    """
    return any(not _holds_one(_class(one)) for one in _alternatives(wanted))


def element(container: Any, depth: int = 1) -> Any:
    """The type of what is in a container, `depth` levels down; Any where the annotation does not say.

    Examples
    --------
    >>> element(list[int]), element(list[list[str]], 2), element(list)
    (<class 'int'>, <class 'str'>, typing.Any)
    """
    for _ in range(depth):
        container = _element(container)
    return container


def shown(hint: Any) -> str:
    """An annotation as its author would write it.

    Examples
    --------
    >>> shown(int), shown(list[int]), shown(int | None)
    ('int', 'list[int]', 'int | None')
    """
    return hint.__qualname__ if inspect.isclass(hint) and not get_args(hint) else str(hint)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union; an annotation that stands for another is that one."""
    if get_origin(hint) in {Union, types.UnionType}:
        return tuple(one for member in get_args(hint) for one in _alternatives(member))
    if isinstance(hint, NewType):
        return _alternatives(hint.__supertype__)
    if get_origin(hint) is Literal:
        return tuple(type(value) for value in get_args(hint))
    if isinstance(hint, TypeVar) or hint in {Any, object, typing.NoReturn, typing.Never}:
        return (Any,)
    return (type(None) if hint is None else hint,)


def _one_fits(given: Any, wanted: Any) -> bool:
    one, other = _class(given), _class(wanted)
    if one is None or other is None:
        return True
    return _classes_fit(one, other) and _arguments_fit(given, wanted)


def _class(hint: Any) -> type | None:
    """The class behind an annotation, or None if there is none to compare."""
    if typing.is_typeddict(hint):
        return dict
    origin = get_origin(hint) or hint
    if (
        origin is Any
        or not inspect.isclass(origin)
        or origin is type
        or getattr(origin, "_is_protocol", False)
    ):
        return None
    return origin


def _classes_fit(one: type, other: type) -> bool:
    if one in TOWER and other in TOWER:
        return TOWER[one] <= TOWER[other] or (one, other) == (int, bool)
    if _related(one, other) or (_is_array_like(one) and _is_array_like(other)):
        return True
    if _is_number(one) and _is_number(other):
        return True
    return inspect.isabstract(other) and one not in SCALARS


def _related(one: type, other: type) -> bool:
    try:
        return issubclass(one, other) or issubclass(other, one)
    except TypeError:
        return True


def _is_array_like(kind: type) -> bool:
    indexed = hasattr(kind, "__getitem__") and (hasattr(kind, "__len__") or hasattr(kind, "__array__"))
    # Scalars of numpy are indexed too, but convert to float and cannot be iterated over.
    scalar = hasattr(kind, "__float__") and not hasattr(kind, "__iter__")
    return indexed and not scalar and not _is_text_or_mapping(kind)


def _is_text_or_mapping(kind: type) -> bool:
    return issubclass(kind, (str, bytes, bytearray, Mapping))


def _is_number(kind: type) -> bool:
    """A scalar of numpy, a Decimal or the like; those convert where Python's tower does not."""
    return hasattr(kind, "__float__") or hasattr(kind, "__complex__")


def _holds_one(kind: type | None) -> bool:
    if kind is None:
        return False
    number = _is_number(kind) and not _is_array_like(kind)
    return number or issubclass(kind, (*SCALARS, dict, set, frozenset))


def _arguments_fit(given: Any, wanted: Any) -> bool:
    """Compare what is inside, for containers of one kind of thing on both sides."""
    inside, expected = _element(given), _element(wanted)
    return compatible(inside, expected)


def _element(hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if not inspect.isclass(origin) or origin.__module__ not in {"builtins", "collections.abc"}:
        return Any
    if not issubclass(origin, (Collection, Iterable)) or issubclass(origin, Mapping):
        return Any
    if len(arguments) == 1 or (len(arguments) == 2 and arguments[1] is Ellipsis):
        return arguments[0]
    return Any
