"""What is in a store: how much, of which node, used by which run, and where."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.support.scene import CALLS_PER_INDEX, COUNT, Scene

from gristmill import GristmillError, Pipeline, Store


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def store(scene: Scene) -> Iterator[Store]:
    with scene.open() as opened:
        yield opened


def test_an_empty_directory_has_nothing(tmp_path: Path) -> None:
    empty = Store(tmp_path / "nothing")
    assert (empty.stats().calls, empty.stats().bytes, empty.ls()) == (0, 0, [])
    assert not empty.location.exists()


def test_bytes_by_kind_and_node(scene: Scene, store: Store) -> None:
    scene.map(store)
    stats = store.stats()
    assert stats.calls == CALLS_PER_INDEX * COUNT + 1
    assert stats.bytes == sum(stats.kinds.values())
    assert stats.bytes - stats.kinds["views"] == scene.size()
    pages = sum(len(path.read_bytes()) for path in scene.folder.iterdir())
    assert stats.kinds["chunks"] == 8 * 20_000 * (COUNT + 3) + pages
    assert stats.kinds["objects"] > 80_000 * COUNT
    assert stats.kinds["views"] < 10_000  # links take nothing
    assert stats.kinds["quarantine"] == 0
    assert list(stats.nodes)[:2] == ["tests.support.scene:image", "tests.support.scene:big"]
    assert stats.nodes["tests.support.scene:image"] > 8 * 20_000 * COUNT


def test_hits_of_each_run(scene: Scene, store: Store) -> None:
    scene.map(store, range(3))
    scene.map(store, range(6))
    newest, oldest = store.stats().runs
    assert (oldest.calls, oldest.hits, oldest.rate) == (CALLS_PER_INDEX * 3 + 1, 0, 0.0)
    assert (newest.calls, newest.hits) == (CALLS_PER_INDEX * 6 + 1, CALLS_PER_INDEX * 3)
    assert newest.rate == pytest.approx(18 / 37)


def test_entries_are_versions_of_nodes(scene: Scene, store: Store) -> None:
    scene.map(store)
    listed = store.ls()
    assert len(listed) == 7
    (image,) = store.ls("image")
    assert (image.node, image.outputs, image.calls) == ("tests.support.scene:image", ("image",), COUNT)
    assert image == store.ls("tests.support.scene:image")[0]
    assert store.ls("note") == store.ls("text")
    assert store.ls("nothing") == []
    assert image.last_used == pytest.approx(store.runs()[0].refreshed)


def test_what_was_used_last_is_first(scene: Scene, store: Store) -> None:
    scene.map(store)
    Pipeline([scene_double], store=store).run({"x": 1})
    assert store.ls()[0].node.endswith("scene_double")


def scene_double(x: int) -> int:
    return 2 * x


def test_the_path_of_an_element(scene: Scene, store: Store) -> None:
    run_id = scene.map(store).run_id
    path = store.path(run_id, "image", (2,))
    assert path is not None
    assert np.frombuffer(path.read_bytes(), dtype="<f8").tolist() == [4.5] * 20_000
    assert store.path(run_id, "number", (2,)) is None
    with pytest.raises(GristmillError, match=r"has no index \(9,\)"):
        store.path(run_id, "image", (9,))
    with pytest.raises(GristmillError, match=r"no output 'imag' \(did you mean 'image'"):
        store.path(run_id, "imag", (1,))
