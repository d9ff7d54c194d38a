"""Batch sizes: enough work to hide the cost of a message, little enough to share the tail.

The size follows the marginal time of an item, never a total that contains a fixed cost.
"""

TARGET_SECONDS = 0.15
"""Work in one batch: long against a message (about a millisecond), short against a person's patience."""

_BRISK_SECONDS = 0.3
"""A batch that takes less is worth another one waiting behind it; one that takes more hides its message anyway."""

_FIXED_SECONDS = 0.003
"""What a batch takes besides its items: a look-up, a commit, the first time of everything."""

MAX_ITEMS = 1 << 16
_GROWTH = 8
_MEMORY = 0.5


class BatchSizer:
    """Chooses how many indices the next batch gets.

    Parameters
    ----------
    width
        How many workers share the stage.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        """How many workers share the stage."""
        self._size = 1
        self.seconds_per_item: float | None = None
        """Marginal wall time of an item, once a batch has ended."""
        self.confirmed: float | None = None
        """The same of the quickest batch, once there have been two: the first calls of all are often slow."""
        self.busy_share: float | None = None
        """How much of the wall time a thread computes, once a batch has ended that tells."""

    def next(self, left: int) -> int:
        """Return the size of the next batch when `left` items are left to be sent."""
        share = -(-left // (2 * self.width)) if self.width > 1 else left
        return max(1, min(self._size, share, left))

    def is_brisk(self, left: int) -> bool:
        """Return whether the next batch may wait behind another, where `left` items are left: not near the end.

        There, whoever is idle first takes what is left.
        """
        if self.seconds_per_item is None or left <= 2 * self.width:
            return False
        return self._size * self.seconds_per_item < _BRISK_SECONDS

    def learn(self, items: int, seconds: float, busy_seconds: float | None = None) -> None:
        """Take in that a batch of `items` took `seconds`, in so many of which it computed."""
        if not items:
            return
        if busy_seconds is not None and seconds > 0:
            share = min(busy_seconds / seconds, 1.0)
            self.busy_share = share if self.busy_share is None else (self.busy_share + share) / 2
        now = max(seconds - _FIXED_SECONDS, seconds / 10) / items
        before = self.seconds_per_item
        if before is not None:
            self.confirmed = min(now, before if self.confirmed is None else self.confirmed)
        self.seconds_per_item = now if before is None else _MEMORY * before + (1 - _MEMORY) * now
        ideal = int(TARGET_SECONDS / max(self.seconds_per_item, 1e-9))
        self._size = max(1, min(ideal, items * _GROWTH, MAX_ITEMS))
