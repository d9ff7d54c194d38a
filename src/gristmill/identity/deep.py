"""Room for values that are nested more deeply than Python's recursion limit.

Owns the one place that raises the limit. Knows nothing of values.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FRAMES = 500_000
"""About a hundred thousand levels. Frames of pure Python live on the heap: C's stack is not at stake."""

_raised = threading.RLock()
"""The limit is the interpreter's: only one thread at a time may raise it and put it back."""


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Allow deep recursion inside the block."""
    with _raised:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, FRAMES))
        try:
            yield
        finally:
            sys.setrecursionlimit(limit)
