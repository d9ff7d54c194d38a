"""Every trap of diskcache and zarr that is known bites their stock settings, and not what is built on them here."""

import io
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import diskcache
import numpy as np
import pytest
import zarr
from tests.support.programs import ROOT

from gristmill import GristmillError, Pipeline, Store, node
from gristmill.errors import IntegrityError, StoreError
from gristmill.storage import schema
from gristmill.storage.claims import Claims
from gristmill.storage.ledger import FramedDisk, Ledger
from gristmill.storage.segment import Entry

GROUP = b"g" * 16
OBJECT = b"o" + GROUP
LARGE = bytes(100_000)


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Any]:
    """A diskcache as it comes."""
    with closing(diskcache.Cache(str(tmp_path / "stock"))) as cache:
        yield cache


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """Our use of it."""
    with closing(Ledger(tmp_path / "ours")) as made:
        yield made


def database(directory: Path) -> Any:
    return closing(sqlite3.connect(directory / "cache.db", isolation_level=None))


# -- eviction


def test_stock_evicts_at_one_gibibyte() -> None:
    assert diskcache.DEFAULT_SETTINGS["size_limit"] == 2**30
    assert diskcache.DEFAULT_SETTINGS["eviction_policy"] == "least-recently-stored"


def fill(put: Callable[[int], object]) -> None:
    for k in range(40):
        put(k)


def test_stock_forgets_what_it_was_given_once_it_is_full(tmp_path: Path) -> None:
    with closing(diskcache.Cache(str(tmp_path), size_limit=1_000_000)) as cache:
        fill(lambda k: cache.set(k, LARGE))
        assert cache.get(0) is None
        assert len(cache) < 40


def test_ours_forgets_nothing(ledger: Ledger, tmp_path: Path) -> None:
    fill(lambda k: ledger.put(b"o%d" % k, LARGE))
    with database(tmp_path / "ours") as connection:
        kept = dict(connection.execute("SELECT key, value FROM Settings").fetchall())
        assert (kept["eviction_policy"], kept["size_limit"], kept["cull_limit"]) == ("none", 2**62, 0)
        # Not even where somebody has set it back, as an earlier program might have.
        connection.execute("UPDATE Settings SET value = 1000000 WHERE key = 'size_limit'")
        connection.execute(
            "UPDATE Settings SET value = 'least-recently-stored' WHERE key = 'eviction_policy'"
        )
        connection.execute("UPDATE Settings SET value = 10 WHERE key = 'cull_limit'")
    ledger.close()
    ledger.put(b"o40", LARGE)
    assert [k for k in range(41) if ledger.get(b"o%d" % k) != LARGE] == []


# -- keys and values


def test_stock_takes_an_int_and_a_float_for_the_same_key(stock: Any) -> None:
    stock[1] = "int"
    stock[1.0] = "float"
    assert (len(stock), stock[1]) == (1, "float")


def test_ours_takes_bytes_and_nothing_else(ledger: Ledger) -> None:
    for key in (1, 1.0, True, "text", None, (b"bytes",)):
        with pytest.raises(TypeError):
            ledger.put(key, b"body")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ledger.put(OBJECT, "text")  # type: ignore[arg-type]


def test_stock_changes_the_ends_of_lines(stock: Any) -> None:
    text = "a\r\nb\rc\n" * 20_000
    stock["key"] = text
    assert stock["key"] == text.replace("\r\n", "\n").replace("\r", "\n")


def test_ours_keeps_every_byte(tmp_path: Path) -> None:
    text = "a\r\nb\rc\n\x1a" * 20_000
    with Store(tmp_path / "store") as store:
        form = store.storage.keep(text)
        assert store.storage.value(form) == text


