"""Directories that are no store, or not one to be trusted, are refused and nothing in them is touched."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import (
    Pipeline,
    Store,
    StoreError,
    StorePermissionError,
    StoreVersionError,
    node,
)

DOUBLE = node(lambda x: 2 * x, output_name="y", mapspec="x[i] -> y[i]")


def use(location: Path, **options: Any) -> list[int]:
    with Store(location, **options) as store:
        result = Pipeline([DOUBLE], store=store).map({"x": [1, 2]}, map_executor="sequential")
        found: list[int] = result["y"].tolist()
        return found


def contents(directory: Path) -> dict[str, Any]:
    """Everything under a directory, with modes and bytes."""
    return {
        str(path.relative_to(directory)): (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in directory.rglob("*")
    }


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def finished(location: Path) -> Path:
    use(location)
    return location


# -- what is made


def test_a_store_is_made_where_there_is_none(location: Path) -> None:
    assert use(location / "deep" / "down") == [2, 4]


def test_a_store_is_made_in_an_empty_directory(location: Path) -> None:
    location.mkdir(mode=0o700)
    assert use(location) == [2, 4]


def test_nobody_else_may_look_into_a_new_store(finished: Path) -> None:
    assert finished.stat().st_mode & 0o777 == 0o700


def test_a_generous_umask_does_not_open_a_new_store(location: Path) -> None:
    before = os.umask(0)
    try:
        assert use(location) == [2, 4]
    finally:
        os.umask(before)
    assert location.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("options", [{}, {"secret": "s"}, {"compressor": "zstd"}], ids=["", "secret", "zstd"])
def test_nobody_else_may_read_or_write_anything_in_it(
    options: dict[str, Any], executor: str, location: Path
) -> None:
    image = node(lambda x: np.full(20_000, x), output_name="y", mapspec="x[i] -> y[i]")
    large = node(lambda x: [f"{x}-{k}" for k in range(10_000)], output_name="z", mapspec="x[i] -> z[i]")
    before = os.umask(0)
    try:
        with Store(location, **options) as store:
            pipeline = Pipeline([image, large], store=store)
            pipeline.map({"x": [1, 2]}, map_executor=executor, max_workers=1)
            damaged = next(iter(location.glob("chunks/*/*")))
            damaged.chmod(0o600)
            damaged.write_bytes(bytes(damaged.stat().st_size))
            damaged.chmod(0o444)
            pipeline.map({"x": [1, 2]}, map_executor=executor, max_workers=1)["y"].tolist()
    finally:
        os.umask(before)
    modes = {path.relative_to(location): path.stat().st_mode & 0o777 for path in location.rglob("*")}
    assert {mode for path, mode in modes.items() if (location / path).is_dir()} == {0o700}
    files = {path: mode for path, mode in modes.items() if (location / path).is_file()}
    immutable = {path for path in files if path.match("chunks/*/*") or path.match("arrays/*/y/c.*")}
    immutable |= {path for path in files if path.parts[0] == "quarantine"}
    assert len(immutable) >= 5
    assert {files[path] for path in immutable} == {0o444}
    assert {mode for path, mode in files.items() if path not in immutable} == {0o600}


def test_making_a_store_object_makes_nothing(location: Path) -> None:
    Store(location)
    assert not location.exists()


def test_a_store_made_halfway_is_completed(location: Path) -> None:
    for name in ("chunks", "arrays", "tmp"):
        (location / name).mkdir(parents=True)
    location.chmod(0o700)
    assert use(location) == [2, 4]


def test_odd_names_are_fine(tmp_path: Path) -> None:
    for name in ("with space", "ünïcode ☃", "a'b\"c", "%41?b=1#c", "-dash", "new\nline"):
        assert use(tmp_path / name) == [2, 4]
        assert use(tmp_path / name) == [2, 4]


def test_a_long_name_is_fine(tmp_path: Path) -> None:
    assert use(tmp_path / ("d" * 250)) == [2, 4]


def test_a_symlink_to_a_store_is_fine(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(finished)
    assert use(tmp_path / "link") == [2, 4]


def test_a_relative_location_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store("here") as store:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert store.location == tmp_path / "here"
        Pipeline([DOUBLE], store=store).map({"x": [1]}, map_executor="parallel")
    assert (tmp_path / "here" / "store.json").exists()


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store("~/s").location == tmp_path / "s"


def test_the_default_is_named_by_the_environment(default_store: Path) -> None:
    assert Store().location == default_store


def test_without_the_variable_it_is_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GRISTMILL_STORE")
    monkeypatch.chdir(tmp_path)
    assert Store().location == tmp_path / ".gristmill"


def test_a_store_may_be_used_again_after_it_was_closed(location: Path) -> None:
    store = Store(location)
    pipeline = Pipeline([DOUBLE], store=store)
    first = pipeline.map({"x": [1, 2]}, map_executor="sequential")
    store.close()
    assert first["y"].tolist() == [2, 4]
    assert pipeline.map({"x": [1, 2]}, map_executor="sequential").stats.computed == 0
    store.close()
    store.close()


def test_a_temporary_store_is_removed() -> None:
    with Store.temporary() as store:
        Pipeline([DOUBLE], store=store).map({"x": [1]}, map_executor="parallel")
        location = store.location
        assert location.exists()
    assert not location.exists()


def test_a_moved_store_is_the_same_store(finished: Path, tmp_path: Path) -> None:
    finished.rename(tmp_path / "moved")
    with Store(tmp_path / "moved") as store:
        result = Pipeline([DOUBLE], store=store).map({"x": [1, 2]}, map_executor="sequential")
        assert (result["y"].tolist(), result.stats.computed) == ([2, 4], 0)


# -- what is refused


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "cache.db", "ledger"])
def test_a_directory_with_something_else_in_it_is_refused(name: str, location: Path) -> None:
    location.mkdir(mode=0o700)
    (location / name).write_text("mine")
    before = contents(location)
    with pytest.raises(StoreVersionError, match=f"not a gristmill store.*{name}.*nothing in it was touched"):
        use(location)
    assert contents(location) == before


def test_a_file_is_refused(location: Path) -> None:
    location.write_text("mine")
    with pytest.raises(StoreError, match="cannot make a store"):
        use(location)
    assert location.read_text() == "mine"


def test_a_newer_format_is_refused(finished: Path) -> None:
    marker = finished / "store.json"
    told = json.loads(marker.read_text())
    marker.write_text(json.dumps({**told, "gristmill": told["gristmill"] + 1}))
    before = contents(finished)
    with pytest.raises(StoreVersionError, match="has format"):
        use(finished)
    assert contents(finished) == before


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '"gristmill"', "{}", '{"gristmill": null}', '{"gristmill": "1"}', "\0\xff"],
)
def test_a_damaged_marker_is_refused(text: str, finished: Path) -> None:
    (finished / "store.json").write_text(text, encoding="latin-1")
    before = contents(finished)
    with pytest.raises(StoreVersionError, match=r"store\.json|format"):
        use(finished)
    assert contents(finished) == before


def test_a_marker_with_one_flipped_bit_is_mended(finished: Path) -> None:
    marker = finished / "store.json"
    told, inode = marker.read_bytes(), marker.stat().st_ino
    for at in range(len(told)):
        marker.write_bytes(told[:at] + bytes([told[at] ^ (1 << at % 8)]) + told[at + 1 :])
        with Store(finished) as store:
            store.storage.refresh()
        assert marker.read_bytes() == told
    assert marker.stat().st_ino == inode
    assert use(finished) == [2, 4]


def test_a_damaged_marker_is_left_alone_by_who_may_not_write(finished: Path) -> None:
    marker = finished / "store.json"
    damaged = marker.read_bytes().replace(b"checksum", b"chdcksum")
    marker.write_bytes(damaged)
    with Store(finished, readonly=True) as store:
        store.storage.refresh()
    assert marker.read_bytes() == damaged


def test_the_next_format_is_refused_however_near_it_looks(finished: Path) -> None:
    marker = finished / "store.json"
    marker.write_bytes(marker.read_bytes().replace(b'"gristmill": 1', b'"gristmill": 2'))
    before = contents(finished)
    with pytest.raises(StoreVersionError, match="has format 2"):
        use(finished)
    assert contents(finished) == before


def test_a_store_without_its_marker_is_refused(finished: Path) -> None:
    (finished / "store.json").unlink()
    before = contents(finished)
    with pytest.raises(StoreVersionError):
        use(finished)
    assert contents(finished) == before


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o720])
def test_a_store_that_others_may_write_to_is_refused(mode: int, finished: Path) -> None:
    finished.chmod(mode)
    with pytest.raises(StorePermissionError, match="chmod 700"):
        use(finished)
    assert use(finished, trust=True) == [2, 4]


def test_an_empty_directory_that_others_may_write_to_is_refused(location: Path) -> None:
    location.mkdir()
    location.chmod(0o777)
    with pytest.raises(StorePermissionError):
        use(location)
    assert list(location.iterdir()) == []


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
def test_a_store_that_others_may_only_read_is_fine(mode: int, finished: Path) -> None:
    finished.chmod(mode)
    assert use(finished) == [2, 4]


@pytest.mark.root
def test_a_store_of_another_user_is_refused(finished: Path) -> None:
    os.chown(finished, 12345, -1)
    with pytest.raises(StorePermissionError, match="belongs to user 12345"):
        use(finished)
    assert use(finished, trust=True) == [2, 4]


def test_permission_error_is_a_permission_error(finished: Path) -> None:
    finished.chmod(0o777)
    with pytest.raises(PermissionError):
        use(finished)


# -- what cannot be written


@pytest.mark.parametrize("place", ["/proc/store", "/dev/null/store"])
def test_a_directory_that_cannot_be_made_says_so(place: str) -> None:
    with pytest.raises(StoreError, match="cannot make a store"):
        use(Path(place))


FULL = """
import resource, sys
from gristmill import Pipeline, Store, node
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
double = node(lambda x: 2 * x, output_name="y", mapspec="x[i] -> y[i]")
large = node(lambda y: bytes(200_000) + bytes([y]), output_name="z", mapspec="y[i] -> z[i]")
with Store(sys.argv[1]) as store:
    print(len(Pipeline([double, large], store=store).map({"x": range(20)}, map_executor="sequential")["z"].tolist()))
