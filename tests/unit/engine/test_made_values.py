"""Values that nothing can digest or store: identified by how they were made, and made again where they are needed."""

import os
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.support.calls import CallLog, record

from gristmill import Pipeline, node
from gristmill.errors import DigestError


class Connection(sqlite3.Connection):
    """One that is closed when nobody has it any more; nobody else knows when that is."""

    def __del__(self) -> None:
        self.close()


def opened(database: str) -> sqlite3.Connection:
    return sqlite3.connect(database, check_same_thread=False, factory=Connection)


@pytest.fixture(params=["sequential", "parallel"])
def executor(request: pytest.FixtureRequest) -> str:
    """Without threads: these connections are not made to be shared by several."""
    return str(request.param)


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = str(tmp_path / "words.db")
    with closing(opened(path)) as connection, connection:
        connection.execute("create table words (id integer, word text)")
        connection.executemany("insert into words values (?, ?)", [(k, "ab" * k) for k in range(50)])
    return path


def pipeline(log: CallLog) -> Pipeline:
    path = log.path

    def connect(database: str) -> sqlite3.Connection:
        record(path, "connect", os.getpid())
        return opened(database)

    def word(k: int, connect: sqlite3.Connection) -> str:
        record(path, "word", k)
        return str(connect.execute("select word from words where id = ?", (k,)).fetchone()[0])

    return Pipeline(
        [node(connect, cache=False, version="1"), node(word, mapspec="k[i] -> word[i]")],
    )


def test_it_goes_to_every_process_that_needs_it(log: CallLog, database: str, executor: str) -> None:
    inputs = {"k": list(range(40)), "database": database}
    result = pipeline(log).map(inputs, map_executor=executor, max_workers=2)
    assert result["word"].tolist() == ["ab" * k for k in range(40)]
    made = Counter(line.split()[1] for line in log.take() if line.startswith("connect"))
    assert set(made.values()) == {1}
    assert len(made) <= 3


def test_what_was_made_from_it_is_found_again(log: CallLog, database: str, executor: str) -> None:
    inputs = {"k": [1, 2, 3], "database": database}
    pipeline(log).map(inputs, map_executor=executor)
    log.take()
    again = pipeline(log).map({**inputs, "k": [1, 2, 3, 4]}, map_executor=executor)
    assert again["word"].tolist() == ["ab", "abab", "ab" * 3, "ab" * 4]
    assert [line for line in log.take() if line.startswith("word")] == ["word 4"]


def test_what_it_was_made_from_counts(log: CallLog, database: str, tmp_path: Path, executor: str) -> None:
    pipeline(log).map({"k": [1], "database": database}, map_executor=executor)
    log.take()
    other = tmp_path / "other.db"
    other.write_bytes(Path(database).read_bytes())
    pipeline(log).map({"k": [1], "database": str(other)}, map_executor=executor)
    assert "word 1" in log.take()


def test_the_caller_gets_it(log: CallLog, database: str, executor: str) -> None:
    result = pipeline(log).map({"database": database}, output_name="connect", map_executor=executor)
    assert result["connect"].execute("select word from words where id = 1").fetchone() == ("ab",)
    given = pipeline(log).run({"database": database}, output_name="connect")
    assert isinstance(given["connect"], sqlite3.Connection)


def test_it_may_be_made_from_another_such_value(log: CallLog, database: str, executor: str) -> None:
    path = log.path

    def connect(database: str) -> sqlite3.Connection:
        record(path, "connect")
        return opened(database)

    def cursor(connect: sqlite3.Connection) -> sqlite3.Cursor:
        return connect.cursor()

    def word(k: int, cursor: sqlite3.Cursor) -> str:
        return str(cursor.execute("select word from words where id = ?", (k,)).fetchone()[0])

    unkept = [node(function, cache=False, version="1") for function in (connect, cursor)]
    words = Pipeline([*unkept, node(word, mapspec="k[i] -> word[i]")])
    result = words.map({"k": [3, 4], "database": database}, map_executor=executor)
    assert result["word"].tolist() == ["ab" * 3, "ab" * 4]


def test_each_index_may_have_its_own(log: CallLog, database: str, executor: str) -> None:
    def rows(k: int, database: str) -> Any:
        connection = opened(database)
        return connection.execute("select word from words where id < ? order by id", (k,))

    def count(rows: Any) -> int:
        return len(rows.fetchall())

    def every(rows: list[Any]) -> int:
        return sum(len(one.fetchall()) for one in rows)

    each = node(rows, mapspec="k[i] -> rows[i]", cache=False, version="1")
    counted = Pipeline([each, node(count, mapspec="rows[i] -> count[i]")])
    inputs = {"k": list(range(30)), "database": database}
    assert counted.map(inputs, map_executor=executor)["count"].tolist() == list(range(30))
    summed = Pipeline([each, every])
    assert summed.map(inputs, map_executor=executor)["every"] == sum(range(30))


def test_a_value_with_an_identity_that_cannot_be_stored_goes_the_same_way(
    log: CallLog, executor: str
) -> None:
    path = log.path

    class Model:
        def __init__(self, weight: int) -> None:
            self.weight = weight
            self.lock = threading.Lock()

        def __digest__(self) -> int:
            return self.weight

    def load(weight: int) -> Any:
        record(path, "load")
        return Model(weight)

    def predict(x: int, load: Any) -> int:
        record(path, "predict")
        with load.lock:
            return int(x * load.weight)

    nodes = [node(load, cache=False), node(predict, mapspec="x[i] -> predict[i]")]
    result = Pipeline(nodes).map({"x": [1, 2], "weight": 3}, map_executor=executor)
    assert result["predict"].tolist() == [3, 6]
    log.take()
    again = Pipeline(nodes).map({"x": [1, 2], "weight": 3}, map_executor=executor)
    assert (again["predict"].tolist(), log.take()) == ([3, 6], ["load"])


def test_without_a_version_it_is_refused_with_the_way_out(executor: str) -> None:
    def connect() -> sqlite3.Connection:
        return opened(":memory:")

    def word(connect: sqlite3.Connection) -> str:
        return ""

    with pytest.raises(DigestError, match=r"no digest.*version='1'"):
        Pipeline([node(connect, cache=False), word]).map({}, map_executor=executor)
    with pytest.raises(DigestError, match=r"what .*connect returned has no digest"):
        Pipeline([node(connect, version="1"), word]).map({}, map_executor=executor)


def test_an_error_while_it_is_made_again_is_its_items_error(
    log: CallLog, tmp_path: Path, executor: str
) -> None:
    once = str(tmp_path / "once")

    def connect() -> sqlite3.Connection:
        try:
            Path(once).mkdir()
        except FileExistsError:
            raise ConnectionError("only one connection is allowed") from None
        return opened(":memory:")

    def word(k: int, connect: sqlite3.Connection) -> int:
        return k

    nodes = [node(connect, cache=False, version="1"), node(word, mapspec="k[i] -> word[i]")]
    result = Pipeline(nodes).map({"k": [1, 2]}, map_executor=executor, max_workers=2, on_error="continue")
    found = result["word"].tolist()
    errors = [type(one.error) for one in result.errors]
    assert [k for k in (1, 2) if k in found or ConnectionError in errors] == [1, 2]
    assert set(errors) <= {ConnectionError}