class Bomb:
    """Goes off when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("bomb.went.off",)


def plant(directory: Path, column: str, value: bytes) -> None:
    """Put a pickle where the only row has its key or its value, and have it say that it is one."""
    raw = ", raw = 0" if column == "key" else ""
    with database(directory) as connection:
        connection.execute(f"UPDATE Cache SET {column} = ?, mode = 4{raw}", (value,))


def test_stock_unpickles_values_and_keys(stock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for column, read in (("value", lambda: stock["key"]), ("key", lambda: list(stock))):
        stock["key"] = 1
        plant(tmp_path / "stock", column, pickle.dumps(Bomb()))
        read()
        assert (tmp_path / "bomb.went.off").exists(), column
        (tmp_path / "bomb.went.off").rmdir()


def test_ours_unpickles_nothing(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for column in ("value", "key"):
        ledger.put(OBJECT, b"body")
        plant(tmp_path / "ours", column, pickle.dumps(Bomb()))
        try:
            assert ledger.get(OBJECT) is None
        except IntegrityError:
            assert column == "value"
        assert ledger.under(b"\x80", 4) == []
    assert not (tmp_path / "bomb.went.off").exists()


# -- files


def test_stock_reads_and_deletes_whatever_file_a_row_names(stock: Any, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"of another program")
    stock["key"] = LARGE
    with database(tmp_path / "stock") as connection:
        connection.execute("UPDATE Cache SET filename = '../secret'")
    assert stock["key"] == b"of another program"
    del stock["key"]
    assert not secret.exists()


def test_ours_follows_no_name_that_it_would_not_have_given(ledger: Ledger, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"of another program")
    for name in ("../secret", str(secret), b"../secret", 7):
        ledger.put(OBJECT, LARGE)
        with database(tmp_path / "ours") as connection:
            connection.execute("UPDATE Cache SET filename = ?", (name,))
        with pytest.raises(IntegrityError):
            ledger.get(OBJECT)
        ledger.delete([OBJECT])
    assert secret.read_bytes() == b"of another program"


def synced(monkeypatch: pytest.MonkeyPatch, write: Callable[[], object]) -> int:
    """Return how often something was synced to the medium while `write` ran."""
    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", calls.append)
        write()
    return len(calls)


def test_stock_never_syncs_a_file(stock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert synced(monkeypatch, lambda: stock.set("key", LARGE)) == 0


def test_ours_syncs_the_file_and_its_directories_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Ledger(tmp_path / "durable", durable=True)) as durable:
        assert synced(monkeypatch, lambda: durable.put(OBJECT, LARGE)) >= 3
        with database(tmp_path / "durable") as connection:
            kept = dict(connection.execute("SELECT key, value FROM Settings").fetchall())
        assert kept["sqlite_synchronous"] == 2


@pytest.mark.filterwarnings("always")
def test_stock_check_deletes_the_files_of_others(stock: Any, tmp_path: Path) -> None:
    mine = tmp_path / "stock" / "notes.txt"
    mine.write_text("mine")
    found = stock.check(fix=True)
    assert [warning.category for warning in found] == [diskcache.UnknownFileWarning]
    assert not mine.exists()


def test_ours_leaves_the_files_of_others_alone(ledger: Ledger, tmp_path: Path) -> None:
    ledger.put(OBJECT, LARGE)
    mine = tmp_path / "ours" / "notes.txt"
    mine.write_text("mine")
    ledger.delete([OBJECT])
    ledger.append([Entry(GROUP, b"index", b"values")])
    ledger.close()
    ledger.put(OBJECT, LARGE)
    assert mine.read_text() == "mine"


# -- waiting


class Enough(Exception):  # noqa: N818 - it is no error
    """It has tried often enough."""


class Tried(diskcache.Cache):  # type: ignore[misc]
    """A stock cache that counts how often it tries to begin a transaction."""

    tries = 0

    @property
    def _sql(self) -> Callable[..., Any]:
        execute = super()._sql

        def counted(statement: str, *arguments: object) -> Any:
            if statement.startswith("BEGIN"):
                type(self).tries += 1
                if type(self).tries > 100:
                    raise Enough
            return execute(statement, *arguments)

        return counted


def test_stock_assignment_never_gives_up_on_a_read_only_database(tmp_path: Path) -> None:
    with closing(Tried(str(tmp_path))) as cache:
        cache._sql("PRAGMA query_only = 1")  # noqa: SLF001 - as on a read-only disk, whoever runs the tests
        Tried.tries = 0
        with pytest.raises(Enough):
            cache["key"] = 1


def test_stock_assignment_never_gives_up_beside_a_stopped_writer(tmp_path: Path) -> None:
    with closing(Tried(str(tmp_path), timeout=0.001)) as cache, database(tmp_path) as writer:
        writer.execute("BEGIN IMMEDIATE")
        Tried.tries = 0
        with pytest.raises(Enough):
            cache["key"] = 1


def test_ours_says_that_it_is_read_only(ledger: Ledger, tmp_path: Path) -> None:
    ledger.put(OBJECT, b"body")
    with closing(Ledger(tmp_path / "ours", readonly=True)) as readonly:
        with pytest.raises(StoreError, match="read-only"):
            readonly.put(OBJECT, b"other")
        assert readonly.get(OBJECT) == b"body"


def test_ours_gives_up_beside_a_stopped_writer(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.put(OBJECT, b"body")
    ledger.close()
    monkeypatch.setattr("gristmill.storage.patience.BUSY_SECONDS", 0.01)
    with closing(diskcache.Cache(str(tmp_path / "ours"), disk=FramedDisk, timeout=0.01)) as opened:
        ledger._open.cache = opened  # noqa: SLF001 - opening waits a minute for locks, and is not what is tested
        with database(tmp_path / "ours") as writer:
            writer.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="cannot write"):
                ledger.put(OBJECT, b"other")
            assert ledger.get(OBJECT) == b"body"
            writer.execute("ROLLBACK")
    ledger.put(OBJECT, b"other")
    assert ledger.get(OBJECT) == b"other"


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import diskcache
    from gristmill.storage.claims import Claims
    cache = diskcache.Cache(sys.argv[1])
    diskcache.Lock(cache, "lock").acquire()
    claims = Claims(Path(sys.argv[2]))
    assert claims.take(bytes(range(16))).all()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_lock_outlives_its_holder_and_a_claim_does_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", dedent(KILLED), str(tmp_path / "cache"), str(tmp_path / "claims")]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": _path()}, check=False)
    assert killed.returncode == -signal.SIGKILL
    with closing(diskcache.Cache(str(tmp_path / "cache"))) as cache:
        assert diskcache.Lock(cache, "lock").locked()
    with closing(Claims(tmp_path / "claims")) as claims:
        assert claims.take(bytes(range(16))).all()


def _path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


# -- time


def test_stock_entries_expire_with_the_clock_on_the_wall(stock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stock.set("key", 1, expire=3600)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    assert stock.get("key") is None


@pytest.mark.parametrize("years", [-50, 50])
def test_ours_do_not(years: int, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (number,) = ledger.append([Entry(GROUP, b"index", b"values")])
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + years * 31_557_600)
    ledger.put(OBJECT, b"body")
    with closing(Ledger(tmp_path / "ours")) as other:
        assert list(other.scan(GROUP, 0)) == [(number, b"index")]
        assert other.get(OBJECT) == b"body"


# -- opening


def changes(directory: Path, use: Callable[[], object]) -> bool:
    """Return whether `use` commits anything."""
    with database(directory) as watcher:
        before = watcher.execute("PRAGMA data_version").fetchall()
        use()
        return bool(watcher.execute("PRAGMA data_version").fetchall() != before)


def test_stock_writes_when_it_is_opened(stock: Any, tmp_path: Path) -> None:
    assert changes(tmp_path / "stock", lambda: diskcache.Cache(str(tmp_path / "stock")).close())


def test_ours_does_not_write_to_be_read(ledger: Ledger, tmp_path: Path) -> None:
    ledger.put(OBJECT, b"body")

    def read() -> None:
        with closing(Ledger(tmp_path / "ours")) as other:
            assert other.get(OBJECT) == b"body"
            assert list(other.scan(GROUP, 0)) == []

    assert not changes(tmp_path / "ours", read)


def test_the_schema_that_is_allowed_is_the_one_that_diskcache_makes(ledger: Ledger, tmp_path: Path) -> None:
    ledger.put(OBJECT, b"body")
    with database(tmp_path / "ours") as connection:
        made = {statement for (statement,) in connection.execute("SELECT sql FROM sqlite_master")}
    assert made == schema.STATEMENTS


def test_neither_connection_trusts_the_schema(ledger: Ledger) -> None:
    ledger.put(OBJECT, b"body")
    assert ledger.get(OBJECT) == b"body"
    opened = ledger._open  # noqa: SLF001 - nothing else shows it
    assert opened.reader is not None
    assert opened.cache is not None
    assert opened.reader.execute("PRAGMA trusted_schema").fetchall() == [(0,)]
    assert opened.cache._sql("PRAGMA trusted_schema").fetchall() == [(0,)]  # noqa: SLF001


def test_settings_that_are_as_they_should_be_stay(ledger: Ledger, tmp_path: Path) -> None:
    ledger.put(OBJECT, b"body")
    with database(tmp_path / "ours") as connection:
        before = connection.execute("SELECT * FROM Settings ORDER BY key").fetchall()
        schema.tidy_settings(
            connection, {key: value for key, value in before if not key.startswith("sqlite_a")}
        )
        assert connection.execute("SELECT * FROM Settings ORDER BY key").fetchall() == before


def test_ours_neither_takes_nor_gives_open_files() -> None:
    with pytest.raises(TypeError, match="not files"):
        FramedDisk(".").fetch(2, None, None, read=True)
    with pytest.raises(TypeError, match="bytes"):
        FramedDisk(".").store(io.BytesIO(b"text"), read=True)


# -- zarr


def image(x: int) -> Any:
    return np.full((100, 100), float(x + 1))


IMAGE = node(image, mapspec="x[i] -> image[i]", version="1")


@pytest.fixture
def array(tmp_path: Path) -> Any:
    """A zarr array as it comes, full of ones."""
    made = zarr.create_array(
        tmp_path / "array", shape=(4, 100), chunks=(1, 100), dtype="f8", compressors=None
    )
    made[:] = 1.0
    return made


def test_stock_reads_a_missing_chunk_as_zeros(array: Any, tmp_path: Path) -> None:
    (tmp_path / "array" / "c" / "2" / "0").unlink()
    assert np.asarray(array[:]).sum() == 300


def test_stock_reads_a_flipped_bit(array: Any, tmp_path: Path) -> None:
    chunk = tmp_path / "array" / "c" / "2" / "0"
    data = bytearray(chunk.read_bytes())
    data[7] ^= 0x40
    chunk.write_bytes(data)
    assert np.asarray(array[:]).sum() != 400


def test_stock_loses_what_two_writers_of_one_chunk_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zarr.create_array(tmp_path / "one", shape=(2,), chunks=(2,), dtype="f8", compressors=None)
    chunk = tmp_path / "one" / "c" / "0"
    zarr.open_array(tmp_path / "one")[0] = 1.0
    seen = chunk.read_bytes()  # by a second writer, before the first one has written
    zarr.open_array(tmp_path / "one")[1] = 2.0
    chunk.write_bytes(seen)  # what the second one makes of it
    assert np.asarray(zarr.open_array(tmp_path / "one")[:]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_ours_computes_such_an_element_again(damage: str, tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        result = Pipeline([IMAGE], store=store).map({"x": range(3)}, map_executor="sequential")
        for chunk in tmp_path.glob("store/chunks/*/*"):
            data = bytearray(chunk.read_bytes())
            data[7] ^= 0x40
            chunk.chmod(0o600)
            chunk.unlink() if damage == "missing" else chunk.write_bytes(data)
        assert np.asarray(result["image"].zarr[:]).sum() == 60_000


def test_ours_raises_on_an_element_that_failed(tmp_path: Path) -> None:
    def fail(x: int) -> Any:
        return image(1 // x)

    made = node(fail, output_name="y", mapspec="x[i] -> y[i]", version="1")
    with Store(tmp_path / "store") as store:
        result = Pipeline([made], store=store).map(
            {"x": [1, 0]}, map_executor="sequential", on_error="continue"
        )
        with pytest.raises(GristmillError, match="missing"):
            np.asarray(result["y"].zarr[:])
