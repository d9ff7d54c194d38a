"""The ledger: what was appended is found, in order, whoever wrote it; what we did not write is refused."""

import os
import pickle
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import diskcache
import pytest
from tests.support.programs import ROOT

from gristmill.errors import IntegrityError, StoreError
from gristmill.storage.frame import seal
from gristmill.storage.ledger import FramedDisk, Ledger
from gristmill.storage.segment import Entry

GROUP, OTHER = b"g" * 16, b"h" * 16
LARGE = bytes(range(256)) * 1000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "store" / "ledger"


@pytest.fixture
def ledger(directory: Path) -> Iterator[Ledger]:
    directory.parent.mkdir()
    made = Ledger(directory)
    yield made
    made.close()


def entry(body: bytes, group: bytes = GROUP) -> Entry:
    return Entry(group, b"index of " + body, b"values of " + body)


def indexes(ledger: Ledger, group: bytes = GROUP, after: int = 0) -> list[tuple[int, bytes | None]]:
    return list(ledger.scan(group, after))


def database(directory: Path) -> Any:
    return closing(sqlite3.connect(directory / "cache.db", isolation_level=None))


# -- segments


def test_segments_are_numbered_in_their_group(ledger: Ledger) -> None:
    a, b, c = ledger.append([entry(b"a"), entry(b"b"), entry(b"c", OTHER)])
    (d,) = ledger.append([entry(b"d")])
    assert a < b < d
    assert indexes(ledger) == [(a, b"index of a"), (b, b"index of b"), (d, b"index of d")]
    assert indexes(ledger, OTHER) == [(c, b"index of c")]
    assert indexes(ledger, after=b) == [(d, b"index of d")]
    assert ledger.values(GROUP, b) == b"values of b"
    assert ledger.values(GROUP, 9) is None


def test_an_empty_ledger_has_nothing_and_makes_nothing(ledger: Ledger, directory: Path) -> None:
    assert indexes(ledger) == []
    assert ledger.get(b"o" + GROUP) is None
    assert ledger.values(GROUP, 1) is None
    assert not directory.exists()


def test_another_ledger_sees_what_was_appended(ledger: Ledger, directory: Path) -> None:
    other = Ledger(directory)
    before = other.version()
    numbers = ledger.append([entry(b"a")])
    assert other.version() != before
    assert indexes(other) == [(numbers[0], b"index of a")]
    same = other.version()
    assert other.version() == same
    other.close()


def test_numbers_are_never_used_again_after_rows_were_lost(ledger: Ledger, directory: Path) -> None:
    before = ledger.append([entry(b"a"), entry(b"b"), entry(b"c")])
    with database(directory) as connection:
        connection.execute("DELETE FROM Cache")  # the counter, too
    assert indexes(ledger) == []
    assert not set(ledger.append([entry(b"d"), entry(b"e")])) & set(before)


def test_numbers_grow_when_the_clock_is_set_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    (before,) = ledger.append([entry(b"a")])
    monkeypatch.setattr("time.time_ns", lambda: 10**18)
    assert ledger.append([entry(b"b"), entry(b"c")]) == [before + 1, before + 2]


def test_many_threads_append_at_once(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda k: ledger.append([entry(b"%d" % k)])[0], range(100)))
    assert len(set(numbers)) == 100
    assert {body for _, body in indexes(ledger)} == {b"index of %d" % k for k in range(100)}


