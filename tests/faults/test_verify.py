"""Verify finds every kind of damage and names it; repair sets it aside, and the next map computes just that."""

import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.scene import CALLS_PER_INDEX, COUNT, Scene

from gristmill import Pipeline, Store, StoreError
from gristmill.storage.rows import Rows
from gristmill.storage.verify import salvage


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("finished")
    scene = Scene(directory)
    with scene.open() as store:
        scene.map(store)
    return directory


@pytest.fixture
def scene(finished: Path, tmp_path: Path) -> Scene:
    """A copy of the finished store; paths that the calls were given stay what they were."""
    made = Scene(finished)
    made.log.take()
    made.location = tmp_path / "store"
    shutil.copytree(finished / "store", made.location)
    shutil.rmtree(made.location / "arrays")  # copies of links, not links
    return made


@pytest.fixture
def store(scene: Scene) -> Iterator[Store]:
    with scene.open() as opened:
        yield opened


def flip(path: Path, place: float = 0.5) -> None:
    """Flip one bit of a file, in place, as a bad disk would."""
    path.chmod(0o600)
    with path.open("r+b") as file:
        at = int(place * (path.stat().st_size - 1))
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


def files(scene: Scene, pattern: str) -> list[Path]:
    return sorted(path for path in scene.location.glob(pattern) if path.is_file())


def damage_row(scene: Scene, prefix: bytes, change: Callable[[bytes], bytes]) -> None:
    """Change the stored frame of the first row that is in the database and starts with `prefix`."""
    with closing(sqlite3.connect(scene.location / "ledger" / "cache.db", isolation_level=None)) as database:
        rows = database.execute("SELECT rowid, key, value FROM Cache WHERE value IS NOT NULL ORDER BY key")
        row, value = next((row, value) for row, key, value in rows if bytes(key).startswith(prefix))
        database.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (change(bytes(value)), row))


def heals(scene: Scene, store: Store, calls: set[str]) -> None:
    """Repair, see that the store is sound, and that the next map makes just these calls."""
    assert store.verify(repair=True).repaired
    again = store.verify()
    assert again.ok, again.damaged
    with scene.open() as other:
        scene.map(other)
    assert {call.split()[0] for call in scene.log.take()} == calls
    with scene.open() as other:
        assert scene.map(other).stats.computed == 0
        assert other.verify().ok


def test_a_sound_store_is_said_to_be_sound(store: Store) -> None:
    seen: list[tuple[int, int]] = []
    report = store.verify(progress=lambda done, total: seen.append((done, total)))
    assert report.ok
    assert (report.calls, report.objects) == (CALLS_PER_INDEX * COUNT + 1, COUNT)
    assert report.chunks == COUNT + 3 + COUNT  # images, odd numbers, pages
    assert (report.orphans, report.quarantined, report.links) == (0, 0, 0)
    assert report.bytes > 8 * 20_000 * COUNT
    assert seen == sorted(seen)
    assert seen[-1][0] == report.bytes <= seen[-1][1]


def test_an_empty_directory_is_sound_and_stays_empty(tmp_path: Path) -> None:
    assert Store(tmp_path / "nothing").verify().ok
    assert not (tmp_path / "nothing").exists()


def test_a_damaged_chunk_is_named(scene: Scene, store: Store) -> None:
    chunk = max(files(scene, "chunks/*/*"), key=lambda path: path.stat().st_size)
    flip(chunk)
    (damage,) = store.verify().damaged
    assert (damage.what, damage.name, damage.why) == ("chunk", chunk.name, "it does not match its checksum")
    assert damage.node in ("tests.support.scene:image", "tests.support.scene:either")
    heals(scene, store, {damage.node.partition(":")[2]})


def test_a_missing_chunk_is_named(scene: Scene, store: Store) -> None:
    files(scene, "chunks/*/*")[0].unlink()
    (damage,) = store.verify().damaged
    assert (damage.what, damage.why) == ("chunk", "it is missing")
    heals(scene, store, {damage.node.partition(":")[2]})


def test_a_damaged_object_is_named(scene: Scene, store: Store) -> None:
    flip(files(scene, "ledger/??/??/*.val")[0])
    (damage,) = store.verify().damaged
    assert (damage.what, damage.node) == ("object", "tests.support.scene:big")
    heals(scene, store, {"big"})


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: b"", lambda d: d[:40] + b"!" + d[41:]])
@pytest.mark.parametrize(("prefix", "what"), [(b"i", "segment"), (b"v", "values")])
def test_a_damaged_segment_is_named(
    prefix: bytes, what: str, change: Callable[[bytes], bytes], scene: Scene, store: Store
) -> None:
    damage_row(scene, prefix, change)
    (damage,) = store.verify().damaged
    assert damage.what == what
    assert damage.node.startswith("tests.support.scene:")
    heals(scene, store, {damage.node.partition(":")[2]})


@pytest.mark.parametrize("prefix", [b"c", b"r", b"s", b"n"])
def test_other_damaged_rows_cost_no_call(prefix: bytes, scene: Scene, store: Store) -> None:
    damage_row(scene, prefix, lambda data: data[:-1])
    (damage,) = store.verify().damaged
    assert damage.what == "record"
    heals(scene, store, set())


