"""A log of executed calls: every call appends one line, from whatever process it runs in."""

import os
import time
from collections import Counter
from pathlib import Path


def record(log: str, *words: object) -> None:
    """Append one line: the time, then `words`; lines of concurrent writers never mix."""
    line = " ".join([f"{time.time():.6f}", *map(str, words)]) + "\n"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


class CallLog:
    """Reads what `record` wrote to `path`."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def lines(self) -> list[tuple[float, str]]:
        """(time, words) of every call, in the order in which they were logged."""
        try:
            text = Path(self.path).read_text()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind("\n") + 1]  # the last line may be half there
        split = (line.partition(" ") for line in whole.splitlines())
        return [(float(when), words) for when, _, words in split]

    def calls(self) -> list[str]:
        """The words of every call."""
        return [words for _, words in self.lines()]

    def counts(self) -> Counter[str]:
        """How often each call was made."""
        return Counter(self.calls())

    def take(self) -> list[str]:
        """Return the words of every call, sorted, and start afresh."""
        found = sorted(self.calls())
        Path(self.path).unlink(missing_ok=True)
        return found