def test_many_processes_append_at_once(ledger: Ledger, directory: Path) -> None:
    program = dedent(
        """
        import sys
        from pathlib import Path
        from gristmill.storage.ledger import Ledger
        from gristmill.storage.segment import Entry
        ledger = Ledger(Path(sys.argv[1]))
        for k in range(50):
            ledger.append([Entry(b"g" * 16, b"%s %d" % (sys.argv[2].encode(), k), b"")])
        """
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = [[sys.executable, "-c", program, str(directory), str(name)] for name in range(4)]
    running = [subprocess.Popen(command, env=environment) for command in commands]
    assert [process.wait() for process in running] == [0] * 4
    found = indexes(ledger)
    assert len({number for number, _ in found}) == 200
    assert {body for _, body in found} == {b"%d %d" % (name, k) for name in range(4) for k in range(50)}


def test_a_transaction_is_all_or_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    (first,) = ledger.append([entry(b"a")])
    with monkeypatch.context() as patch:
        patch.setattr(
            "gristmill.storage.ledger.seal",
            lambda key, body, secret: seal(key, body) if b"bad" not in body else 1 / 0,
        )
        with pytest.raises(ZeroDivisionError):
            ledger.append([entry(b"b"), entry(b"bad")])
    assert indexes(ledger) == [(first, b"index of a")]
    assert ledger.append([entry(b"c")])[0] > first
    assert [body for _, body in indexes(ledger)] == [b"index of a", b"index of c"]


def test_large_bodies_are_files(ledger: Ledger, directory: Path) -> None:
    (number,) = ledger.append([Entry(GROUP, LARGE, LARGE[::-1])])
    ledger.put(b"o" + GROUP, LARGE)
    files = list(directory.rglob("*.val"))
    assert len(files) == 3
    assert indexes(ledger) == [(number, LARGE)]
    assert ledger.values(GROUP, number) == LARGE[::-1]
    assert ledger.get(b"o" + GROUP) == LARGE


# -- objects


def test_an_object_can_be_put_again_and_deleted(ledger: Ledger, directory: Path) -> None:
    for body in (b"small", LARGE, b"small again"):
        ledger.put(b"o" + GROUP, body)
        assert ledger.get(b"o" + GROUP) == body
    ledger.delete([b"o" + GROUP, b"o" + OTHER])
    assert ledger.get(b"o" + GROUP) is None
    assert list(directory.rglob("*.val")) == []


def test_closing_is_not_the_end(ledger: Ledger) -> None:
    ledger.append([entry(b"a")])
    ledger.close()
    ledger.close()
    ledger.append([entry(b"b")])
    assert len(indexes(ledger)) == 2


def test_a_readonly_ledger_refuses_and_serves(ledger: Ledger, directory: Path) -> None:
    (number,) = ledger.append([entry(b"a")])
    readonly = Ledger(directory, readonly=True)
    attempts: list[Callable[[], object]] = [
        lambda: readonly.append([entry(b"b")]),
        lambda: readonly.put(b"o", b""),
        lambda: readonly.delete([b"o"]),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match="read-only"):
            attempt()
    assert indexes(readonly) == [(number, b"index of a")]
    readonly.close()


def test_a_durable_ledger_keeps_the_same_things(directory: Path) -> None:
    directory.parent.mkdir()
    durable = Ledger(directory, durable=True)
    (number,) = durable.append([Entry(GROUP, b"small", LARGE)])
    assert durable.values(GROUP, number) == LARGE
    durable.close()


# -- what we did not write


def test_keys_and_values_are_bytes_and_nothing_else(directory: Path) -> None:
    with closing(diskcache.Cache(str(directory), disk=FramedDisk)) as cache:
        for key in ("text", 1, 1.0, None, (b"a",)):
            with pytest.raises(TypeError, match="bytes"):
                cache.set(key, b"")
        for value in ("text", 1, None, [b"a"]):
            with pytest.raises(TypeError, match="bytes"):
                cache.set(b"key", value)
        assert len(cache) == 0


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path("bomb.went.off").write_text, ("boom",)


PLANTED: dict[str, tuple[int, str | None, Any]] = {
    "a pickle": (4, None, pickle.dumps(Bomb())),
    "a pickle in a file": (4, "aa/bb/" + "0" * 28 + ".val", None),
    "text": (3, None, "text"),
    "a foreign file": (2, "../../secret", None),
    "an absolute file": (2, "/etc/passwd", None),
    "a file that looks like ours": (2, "aa/bb/../../../../secret.val", None),
    "no file": (2, None, None),
    "unframed bytes": (1, None, b"bytes without a frame"),
    "a number": (1, None, 7),
    "nothing": (1, None, None),
    "an unknown mode": (9, None, b""),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_a_row_that_gristmill_never_writes_is_damage(
    planted: tuple[int, str | None, Any],
    ledger: Ledger,
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(seal(b"secret", b"of another program"))
    (number,) = ledger.append([entry(b"a")])
    ledger.put(b"o" + GROUP, b"body")
    with database(directory) as connection:
        update = "UPDATE Cache SET mode = ?, filename = ?, value = ? WHERE substr(key, 1, 1) != x'6e'"
        connection.execute(update, planted)
    with pytest.raises(IntegrityError):
        ledger.get(b"o" + GROUP)
    with pytest.raises(IntegrityError):
        ledger.values(GROUP, number)
    assert indexes(ledger) == [(number, None)]
    assert not (tmp_path / "bomb.went.off").exists()


def test_deleting_a_planted_row_deletes_no_foreign_file(
    ledger: Ledger, directory: Path, tmp_path: Path
) -> None:
    ledger.put(b"o" + GROUP, b"body")
    secret = tmp_path / "secret"
    secret.write_text("mine")
    with database(directory) as connection:
        connection.execute("UPDATE Cache SET mode = 2, filename = '../../secret'")
    ledger.delete([b"o" + GROUP])
    ledger.put(b"o" + GROUP, b"body")
    assert secret.read_text() == "mine"


def test_a_fork_has_connections_of_its_own(ledger: Ledger) -> None:
    ledger.append([entry(b"parent")])
    pid = os.fork()
    if pid == 0:
        try:
            ledger.append([entry(b"child")])
            os._exit(0 if len(indexes(ledger)) == 2 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [body for _, body in indexes(ledger)] == [b"index of parent", b"index of child"]


def test_a_file_name_that_is_no_text_is_the_damage_of_one_row(ledger: Ledger, directory: Path) -> None:
    ledger.append([entry(b"a")])
    for name in (b"o", b"p"):
        ledger.put(name + GROUP, LARGE)
    with database(directory) as connection:
        damage = "UPDATE Cache SET filename = CAST(x'ff61fe' AS TEXT) WHERE key = ?"
        assert connection.execute(damage, (b"o" + GROUP,)).rowcount == 1
    with pytest.raises(IntegrityError):
        ledger.get(b"o" + GROUP)
    ledger.put(b"o" + GROUP, LARGE)
    assert ledger.get(b"o" + GROUP) == ledger.get(b"p" + GROUP) == LARGE
    assert [body for _, body in indexes(ledger)] == [b"index of a"]


def test_a_thread_that_has_ended_leaves_no_connection(ledger: Ledger, directory: Path) -> None:
    connections = set()
    for number in range(5):
        thread = threading.Thread(target=ledger.append, args=([entry(b"%d" % number)],))
        thread.start()
        thread.join()
        connections.add(len([None for path in Path("/proc/self/fd").iterdir() if _is_in(path, directory)]))
    ledger.close()
    assert len(connections) == 1
    assert not [None for path in Path("/proc/self/fd").iterdir() if _is_in(path, directory)]


def _is_in(descriptor: Path, directory: Path) -> bool:
    try:
        return descriptor.readlink().is_relative_to(directory)
    except OSError:
        return False


def test_another_process_does_not_say_whether_commits_are_synced(ledger: Ledger, directory: Path) -> None:
    durable = Ledger(directory, durable=True)
    durable.append([entry(b"a")])
    ledger.append([entry(b"b")])
    with ThreadPoolExecutor(1) as thread, closing(durable):
        thread.submit(durable.append, [entry(b"c")]).result()
        cache = durable._open_cache()  # noqa: SLF001 - what counts is what its connection is set to
        assert cache._sql("PRAGMA synchronous").fetchall() == [(2,)]  # noqa: SLF001 - as above
