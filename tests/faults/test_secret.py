"""A store with a secret decodes nothing that was not sealed with it, and nobody finds the secret anywhere."""

import os
import pickle
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.calls import CallLog, record

from gristmill import Callback, File, MapResult, Pipeline, Store, StoreError, StorePermissionError, node
from gristmill.engine.executors.warm import WARM
from gristmill.events import FaultEvent
from gristmill.storage.frame import HEADER_SIZE, seal
from gristmill.storage.layout import Layout
from gristmill.storage.seal import Secret

SECRET = "of-the-house-of-grist"
COUNT = 4
OUTPUTS = ["number", "image", "big", "note", "page"]


def make_pipeline(log: str, files: str, store: Store, callbacks: tuple[Callback, ...] = ()) -> Pipeline:
    """Packed values, pickles, chunks, objects and files."""

    def number(x: int) -> int:
        record(log, "number", x)
        return x * x

    def image(x: int) -> Any:
        record(log, "image", x)
        return np.full(20_000, x + 0.5)

    def big(x: int) -> Any:
        record(log, "big", x)
        return [f"{x}-{k}" for k in range(10_000)]

    def note(x: int) -> Any:
        record(log, "note", x)
        return {"x": x}

    def page(x: int) -> Any:
        record(log, "page", x)
        path = f"{files}/page{x}"
        with open(path, "w") as file:  # noqa: PTH123 - a user's function
            file.write(f"page {x}")
        return File(path)

    nodes = [
        node(f, mapspec=f"x[i] -> {f.__name__}[i]", version="1") for f in (number, image, big, note, page)
    ]
    return Pipeline(nodes, store=store, callbacks=callbacks)


class Scene:
    """A finished store with a secret, and what runs on it."""

    def __init__(self, directory: Path) -> None:
        self.location = directory / "store"
        self.files = directory / "files"
        self.log = CallLog(directory / "calls.log")

    def map(
        self, executor: str = "sequential", callbacks: tuple[Callback, ...] = (), **options: Any
    ) -> MapResult:
        with Store(self.location, **{"secret": SECRET, **options}) as store:
            pipeline = make_pipeline(self.log.path, str(self.files), store, callbacks)
            result = pipeline.map(
                {"x": range(COUNT)},
                output_name=OUTPUTS,
                map_executor=executor,
                max_workers=2,
                on_error="continue",
            )
            check(result, str(self.files))
            return result

    def rows(self) -> list[tuple[int, bytes, bytes]]:
        """Row ids, keys and inline values of the ledger."""
        with self.database() as connection:
            query = "SELECT rowid, key, value FROM Cache WHERE value IS NOT NULL"
            return [(row, bytes(key), bytes(value)) for row, key, value in connection.execute(query)]

    def database(self) -> Any:
        return closing(sqlite3.connect(self.location / "ledger" / "cache.db", isolation_level=None))

    def put(self, row: int, value: bytes) -> None:
        with self.database() as connection:
            connection.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (value, row))


