"""More equal elements than a file may have links: the view shows them all, and so do map, collector and verifier."""

import errno
import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from gristmill import MapResult, Pipeline, Store, node
from gristmill.storage import views

LIMIT = 65_000
"""Links that ext4 allows for one file."""


def tile(x: int) -> Any:
    return np.full(8_200, 7.5)


def tiles(store: Store, count: int) -> MapResult:
    """Map over so many indices, and see that the view shows every one of them."""
    pipeline = Pipeline([node(tile, mapspec="x[i] -> tile[i]")], store=store)
    result = pipeline.map({"x": range(count)}, map_executor="sequential")
    view = zarr.open_array(result.views["tile"], mode="r")
    assert view.shape == (count, 8_200)
    for start in range(0, count, 1000):
        block = np.asarray(view[start : start + 1000])
        assert (block.min(), block.max()) == (7.5, 7.5)
    done = zarr.open_array(str(Path(result.views["tile"]).parent / "done"), mode="r")
    assert np.asarray(done[:]).all()
    return result


def links(store: Path) -> int:
    """How many names the one chunk has."""
    (chunk,) = (store / "chunks").glob("*/*")
    return chunk.stat().st_nlink


@pytest.fixture
def few_links(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let a file have twenty links."""
    link = os.link

    def limited(source: Any, target: Any, **options: Any) -> None:
        if not os.path.lexists(target) and Path(source).stat().st_nlink >= 20:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, target, **options)

    monkeypatch.setattr("gristmill.storage.views.os.link", limited)
    return 20


def test_more_than_a_file_may_have_links(
    tmp_path: Path, few_links: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(tmp_path / "store") as store:
        assert tiles(store, 100).stats.computed == 100
        assert links(store.location) == few_links
        assert store.verify().damaged == []
        assert store.gc().calls == 0
        assert tiles(store, 100).stats.computed == 0
        written: list[Path] = []
        write = views._write_atomically  # noqa: SLF001 - what is written, and not what is there, is the question

        def note(path: Path, *rest: Any) -> None:
            written.append(path)
            write(path, *rest)

        monkeypatch.setattr(views, "_write_atomically", note)
        tiles(store, 100)
        assert [path for path in written if path.parent.name == "tile" and path.name != "zarr.json"] == []


def test_a_copy_of_what_was_damaged_is_replaced(tmp_path: Path, few_links: int) -> None:
    with Store(tmp_path / "store") as store:
        result = tiles(store, 50)
        (chunk,) = (store.location / "chunks").glob("*/*")
        copied = [path for path in Path(result.views["tile"]).glob("c.*") if not path.samefile(chunk)]
        assert len(copied) == 50 - few_links + 1
        for path in (chunk, copied[0]):
            path.chmod(0o600)
            path.write_bytes(bytes(chunk.stat().st_size))
            os.utime(path, (0, 0))  # not in the instant in which the chunk is made again
        assert np.asarray(result["tile"][0])[0] == 7.5  # found out, and computed again
        tiles(store, 50)


def test_the_collector_takes_copies_too(tmp_path: Path, few_links: int) -> None:
    with Store(tmp_path / "store") as store:
        tiles(store, 50)
        gc.collect()  # a result that is in use keeps what it needs
        assert store.gc(keep_runs=0).chunks == 1
        assert not list((store.location / "arrays").glob("*/tile/c.*"))


@pytest.mark.slow
def test_seventy_thousand_equal_tiles(tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        tiles(store, 70_000)
        assert links(store.location) <= LIMIT
        assert tiles(store, 70_000).stats.computed == 0
