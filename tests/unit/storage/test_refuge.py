"""The refuge and the two places: where they are, who may use them, and that nothing is looked for in one alone."""

import contextlib
import errno
import gc
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill.errors import StoreError
from gristmill.storage.index import MISSING
from gristmill.storage.layout import Layout
from gristmill.storage.local import CallBlock, LocalStorage, StoreSpec
from gristmill.storage.refuge import Refuge, name_refuge, sweep_refuges
from gristmill.storage.rows import Rows
from gristmill.storage.seal import Secret
from gristmill.storage.segment import Provenance

GROUP = b"g" * 16


def key(number: int) -> bytes:
    return number.to_bytes(16, "little")


def block(*numbers: int, forms: list[object] | None = None) -> CallBlock:
    keys = b"".join(map(key, numbers))
    return CallBlock(GROUP, keys, (keys,), (forms or list(numbers),), Provenance("node"))


def refuse(*_: object, **__: object) -> Any:
    raise StoreError("the disk is full")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("gristmill.storage.refuge._temporary_places", lambda: [place])
    return place


SEALED: dict[str, Any] = {"secret": Secret(b"of the house"), "compressor": "zstd:1"}


@pytest.fixture(params=[{}, SEALED], ids=["plain", "sealed"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalStorage]:
    made = LocalStorage(StoreSpec(str(tmp_path / "store"), **request.param))
    yield made
    made.close()


@contextlib.contextmanager
def opened_alone(storage: LocalStorage) -> Iterator[LocalStorage]:
    """The same store as somebody has it who knows of no refuge."""
    made = LocalStorage(replace(storage.spec, refuge="", absent=False))
    yield made
    made.close()


@contextlib.contextmanager
def full(storage: LocalStorage, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A block in which the disk of a store is full."""
    with monkeypatch.context() as patch:
        patch.setattr("gristmill.storage.places.Chunks.scratch", property(refuse))
        for method in ("append", "put", "put_all", "renew"):
            patch.setattr(storage.ledger, method, refuse)
        yield


@pytest.fixture
def worker(storage: LocalStorage) -> Iterator[LocalStorage]:
    """The same store as another process has it."""
    made = LocalStorage(storage.spec)
    yield made
    made.close()


def test_naming_makes_nothing(temporary: Path, tmp_path: Path) -> None:
    assert name_refuge(tmp_path / "store") != name_refuge(tmp_path / "store")
    assert list(temporary.iterdir()) == []


def test_another_file_system_is_preferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = {tmp_path / "near": 1, tmp_path / "far": 2, tmp_path / "store": 1}
    monkeypatch.setattr("gristmill.storage.refuge._device", devices.__getitem__)
    for places in (["near", "far"], ["far", "near"]):
        found = [tmp_path / name for name in places]
        monkeypatch.setattr("gristmill.storage.refuge._temporary_places", lambda found=found: found)
        assert Path(name_refuge(tmp_path / "store")).parents[1] == tmp_path / "far"


def test_without_any_temporary_directory_it_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gristmill.storage.refuge._temporary_places", list)
    with pytest.raises(StoreError, match="no refuge can be made"):
        Refuge(name_refuge(tmp_path / "store"), owned=True).make()


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_place_that_others_may_write_to_is_refused(mode: int, temporary: Path, tmp_path: Path) -> None:
    folder = temporary / f"gristmill-refuges-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(StoreError, match="only this user"):
        Refuge(name_refuge(tmp_path / "store"), owned=True).make()
    assert list(folder.iterdir()) == []


def test_a_link_in_its_place_is_refused(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "trap").mkdir()
    (temporary / f"gristmill-refuges-{os.geteuid()}").symlink_to(tmp_path / "trap")
    with pytest.raises(StoreError, match="only this user"):
        Refuge(name_refuge(tmp_path / "store"), owned=True).make()


def test_it_goes_with_its_owner_and_not_with_who_uses_it(tmp_path: Path) -> None:
    owner = Refuge(name_refuge(tmp_path / "store"), owned=True)
    user = Refuge(str(owner.path), owned=False)
    known = [owner.exists]
    user.make()
    known.append(owner.exists)
    assert known == [False, True]
    del user
    gc.collect()
    assert owner.path.exists()
    path = owner.path
    del owner
    gc.collect()
    assert not path.exists()


def test_one_that_is_in_use_is_not_swept(tmp_path: Path) -> None:
    used = Refuge(name_refuge(tmp_path / "store"), owned=True)
    used.make()
    sweep_refuges()
    assert used.path.exists()


def test_what_one_process_puts_there_another_finds(
    storage: LocalStorage, worker: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = storage.index(GROUP)
    monkeypatch.setattr(worker.ledger, "append", refuse)  # a disk that is full for one
    worker.append([block(1, 2)])
    storage.append([block(3)])
    for one in (storage, worker):
        one.refresh()
        found = one.index(GROUP).find(key(1) + key(2) + key(3))
        assert one.forms(one.index(GROUP), found, 0) == [1, 2, 3]
    assert index.find(key(4)).tolist() == [MISSING]
    assert (worker.shelter.writes, worker.shelter.fault) == (1, "the disk is full")
    assert (storage.shelter.writes, storage.shelter.fault) == (0, "")


def test_a_row_whose_chunk_is_in_the_refuge_goes_there_too(
    storage: LocalStorage, worker: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gristmill.storage.places.RETRY_SECONDS", 0.0)
    array = np.arange(20_000.0)
    with monkeypatch.context() as patch:
        patch.setattr("gristmill.storage.places.Chunks.scratch", property(refuse))
        form = storage.keep(array)
    storage.append([block(1, forms=[form])])
    assert storage.ledger.groups() == []  # what others will find
    worker.refresh()
    found = worker.index(GROUP).find(key(1))
    assert (worker.value(worker.forms(worker.index(GROUP), found, 0)[0]) == array).all()


class Unreadable:
    """A connection to a database on a disk that cannot be read."""

    def execute(self, *_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    def close(self) -> None:
        pass


def test_what_cannot_be_read_is_a_miss_and_goes_to_the_refuge(
    storage: LocalStorage, worker: LocalStorage
) -> None:
    storage.append([block(1)])
    worker.ledger._open.reader = Unreadable()  # type: ignore[assignment]  # noqa: SLF001 - a bad disk
    index = worker.index(GROUP)
    assert index.find(key(1)).tolist() == [MISSING]
    worker.append([block(1)])
    assert worker.forms(index, index.find(key(1)), 0) == [1]
    assert "disk I/O error" in worker.shelter.fault


def test_a_ledger_that_was_replaced_is_read_anew(storage: LocalStorage, worker: LocalStorage) -> None:
    storage.append([block(1)])
    worker.refresh()
    before = worker.index(GROUP)
    assert before.find(key(1)).tolist() != [MISSING]
    storage.close()
    shutil.rmtree(storage.layout.ledger)
    storage.append([block(2)])
    worker.refresh()
    assert (before.find(key(1) + key(2)) == MISSING).tolist() == [True, False]


@pytest.mark.parametrize("value", [np.arange(20_000.0), "x" * 200_000, 7, [1, "two", None]])
def test_what_is_moved_home_is_there_for_others(
    value: Any, storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full(storage, monkeypatch):
        storage.append([block(1, forms=[storage.keep(value)])])
        storage.move_home()
        whole = [storage.is_whole]
    storage.move_home()
    whole.append(storage.is_whole)
    assert whole == [False, True]
    with opened_alone(storage) as alone:
        for one in (storage, alone):
            index = one.index(GROUP)
            (form,) = one.forms(index, index.find(key(1)), 0)
            assert np.array_equal(one.value(form), value)


def test_what_is_damaged_in_the_refuge_is_not_moved(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full(storage, monkeypatch):
        storage.append([block(1, forms=[storage.keep(np.arange(20_000.0))]), block(2)])
    for chunk in storage.refuge.layout.chunks.glob("*/*"):
        chunk.chmod(0o600)
        chunk.write_bytes(bytes(chunk.stat().st_size))
    storage.move_home()
    with opened_alone(storage) as alone:
        assert (alone.index(GROUP).find(key(1) + key(2)) == MISSING).tolist() == [True, False]


def test_a_tombstone_in_the_refuge_takes_back_what_the_store_holds(
    storage: LocalStorage, worker: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.append([block(1, 2)])
    index = storage.index(GROUP)
    monkeypatch.setattr(storage.ledger, "append", refuse)  # a full disk
    storage.take_back(index, index.find(key(1)), "edited")
    for one in (storage, worker):
        one.refresh()
        assert (one.index(GROUP).find(key(1) + key(2)) == MISSING).tolist() == [True, False]


def test_a_tombstone_may_be_read_before_what_it_takes_back(
    storage: LocalStorage, worker: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gristmill.storage.places.RETRY_SECONDS", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(worker.ledger, "append", refuse)  # a full disk for one
        worker.append([block(1, 2)])
    index = worker.index(GROUP)
    worker.take_back(index, index.find(key(1)), "edited")
    assert worker.ledger.groups() == [GROUP]  # the store takes it again
    storage.refresh()
    assert (storage.index(GROUP).find(key(1) + key(2)) == MISSING).tolist() == [True, False]


def test_what_was_moved_home_is_known_by_its_number_in_the_store(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full(storage, monkeypatch):
        storage.append([block(1, 2)])
    index = storage.index(GROUP)
    found = index.find(key(1) + key(2))
    before = index.portable(found)
    storage.move_home()
    after = index.portable(found)
    assert (before[:, 0] != after[:, 0]).all()
    storage.refresh()
    assert len(index) == 2
    for rows in (before, after):
        assert index.locators(rows).tolist() == found.tolist()
    with opened_alone(storage) as alone:
        assert (alone.index(GROUP).locators(after) != MISSING).all()
    shutil.rmtree(storage.refuge.layout.ledger)
    assert storage.forms(index, found, 0) == [1, 2]


def test_a_tombstone_that_is_moved_home_takes_back_what_was_moved_before_it(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full(storage, monkeypatch):
        storage.append([block(1, 2)])
        index = storage.index(GROUP)
        storage.take_back(index, index.find(key(1)), "edited")
    storage.move_home()
    with opened_alone(storage) as alone:
        assert (alone.index(GROUP).find(key(1) + key(2)) == MISSING).tolist() == [True, False]
        assert alone.index(GROUP).lost(key(1)) == ["edited"]


def test_a_chunk_that_only_the_store_holds_is_renewed_when_its_row_moves_home(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = storage.keep(np.arange(20_000.0))
    with full(storage, monkeypatch):
        storage.append([block(1, forms=[form])])
    path = storage.chunks.path(form.checksum)  # type: ignore[attr-defined]
    os.utime(path, (0, 0))
    storage.move_home()
    assert path.stat().st_mtime > 1e9


# -- sealing


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[LocalStorage]:
    made = LocalStorage(StoreSpec(str(tmp_path / "store"), **SEALED))
    yield made
    made.close()


def test_what_is_in_the_refuge_is_sealed_as_in_the_store(
    sealed: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full(sealed, monkeypatch):
        sealed.append([block(1, 2, forms=[sealed.keep("x" * 200_000), sealed.keep(np.arange(20_000.0))])])
    with closing(sqlite3.connect(sealed.refuge.layout.ledger / "cache.db")) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    rows = Rows(sealed.refuge.layout.ledger, sealed.key)
    bodies = [rows.body(row) for row in rows.readable()]  # raises where a row is sealed in another way
    assert len(bodies) == 4
    for chunk in sealed.refuge.layout.chunks.glob("*/*"):
        assert sealed.chunks.checksum(chunk.read_bytes()).hex() == chunk.name


@pytest.fixture
def unmade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalStorage]:
    """A sealed store that could not be made, because the disk was full; now it is not."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("gristmill.storage.layout.Layout._write_marker", fail)
        made = LocalStorage(StoreSpec(str(tmp_path / "store"), **SEALED))
    yield made
    made.close()


def test_a_store_that_could_not_be_made_seals_its_refuge_and_takes_it_in_later(
    unmade: LocalStorage,
) -> None:
    array, text = np.arange(20_000.0), "x" * 200_000
    unmade.append([block(1, 2, forms=[unmade.keep(array), unmade.keep(text)])])
    assert unmade.key
    assert not unmade.layout.exists
    unmade.reopen()
    unmade.move_home()
    with opened_alone(unmade) as alone:
        assert alone.key == unmade.key
        index = alone.index(GROUP)
        forms = alone.forms(index, index.find(key(1) + key(2)), 0)
        assert (alone.value(forms[0]) == array).all()
        assert alone.value(forms[1]) == text


def test_who_works_for_a_process_without_its_store_goes_to_the_refuge_with_it(unmade: LocalStorage) -> None:
    with opened_alone(unmade) as somebody:  # who makes the store, with another key
        worker = LocalStorage(unmade.spec)
        worker.append([block(1, forms=[worker.keep(np.arange(20_000.0))])])
        assert worker.pin("0" * 12) is None
        assert not worker.note({b"r": b""})
        somebody.refresh()
        assert (somebody.index(GROUP).find(key(1)) == MISSING).all()
        unmade.refresh()
        index = unmade.index(GROUP)
        (form,) = unmade.forms(index, index.find(key(1)), 0)
        assert unmade.value(form)[-1] == 19_999
        assert worker.key == unmade.key != somebody.key
        worker.close()


def test_a_refuge_that_is_sealed_with_another_key_than_the_store_is_not_read(unmade: LocalStorage) -> None:
    unmade.append([block(1, forms=[unmade.keep(np.arange(20_000.0))])])
    with opened_alone(unmade) as somebody:
        somebody.append([block(2)])
        unmade.reopen()
        unmade.move_home()
        unmade.refresh()
        assert unmade.key == somebody.key
        assert (unmade.index(GROUP).find(key(1) + key(2)) == MISSING).tolist() == [True, False]
        somebody.refresh()
        assert len(somebody.index(GROUP)) == 1


def test_nothing_is_put_into_a_directory_that_is_no_store_yet(unmade: LocalStorage) -> None:
    with unmade.gate.entered():
        unmade.claims().take(key(1))
        unmade.note({b"r": b""})
    assert not [name for name in ("gate", "claims", "ledger") if (unmade.layout.root / name).exists()]


# -- a directory that has been deleted, and made again


def test_an_index_that_a_run_uses_goes_on_in_the_store_that_has_been_made_again(
    storage: LocalStorage,
) -> None:
    storage.append([block(1, 2)])
    index = storage.index(GROUP)
    shutil.rmtree(storage.layout.root)
    storage.reopen()
    assert (index.find(key(1) + key(2)) == MISSING).all()
    storage.append([block(2, 3)])
    storage.refresh()
    assert storage.forms(index, index.find(key(2) + key(3)), 0) == [2, 3]
    assert storage.index(GROUP) is index


def test_what_another_thread_has_opened_meanwhile_is_not_opened_again(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that begin their runs at once all find that there is no store yet; the first makes it."""
    shutil.rmtree(storage.layout.root)
    opened, real = [], Layout.open

    def slowly(layout: Layout, **options: Any) -> bytes:
        opened.append(real(layout, **options))
        time.sleep(0.05)
        return opened[-1]

    monkeypatch.setattr(Layout, "open", slowly)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: storage.reopen(), range(4)))
    assert len(opened) == 1
