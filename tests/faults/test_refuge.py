"""A store that cannot be written does not fail a run: full, read-only, locked, gone, or failing at any operation."""

import contextlib
import errno
import gc
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support import sabotage
from tests.support.calls import CallLog, record
from tests.support.sabotage import FAIL, LOSE, TEAR

from gristmill import Callback, MapResult, Pipeline, Store, StoreError, node
from gristmill.events import FaultEvent
from gristmill.storage.chunks import ChunkFiles
from gristmill.storage.places import references

COUNT = 6
ALL = 3 * COUNT + 1


def image(x: int, log: str, plan: str) -> Any:
    sabotage.obey(plan)
    record(log, "image", x)
    return np.full(10_000, x + 0.5)


def text(x: int, log: str, plan: str) -> str:
    sabotage.obey(plan)
    record(log, "text", x)
    return f"{x} " * 50_000


def number(image: Any, text: str) -> float:
    return float(image.sum()) + len(text)


def total(number: Any) -> float:
    return float(number.sum())


NODES = [
    node(image, mapspec="x[i] -> image[i]", version="1"),
    node(text, mapspec="x[i] -> text[i]", version="1"),
    node(number, mapspec="image[i], text[i] -> number[i]"),
    node(total),
]
NAMES = ["image", "text", "number", "total"]


class Faults(Callback):
    """Keeps what it is told of the store as a whole."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_store_fault(self, event: FaultEvent) -> None:
        if not event.output:
            self.messages.append(event.message)


class Scene:
    """A store, a place for its refuges, and a map whose calls are logged."""

    def __init__(self, directory: Path) -> None:
        self.location = directory / "store"
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        self.log = CallLog(directory / "calls.log")
        self.plan = directory / "plan.json"
        self.faults = Faults()

    def map(
        self, store: Store, executor: str = "sequential", *, count: int = COUNT, **options: Any
    ) -> MapResult:
        pipeline = Pipeline(NODES, store=store, callbacks=[self.faults])
        inputs = {"x": range(count), "log": self.log.path, "plan": str(self.plan)}
        return pipeline.map(inputs, output_name=NAMES, map_executor=executor, max_workers=2, **options)

    def refuges(self) -> list[Path]:
        """The refuges that there are."""
        return [path for path in self.temporary.glob("*/*") if path.is_dir()]

    def map_again(self) -> int:
        """Map as another process would, on a disk that works; return how many calls were not kept."""
        sabotage.disarm()
        self.plan.unlink(missing_ok=True)
        with Store(self.location) as store:
            result = self.map(store)
            check(result)
            computed = result.stats.computed
        with Store(self.location) as store:
            result = self.map(store)
            check(result)
            assert result.stats.computed == 0
            assert dangling(store) == []
        return computed


def check(result: MapResult, count: int = COUNT) -> None:
    assert [array[0] for array in result["image"]] == [x + 0.5 for x in range(count)]
    assert [one[:2] for one in result["text"]] == [f"{x} " for x in range(count)]
    numbers = [10_000 * (x + 0.5) + 100_000 for x in range(count)]
    assert result["number"].tolist() == numbers
    assert result["total"] == sum(numbers)


def dangling(store: Store) -> list[bytes]:
    """Checksums that rows of the store refer to and that are not in it."""
    storage = store.storage
    missing = []
    for group in storage.ledger.groups():
        index = storage.index(group)
        for segment in index.segments:
            locators = index.find(segment.keys)
            for output in range(len(segment.codecs)):
                for name in references(storage.forms(index, locators, output)):
                    known = storage.ledger.get(b"o" + name) is not None
                    if not (known or storage.layout.chunks.joinpath(name.hex()[:2], name.hex()).exists()):
                        missing.append(name)
    return missing


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(tmp_path)
    monkeypatch.setattr("gristmill.storage.refuge._temporary_places", lambda: [made.temporary])
    yield made
    sabotage.disarm()


@pytest.fixture
def short_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not take the first chunk."""
    genuine, errors = ChunkFiles._publish, [OSError(errno.ENOSPC, "No space left on device")]  # noqa: SLF001

    def publish(self: ChunkFiles, temporary: Path, chunk: Path) -> None:
        if errors:
            raise errors.pop()
        genuine(self, temporary, chunk)

    monkeypatch.setattr(ChunkFiles, "_publish", publish)


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    told = [str(one.message) for one in caught]
    assert len(told) == 1, told
    assert "cannot be written" in told[0]


