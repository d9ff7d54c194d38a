"""Identity of functions and classes where they occur in values.

Owns the one seam between values and code. Knows nothing of how code is fingerprinted.
"""

from __future__ import annotations

from typing import Any

from gristmill.identity.primitives import text


def qualified_name(thing: Any) -> bytes:
    """Encode module and qualified name; the name of the main module in worker processes is the main one's."""
    module = getattr(thing, "__module__", None) or ""
    name = getattr(thing, "__qualname__", None) or thing.__name__
    return text("__main__" if module == "__mp_main__" else module) + text(name)


def identify_code(thing: Any) -> bytes:
    """Return the identity of a function or class: its name, and the user's own code by its fingerprint."""
    try:
        from gristmill.identity.fingerprint import fingerprint
    except ImportError:
        return qualified_name(thing)
    return qualified_name(thing) + bytes(fingerprint(thing))
