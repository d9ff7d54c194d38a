"""Identity of functions and classes where they occur in values.

Owns the one seam between values and code. Knows nothing of how code is fingerprinted.
"""

from __future__ import annotations

import sys
from types import FunctionType
from typing import Any

from gristmill.identity.primitives import text


def identify_code(thing: Any) -> bytes:
    """Return the identity of a function or class: the user's own by code, a library's by name and version."""
    # Here, because code is made of values and values of code; and most values are of neither's classes.
    from gristmill.identity.code.functions import module_of
    from gristmill.identity.code.origin import Origin, counted, distribution, origin
    from gristmill.identity.fingerprint import fingerprint

    module = module_of(thing) if isinstance(thing, FunctionType) else _module(thing)
    where = origin(module)
    if where is Origin.OWN or not _is_found(thing, module):
        return _own_name(thing, module) + bytes(fingerprint(thing, defaults=True))
    installed = distribution(module) if module and where is Origin.LIBRARY else None
    version = counted(installed[1], "major") if installed else ""
    return _qualified_name(thing, module) + text(version)


def _module(thing: Any) -> str | None:
    owner = getattr(thing, "__self__", None)
    module = getattr(thing, "__module__", None) or getattr(owner, "__name__", None)
    return module if isinstance(module, str) else None


def _is_found(thing: Any, module: str | None) -> bool:
    """Tell whether a function is what its name says, and not one that a library made on the way."""
    found: Any = sys.modules.get(module or "")
    for name in thing.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is thing or not isinstance(thing, FunctionType)


def _own_name(thing: Any, module: str | None) -> bytes:
    """Encode the name of the user's own; cloudpickle sends a class by value under its bare name."""
    if isinstance(thing, type):
        return _named(module, thing.__name__)
    return _qualified_name(thing, module)


def _qualified_name(thing: Any, module: str | None) -> bytes:
    """Encode module and qualified name."""
    return _named(module, getattr(thing, "__qualname__", None) or thing.__name__)


def _named(module: str | None, name: str) -> bytes:
    """Encode a name; in a worker process, the main module goes by another one."""
    return text("__main__" if module == "__mp_main__" else module or "") + text(name)
