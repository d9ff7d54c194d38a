"""How a function travels to another process when a node has taken its name.

`@node` puts a node where the function was, so `module.f` is no longer the function: pickle refuses to send it
by reference, and cloudpickle would send all of it by value. Sending "what the node at `module.f` wraps" is
both small and right. Knows nothing else of nodes.
"""

import importlib
import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Portable:
    """A function packed for pickling: what is unpickled is the plain function itself.

    Examples
    --------
    >>> import math, pickle
    >>> pickle.loads(pickle.dumps(Portable(math.sqrt)))
    <built-in function sqrt>
    """

    function: Callable[..., Any]

    def __reduce__(self) -> tuple[object, ...]:
        place = place_of(self.function)
        holder = located(*place) if place else None
        if place and holder is not self.function and getattr(holder, "function", None) is self.function:
            return _function_at, place
        return _same, (self.function,)


def place_of(thing: Any) -> tuple[str, str] | None:
    """Module and qualified name, if another process can import them.

    A script or notebook (`__main__`) and modules registered with cloudpickle go by value, as functions do.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or "<" in name:
        return None
    return None if _by_value(module) else (module, name)


def located(module: str, name: str) -> Any:
    """What has that name in a module that is loaded, or None."""
    try:
        return operator.attrgetter(name)(sys.modules[module])
    except (KeyError, AttributeError):
        return None


def _by_value(module: str) -> bool:
    cloudpickle = sys.modules.get("cloudpickle")
    registered = cloudpickle.list_registry_pickle_by_value() if cloudpickle else ()
    return any(module == name or module.startswith(f"{name}.") for name in registered)


def _function_at(module: str, name: str) -> Callable[..., Any]:
    found = operator.attrgetter(name)(importlib.import_module(module))
    function: Callable[..., Any] = getattr(found, "function", found)
    return function


def _same(function: Callable[..., Any]) -> Callable[..., Any]:
    return function
