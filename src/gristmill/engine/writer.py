"""The writer: finished calls on their way to the store, committed in groups.

Whatever has been finished for 50 ms is committed by a thread, so that a slow call does not keep its
neighbours from the disk; a batch commits the rest when it ends. So a `kill -9` loses the calls in flight and
at most what finished in the last moment.
"""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from gristmill.errors import StoreError
from gristmill.storage.local import CallBlock, LocalStorage

DELAY_SECONDS = 0.05
"""How long a finished call may wait for company."""

_JOIN_SECONDS = 5.0
"""How long closing waits for the thread; what is left is committed by whoever closes."""

SEGMENT_BYTES = 4 * 1024 * 1024
"""Packed bytes after which a segment is committed at once: a reader reads whole segments."""


def _joined(group: bytes, blocks: Sequence[CallBlock]) -> CallBlock:
    """Several blocks of one group as one."""
    first = blocks[0]
    columns = {
        name: b"".join([block.provenance.columns[name] for block in blocks])
        for name in first.provenance.columns
    }
    return CallBlock(
        group,
        b"".join([block.keys for block in blocks]),
        tuple(b"".join(parts) for parts in zip(*(block.digests for block in blocks), strict=True)),
        tuple(
            list(itertools.chain.from_iterable(parts))
            for parts in zip(*(block.columns for block in blocks), strict=True)
        ),
        replace(first.provenance, columns=columns),
    )


class Writer:
    """Collects finished calls and commits them.

    Parameters
    ----------
    storage
        Where they go.
    release
        Called with the claimed keys of what has just been committed, in whatever thread did it.
    """

    def __init__(self, storage: LocalStorage, release: Callable[[bytes], None]) -> None:
        self._storage = storage
        self._release = release
        self._claimed: list[bytes] = []
        self._pending: dict[bytes, list[CallBlock]] = {}
        self._bytes = 0
        self._oldest: float | None = None
        self._fault: StoreError | None = None
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, block: CallBlock, size: int, claimed: bytes = b"") -> None:
        """Take in calls that have just finished.

        Parameters
        ----------
        block
            The calls.
        size
            An estimate of their packed bytes.
        claimed
            Keys that are claimed until they are committed.
        """
        with self._lock:  # not the condition: its __enter__ is Python code, which Ctrl-C may interrupt
            self._pending.setdefault(block.group, []).append(block)
            if claimed:
                self._claimed.append(claimed)
            self._bytes += size
            if self._oldest is None:
                self._oldest = time.monotonic()
                self._start_thread()
                self._wake.notify()
            if self._bytes >= SEGMENT_BYTES:
                self._commit()

    def flush(self) -> None:
        """Commit everything now.

        Raises
        ------
        StoreError
            The store refuses, now or in the thread before; what was not committed is lost.
        """
        with self._lock:
            self._commit()
            fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def close(self) -> None:
        """Commit everything and stop the thread."""
        with self._lock:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout=_JOIN_SECONDS)
        self.flush()

    def _commit(self) -> None:
        pending, self._pending = self._pending, {}
        claimed, self._claimed = self._claimed, []
        self._oldest, self._bytes = None, 0
        if not pending:
            return
        try:
            self._storage.append([_joined(group, blocks) for group, blocks in pending.items()])
        except StoreError as error:
            self._fault = self._fault or error
        except BaseException:  # Ctrl-C: what has been finished is committed when the writer is closed
            self._pending, self._claimed = pending, claimed
            raise
        self._release(b"".join(claimed))

    def _start_thread(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._commit_in_time, name="gristmill-writer", daemon=True)
            thread.start()
            self._thread = thread

    def _commit_in_time(self) -> None:
        with self._wake:
            while not self._closed:
                if self._oldest is None:
                    self._wake.wait()
                    continue
                wait = self._oldest + DELAY_SECONDS - time.monotonic()
                if wait > 0:
                    self._wake.wait(wait)
                else:
                    self._commit()
