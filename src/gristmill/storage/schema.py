"""The schema of the ledger's database: that it is diskcache's, and nothing beside it.

SQLite obeys what a database's schema says (a view in place of a table, a trigger), and diskcache obeys the
database's Settings table: each row becomes an attribute, an argument, or a PRAGMA statement. So both are looked at
before either is let near a database that somebody else may have written.
"""

import sqlite3
from collections.abc import Mapping

_METADATA = frozenset({"count", "size", "hits", "misses"})

_HARMLESS = frozenset(
    {"statistics", "tag_index", "eviction_policy", "size_limit", "cull_limit", "disk_pickle_protocol"}
)
"""Settings that are overridden before they are used, or never used."""

_DEFAULTS: Mapping[str, object] = {
    "sqlite_auto_vacuum": 1,
    "sqlite_cache_size": 2**13,
    "sqlite_journal_mode": "wal",
}
"""Settings that diskcache has and the ledger leaves alone."""

_COUNTED = (
    "CREATE TRIGGER Settings_{name} AFTER {event} ON Cache FOR EACH ROW BEGIN"
    ' UPDATE Settings SET value = value {change} WHERE key = "{what}"; END'
)

KEY_INDEX = "CREATE UNIQUE INDEX Cache_key_raw ON Cache(key, raw)"

STATEMENTS = frozenset(
    {
        "CREATE TABLE Settings ( key TEXT NOT NULL UNIQUE, value)",
        (
            "CREATE TABLE Cache ( rowid INTEGER PRIMARY KEY, key BLOB, raw INTEGER, store_time REAL,"
            " expire_time REAL, access_time REAL, access_count INTEGER DEFAULT 0, tag BLOB,"
            " size INTEGER DEFAULT 0, mode INTEGER DEFAULT 0, filename TEXT, value BLOB)"
        ),
        KEY_INDEX,
        "CREATE INDEX Cache_expire_time ON Cache (expire_time)",
        *(
            _COUNTED.format(name=name, event=event, change=change, what=what)
            for name, event, change, what in (
                ("count_insert", "INSERT", "+ 1", "count"),
                ("count_delete", "DELETE", "- 1", "count"),
                ("size_insert", "INSERT", "+ NEW.size", "size"),
                ("size_update", "UPDATE", "+ NEW.size - OLD.size", "size"),
                ("size_delete", "DELETE", "- OLD.size", "size"),
            )
        ),
        None,  # an index that SQLite makes for a UNIQUE column has no statement
    }
)
"""What diskcache 5.6 creates, one after another: a database that is just being made has some of it."""


def check(connection: sqlite3.Connection) -> None:
    """Refuse a database with anything in its schema that diskcache does not put there.

    Raises
    ------
    sqlite3.DatabaseError
        It has.
    """
    found = {statement for (statement,) in connection.execute("SELECT sql FROM sqlite_master")}
    if not found <= STATEMENTS:
        raise sqlite3.DatabaseError("the database has a schema that gristmill never makes")


def tidy_settings(connection: sqlite3.Connection, settings: Mapping[str, object]) -> None:
    """Delete rows of the Settings table that nobody needs and diskcache would obey; it puts its own back."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'Settings'").fetchall():
        return
    known = {**_DEFAULTS, **settings}
    if foreign := _foreign(connection, known):
        with connection:
            connection.executemany("DELETE FROM Settings WHERE rowid = ?", [(row,) for row in foreign])
            if _foreign(
                connection, known
            ):  # a damaged row, which is not found by the number it says that it has
                connection.execute("DELETE FROM Settings")


def _foreign(connection: sqlite3.Connection, known: Mapping[str, object]) -> list[int]:
    rows = connection.execute("SELECT rowid, key, value FROM Settings").fetchall()
    return [row for row, key, value in rows if not _is_known(key, value, known)]


def _is_known(key: object, value: object, known: Mapping[str, object]) -> bool:
    if not isinstance(key, str):
        return False
    if key in _METADATA:
        return isinstance(value, int | float)
    if key == "sqlite_synchronous":
        return value in (1, 2)
    if key in _HARMLESS:
        return isinstance(value, int | str)
    return key in known and value == known[key]
