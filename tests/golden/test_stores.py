"""A store that an earlier version wrote is read by this one: every value, without a single call."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from tests.golden import make_store
from tests.support.values import same

from gristmill import Pipeline, Store, node

GOLDEN = Path(__file__).parent
STORES = sorted(GOLDEN.glob("store-*"))


@pytest.fixture(params=STORES, ids=lambda path: path.name)
def location(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, with the modes that a store has and a repository does not keep."""
    made = tmp_path / "store"
    shutil.copytree(request.param, made)
    made.chmod(0o700)
    for path in made.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o444 if "chunks" in path.parts else 0o600)
    monkeypatch.chdir(tmp_path)
    make_store.CALLED.clear()
    return made


def test_there_is_a_store_of_every_format() -> None:
    assert [path.name for path in STORES] == ["store-1"]


def test_they_are_small_and_name_no_directory_of_ours() -> None:
    files = [path for store in STORES for path in store.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000
    assert [path for path in files if str(GOLDEN.parents[1]).encode() in path.read_bytes()] == []


def test_every_value_is_found(location: Path) -> None:
    result = make_store.run(location, (*make_store.SPREAD, *make_store.PLAIN))
    assert make_store.CALLED == ["fails"]
    assert [error.index for error in result.errors] == [(1,)]
    for function in (*make_store.SPREAD, *make_store.PLAIN):
        outputs = make_store.SPREAD.get(function, (function.__name__,))
        for x in range(make_store.COUNT):
            found = tuple(result[name].tolist()[x] for name in outputs)
            if function is make_store.fails and x == 1:
                assert found == (None,)
            else:
                made = function(x)
                assert same(found, made if len(outputs) > 1 else (made,)), (function.__name__, x)


def test_files_are_put_back_where_they_were(location: Path) -> None:
    result = make_store.run(location, (make_store.page,))
    assert make_store.CALLED == []
    assert [page.read_text() for page in result["page"]] == ["page 0", "page 1", "page 2"]


@pytest.mark.parametrize("function", make_store.COMPRESSED, ids=lambda function: function.__name__)
def test_compressed_chunks_are_found_and_linked(function: Any, location: Path) -> None:
    result = make_store.run(location, (function,))
    assert make_store.CALLED == []
    name = function.__name__
    expected = [function(x) for x in range(make_store.COUNT)]
    assert same(result[name].tolist(), expected)
    assert np.array_equal(np.asarray(zarr.open_array(result.views[name], mode="r")[:]), np.stack(expected))


def test_a_reduction_is_found(location: Path) -> None:
    with Store(location) as store:
        nodes = [*make_store.nodes((make_store.large,)), node(make_store.total, version="1")]
        result = Pipeline(nodes, store=store).map({"x": range(make_store.COUNT)})
        assert (result["total"], make_store.CALLED) == (13_440.0, [])


def test_it_is_found_in_other_processes(location: Path) -> None:
    with Store(location) as store:
        pipeline = Pipeline(make_store.nodes(make_store.SPREAD), store=store)
        result = pipeline.map({"x": range(make_store.COUNT)}, map_executor="parallel", max_workers=2)
        assert result.stats.computed == 0


def test_a_reader_without_pickles_finds_what_needs_none(location: Path) -> None:
    result = make_store.run(
        location, (*make_store.SPREAD, make_store.large, make_store.text), allow_pickle=False
    )
    assert make_store.CALLED == []
    assert [len(text) for text in result["text"]] == [1, 66_000, 1]


def test_what_was_not_computed_then_is_computed_now(location: Path) -> None:
    with Store(location) as store:
        pipeline = Pipeline(make_store.nodes((make_store.large,)), store=store)
        result = pipeline.map({"x": range(make_store.COUNT + 1)}, map_executor="sequential")
        assert (result.stats.computed, make_store.CALLED) == (1, ["large"])
        assert float(result["large"][3].mean()) == 1.5