def test_a_link_to_no_chunk_is_removed(scene: Scene, store: Store) -> None:
    scene.map(store)
    (link, *_) = files(scene, "arrays/*/image/c.*")
    chunk = next(path for path in files(scene, "chunks/*/*") if path.samefile(link))
    assert store.verify().links == COUNT
    flip(chunk)
    assert sorted(damage.what for damage in store.verify().damaged) == ["chunk", "view"]
    heals(scene, store, {"image"})
    assert len(files(scene, "arrays/*/image/c.*")) == COUNT


def test_a_flipped_bit_in_the_marker_is_mended(scene: Scene, store: Store) -> None:
    assert store.verify().ok
    flip(scene.location / "store.json")
    assert [damage.what for damage in store.verify().damaged] == ["store.json"]
    heals(scene, store, set())


def test_orphans_are_counted_and_no_damage(scene: Scene, store: Store) -> None:
    orphan = scene.location / "ledger" / "00" / "00" / f"{7:028x}.val"
    orphan.parent.mkdir(parents=True, exist_ok=True)
    orphan.write_bytes(b"litter")
    store.storage.chunks.write(bytes.fromhex("99aa06d3014798d86001c324468d497f"), b"")  # xxh3_128 of nothing
    report = store.verify()
    assert report.ok
    assert (report.orphans, report.orphan_bytes) == (2, 6)


def test_verify_alone_changes_nothing(scene: Scene, store: Store) -> None:
    flip(files(scene, "chunks/*/*")[0])
    damage_row(scene, b"v", lambda data: data[:-1])
    store.storage  # noqa: B018 - opens it
    before = {path: path.read_bytes() for path in files(scene, "**/*") if "tmp" not in path.parts}
    assert len(store.verify().damaged) == 2
    after = {path: path.read_bytes() for path in files(scene, "**/*") if "tmp" not in path.parts}
    assert {p: d for p, d in after.items() if p.suffix != ".db-shm"} == {
        p: d for p, d in before.items() if p.suffix != ".db-shm"
    }


def test_a_read_only_store_can_be_verified_and_not_repaired(scene: Scene) -> None:
    flip(files(scene, "chunks/*/*")[0])
    with Store(scene.location, readonly=True) as frozen:
        assert len(frozen.verify().damaged) == 1
        with pytest.raises(StoreError, match="read-only"):
            frozen.verify(repair=True)


def many(x: int) -> str:
    return "x" * 500 + str(x)


@pytest.mark.parametrize("seed", range(3))
def test_repair_keeps_what_can_be_read_of_a_damaged_database(seed: int, scene: Scene, tmp_path: Path) -> None:
    other = Pipeline([(many, "x[i] -> many[i]")], store=str(scene.location))
    for start in range(0, 400, 10):
        other.map({"x": range(start, start + 10)}, map_executor="sequential")
    path = scene.location / "ledger" / "cache.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    rows = len(list(Rows(path.parent)))
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data) // 4, len(data) - 4096)
    data[at : at + 4096] = chance.randbytes(4096)
    path.write_bytes(data)
    with scene.open() as store:
        assert not store.verify().ok
        store.verify(repair=True)
        assert store.verify().ok
        kept = len(list(Rows(path.parent)))
        assert kept > rows / 2
        scene.map(store)
        assert store.verify().ok


@pytest.fixture
def sealed(tmp_path: Path) -> Scene:
    """A place for a store with a secret."""
    (tmp_path / "sealed").mkdir()
    return Scene(tmp_path / "sealed")


def test_what_is_kept_of_a_damaged_database_stays_sealed(sealed: Scene) -> None:
    with Store(sealed.location, secret="of the house") as store:
        sealed.map(store)
        assert salvage(store.storage) > 0
        assert store.verify().ok
        assert sealed.map(store).stats.computed == 0


def test_the_marker_of_a_sealed_store_is_mended(sealed: Scene) -> None:
    with Store(sealed.location, secret="of the house") as store:
        sealed.map(store)
        before = (sealed.location / "store.json").read_bytes()
        flip(sealed.location / "store.json")
        assert [damage.what for damage in store.verify(repair=True).damaged] == ["store.json"]
        assert (sealed.location / "store.json").read_bytes() == before


@pytest.mark.parametrize("seed", range(4))
def test_five_hundred_flipped_bits_are_found_repaired_and_computed_again(seed: int, scene: Scene) -> None:
    with scene.open() as store:
        scene.map(store)
    chance = random.Random(seed)
    everything = [path for path in files(scene, "**/*") if path.parts[-2] not in ("tmp", "claims")]
    everything = [path for path in everything if path.name not in ("gate", "store.json")]
    sizes = [path.stat().st_size for path in everything]
    for path in everything:
        path.chmod(0o600)
    for path in chance.choices(everything, sizes, k=500):
        flip(path, chance.random())
    with scene.open() as store:
        assert store.verify().damaged
        store.verify(repair=True)
        again = store.verify()
        assert again.ok, again.damaged
        scene.map(store)
        assert store.verify().ok