# -- a disk that takes nothing, from an operation on


@pytest.mark.parametrize("first", [0, 20, 60])
@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_a_full_disk_does_not_fail_a_map(executor: str, first: int, scene: Scene) -> None:
    sabotage.Plan(str(scene.location), first=first).save(scene.plan)
    with Store(scene.location) as store, told_once():
        sabotage.obey(str(scene.plan))
        result = scene.map(store, executor)
        check(result)
        assert result.stats.computed == ALL
        assert len(scene.faults.messages) == 1
        assert "No space left" in scene.faults.messages[0] or "full" in scene.faults.messages[0]
    lost = scene.map_again()
    assert 0 < lost <= ALL


@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_whatever_the_disk_says(code: int, scene: Scene) -> None:
    with Store(scene.location) as store:
        scene.map(store, count=2)
        with sabotage.sabotage(scene.location, code=code), told_once():
            check(scene.map(store))
    assert scene.map_again() > 0


def test_a_store_that_cannot_be_made(scene: Scene) -> None:
    with sabotage.sabotage(scene.location), Store(scene.location) as store, told_once():
        check(scene.map(store))
    assert scene.map_again() == ALL


def test_what_was_finished_before_is_kept(scene: Scene) -> None:
    with Store(scene.location) as store:
        scene.map(store, count=2)
        with sabotage.sabotage(scene.location), told_once():
            check(scene.map(store))
    assert scene.map_again() == ALL - 3 * 2


def test_what_is_found_needs_no_disk(scene: Scene) -> None:
    with Store(scene.location) as store:
        scene.map(store)
    readonly = sabotage.sabotage(scene.location, code=errno.EROFS)
    with readonly, Store(scene.location) as store, warnings.catch_warnings():
        warnings.simplefilter("error")
        result = scene.map(store)
        check(result)
        assert result.stats.computed == 0
    assert scene.refuges() == []


def test_the_next_map_of_this_process_moves_everything_home(scene: Scene) -> None:
    with Store(scene.location) as store:
        with sabotage.sabotage(scene.location, first=30), told_once():
            first = scene.map(store)
        result = scene.map(store)
        check(result)
        check(first)
        assert result.stats.computed == 0
        assert (first.views, list(result.views)) == ({}, ["image"])
    assert scene.map_again() == 0


@pytest.mark.usefixtures("short_fault")
def test_the_end_of_a_map_moves_home_what_a_short_fault_kept_out(scene: Scene) -> None:
    with Store(scene.location) as store, told_once():
        check(scene.map(store))
    assert scene.map_again() == 0


def test_a_map_on_a_disk_that_stays_full_finds_what_the_last_one_made(scene: Scene) -> None:
    with Store(scene.location) as store:
        scene.map(store, count=1)
        with sabotage.sabotage(scene.location), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scene.map(store)
            result = scene.map(store)
            check(result)
            assert result.stats.computed == 0


def test_run_goes_on_too(scene: Scene) -> None:
    def double(x: int) -> Any:
        return np.full(20_000, 2 * x)

    with Store(scene.location) as store:
        pipeline = Pipeline([double], store=store)
        with sabotage.sabotage(scene.location), told_once():
            assert pipeline.run({"x": 2})["double"][0] == 4
        with sabotage.sabotage(scene.location), pytest.raises(StoreError, match="cannot be written"):
            pipeline.run({"x": 3}, on_store_error="raise")


# -- run records, and a store that is sealed


@pytest.mark.usefixtures("short_fault")
def test_a_map_whose_results_were_moved_home_loads_whole_elsewhere(scene: Scene) -> None:
    with Store(scene.location) as store, told_once():
        run_id = scene.map(store).run_id
    with Store(scene.location) as store:
        (record,) = store.runs()
        assert (record.run_id, record.state) == (run_id, "done")
        check(store.load(run_id))


