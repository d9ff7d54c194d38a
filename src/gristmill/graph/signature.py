"""What a callable takes: its own parameter names, defaults and annotations.

The one place that knows how functions, classes, partials, bound methods, callable instances and builtins
differ. Knows nothing of graph names.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from gristmill.errors import GraphError
from gristmill.graph.wording import title

FACTORY_REPRS = frozenset({"<factory>", "NOTHING"})
"""How dataclasses, pydantic and attrs show a default that is made anew for each instance."""


@dataclass(frozen=True)
class Signature:
    """The parameters of a callable, each of which can be given by name or, where it must, by position.

    Examples
    --------
    >>> def scale(x, factor=2.0): ...
    >>> signature = Signature.of(scale)
    >>> signature.parameters, dict(signature.defaults)
    (('x', 'factor'), {'factor': 2.0})
    """

    parameters: tuple[str, ...]
    """All names, in order."""
    defaults: Mapping[str, object]
    positional_only: tuple[str, ...]
    """The first parameters, when they cannot be given by name."""

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Signature":
        """Read the signature of a callable.

        Raises
        ------
        GraphError
            If it has none, or one without fixed names.
        """
        found = _inspected(function)
        for parameter in found:
            _refuse_variadic(function, parameter)
        return cls(
            parameters=tuple(parameter.name for parameter in found),
            defaults=MappingProxyType(
                {p.name: _default(function, p) for p in found if p.default is not p.empty},
            ),
            positional_only=tuple(p.name for p in found if p.kind is p.POSITIONAL_ONLY),
        )

    def __reduce__(self) -> tuple[object, ...]:
        # A mapping proxy cannot be pickled.
        return _signature, (self.parameters, dict(self.defaults), self.positional_only)


def _signature(
    parameters: tuple[str, ...],
    defaults: dict[str, object],
    positional_only: tuple[str, ...],
) -> Signature:
    return Signature(parameters, MappingProxyType(defaults), positional_only)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling `function` gives a coroutine.

    Examples
    --------
    >>> async def fetch(url): ...
    >>> is_async(fetch), is_async(functools.partial(fetch, "a")), is_async(len)
    (True, True, False)
    """
    plain = _plain(function)
    return inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(_call_method(plain))


def annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """The type hints of a callable by its own parameter names, and `"return"`.

    A hint that cannot be resolved (a name that only type checkers import) is left out.

    Examples
    --------
    >>> def scale(x: "float", y: "Missing") -> list[float]: ...
    >>> annotations(scale)
    {'x': <class 'float'>, 'return': list[float]}
    """
    plain = _plain(function)
    if inspect.isclass(plain):
        own = plain.__init__ if "__init__" in vars(plain) else plain
        return {**_hints(own), **_hints(plain), "return": plain}
    if inspect.isroutine(plain):
        return _hints(plain)
    return _hints(_call_method(plain))


def _hints(owner: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(owner)
    except Exception:  # noqa: BLE001 - evaluating a user's annotations may raise anything
        return _hints_one_by_one(owner)


def _hints_one_by_one(owner: Any) -> dict[str, Any]:
    found = {}
    for name, hint in getattr(owner, "__annotations__", {}).items():
        carrier = type("carrier", (), {"__annotations__": {name: hint}, "__module__": owner.__module__})
        try:
            found.update(typing.get_type_hints(carrier, getattr(owner, "__globals__", None)))
        except Exception:  # noqa: BLE001, S112 - this hint is unknown, the others may not be
            continue
    return found


def _call_method(instance: object) -> Any:
    return getattr(type(instance), "__call__", None)  # noqa: B004 - the method itself is wanted


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _inspected(function: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        what = "is not callable" if not callable(function) else "does not tell its parameters"
        raise GraphError(
            f"cannot make a node of {title(function)}: it {what}; "
            "wrap it in a function that names its parameters",
        ) from None


def _refuse_variadic(function: Callable[..., Any], parameter: inspect.Parameter) -> None:
    if parameter.kind not in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
        return
    raise GraphError(
        f"cannot make a node of {title(function)}: it takes '{parameter}', but a graph is wired by names; "
        "name each parameter, or wrap it in a function that does"
        " (a decorator keeps the names with functools.wraps)",
    )


def _default(function: Callable[..., Any], parameter: inspect.Parameter) -> object:
    """The default itself; where a class makes one for each instance, one made now."""
    if repr(parameter.default) not in FACTORY_REPRS:
        return parameter.default
    factory = _factory(_plain(function), parameter.name)
    return factory() if factory is not None else parameter.default


def _factory(owner: Any, name: str) -> Callable[[], object] | None:
    fields = {**getattr(owner, "__dataclass_fields__", {}), **getattr(owner, "model_fields", {})}
    if name in fields:
        found = fields[name].default_factory
    else:
        default = getattr(getattr(getattr(owner, "__attrs_attrs__", None), name, None), "default", None)
        found = None if getattr(default, "takes_self", True) else getattr(default, "factory", None)
    return found if callable(found) and not _needs_arguments(found) else None


def _needs_arguments(factory: Callable[..., object]) -> bool:
    try:
        found = inspect.signature(factory).parameters.values()
    except ValueError:
        return False  # builtins like dict, which say nothing, make an empty value
    return any(p.default is p.empty and p.kind not in {p.VAR_POSITIONAL, p.VAR_KEYWORD} for p in found)
