"""The writer: finished calls on their way to the store, committed in groups.

Whatever has been finished for 50 ms is committed by a thread, so that a slow call does not keep its
neighbours from the disk; a batch commits the rest when it ends. So a `kill -9` loses the calls in flight and
at most what finished in the last moment.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from gristmill.errors import StoreError
from gristmill.storage.local import CallBlock, LocalStorage
from gristmill.storage.segment import Provenance

DELAY_SECONDS = 0.05
"""How long a finished call may wait for company."""

SEGMENT_BYTES = 4 * 1024 * 1024
"""Packed bytes after which a segment is committed at once: a reader reads whole segments."""


@dataclass
class _Pending:
    """Calls of one group that are not committed yet."""

    keys: list[bytes] = field(default_factory=list)
    digests: list[list[bytes]] = field(default_factory=list)
    columns: list[list[object]] = field(default_factory=list)
    node: str = ""
    constants: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    provenance: dict[str, list[bytes]] = field(default_factory=dict)

    def add(self, block: CallBlock) -> None:
        if not self.keys:
            self.digests = [[] for _ in block.digests]
            self.columns = [[] for _ in block.columns]
            self.node, self.constants = block.provenance.node, block.provenance.constants
            self.provenance = {name: [] for name in block.provenance.columns}
        self.keys.append(block.keys)
        for mine, more in zip(self.digests, block.digests, strict=True):
            mine.append(more)
        for column, items in zip(self.columns, block.columns, strict=True):
            column.extend(items)
        for name, digests in block.provenance.columns.items():
            self.provenance[name].append(digests)

    def block(self, group: bytes) -> CallBlock:
        columns = {name: b"".join(parts) for name, parts in self.provenance.items()}
        return CallBlock(
            group,
            b"".join(self.keys),
            tuple(b"".join(parts) for parts in self.digests),
            tuple(self.columns),
            Provenance(self.node, self.constants, columns),
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
        self._pending: dict[bytes, _Pending] = {}
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
        with self._wake:
            self._pending.setdefault(block.group, _Pending()).add(block)
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
        with self._wake:
            self._closed = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def _commit(self) -> None:
        pending, self._pending = self._pending, {}
        claimed, self._claimed = self._claimed, []
        self._oldest, self._bytes = None, 0
        if not pending:
            return
        blocks = [calls.block(group) for group, calls in pending.items()]
        try:
            self._storage.append(blocks)
        except StoreError as error:
            self._fault = self._fault or error
        finally:
            self._release(b"".join(claimed))

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="gristmill-writer", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            self._commit_in_time()
        finally:
            self._storage.end_thread()

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
