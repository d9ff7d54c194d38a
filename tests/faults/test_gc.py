"""Collecting: what is not needed goes and its space comes back; what is needed stays, whoever runs or is killed."""

import gc
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import zarr
from tests.support.programs import running
from tests.support.scene import CALLS_PER_INDEX, COUNT, NODES, Scene

from gristmill import InputError, Pipeline, Store, StoreError, node
from gristmill.storage import gc as collecting

PER_MAP = CALLS_PER_INDEX * COUNT + 1


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.fixture
def store(scene: Scene) -> Iterator[Store]:
    with scene.open() as opened:
        yield opened


def double(x: int) -> int:
    return 2 * x


def numbers(store: Store) -> Pipeline:
    return Pipeline([node(double, mapspec="x[i] -> double[i]")], store=store)


def sound(scene: Scene) -> None:
    """The store holds nothing damaged, and no litter."""
    with scene.open() as store:
        report = store.verify()
    assert report.ok, report.damaged
    assert (report.orphans, report.quarantined) == (0, 0)


def computed(scene: Scene, xs: Any = range(COUNT)) -> int:
    """How many calls a map makes now, in a store that is opened anew."""
    with scene.open() as store:
        return scene.map(store, xs).stats.computed


# -- what goes


def test_nothing_that_can_be_found_goes_by_default(scene: Scene, store: Store) -> None:
    scene.map(store)
    report = store.gc()
    assert (report.calls, report.segments, report.chunks, report.objects, report.runs) == (0, 0, 0, 0, 0)
    assert report.kept_calls == PER_MAP
    assert computed(scene) == 0


def test_what_a_sealed_store_needs_stays(scene: Scene) -> None:
    with Store(scene.location, secret="of the house") as store:
        scene.map(store)
        report = store.gc()
        assert (report.calls, report.chunks, report.objects) == (0, 0, 0)
        for page in scene.folder.iterdir():
            page.unlink()  # to be put back from its chunk
        assert scene.map(store).stats.computed == 0


def test_an_empty_directory_stays_empty(tmp_path: Path) -> None:
    assert Store(tmp_path / "nothing").gc(max_bytes=0).calls == 0
    assert not (tmp_path / "nothing").exists()


def test_only_the_newest_runs_are_kept(scene: Scene, store: Store) -> None:
    scene.map(store, range(COUNT))
    scene.map(store, range(3, 3 + COUNT))
    report = store.gc(keep_runs=1)
    assert report.runs == 1
    assert report.calls == CALLS_PER_INDEX * 3 + 1
    assert len(store.runs()) == 1
    sound(scene)
    assert computed(scene, range(3, 3 + COUNT)) == 0
    scene.log.take()
    assert computed(scene, range(COUNT)) == CALLS_PER_INDEX * 3 + 1
    assert len(scene.log.take()) == CALLS_PER_INDEX * 3 + 1


def test_parts_of_segments_go_and_records_follow(scene: Scene, store: Store) -> None:
    numbers(store).map({"x": range(1000)}, map_executor="sequential")
    run_id = numbers(store).map({"x": range(100, 900, 2)}, map_executor="sequential").run_id
    report = store.gc(keep_runs=1)
    assert (report.calls, report.kept_calls) == (600, 400)
    assert report.rewritten > 0
    for opened in (store, scene.open()):
        assert opened.load(run_id)["double"].tolist() == list(range(200, 1800, 4))
        assert numbers(opened).map({"x": range(100, 900, 2)}).stats.computed == 0
    assert store.gc(keep_runs=2).calls == 0
    sound(scene)


def test_space_comes_back(scene: Scene, store: Store) -> None:
    scene.map(store, range(40))
    before = scene.size()
    assert before > 20 * 1024 * 1024 / 4
    report = store.gc(keep_runs=0)
    assert report.calls == CALLS_PER_INDEX * 40 + 1
    assert scene.size() < 300_000
    assert report.freed == pytest.approx(before - scene.size(), abs=200_000)
    assert list((scene.location / "arrays").iterdir()) == []
    sound(scene)
    assert computed(scene, range(5)) == CALLS_PER_INDEX * 5 + 1