def test_a_map_on_a_full_disk_does_the_store_no_harm(scene: Scene) -> None:
    with Store(scene.location) as store:
        scene.map(store, count=2)
        with sabotage.sabotage(scene.location), told_once():
            check(scene.map(store))
    with Store(scene.location) as store:
        assert store.runs()[-1].state == "done"
        assert store.verify().ok
        store.gc()
    assert scene.map_again() == ALL - 3 * 2


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("first", [0, 60])
def test_a_sealed_store_that_fills_up(
    first: int, executor: str, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRISTMILL_SECRET", "of the house")
    sabotage.Plan(str(scene.location), first=first).save(scene.plan)
    with Store(scene.location, compressor="zstd") as store:
        with told_once():
            sabotage.obey(str(scene.plan))
            check(scene.map(store, executor))
        sabotage.disarm()
        scene.plan.unlink()
        result = scene.map(store, executor)
        check(result)
        assert result.stats.computed == 0
        assert store.verify().ok
    assert scene.map_again() == 0


# -- what the user chose


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_raise_ends_the_map_and_keeps_what_was_finished(executor: str, scene: Scene) -> None:
    with Store(scene.location) as store:
        scene.map(store, count=2)
        sabotage.Plan(str(scene.location)).save(scene.plan)
        with pytest.raises(StoreError, match=r"cannot be written.*No space left.*is kept"):
            scene.map(store, executor, on_store_error="raise")
    assert 0 < scene.map_again() <= ALL - 3 * 2


def test_ignore_says_nothing(scene: Scene) -> None:
    with Store(scene.location) as store, sabotage.sabotage(scene.location), warnings.catch_warnings():
        warnings.simplefilter("error")
        check(scene.map(store, on_store_error="ignore"))
    assert len(scene.faults.messages) == 1


def test_another_choice_is_refused(scene: Scene) -> None:
    with (
        Store(scene.location) as store,
        pytest.raises(ValueError, match="on_store_error is 'stop'; use 'warn'"),
    ):
        scene.map(store, on_store_error="stop")


# -- a disk that fails at one operation, whichever that is


def fail_at(scene: Scene, kind: str, first: int, executor: str) -> int:
    """Map with one operation going wrong, then again; return how many there were in this process."""
    shutil.rmtree(scene.location, ignore_errors=True)
    options = {"durability": "power"}
    with Store(scene.location, **options) as store, warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.simplefilter("ignore")
        plan = sabotage.Plan(str(scene.location), kind, first, 1)
        if executor == "sequential":
            sabotage.arm(plan)
        else:
            plan.save(scene.plan)
        check(scene.map(store, executor))
    operations = sabotage.operations()
    scene.map_again()
    return operations


@pytest.mark.parametrize("kind", [FAIL, TEAR, LOSE])
def test_one_operation_fails(kind: str, scene: Scene) -> None:
    operations = fail_at(scene, kind, 10**9, "sequential")
    for first in range(0, operations, operations // 12):
        fail_at(scene, kind, first, "sequential")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FAIL, TEAR, LOSE])
def test_each_operation_fails(kind: str, scene: Scene) -> None:
    for first in range(fail_at(scene, kind, 10**9, "sequential")):
        fail_at(scene, kind, first, "sequential")


@pytest.mark.parametrize("kind", [FAIL, LOSE])
@pytest.mark.parametrize("first", [3, 11])
def test_one_operation_of_a_worker_fails(kind: str, first: int, scene: Scene) -> None:
    fail_at(scene, kind, first, "parallel")


# -- a store that goes away


def test_a_store_that_is_deleted_while_a_map_runs(scene: Scene) -> None:
    location = scene.location

    def gone(x: int) -> Any:
        if x == 2:
            shutil.rmtree(location)
        return np.full(10_000, x)

    def half(gone: Any) -> float:
        return float(gone[0] / 2)

    nodes = [node(gone, mapspec="x[i] -> gone[i]"), node(half, mapspec="gone[i] -> half[i]")]
    with Store(location) as store, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = Pipeline(nodes, store=store).map(
            {"x": range(5)}, output_name=["gone", "half"], map_executor="sequential"
        )
        assert result["half"].tolist() == [0, 0.5, 1, 1.5, 2]
        assert [int(array[0]) for array in result["gone"]] == [0, 1, 2, 3, 4]
    assert scene.map_again() == ALL


# -- a database that somebody else holds


