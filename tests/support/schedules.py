"""Failure schedules: what becomes of each attempt at each item, as data, counted across processes and their deaths.

``{3: [-1, -9, 0]}``: the first attempt at item 3 raises, the second ends its process, the third succeeds, and so do all
after it. A number above 0 is how many seconds an attempt takes.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

RAISE, DIE, SUCCEED = -1, -9, 0


class ScheduledError(Exception):
    """An attempt failed because the schedule says so."""


class Schedule:
    """What becomes of attempts.

    Parameters
    ----------
    folder
        Where attempts are counted.
    outcomes
        By item, of its attempts in order.
    """

    def __init__(self, folder: Path, outcomes: Mapping[int, Sequence[float]]) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "outcomes").write_text(json.dumps({str(item): list(row) for item, row in outcomes.items()}))
        self.folder = str(folder)

    def attempts(self, item: int) -> int:
        """Return how often an item has been tried."""
        return _attempts(self.folder, item)


def attempt(folder: str, item: int) -> None:
    """Do what the schedule in `folder` says of the next attempt at `item`; called by the function of a node."""
    number = _attempts(folder, item)
    descriptor = os.open(Path(folder) / str(item), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, b".")
    os.close(descriptor)
    outcomes = json.loads((Path(folder) / "outcomes").read_text()).get(str(item), [])
    outcome = outcomes[number] if number < len(outcomes) else SUCCEED
    if outcome == RAISE:
        raise ScheduledError(f"attempt {number + 1} at item {item}")
    if outcome == DIE:
        os._exit(1)
    time.sleep(outcome)


def _attempts(folder: str, item: int) -> int:
    path = Path(folder) / str(item)
    return path.stat().st_size if path.exists() else 0