def test_space_of_rows_in_the_database_comes_back(scene: Scene, store: Store) -> None:
    text = Pipeline(
        [node(lambda x: "x" * 500 + str(x), output_name="t", mapspec="x[i] -> t[i]")], store=store
    )
    for start in range(0, 3000, 50):
        text.map({"x": range(start, start + 50)}, map_executor="sequential")
    before = (scene.location / "ledger" / "cache.db").stat().st_size
    store.gc(keep_runs=0)
    assert (scene.location / "ledger" / "cache.db").stat().st_size < before / 5


def test_what_was_used_lately_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers(store).map({"x": range(100)}, map_executor="sequential")
    store.gc(older_than=timedelta(hours=1))
    assert numbers(store).map({"x": range(100)}).stats.computed == 0
    later = time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: later)
    assert store.gc(older_than=3600).calls == 100
    assert store.runs() == []


def test_what_was_used_least_recently_goes_first(scene: Scene, store: Store) -> None:
    image = Pipeline([NODES[0], NODES[1]], store=store)
    given = {"log": scene.log.path}
    for start in (0, 10, 20):
        image.map({"x": range(start, start + 10), **given}, map_executor="sequential")
    image.map({"x": range(10), **given}, map_executor="sequential")  # uses the oldest again
    report = store.gc(max_bytes=22 * 160_000)
    assert report.bytes_after <= 22 * 160_000
    scene.log.take()
    image.map({"x": range(20, 30), **given}, map_executor="sequential")
    image.map({"x": range(10), **given}, map_executor="sequential")
    assert scene.log.take() == []
    again = image.map({"x": range(10, 20), **given}, map_executor="sequential")
    assert again.stats.computed > 0
    sound(scene)


def test_a_store_can_be_made_to_fit_though_one_run_does_not(scene: Scene, store: Store) -> None:
    scene.map(store, range(30))
    limit = scene.size() // 2
    report = store.gc(max_bytes=limit)
    assert scene.size() == report.bytes_after <= limit
    assert report.kept_calls > 0
    sound(scene)
    assert 0 < computed(scene, range(30)) < CALLS_PER_INDEX * 30 + 1


@pytest.mark.parametrize("distinct", [1, 3])
def test_calls_that_share_their_bytes_are_counted_as_what_goes_with_the_last_of_them(
    distinct: int, store: Store
) -> None:
    tile = node(lambda x: np.full(40_000, x % distinct), output_name="tile", mapspec="x[i] -> tile[i]")
    other = node(lambda tile: tile + 10, output_name="other", mapspec="tile[i] -> other[i]")
    pipeline = Pipeline([tile, other], store=store)
    pipeline.map({"x": range(50)}, map_executor="sequential", output_name=["tile", "other"])
    gc.collect()  # a result in use is not touched
    whole = store.stats().bytes
    report = store.gc(max_bytes=whole - 320_000)
    assert report.bytes_after <= whole - 320_000
    assert report.kept_calls > 0
    assert store.gc(max_bytes=0).kept_calls == 0
    result = pipeline.map({"x": range(50)}, map_executor="sequential")
    assert [int(one[0]) for one in result["other"]] == [10 + x % distinct for x in range(50)]
    assert result.stats.computed == 50 + distinct, "equal calls are made once"


def test_litter_goes(scene: Scene, store: Store) -> None:
    scene.map(store)
    orphan = scene.location / "ledger" / "00" / "00" / f"{7:028x}.val"
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"litter")
    store.storage.chunks.write(bytes.fromhex("99aa06d3014798d86001c324468d497f"), b"")
    chunk = max((scene.location / "chunks").glob("*/*"), key=lambda path: path.stat().st_size)
    chunk.chmod(0o600)
    chunk.write_bytes(b"damaged")
    store.verify(repair=True)
    report = store.gc()
    assert (report.chunks, report.litter) == (1, 2)
    sound(scene)
    assert computed(scene) == 1


def test_a_dry_run_says_what_would_go_and_does_nothing(scene: Scene, store: Store) -> None:
    scene.map(store, range(COUNT))
    scene.map(store, range(3, 3 + COUNT))
    store.gc()  # writes SQLite's log into its database
    before = {path: path.stat().st_mtime_ns for path in scene.location.rglob("*.val")}
    said = store.gc(keep_runs=1, dry_run=True)
    assert {path: path.stat().st_mtime_ns for path in scene.location.rglob("*.val")} == before
    assert len(store.runs()) == 2
    done = store.gc(keep_runs=1)
    for count in ("runs", "calls", "superseded", "segments", "rewritten", "objects", "chunks", "kept_calls"):
        assert getattr(said, count) == getattr(done, count), count
    assert said.freed == pytest.approx(done.freed, rel=0.3)


