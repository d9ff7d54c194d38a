"""Gone: which calls of a group were collected, for `explain` to say so.

Half a key each, of the latest calls only: without it an explanation says less.
"""

import time

import numpy as np

from gristmill.storage.ledger import Ledger
from gristmill.storage.local import GONE
from gristmill.storage.segment import KEY_SIZE

_NAME = 8
_PART_CALLS = 3000
"""So that a row is short enough for the database."""

MOST_PARTS = 16
"""Rows of a group; the oldest make room."""

MOST_NOTES = 64
"""Rows of all groups: a megabyte and a half."""


class Gone:
    """The collected calls of one group.

    Parameters
    ----------
    ledger
        Where they are noted.
    group
        Which group.
    """

    def __init__(self, ledger: Ledger, group: bytes) -> None:
        self._ledger = ledger
        self._prefix = GONE + group

    def rows(self, keys: bytes) -> dict[bytes, bytes]:
        """Return the rows that note calls with these keys, the latest if there are too many."""
        halves = np.frombuffer(keys, dtype="<u8")[::2][-MOST_PARTS * _PART_CALLS :]
        parts = [halves[at : at + _PART_CALLS].tobytes() for at in range(0, len(halves), _PART_CALLS)]
        now = time.time_ns()
        return {self._prefix + (now + k).to_bytes(_NAME, "big"): part for k, part in enumerate(parts)}

    def tidy(self) -> None:
        """Let the oldest go."""
        names = [name for name, _ in self._ledger.under(self._prefix, _NAME)]
        if len(names) > MOST_PARTS:
            self._ledger.delete([self._prefix + name for name in names[:-MOST_PARTS]])

    def among(self, keys: bytes) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Return the mask of the calls with these keys that were collected, as far as it is known."""
        parts = [body for _, body in self._ledger.under(self._prefix, _NAME) if body]
        known = np.frombuffer(b"".join(parts), dtype="<u8")
        asked = np.frombuffer(keys, dtype="<u8").reshape(-1, KEY_SIZE // 8)[:, 0]
        return np.isin(asked, known)
