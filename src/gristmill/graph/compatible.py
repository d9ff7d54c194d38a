"""Whether a value of one annotated type can be an argument of another.

Answers no only where it surely cannot: an annotation that is missing, unresolved or not understood accepts
everything, and so do base classes, protocols, and array-likes among each other. Knows nothing of nodes.
"""

import inspect
import types
import typing
from collections.abc import AsyncGenerator, Collection, Generator, Iterable, Mapping
from typing import Any, Literal, NewType, TypeVar, Union, get_args, get_origin

SCALARS = (bool, int, float, complex, str, bytes, bytearray, type(None))
TOWER = {bool: 0, int: 1, float: 2, complex: 3}
"""Each of these may stand for those with a higher number (PEP 484, "The numeric tower")."""

_CONTAINERS = frozenset({"builtins", "collections.abc", "collections"})
"""Modules whose generic classes have what is in them as arguments."""


def compatible(given: Any, wanted: Any) -> bool:
    """Whether some value of type `given` may be passed where `wanted` is annotated.

    Examples
    --------
    >>> compatible(int, float), compatible(str, int), compatible(list[int], list[str])
    (True, False, False)
    >>> compatible(int | None, int), compatible(Any, int), compatible(list[int], Iterable[float])
    (True, True, True)
    """
    if given is wanted:  # an alias may have itself inside
        return True
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


def elements_fit(given: Any, wanted: Any, depth: int) -> bool:
    """Whether many values of type `given` may be passed where a reduction over `depth` axes is annotated.

    Examples
    --------
    >>> elements_fit(int, list[float], 1), elements_fit(str, list[int] | None, 1)
    (True, False)
    >>> elements_fit(int, list[list[str]], 2)
    False
    """
    return any(_holds(given, one, depth) for one in _alternatives(wanted) if not _holds_one(_class(one)))


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
    hint = _meant(hint)
    if get_origin(hint) in {Union, types.UnionType}:
        return tuple(one for member in get_args(hint) for one in _alternatives(member))
    if isinstance(hint, NewType):
        return _alternatives(hint.__supertype__)
    if get_origin(hint) is Literal:
        return tuple(type(value) for value in get_args(hint))
    if isinstance(hint, TypeVar) and (hint.__constraints__ or hint.__bound__):
        return tuple(
            one for member in hint.__constraints__ or (hint.__bound__,) for one in _alternatives(member)
        )
    if isinstance(hint, TypeVar) or hint in {Any, object, typing.NoReturn, typing.Never}:
        return (Any,)
    return (type(None) if hint is None else hint,)


def _meant(hint: Any) -> Any:
    """What an alias stands for that was made with a `type` statement (PEP 695), as numpy's are from 2.5 on."""
    alias = get_origin(hint) or hint
    while type(alias).__name__ == "TypeAliasType":
        try:
            value = alias.__value__
            given = dict(zip(alias.__type_params__, get_args(hint), strict=False))
            free = getattr(value, "__parameters__", ())
            hint = value[tuple(given.get(one, one) for one in free)] if given and free else value
        except Exception:  # noqa: BLE001 - it is evaluated now, and may name what is not there
            return Any
        alias = get_origin(hint) or hint
    return hint


def _one_fits(given: Any, wanted: Any) -> bool:
    one, other = _class(given), _class(wanted)
    if one is None or other is None:
        return True
    return _classes_fit(one, other) and _arguments_fit(given, wanted)


def _class(hint: Any) -> type | None:
    """The class behind an annotation, or None if there is none to compare."""
    hint = _meant(hint)
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
    if _is_text_or_mapping(kind) or (kind.__module__, kind.__name__) == ("numpy", "datetime64"):
        return False  # numpy's have __float__ all the same
    return hasattr(kind, "__float__") or hasattr(kind, "__complex__")


def _holds_one(kind: type | None) -> bool:
    if kind is None:
        return False
    number = _is_number(kind) and not _is_array_like(kind)
    return number or issubclass(kind, (*SCALARS, dict, set, frozenset))


def _arguments_fit(given: Any, wanted: Any) -> bool:
    """Compare what is inside, where both sides say it."""
    if _is_ndarray(given) or _is_ndarray(wanted):
        return compatible(_innermost(given), _innermost(wanted))
    pairs = [(_element(given), _element(wanted))]
    for several in (_entries, _places):
        one, other = several(given), several(wanted)
        if one and other:
            if len(one) != len(other):
                return False
            pairs += zip(one, other, strict=True)
    return all(compatible(inside, expected) for inside, expected in pairs)


def _holds(given: Any, wanted: Any, depth: int) -> bool:
    """Whether `wanted`, `depth` levels down, may be `given`; an array has one type of numbers at any level."""
    if not depth:
        return compatible(given, wanted)
    if _is_ndarray(wanted):
        return any(compatible(_innermost(one), _innermost(wanted)) for one in _alternatives(given))
    return any(_holds(given, one, depth - 1) for one in _alternatives(_element(wanted)))


def _is_ndarray(hint: Any) -> bool:
    kind = get_origin(hint) or hint
    return (getattr(kind, "__module__", ""), getattr(kind, "__name__", "")) == ("numpy", "ndarray")


def _innermost(hint: Any) -> Any:
    """The type of the numbers in an array, or in sequences of sequences; Any where that is not said."""
    hint = _meant(hint)
    if _is_ndarray(hint):
        dtype = get_args(hint)[1:]
        kind = get_args(dtype[0])[0] if dtype and get_args(dtype[0]) else Any
        return Any if getattr(kind, "__name__", "") in {"object_", "generic"} else kind
    kind = _class(hint)
    if kind is None or not _is_array_like(kind):
        return hint
    inside = {type(one): one for one in _alternatives(_element(hint))}
    return _innermost(next(iter(inside.values()))) if len(inside) == 1 else Any


def _entries(hint: Any) -> tuple[Any, ...]:
    """The types of the keys and of the values of a mapping."""
    origin = get_origin(hint)
    is_mapping = inspect.isclass(origin) and origin.__module__ in _CONTAINERS and issubclass(origin, Mapping)
    return get_args(hint) if is_mapping else ()


def _places(hint: Any) -> tuple[Any, ...]:
    """The types of the places of a tuple that has a certain length."""
    return get_args(hint) if get_origin(hint) is tuple and Ellipsis not in get_args(hint) else ()


def _element(hint: Any) -> Any:
    hint = _meant(hint)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Generator, AsyncGenerator}:
        return arguments[0]
    if not inspect.isclass(origin) or origin.__module__ not in _CONTAINERS:
        return Any
    if not issubclass(origin, (Collection, Iterable)) or issubclass(origin, Mapping):
        return Any
    if len(arguments) == 1 or (len(arguments) == 2 and arguments[1] is Ellipsis):
        return arguments[0]
    return Any