def test_collected_calls_say_so(store: Store) -> None:
    numbers(store).map({"x": range(10)}, map_executor="sequential")
    numbers(store).map({"x": range(5)}, map_executor="sequential")
    store.gc(keep_runs=1)
    for opened in (store, Store(store.location)):
        said = str(numbers(opened).explain({"x": range(12)}))
        assert "hit  0–4" in said
        assert "5–9  the result was collected, to make room" in said
        assert "input x[10] is new" in said or "10–11" in said
    store.gc(keep_runs=0)
    assert "0–9  the result was collected" in str(numbers(Store(store.location)).explain({"x": range(10)}))


def test_links_of_views_go_with_their_chunks(scene: Scene, store: Store) -> None:
    image = Pipeline([NODES[0], NODES[1]], store=store)
    first = image.map({"x": range(4), "log": scene.log.path}, map_executor="sequential")
    image.map({"x": range(2), "log": scene.log.path}, map_executor="sequential")
    view = first.views["image"]
    del first
    assert store.gc(keep_runs=1).links == 2
    done = str(Path(view).parent / "done")
    assert np.asarray(zarr.open_array(done, mode="r")[:]).tolist() == [True, True, False, False]
    image.map({"x": range(4), "log": scene.log.path}, map_executor="sequential")
    assert np.asarray(zarr.open_array(done, mode="r")[:]).all()


def test_options_are_not_negative(store: Store) -> None:
    with pytest.raises(InputError, match="max_bytes is -1"):
        store.gc(max_bytes=-1)
    with pytest.raises(InputError, match="older_than is -1"):
        store.gc(older_than=timedelta(seconds=-1))
    with pytest.raises(InputError, match="keep_runs is -1"):
        store.gc(keep_runs=-1)


def test_a_read_only_store_cannot_be_collected(scene: Scene, store: Store) -> None:
    scene.map(store)
    with Store(scene.location, readonly=True) as frozen:
        assert frozen.gc(keep_runs=0, dry_run=True).calls == PER_MAP
        with pytest.raises(StoreError, match="read-only"):
            frozen.gc()


# -- what others need


def test_results_in_use_are_kept_in_whatever_process(scene: Scene, store: Store) -> None:
    result = scene.map(store)
    with scene.open() as other:
        other.gc(keep_runs=0)
        assert len(other.runs()) == 1
        assert np.asarray(result["image"])[:, 0].tolist() == [k * k + 0.5 for k in range(COUNT)]
        loaded = other.load(result.run_id)
        del result
        other.gc(keep_runs=0)
        assert np.asarray(loaded["image"]).shape == (COUNT, 20_000)
        assert scene.log.take() and computed(scene) == 0  # noqa: PT018
        del loaded
    with scene.open() as other:
        assert other.gc(keep_runs=0).calls == PER_MAP
    assert computed(scene) == PER_MAP


BESIDE = dedent(
    """
    import sys
    from tests.support.scene import *

    if __name__ == "__main__":
        scene = Scene(Path(sys.argv[1]))
        print("ready", flush=True)
        sys.stdin.readline()
        with scene.open() as store:
            for start in range(0, 24, 3):
                scene.map(store, range(start, start + 6), map_executor=sys.argv[2], max_workers=2)
            result = scene.map(store, range(30), map_executor=sys.argv[2], max_workers=2)
        print("right", flush=True)
    """
)


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_maps_beside_a_collector_are_right_and_lose_nothing_of_their_own(
    executor: str, scene: Scene, tmp_path: Path
) -> None:
    script = tmp_path / "beside.py"
    script.write_text(BESIDE)
    chance = random.Random(executor)
    with running(script, tmp_path, executor, store=scene.location) as program:
        assert program.line() == "ready"
        program.go()
        with scene.open() as store:
            rounds = 0
            while program.process.poll() is None:
                store.gc(keep_runs=chance.choice([0, 1, 2]))
                rounds += 1
        assert program.finish() == "right\n"
    assert rounds > 2
    with scene.open() as store:
        store.gc()
    sound(scene)
    computed(scene, range(30))  # right, whatever is left


