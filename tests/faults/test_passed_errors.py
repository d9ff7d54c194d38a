"""Reductions that are handed errors, beside damage and deaths: nothing wrong is made, and nothing of it stays."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import ItemError, MappedOutput, Pipeline, Store, WorkerDiedError, node

SIZE = 20_000


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def image(x: int) -> Any:
    if x == 1:
        raise ValueError("one")
    return np.full(SIZE, float(x))


def peaks(image: list[Any]) -> list[Any]:
    return [type(one.error).__name__ if isinstance(one, ItemError) else float(one.max()) for one in image]


def lazy_peaks(image: MappedOutput) -> list[Any]:
    return [type(one.error).__name__ if isinstance(one, ItemError) else float(one.max()) for one in image]


IMAGES = node(image, mapspec="x[i] -> image[i]")


def chunk_of(store: Store, value: float) -> Path:
    files = [path for path in (store.location / "chunks").rglob("*") if path.is_file()]
    return next(path for path in files if np.frombuffer(path.read_bytes()[:8])[0] == value)


def flip(path: Path) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("harm", [flip, Path.unlink])
@pytest.mark.parametrize("function", [peaks, lazy_peaks])
def test_damaged_elements_beside_failed_ones_are_computed_again(
    function: Any, harm: Any, executor: str, tmp_path: Path
) -> None:
    given = {"x": [0, 1, 2, 3]}
    with Store(tmp_path / "store") as store:
        Pipeline([IMAGES], store=store).map(given, on_error="continue")
        harm(chunk_of(store, 2.0))
    with Store(tmp_path / "store") as store:
        pipeline = Pipeline([IMAGES, node(function, output_name="peaks", errors="pass")], store=store)
        result = pipeline.map(given, on_error="continue", map_executor=executor)
        assert result["peaks"] == [0.0, "ValueError", 2.0, 3.0]
    with Store(tmp_path / "store") as store:
        assert not store.verify().damaged


def test_a_worker_that_died_is_an_error_like_any_other() -> None:
    def leave(x: int) -> int:
        if x == 1:
            os._exit(3)
        return x

    def kinds(leave: list[Any]) -> list[Any]:
        return [type(one.error) if isinstance(one, ItemError) else one for one in leave]

    nodes = [node(leave, mapspec="x[i] -> leave[i]"), node(kinds, errors="pass")]
    result = Pipeline(nodes).map(
        {"x": [0, 1, 2]}, on_error="continue", map_executor="parallel", max_workers=2
    )
    assert result["kinds"] == [0, WorkerDiedError, 2]


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_nothing_that_was_made_of_errors_is_in_the_store(tmp_path: Path, executor: str) -> None:
    def note(image: list[Any]) -> str:
        return "made of errors " * 10_000

    with Store(tmp_path / "store") as store:
        pipeline = Pipeline([IMAGES, node(note, errors="pass")], store=store)
        result = pipeline.map({"x": [0, 1]}, on_error="continue", map_executor=executor)
        assert result["note"].startswith("made of errors")
    everything = b"".join(path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())
    assert b"made of errors" not in everything


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_damage_in_what_was_made_without_errors_is_made_again(
    tmp_path: Path, log: CallLog, executor: str
) -> None:
    path = log.path

    def row(image: list[Any]) -> Any:
        record(path, "row")
        return np.full(SIZE, sum(-1.0 if isinstance(one, ItemError) else one[0] for one in image))

    def pixel(x: int, y: int) -> Any:
        if (x, y) == (1, 1):
            raise ValueError("one")
        return np.full(2, float(x + y))

    nodes = [
        node(pixel, output_name="image", mapspec="x[i], y[j] -> image[i, j]"),
        node(row, mapspec="image[i, :] -> row[i]", errors="pass"),
    ]
    given = {"x": [1, 10], "y": [1, 2]}
    with Store(tmp_path / "store") as store:
        pipeline = Pipeline(nodes, store=store)
        result = pipeline.map(given, on_error="continue", map_executor=executor)
        assert [float(one[0]) for one in result["row"]] == [2.0, 23.0]
        assert len(log.take()) == 2
        flip(chunk_of(store, 23.0))
    with Store(tmp_path / "store") as store:
        again = Pipeline(nodes, store=store).map(given, on_error="continue", map_executor=executor)
        assert [float(one[0]) for one in again["row"]] == [2.0, 23.0]
        assert len(log.take()) == 2
