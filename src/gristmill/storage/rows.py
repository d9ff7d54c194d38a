"""Rows: the ledger's table as it lies there, for who looks after the store.

Unlike the ledger it hides nothing and mends nothing: what is damaged is an error, for whoever asked to say.
"""

import contextlib
import os
import re
import sqlite3
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.storage import patience
from gristmill.storage.frame import unseal
from gristmill.storage.ledger import FILE_NAME, INDEX, NUMBER, fetch
from gristmill.storage.seal import NO_KEY

_COLUMNS = "rowid, key, mode, filename, value"
_AT_ONCE = 500
"""Rows deleted by one statement."""

_PROBED = 100_000
"""Rows that are asked for one by one where a damaged table cannot be read in order."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row."""

    number: int
    key: bytes
    mode: int
    filename: str | None
    value: object


class Rows:
    """The rows of one ledger.

    Parameters
    ----------
    directory, key
        The ledger's, and what it seals with.

    Raises
    ------
    sqlite3.Error
        From any method: the database cannot be read.
    """

    def __init__(self, directory: Path, key: bytes = NO_KEY) -> None:
        self.directory = directory
        self._key = key
        self._path = directory / "cache.db"
        self._kept: list[sqlite3.Connection] = []
        weakref.finalize(self, _close, self._kept)

    def __iter__(self) -> Iterator[Row]:
        """Yield all rows in the order in which they lie in the file."""
        yield from self._rows(f"SELECT {_COLUMNS} FROM Cache NOT INDEXED ORDER BY rowid")  # noqa: S608 - a constant

    def under(self, prefix: bytes) -> Iterator[Row]:
        """Yield the rows whose keys start with `prefix`, by key."""
        query = f"SELECT {_COLUMNS} FROM Cache WHERE key >= ? AND key < ? AND raw = 1 ORDER BY key"  # noqa: S608
        yield from self._rows(query, (prefix, _after(prefix)))

    def get(self, key: bytes) -> Row | None:
        """Return one row."""
        if not self._kept:
            if not self._path.exists():
                return None
            self._kept.append(self._connect("ro"))
        query = f"SELECT {_COLUMNS} FROM Cache WHERE key = ? AND raw = 1"  # noqa: S608 - a constant
        found = self._kept[0].execute(query, (key,)).fetchone()
        return Row(found[0], key, *found[2:]) if found else None

    def body(self, row: Row) -> bytes:
        """Return what a row holds, verified.

        Raises
        ------
        IntegrityError
            It is damaged or missing.
        """
        return unseal(row.key, fetch(self.directory, row.mode, row.filename, row.value), self._key)

    def sizes(self) -> Iterator[tuple[bytes, int]]:
        """Yield the key of each row and the bytes of its value, without reading the value."""
        query = "SELECT key, COALESCE(size, 0) + COALESCE(LENGTH(value), 0) FROM Cache"
        with self._connected() as connection:
            for key, size in connection.execute(query) if connection else ():
                yield bytes(key), int(size)

    def times(self, prefix: bytes) -> dict[bytes, float]:
        """Return when each row whose key starts with `prefix` was put, in seconds since the epoch."""
        query = "SELECT key, store_time FROM Cache WHERE key >= ? AND key < ? AND raw = 1"
        with self._connected() as connection:
            found = connection.execute(query, (prefix, _after(prefix))) if connection else ()
            return {bytes(key): float(when) for key, when in found}

    def segments(self) -> Iterator[tuple[bytes, int]]:
        """Yield (group, number) of every segment, in that order."""
        query = "SELECT key FROM Cache WHERE key >= ? AND key < ? AND raw = 1 ORDER BY key"
        with self._connected() as connection:
            for (key,) in connection.execute(query, (INDEX, _after(INDEX))) if connection else ():
                if len(key) == 25:
                    yield bytes(key[1:17]), NUMBER.unpack(key[17:])[0]

    def problems(self) -> list[str]:
        """Return what SQLite finds wrong with its file; nothing where it is sound."""
        with self._connected() as connection:
            found = connection.execute("PRAGMA integrity_check(10)").fetchall() if connection else [("ok",)]
        return [str(text) for (text,) in found if text != "ok"]

    def remove(self, keys: Sequence[bytes]) -> None:
        """Delete rows, and their files once that is committed; missing ones are ignored."""
        files: list[str] = []
        with self._connected(write=True) as connection:
            if connection is None or not keys:
                return
            connection.execute("BEGIN IMMEDIATE")
            for start in range(0, len(keys), _AT_ONCE):
                part = list(keys[start : start + _AT_ONCE])
                marks = ",".join("?" * len(part))
                where = f"FROM Cache WHERE key IN ({marks}) AND raw = 1"
                files += [name for (name,) in connection.execute(f"SELECT filename {where}", part) if name]
                connection.execute(f"DELETE {where}", part)
            connection.execute("COMMIT")
        for name in files:
            self._unlink(name)

    def remove_unnamed(self, keys: Sequence[bytes], mark: bytes, before: float) -> list[bytes]:
        """Delete those of the rows that were put, and renewed by a row `mark` + key, before a time.

        Returns
        -------
        The keys of what was deleted.
        """
        with self._connected(write=True) as connection:
            if connection is None or not keys:
                return []
            connection.execute("BEGIN IMMEDIATE")  # whoever renews a row waits, and then finds it gone
            fresh = "SELECT 1 FROM Cache WHERE key IN (?, ?) AND raw = 1 AND store_time >= ?"
            chosen = [k for k in keys if connection.execute(fresh, (k, mark + k, before)).fetchone() is None]
            files = [self._delete(connection, key) for key in chosen]
            connection.execute("COMMIT")
        for name in files:
            self._unlink(name or "")
        return chosen

    def orphans(self) -> list[Path]:
        """Return the files that no row names; one that is being written may be among them."""
        named = self._named()
        found = (path.relative_to(self.directory).as_posix() for path in self.directory.glob("??/??/*"))
        return [self.directory / name for name in sorted(found) if name not in named]

    def remove_orphans(self, paths: Sequence[Path]) -> None:
        """Delete those of `paths` that still no row names, while nobody writes."""
        with self._connected(write=True) as connection:
            if connection is None or not paths:
                return
            connection.execute("BEGIN IMMEDIATE")  # files are written inside transactions
            named = self._named()
            for path in paths:
                name = path.relative_to(self.directory).as_posix()
                if name not in named:
                    self._unlink(name)
            connection.execute("ROLLBACK")

    def shrink(self) -> None:
        """Give the space of deleted rows back to the file system, as far as nobody reads."""
        with self._connected(write=True) as connection, contextlib.suppress(sqlite3.OperationalError):
            if connection is not None:
                connection.execute("PRAGMA incremental_vacuum")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def readable(self) -> Iterator[Row]:
        """Yield the rows that can be read although the table is damaged."""
        last, first = 0, None
        for order in ("ASC", "DESC"):
            query = f"SELECT {_COLUMNS} FROM Cache NOT INDEXED WHERE rowid > {last} ORDER BY rowid {order}"  # noqa: S608
            try:
                for row in self._rows(query):
                    last, first = (row.number, first) if order == "ASC" else (last, row.number)
                    yield row
            except sqlite3.DatabaseError:
                continue
            return
        for number in range(last + 1, min(first or last + 1, last + _PROBED)):
            query = f"SELECT {_COLUMNS} FROM Cache NOT INDEXED WHERE rowid = {number}"  # noqa: S608 - a number
            with contextlib.suppress(sqlite3.DatabaseError):
                yield from self._rows(query)

    def _delete(self, connection: sqlite3.Connection, key: bytes) -> str | None:
        found = connection.execute("SELECT filename FROM Cache WHERE key = ? AND raw = 1", (key,)).fetchone()
        connection.execute("DELETE FROM Cache WHERE key = ? AND raw = 1", (key,))
        return found[0] if found else None

    def _named(self) -> set[str]:
        with self._connected() as connection:
            query = "SELECT filename FROM Cache WHERE filename IS NOT NULL"
            return {name for (name,) in connection.execute(query)} if connection else set()

    def _unlink(self, name: str) -> None:
        if re.fullmatch(FILE_NAME, name):
            (self.directory / name).unlink(missing_ok=True)  # its folder may be just what a writer needs

    def _rows(self, query: str, arguments: tuple[Any, ...] = ()) -> Iterator[Row]:
        with self._connected() as connection:
            for number, key, *rest in connection.execute(query, arguments) if connection else ():
                yield Row(number, bytes(key) if isinstance(key, bytes) else b"", *rest)

    @contextlib.contextmanager
    def _connected(self, *, write: bool = False) -> Iterator[sqlite3.Connection | None]:
        if not self._path.exists():
            yield None
            return
        mode = "rw" if write and os.access(self._path, os.W_OK) else "ro"
        with contextlib.closing(self._connect(mode)) as connection:
            made = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'Cache'").fetchone()
            yield connection if made else None  # somebody may be just making it

    def _connect(self, mode: str) -> sqlite3.Connection:
        location = f"{self._path.absolute().as_uri()}?mode={mode}"
        connection = sqlite3.connect(
            location, uri=True, timeout=patience.BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        return connection


def _close(connections: list[sqlite3.Connection]) -> None:
    for connection in connections:
        connection.close()


def _after(prefix: bytes) -> bytes:
    """The first key that does not start with `prefix`, which does not end with the last of all bytes."""
    end = prefix.rstrip(b"\xff")
    return end[:-1] + bytes([end[-1] + 1])