LIVE = dedent(
    """
    import sys
    import numpy as np
    from gristmill import Pipeline
    from tests.support.calls import record

    def slow(x, log):
        import time
        record(log, "slow", x)
        time.sleep(0.004)
        return np.full(10_000, x // 2)

    def total(slow):
        return int(slow[:, 0].sum())

    if __name__ == "__main__":
        pipeline = Pipeline([(slow, "x[i] -> slow[i]"), total], store=sys.argv[2])
        print("ready", flush=True)
        result = pipeline.map({"x": range(300), "log": sys.argv[1]}, map_executor=sys.argv[3], max_workers=2)
        print(result["total"], flush=True)
    """
)


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_a_running_map_makes_no_call_twice(executor: str, scene: Scene, tmp_path: Path) -> None:
    script = tmp_path / "live.py"
    script.write_text(LIVE)
    arguments = (scene.log.path, scene.location, executor)
    with running(script, *arguments, store=scene.location) as program, scene.open() as store:
        assert program.line() == "ready"
        while program.process.poll() is None:
            store.gc(keep_runs=0)
            time.sleep(0.02)
        assert program.finish() == f"{sum(k // 2 for k in range(300))}\n"
    assert set(scene.log.counts().values()) == {1}


def test_only_one_collects_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers(store).map({"x": range(3)})
    said: list[str] = []

    def again(*_: Any) -> None:
        with pytest.raises(StoreError) as caught, Store(store.location) as other:
            other.gc()
        said.append(str(caught.value))

    monkeypatch.setattr(collecting, "_collect", again)
    store.gc()
    assert "another process is collecting" in said[0]


# -- killed

KILLED = dedent(
    """
    import sys
    from gristmill import Store

    if __name__ == "__main__":
        with Store(sys.argv[1]) as store:
            store.runs()
            print("ready", flush=True)
            store.gc(keep_runs=1)
        print("done", flush=True)
    """
)


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two runs that overlap."""
    directory = tmp_path_factory.mktemp("two")
    scene = Scene(directory)
    with scene.open() as store:
        scene.map(store, range(20))
        scene.map(store, range(5, 15))
    return directory


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 20))])
def test_a_collector_that_is_killed_at_any_instant_leaves_a_sound_store(
    seed: int, two_runs: Path, tmp_path: Path
) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    scene = Scene(two_runs)
    chance = random.Random(seed)
    kept = scene.location
    for k in range(5):
        scene.location = tmp_path / f"store{k}"
        subprocess.run(["cp", "-a", kept, scene.location], check=True)
        with running(script, scene.location, store=scene.location) as program:
            assert program.line() == "ready"
            time.sleep(chance.uniform(0.0, 0.12))  # a random instant is what is tested
            program.kill()
        with scene.open() as store:
            assert store.verify().ok
            loaded = store.load(store.runs()[0].run_id)
            assert loaded["number"].tolist() == [x * x for x in range(5, 15)]
        assert computed(scene, range(5, 15)) == 0
        with scene.open() as store:
            store.gc(keep_runs=1)
        sound(scene)
        assert computed(scene, range(5, 15)) == 0
        shutil.rmtree(scene.location)
    scene.location = kept


def test_the_collector_stops_after_each_write(
    two_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill would, but at every one of the points at which something has just been written."""
    from gristmill.storage.ledger import Ledger
    from gristmill.storage.rows import Rows

    scene = Scene(two_runs)
    kept = scene.location
    stop = [0]

    class StoppedError(Exception):
        pass

    def stopping(method: Any) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            result = method(*arguments, **named)
            stop[0] -= 1
            if stop[0] == 0:
                raise StoppedError
            return result

        return wrapped

    for name in ("append", "put_all"):
        monkeypatch.setattr(Ledger, name, stopping(getattr(Ledger, name)))
    for name in ("remove", "remove_unnamed", "remove_orphans", "shrink"):
        monkeypatch.setattr(Rows, name, stopping(getattr(Rows, name)))
    for at in range(1, 200, 5):
        scene.location = tmp_path / f"store{at}"
        subprocess.run(["cp", "-a", kept, scene.location], check=True)
        with scene.open() as store:
            stop[0] = at
            try:
                store.gc(keep_runs=1)
                finished = True
            except StoppedError:
                finished = False
            stop[0] = 0
        with scene.open() as store:
            assert store.verify().ok
            assert store.load(store.runs()[0].run_id)["number"].tolist() == [x * x for x in range(5, 15)]
        assert computed(scene, range(5, 15)) == 0
        shutil.rmtree(scene.location)
        if finished:
            break
    assert at > 10
    scene.location = kept
