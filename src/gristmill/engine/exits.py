"""Exits: what is done when the interpreter is about to end, before anybody waits for worker processes.

loky, like `concurrent.futures`, waits at exit for what its processes still do; what runs in threads of ours has to be
ended before. These hooks are called in reverse order, and there is no public way to be the first of them.
"""

import contextlib
import threading
from collections.abc import Callable

_HOOKS: list[Callable[[], None]] = []


def before_exit(hook: Callable[[], None]) -> None:
    """Have `hook` called when the main thread has ended, before worker processes are waited for."""
    if hook not in _HOOKS:
        _HOOKS.append(hook)
        be_first()


def be_first() -> None:
    """Be called before all that others have registered so far."""
    with contextlib.suppress(RuntimeError, AttributeError):  # the interpreter is ending already
        threading._register_atexit(_run)  # type: ignore[attr-defined] # noqa: SLF001 - see above


def _run() -> None:
    while _HOOKS:
        _HOOKS.pop()()
