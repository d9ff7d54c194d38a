"""Overdue: which worker processes are at a call that takes longer than its node's time limit.

A call in a worker process cannot be ended without its process. What the process had finished is committed by then,
and is found; the other calls of its batch are made by others.
"""

from concurrent.futures import Future

from gristmill.engine.report import BatchReport
from gristmill.engine.seat import Underway
from gristmill.graph.node import Node

LOOK_SECONDS = 0.05
"""How often it is looked."""

_GRACE_SECONDS = 1.0
"""How much longer a coroutine may take, which its worker cancels by itself if it lets itself be cancelled."""


class OverdueCalls:
    """The calls of one run that took too long, by the batches that ended with them."""

    def __init__(self) -> None:
        self._ended: dict[Future[BatchReport], Underway] = {}

    def is_late(self, batch: "Future[BatchReport]", node: Node, call: Underway) -> bool:
        """Return whether a call of `node` takes too long; then the batch is to be ended, once."""
        if node.timeout is None or batch in self._ended:
            return False
        if call.seconds <= node.timeout + (_GRACE_SECONDS if node.is_async else 0.0):
            return False
        self._ended[batch] = call
        return True

    def take(self, batch: "Future[BatchReport]") -> Underway | None:
        """Return the call for which a batch was ended, if it was, and forget it."""
        return self._ended.pop(batch, None)