"""


@pytest.mark.parametrize("limit", [1000, 30_000, 100_000, 300_000])
def test_a_disk_that_fills_up_leaves_a_store_that_works(limit: int, location: Path) -> None:
    use(location)
    for allowed in (limit, 10**9):
        done = subprocess.run(
            [sys.executable, "-c", FULL, location, str(allowed)], capture_output=True, text=True, check=False
        )
    assert done.stdout == "20\n", done.stderr
    assert use(location) == [2, 4]


# -- read-only


def test_readonly_serves_what_is_there(finished: Path) -> None:
    before = contents(finished)
    with Store(finished, readonly=True) as store:
        result = Pipeline([DOUBLE], store=store).map({"x": [1, 2]}, map_executor="sequential")
        assert (result["y"].tolist(), result.stats.computed) == ([2, 4], 0)
    after = contents(finished)
    assert {name for name in before if "claims" not in name} == {
        name for name in after if "claims" not in name
    }


def test_readonly_makes_no_store(location: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        use(location, readonly=True)
    assert not location.exists()


# -- no store at all


def test_without_a_store_nothing_is_kept(tmp_path: Path, default_store: Path) -> None:
    log = CallLog(tmp_path / "calls.log")
    path = log.path

    def logged(x: int) -> Any:
        record(path, x)
        return np.full(20_000, x)

    pipeline = Pipeline([node(logged, mapspec="x[i] -> logged[i]")], store=None)
    for executor in ("sequential", "parallel"):
        result = pipeline.map({"x": [1]}, map_executor=executor)
        assert result["logged"][0][0] == 1
        assert log.take() == ["1"]
    assert not default_store.exists()


# -- durability


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_power_durability_gives_the_same_results(executor: str, location: Path) -> None:
    image = node(lambda x: np.full(20_000, x), output_name="image", mapspec="x[i] -> image[i]")
    large = node(lambda image: "x" * 200_000, output_name="large", mapspec="image[i] -> large[i]")
    with Store(location, durability="power") as store:
        pipeline = Pipeline([image, large], store=store)
        for computed in (6, 0):
            result = pipeline.map({"x": range(3)}, output_name=["image", "large"], map_executor=executor)
            assert result.stats.computed == computed
            assert result["large"][2] == "x" * 200_000
            assert result["image"][2][0] == 2


@pytest.mark.parametrize("executor", ["sequential", "threaded"])
def test_threads_that_begin_where_there_is_no_store_yet_share_the_calls(
    executor: str, tmp_path: Path
) -> None:
    for attempt in range(8):
        log = CallLog(tmp_path / f"log-{attempt}")
        path, together = log.path, threading.Barrier(4)

        def y(x: int, path: str = path) -> int:
            record(path, x)
            return -x

        pipeline = Pipeline([node(y, mapspec="x[i] -> y[i]")], store=Store(tmp_path / f"store-{attempt}"))

        def begin(_: int, pipeline: Pipeline = pipeline, together: threading.Barrier = together) -> list[int]:
            together.wait()
            found: list[int] = pipeline.map({"x": range(40)}, map_executor=executor)["y"].tolist()
            return found

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(begin, range(4))) == [[-x for x in range(40)]] * 4
        assert len(log.take()) == 40
