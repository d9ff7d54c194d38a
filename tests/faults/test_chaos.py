"""Damage while maps run: whatever is deleted or flipped at whatever instant, results are right."""

import contextlib
import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from gristmill import MapResult, Pipeline, Store, node

COUNT = 60
DAMAGES = 40


def number(x: int) -> int:
    time.sleep(0.002)
    return x * x


def image(number: int) -> Any:
    return np.full(20_000, number + 0.5)


def text(number: int) -> str:
    return f"{number} " * 20_000


def mean(image: Any, text: str) -> float:
    return float(image.mean()) + len(text.split())


def total(mean: Any, image: Any) -> float:
    return float(mean.sum() + image[:, 0].sum())


NODES = [
    node(number, mapspec="x[i] -> number[i]"),
    node(image, mapspec="number[i] -> image[i]"),
    node(text, mapspec="number[i] -> text[i]"),
    node(mean, mapspec="image[i], text[i] -> mean[i]"),
    node(total),
]


def check(result: MapResult) -> None:
    squares = [x * x for x in range(COUNT)]
    means = [n + 0.5 + 20_000 for n in squares]
    assert [array[0] for array in result["image"]] == [n + 0.5 for n in squares]
    assert result["mean"].tolist() == means
    assert result["total"] == sum(means) + sum(squares) + COUNT / 2
    assert [text.split()[0] for text in result["text"]] == list(map(str, squares))


class Vandal:
    """Damages a store now and then until it is told to stop."""

    def __init__(self, location: Path, seed: int, kinds: tuple[str, ...]) -> None:
        self._location = location
        self._chance = random.Random(seed)
        self._kinds = kinds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for _ in range(
            DAMAGES
        ):  # a disk that destroys faster than things can be computed again is no use to anybody
            if self._stop.wait(self._chance.uniform(0.005, 0.05)):
                return
            with contextlib.suppress(OSError, sqlite3.Error):
                getattr(self, f"_{self._chance.choice(self._kinds)}")()

    def _file(self, pattern: str) -> Path:
        files = sorted(
            path for path in self._location.glob(pattern) if path.is_file() and path.name[0] != "."
        )
        if not files:
            raise FileNotFoundError
        return self._chance.choice(files)

    def _delete_chunk(self) -> None:
        self._file("chunks/*/*").unlink()

    def _flip_chunk(self) -> None:
        path = self._file("chunks/*/*")
        path.chmod(0o600)
        with path.open("r+b") as file:
            file.seek(self._chance.randrange(path.stat().st_size))
            file.write(b"\xa5")

    def _delete_object(self) -> None:
        self._file("ledger/**/*.val").unlink()

    def _delete_row(self) -> None:
        self._execute("DELETE FROM Cache WHERE rowid = (SELECT rowid FROM Cache ORDER BY random() LIMIT 1)")

    def _blank_row(self) -> None:
        some = "(SELECT rowid FROM Cache ORDER BY random() LIMIT 1)"
        self._execute(f"UPDATE Cache SET value = x'00' WHERE rowid = {some}")

    def _execute(self, statement: str) -> None:
        path = self._location / "ledger" / "cache.db"
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(statement)

    def _delete_view(self) -> None:
        self._file("arrays/**/*").unlink()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store") as made:
        yield made


KINDS = {
    "chunks": ("delete_chunk", "flip_chunk"),
    "objects": ("delete_object",),
    "rows": ("delete_row", "blank_row"),
    "views": ("delete_view",),
    "everything": ("delete_chunk", "flip_chunk", "delete_object", "delete_row", "blank_row", "delete_view"),
}


def vandalise(store: Store, seed: int, kinds: tuple[str, ...], executor: str) -> None:
    pipeline = Pipeline(NODES, store=store)
    for _ in range(3):
        with Vandal(store.location, seed, kinds):
            result = pipeline.map(
                {"x": range(COUNT)},
                output_name=["image", "text", "mean", "total"],
                map_executor=executor,
                max_workers=2,
            )
        check(result)
    check(
        pipeline.map(
            {"x": range(COUNT)}, output_name=["image", "text", "mean", "total"], map_executor=executor
        )
    )


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_damage_while_a_map_runs(kinds: tuple[str, ...], executor: str, store: Store) -> None:
    vandalise(store, 1, kinds, executor)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("seed", range(40))
def test_much_damage_while_maps_run(seed: int, executor: str, store: Store) -> None:
    vandalise(store, seed, KINDS["everything"], executor)