def test_a_locked_database_is_waited_for_and_then_left_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gristmill.storage.patience.BUSY_SECONDS", 0.2)
    with Store(scene.location) as store:
        scene.map(store, count=2)
    holder = sqlite3.connect(scene.location / "ledger" / "cache.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with Store(scene.location) as store, told_once():
        check(scene.map(store))
        holder.execute("ROLLBACK")
        holder.close()
    assert scene.map_again() == ALL - 3 * 2


# -- a store that is only read


def test_a_readonly_store_serves_hits_and_computes_the_rest(scene: Scene) -> None:
    with Store(scene.location) as store:
        scene.map(store, count=2)
    scene.log.take()
    scene.location.joinpath("gate").unlink()  # whoever writes makes it, and only they
    before = sorted(scene.location.rglob("*"))
    for executor in ("sequential", "parallel"):
        with Store(scene.location, readonly=True) as store:
            result = scene.map(store, executor, on_store_error="raise")
            check(result)
            assert result.stats.computed == ALL - 3 * 2
        assert len(scene.log.take()) == 2 * (COUNT - 2)
    assert sorted(scene.location.rglob("*")) == before
    assert scene.faults.messages == []


def test_a_damaged_chunk_in_a_store_that_cannot_be_written_is_computed_again(scene: Scene) -> None:
    with Store(scene.location) as store:
        scene.map(store)
    for chunk in scene.location.glob("chunks/*/*"):
        chunk.chmod(0o600)
        chunk.write_bytes(b"x" * chunk.stat().st_size)
    with sabotage.sabotage(scene.location), Store(scene.location) as store, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check(scene.map(store))
    scene.log.take()
    scene.map_again()
    assert scene.log.take() == [f"image {x}" for x in range(COUNT)]


# -- the refuge itself


def test_a_refuge_lives_as_long_as_store_or_results(scene: Scene) -> None:
    with Store(scene.location) as store, sabotage.sabotage(scene.location), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = scene.map(store)
    assert len(scene.refuges()) == 1
    check(result)
    del result, store
    deadline = time.monotonic() + 5
    while (
        scene.refuges() and time.monotonic() < deadline
    ):  # a thread that is just ending may still know of it
        gc.collect()
        time.sleep(0.01)
    assert scene.refuges() == []


def test_a_refuge_is_for_its_user_alone(scene: Scene) -> None:
    with Store(scene.location) as store, sabotage.sabotage(scene.location), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = scene.map(store)
        (refuge,) = scene.refuges()
        assert refuge.stat().st_mode & 0o777 == 0o700
        assert refuge.parent.stat().st_mode & 0o777 == 0o700
        assert result.stats.computed == ALL


def test_without_a_place_for_a_refuge_the_error_says_so(scene: Scene) -> None:
    with Store(scene.location) as store:
        scene.map(store, count=1)
        scene.temporary.joinpath(f"gristmill-refuges-{os.geteuid()}").write_text("in the way")
        with sabotage.sabotage(scene.location), pytest.raises(StoreError, match=r"disk is full.*refuge"):
            scene.map(store)
    scene.temporary.joinpath(f"gristmill-refuges-{os.geteuid()}").unlink()
    assert scene.map_again() > 0


def test_a_refuge_whose_users_were_killed_is_swept_by_the_next(scene: Scene) -> None:
    with Store(scene.location) as store:
        scene.map(store, count=1)
        child = os.fork()
        if not child:
            with sabotage.sabotage(scene.location), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with contextlib.suppress(BaseException), Store(scene.location) as mine:
                    scene.map(mine)
                    os.kill(os.getpid(), 9)
            os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
        assert len(scene.refuges()) == 1
    with Store(scene.location) as store:
        check(scene.map(store))
    assert scene.refuges() == []


# -- real disks


SCRIPT = """
import sys, warnings
import numpy as np
from gristmill import Pipeline, Store, node

place, executor, what = sys.argv[1:4]

def image(x):
    return np.full(60_000, x + 0.5)

def text(x):
    return f"{x} " * 4_000

def mean(image, text):
    return float(image.mean()) + len(text.split())

count = 10 if what == "few" else 40
nodes = [
    node(image, mapspec="x[i] -> image[i]"),
    node(text, mapspec="x[i] -> text[i]"),
    node(mean, mapspec="image[i], text[i] -> mean[i]"),
]
if __name__ == "__main__":
    with warnings.catch_warnings(record=True) as caught, Store(place) as store:
        warnings.simplefilter("always")
        names = ["image", "text", "mean"]
        pipeline = Pipeline(nodes, store=store)
        result = pipeline.map({"x": range(count)}, output_name=names, map_executor=executor, max_workers=2)
        assert [array[0] for array in result["image"]] == [x + 0.5 for x in range(count)]
        assert result["text"].tolist() == [f"{x} " * 4_000 for x in range(count)]
        assert result["mean"].tolist() == [x + 0.5 + 4_000 for x in range(count)]
        told = [str(one.message)[:120] for one in caught]
        print(result.stats.computed, len(told), *told)
"""


def on_a_private_mount(script: str, *arguments: object) -> list[list[str]]:
    """Run a shell script with mounts of its own; return the words of each line that it printed."""
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.py"
    path.write_text(SCRIPT)
    (tmp_path / "disk").mkdir()
    return path


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2] / "src")]))