def check(result: MapResult, files: str) -> None:
    """Every value is there, and right."""
    assert result.errors == []
    assert result["number"].tolist() == [x * x for x in range(COUNT)]
    assert [float(image[-1]) for image in result["image"]] == [x + 0.5 for x in range(COUNT)]
    assert result["big"].tolist() == [[f"{x}-{k}" for k in range(10_000)] for x in range(COUNT)]
    assert result["note"].tolist() == [{"x": x} for x in range(COUNT)]
    assert [page.read_text() for page in result["page"]] == [f"page {x}" for x in range(COUNT)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a store in which everything has been computed."""
    directory = tmp_path_factory.mktemp("sealed")
    (directory / "files").mkdir()
    Scene(directory).map()
    return directory


@pytest.fixture
def scene(finished: Path, tmp_path: Path) -> Scene:
    """A copy of the finished store; paths are parts of what was stored, so files and log stay."""
    made = Scene(finished)
    made.location = tmp_path / "store"
    shutil.copytree(finished / "store", made.location)
    made.log.take()
    return made


def contents(directory: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(directory)): (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in directory.rglob("*")
    }


# -- who gets in


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_what_was_stored_is_found_with_the_same_secret(executor: str, scene: Scene) -> None:
    assert scene.map(executor).stats.computed == 0
    assert scene.map(executor, secret=SECRET.encode()).stats.computed == 0
    assert scene.log.take() == []


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_workers_write_sealed_results(executor: str, scene: Scene) -> None:
    shutil.rmtree(scene.location)
    assert scene.map(executor).stats.computed == COUNT * len(OUTPUTS)
    assert scene.map().stats.computed == 0


def test_the_environment_may_have_the_secret(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_SECRET", SECRET)
    for executor in ("sequential", "parallel"):
        assert scene.map(executor, secret=None).stats.computed == 0
    monkeypatch.setenv("GRISTMILL_SECRET", "something else")
    with pytest.raises(StorePermissionError, match="another secret"):
        scene.map(secret=None)


def test_the_environment_of_a_warm_worker_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is that of the program when the worker was started."""
    shout = node(lambda x: f"{x}!", output_name="text", mapspec="x[i] -> text[i]")
    WARM.end()  # so that workers are started now
    monkeypatch.setenv("GRISTMILL_SECRET", SECRET)
    for name in ("sealed", "plain"):
        with Store(tmp_path / name) as store:
            result = Pipeline([shout], store=store).map({"x": range(4)}, map_executor="parallel")
            assert result["text"].tolist() == ["0!", "1!", "2!", "3!"]
        monkeypatch.delenv("GRISTMILL_SECRET", raising=False)


@pytest.mark.parametrize(
    ("secret", "message"),
    [("wrong", "another secret"), (SECRET + " ", "another secret"), (None, "with a secret")],
)
@pytest.mark.parametrize("options", [{}, {"readonly": True}], ids=["", "readonly"])
def test_another_secret_opens_nothing_and_touches_nothing(
    secret: str | None, message: str, options: dict[str, Any], scene: Scene
) -> None:
    before = contents(scene.location)
    with pytest.raises(StorePermissionError, match=message):
        scene.map(secret=secret, **options)
    assert contents(scene.location) == before


def test_a_store_without_a_secret_is_not_taken_for_one_with_it(tmp_path: Path) -> None:
    double = node(lambda x: 2 * x, output_name="y", mapspec="x[i] -> y[i]")
    with Store(tmp_path / "plain") as store:
        Pipeline([double], store=store).map({"x": [1]})
    before = contents(tmp_path / "plain")
    with (
        pytest.raises(StorePermissionError, match="made without a secret"),
        Store(tmp_path / "plain", secret=SECRET) as store,
    ):
        Pipeline([double], store=store).map({"x": [1]})
    assert contents(tmp_path / "plain") == before


def test_verify_and_secret_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="verify=False"):
        Store(tmp_path / "store", secret=SECRET, verify=False)


def test_a_marker_with_one_flipped_bit_is_mended(scene: Scene) -> None:
    marker = scene.location / "store.json"
    told = marker.read_bytes()
    layout, secret = Layout(scene.location), Secret.given(SECRET)
    key = layout.open(secret=secret)
    for at in range(0, len(told), 3):
        marker.write_bytes(told[:at] + bytes([told[at] ^ (1 << at % 8)]) + told[at + 1 :])
        assert layout.open(secret=secret) == key
        assert marker.read_bytes() == told


def test_a_marker_whose_key_was_taken_out_opens_nothing(scene: Scene, tmp_path: Path) -> None:
    Store(tmp_path / "plain").storage.close()
    shutil.copy(tmp_path / "plain" / "store.json", scene.location / "store.json")
    with pytest.raises(StorePermissionError, match="made without a secret"):
        scene.map()


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_a_store_that_is_made_anew_under_a_living_process_has_a_new_key(executor: str, scene: Scene) -> None:
    with Store(scene.location, secret=SECRET) as store:
        pipeline = make_pipeline(scene.log.path, str(scene.files), store)
        for computed in (0, COUNT):
            result = pipeline.map({"x": range(COUNT)}, output_name="number", map_executor=executor)
            assert (result["number"].tolist(), result.stats.computed) == ([0, 1, 4, 9], computed)
            shutil.rmtree(scene.location)


# -- where the secret is


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_the_secret_is_written_nowhere(executor: str, tmp_path: Path) -> None:
    location, reversed_secret = str(tmp_path / "store"), SECRET[::-1]

    def look(y: int) -> list[str]:
        secret = reversed_secret[::-1].encode()
        with Store(location, secret=secret) as store:
            key = store.storage._key  # noqa: SLF001 - what must not be found
        found = []
        for folder, _, names in os.walk(location):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:  # noqa: PTH118, PTH123 - a user's function
                    data = file.read()
                if secret in data or key in data or key.hex().encode() in data:
                    found.append(name)
        return [*found, "looked"]

    double = node(lambda x: 2 * x, output_name="y", mapspec="x[i] -> y[i]", version="1")
    seen = node(look, output_name="seen", mapspec="y[i] -> seen[i]", version="1")
    total = node(lambda seen: len(seen) + 0, output_name="total", version="1")
    with Store(location, secret=SECRET) as store:
        pipeline = Pipeline([double, seen, total], store=store)
        result = pipeline.map({"x": range(3)}, output_name=["seen", "total"], map_executor=executor)
        assert result["seen"].tolist() == [["looked"]] * 3
        shown = [
            repr(store),
            repr(vars(store)),
            repr(store.storage.spec),
            repr(pipeline),
            str(vars(pipeline)),
        ]
    assert not [text for text in shown if SECRET in text]


