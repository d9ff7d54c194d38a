"""A store with every kind of stored value in it, and the map that filled it."""

from pathlib import Path
from typing import Any

import numpy as np
from tests.support.calls import CallLog, record
from tests.support.values import same

from gristmill import File, MapResult, Pipeline, Store, node

COUNT = 6


class Tracked:
    """A value that is stored as an object once it is large."""

    def __init__(self, x: int) -> None:
        self.items = [f"{x}-{k}" for k in range(10_000)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tracked) and self.items == other.items

    __hash__ = None  # type: ignore[assignment]


def number(x: int, log: str) -> int:
    record(log, "number", x)
    return x * x


def image(number: int, log: str) -> Any:
    record(log, "image", number)
    return np.full(20_000, number + 0.5)


def big(number: int, log: str) -> Any:
    record(log, "big", number)
    return Tracked(number)


def text(number: int, log: str) -> tuple[str, dict[str, int]]:
    record(log, "text", number)
    return str(number) * 50, {"n": number}


def either(number: int, log: str) -> Any:
    record(log, "either", number)
    return np.full(20_000, number) if number % 2 else f"even {number}"


def page(number: int, log: str, folder: str) -> File:
    record(log, "page", number)
    path = Path(folder, f"{number}.txt")
    path.write_text(f"page {number}\n" * 100)
    return File(path)


def summed(image: Any, text: list[Any], log: str) -> tuple[float, str]:
    record(log, "summed")
    return float(image.sum()), "".join(text)


NODES = [
    node(number, mapspec="x[i] -> number[i]"),
    node(image, mapspec="number[i] -> image[i]"),
    node(big, mapspec="number[i] -> big[i]"),
    node(text, output_name=("text", "note"), mapspec="number[i] -> text[i], note[i]"),
    node(either, mapspec="number[i] -> either[i]"),
    node(page, mapspec="number[i] -> page[i]"),
    node(summed),
]
OUTPUTS = ["number", "image", "big", "text", "note", "either", "page", "summed"]
CALLS_PER_INDEX = 6


class Scene:
    """A directory with a store, a log of calls, and a folder for files."""

    def __init__(self, directory: Path) -> None:
        self.location = directory / "store"
        self.log = CallLog(directory / "calls.log")
        self.folder = directory / "pages"
        self.folder.mkdir(exist_ok=True)

    def map(self, store: Store, xs: Any = range(COUNT), **options: Any) -> MapResult:
        """Map `xs`, and see that every value is right."""
        options = {"map_executor": "sequential", "output_name": OUTPUTS, **options}
        given = {"x": xs, "log": self.log.path, "folder": str(self.folder)}
        result = Pipeline(NODES, store=store).map(given, **options)
        assert result.errors == []
        check(result, xs)
        return result

    def open(self) -> Store:
        """The store, opened anew."""
        return Store(self.location)

    def size(self) -> int:
        """Bytes of all results in the store."""
        folders = [self.location / name for name in ("ledger", "chunks", "quarantine")]
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        return sum(path.stat().st_size for path in files)


def check(result: MapResult, xs: Any) -> None:
    """See that every value of a result is right."""
    squares = [x * x for x in xs]
    expected: dict[str, Any] = {
        "number": squares,
        "image": [np.full(20_000, n + 0.5) for n in squares],
        "big": [Tracked(n) for n in squares],
        "text": [str(n) * 50 for n in squares],
        "note": [{"n": n} for n in squares],
        "either": [np.full(20_000, n) if n % 2 else f"even {n}" for n in squares],
    }
    for name in set(expected) & set(result):
        assert same(result[name].tolist(), expected[name]), name
    if "page" in result:
        assert [Path(path).read_text() for path in result["page"]] == [f"page {n}\n" * 100 for n in squares]
    if "summed" in result:
        total = 20_000 * (sum(squares) + len(squares) / 2)
        assert same(result["summed"], (total, "".join(expected["text"])))