@pytest.mark.root
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("first", ["few", "all"])
@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_a_disk_of_8_megabytes(executor: str, first: str, job: Path) -> None:
    script = """
        mount -t tmpfs -o size=8m,mode=700 tmpfs "$2"
        "$0" "$1" "$2/store" "$3" "$4"
        "$0" "$1" "$2/store" "$3" all
        mount -o remount,size=80m "$2"
        "$0" "$1" "$2/store" "$3" all
        "$0" "$1" "$2/store" "$3" all
    """.replace('"$0"', sys.executable)
    runs = on_a_private_mount(script, job, job.parent / "disk", executor, first)
    assert [run[1] for run in runs] == ["0" if first == "few" else "1", "1", "0", "0"]
    computed = [int(run[0]) for run in runs]
    assert computed[0] == (30 if first == "few" else 120)
    assert 0 < computed[2] <= computed[1] < 120
    assert computed[3] == 0


@pytest.mark.root
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_a_disk_that_is_full_from_the_start(executor: str, job: Path) -> None:
    script = """
        mount -t tmpfs -o size=8m,mode=700 tmpfs "$2"
        dd if=/dev/zero of="$2/ballast" bs=64k 2>/dev/null || true
        "$0" "$1" "$2/store" "$3" all
        rm "$2/ballast"
        "$0" "$1" "$2/store" "$3" few
        "$0" "$1" "$2/store" "$3" few
    """.replace('"$0"', sys.executable)
    runs = on_a_private_mount(script, job, job.parent / "disk", executor)
    assert [run[:2] for run in runs] == [["120", "1"], ["30", "0"], ["0", "0"]]


@pytest.mark.root
@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_a_disk_that_is_only_read(executor: str, job: Path) -> None:
    script = """
        "$0" "$1" "$2/store" sequential few
        mount --bind "$2" "$2"
        mount -o remount,ro,bind "$2"
        "$0" "$1" "$2/store" "$3" few
        "$0" "$1" "$2/store" "$3" all
        mount -o remount,rw,bind "$2"
        "$0" "$1" "$2/store" "$3" all
        "$0" "$1" "$2/store" "$3" all
    """.replace('"$0"', sys.executable)
    runs = on_a_private_mount(script, job, job.parent / "disk", executor)
    assert [run[:2] for run in runs] == [["30", "0"], ["0", "0"], ["90", "1"], ["90", "0"], ["0", "0"]]


@pytest.mark.root
@pytest.mark.usefixtures("environment")
def test_a_directory_of_mode_555(job: Path) -> None:
    """Another user than root runs this: to root, modes mean nothing."""
    seen = subprocess.run(
        ["setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-c", "import gristmill.pipeline"],
        cwd="/",
        capture_output=True,
        check=False,
    )
    if seen.returncode:
        pytest.skip("another user cannot run this Python, or not read this source")
    script = """
        mount -t tmpfs -o mode=777 tmpfs /mnt
        cp "$1" /mnt/job.py
        mkdir -m 777 /mnt/temporary
        export TMPDIR=/mnt/temporary HOME=/mnt
        cd /mnt
        run() { setpriv --reuid 65534 --clear-groups "$0" /mnt/job.py /mnt/store "$1" "$2"; }
        run sequential few
        chmod -R a-w store
        run sequential few
        run sequential all
        chmod -R u+w store
        run sequential all
        run sequential all
    """.replace('"$0"', sys.executable)
    runs = on_a_private_mount(script, job)
    assert [run[:2] for run in runs] == [["30", "0"], ["0", "0"], ["90", "1"], ["90", "0"], ["0", "0"]]
