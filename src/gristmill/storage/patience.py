"""Patience: how long anybody waits for what another process holds, all in one place.

Whoever is killed holds nothing any more. Whoever is stopped (SIGSTOP, a machine that swaps) holds it on; so each wait
has an end, after which those who waited go on without: calls may be made twice then, which is never wrong.
"""

import fcntl
import time

STALL_SECONDS = 30.0
"""A process whose heartbeat stands still for this long has stopped: its claims count no more."""

TABLE_SECONDS = 5.0
"""How long the lock of the claim table is waited for, which nobody needs for longer than an instant."""

ENTER_SECONDS = 30.0
"""How long those who look things up wait for a collector that is deleting."""

CLOSE_SECONDS = 120.0
"""How long a collector waits for those who look things up."""

BUSY_SECONDS = 20.0
"""How long the ledger's database is waited for, while another process writes to it."""

BRIEF_SECONDS = 0.1
"""How long it is waited for once that was not enough, until it is enough again."""

LOOK_SECONDS = 5.0
"""How long it is not read again once it was in vain to wait for that: a run has a hundred things to look up."""

_PAUSE_SECONDS = 0.0002

LONGEST_PAUSE_SECONDS = 0.01
"""Between two looks at a lock: who holds one again and again must leave it alone for longer, now and then."""


def lock(descriptor: int, kind: int, seconds: float) -> bool:
    """Lock a file (``fcntl.LOCK_SH`` or ``LOCK_EX``); return False where that was not possible for so long.

    Raises
    ------
    OSError
        The file system has no locks.
    """
    deadline, pause = time.monotonic() + seconds, _PAUSE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        else:
            return True


class Waiter:
    """Waits for one lock: patiently, until that was once in vain; from then on not at all, until it is free again."""

    def __init__(self) -> None:
        self._is_patient = True

    def lock(self, descriptor: int, kind: int, seconds: float) -> bool:
        """Lock a file as `lock` does; return whether that was possible."""
        self._is_patient = lock(descriptor, kind, seconds if self._is_patient else 0.0)
        return self._is_patient
