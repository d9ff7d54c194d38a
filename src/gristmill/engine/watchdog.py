"""The watchdog: ends a worker process whose parent is gone.

It imports nothing but the standard library, so that it runs before a worker has loaded anything: a worker
that is orphaned while it starts must go too.
"""

import os
import signal
import threading
import time
from collections.abc import Callable

WATCH_SECONDS = 0.1
LAST_WORDS_SECONDS = 0.6
"""How long an orphan may take to commit what it has finished."""

# A process has one watchdog; there is nowhere else to keep it.
_PARENT: list[int] = []
_LAST_WORDS: list[Callable[[], None]] = []


def start(parent: int) -> None:
    """Watch over a new worker process, and leave Ctrl-C to its parent.

    Parameters
    ----------
    parent
        Process id of the engine; when it is no longer the parent, this process ends.
    """
    _PARENT.append(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # it was held back while this process started
    threading.Thread(target=_watch, args=(parent,), name="gristmill-watchdog", daemon=True).start()


def is_worker() -> bool:
    """Return whether this process is a worker of an engine in another one."""
    return bool(_PARENT)


def before_end(last_words: Callable[[], None]) -> None:
    """Have `last_words` called before an orphan ends."""
    _LAST_WORDS.append(last_words)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    killer = threading.Timer(LAST_WORDS_SECONDS, os._exit, (1,))
    killer.daemon = True
    killer.start()
    for last_words in _LAST_WORDS:
        last_words()
    os._exit(1)