def test_a_function_that_holds_a_store_with_a_secret_is_not_written_to_a_job(tmp_path: Path) -> None:
    inner = Store(tmp_path / "inner", secret=SECRET)
    hold = node(lambda x: (inner is not None) + x, output_name="y", mapspec="x[i] -> y[i]", version="1")
    with Store(tmp_path / "outer") as store, pytest.raises(Exception, match="GRISTMILL_SECRET"):
        Pipeline([hold], store=store).map({"x": [1, 2]}, map_executor="parallel")


# -- what a forger can do


def forge_all(scene: Scene, prefix: bytes) -> int:
    """Seal the bodies of all rows of a kind as whoever does not know the secret can."""
    forged = 0
    for row, key, value in scene.rows():
        if key.startswith(prefix):
            scene.put(row, seal(key, value[HEADER_SIZE:]))
            forged += 1
    return forged


KINDS = {
    "segment indexes": b"i",
    "segment values": b"v",
    "counters": b"n",
    "code records": b"c",
    "everything": b"",
}


@pytest.mark.parametrize("prefix", KINDS.values(), ids=KINDS)
def test_rows_that_were_sealed_without_the_secret_are_a_miss(
    prefix: bytes, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert forge_all(scene, prefix) > 0
    shutil.rmtree(scene.location / "arrays")
    scene.map()
    if prefix in (b"i", b"v", b""):
        assert scene.log.take() != []
    assert scene.map().stats.computed == 0


def test_the_files_of_a_forger_are_a_miss(scene: Scene) -> None:
    objects = sorted(scene.location.glob("ledger/**/*.val"))
    chunks = sorted(path for path in scene.location.glob("chunks/*/*") if path.stat().st_size > 1000)
    assert len(objects) >= COUNT
    assert len(chunks) == COUNT
    objects[0].write_bytes(seal(b"o" + bytes(16), pickle.dumps("forged")))
    objects[1].write_bytes(objects[2].read_bytes())  # sealed, under another name
    for path, data in ((chunks[0], chunks[1].read_bytes()), (chunks[2], bytes(160_000))):
        path.chmod(0o600)
        path.write_bytes(data)
    scene.map()
    assert sorted(call.split()[0] for call in scene.log.take()) == ["big", "big", "image", "image"]
    assert scene.map().stats.computed == 0


def test_a_chunk_of_a_kept_file_is_not_put_back_once_it_was_changed(scene: Scene) -> None:
    page = scene.files / "page2"
    page.unlink()
    scene.map()
    assert (page.read_text(), scene.log.take()) == ("page 2", [])
    for chunk in scene.location.glob("chunks/*/*"):
        if chunk.read_bytes() == b"page 2":
            chunk.chmod(0o600)
            chunk.write_bytes(b"PAGE 2")
    page.unlink()
    scene.map()
    assert (page.read_text(), scene.log.take()) == ("page 2", ["page 2"])


def test_nothing_that_was_planted_is_unpickled(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return pytest.fail, ("a planted pickle was loaded",)

    bomb = pickle.dumps(Bomb())
    for row, key, value in scene.rows():
        body = value[HEADER_SIZE:]
        if body.count(b"\x80\x05"):  # a pickle in it
            planted = body[: body.index(b"\x80\x05")] + bomb
            scene.put(row, seal(key, planted + bytes(max(0, len(body) - len(planted)))))
        else:
            scene.put(row, seal(key, bomb))
    for path in scene.location.glob("ledger/**/*.val"):
        path.write_bytes(seal(b"o" + bytes(16), bomb))
    scene.map()
    assert scene.map().stats.computed == 0


def test_an_event_tells_of_a_forged_chunk(scene: Scene) -> None:
    faults: list[FaultEvent] = []

    class Watcher(Callback):
        def on_store_fault(self, event: FaultEvent) -> None:
            faults.append(event)

    chunk = max(scene.location.glob("chunks/*/*"), key=lambda path: path.stat().st_size)
    chunk.unlink()
    scene.map(callbacks=(Watcher(),))
    assert [fault.output for fault in faults] == ["image"]
