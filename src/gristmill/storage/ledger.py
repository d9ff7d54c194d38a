"""The ledger: one diskcache cache in which segments, objects and records are rows.

This module and `schema` are the only ones that know diskcache and SQLite. Rows go in through diskcache, in
transactions that this module opens itself; they come out through a read-only SQLite connection of our own over
diskcache's documented table. So a run that finds everything never writes (opening a diskcache writes twenty rows), and
``PRAGMA data_version`` can tell in two microseconds whether anybody appended anything.

It does not know what a body means: bodies are bytes, in frames that carry their checksum.
"""

import contextlib
import errno
import os
import re
import sqlite3
import stat
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import diskcache
from diskcache.core import DBNAME, DEFAULT_SETTINGS, MODE_BINARY, MODE_RAW

from gristmill.errors import IntegrityError, StoreError
from gristmill.storage import patience, schema
from gristmill.storage.frame import HEADER_SIZE, framed_size, seal, unseal
from gristmill.storage.medium import sync_directory, sync_file
from gristmill.storage.seal import NO_KEY
from gristmill.storage.segment import KEY_SIZE, TIME_SHIFT, Entry

_INLINE_LIMIT = 32 * 1024
"""Rows up to this many bytes live in the database; SQLite writes them twice, so longer ones are files."""

FILE_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{28}\.val")
"""What diskcache names its files; anything else in that column was not written by us."""

_SETTINGS = {
    "eviction_policy": "none",  # the default policy deletes entries
    "cull_limit": 0,  # each write would otherwise look for something to delete
    "size_limit": 2**62,  # the default evicts at 1 GiB
    "statistics": 0,  # counting hits turns every read into a write
    "tag_index": 0,
    "sqlite_mmap_size": 0,  # a mapped database turns an I/O error into SIGBUS
    "sqlite_trusted_schema": 0,  # what is in the database's schema must not call functions
    "disk_min_file_size": _INLINE_LIMIT,
}

T = TypeVar("T")
NUMBER = struct.Struct(">Q")
_DROP_UNDECODABLE = "DELETE FROM Cache WHERE filename IS NOT NULL AND NOT is_text(CAST(filename AS BLOB))"
_REBUILD = (
    "BEGIN IMMEDIATE",
    "DROP INDEX IF EXISTS Cache_key_raw",
    # Whoever did not find a row that was there has put it again.
    "DELETE FROM Cache WHERE rowid NOT IN (SELECT max(rowid) FROM Cache GROUP BY key, raw)",
    schema.KEY_INDEX,
    "COMMIT",
)
COUNTER, INDEX, VALUES = b"n", b"i", b"v"
"""What the keys of a segment's rows start with; the group follows, and for the last two the number."""
RENEWED = b"u"
"""Starts the keys of marks that `renew` makes; when each was made is its row's time."""
_INHERITED: list[object] = []
"""Connections that a fork has from its parent, so that they are not closed with their last name."""
_LAST_NUMBER = 2**63 - 1
"""The highest number that a segment may have."""


def _unique_number() -> int:
    chance = int.from_bytes(os.urandom(3), "big") >> (24 - TIME_SHIFT)  # 63 bits in all until the year 2109
    return (time.time_ns() // 10**6 << TIME_SHIFT) | chance


class FramedDisk(diskcache.Disk):  # type: ignore[misc]
    """diskcache's seam for serialization, narrowed to bytes keys and framed bytes values.

    The stock class pickles what it does not know, follows any stored file name, and never syncs a file.
    """

    durable = False

    def put(self, key: object) -> tuple[Any, bool]:
        if type(key) is not bytes:
            raise TypeError(f"ledger keys are bytes, not {type(key).__name__}")
        return sqlite3.Binary(key), True

    def get(self, key: object, raw: bool) -> bytes:  # noqa: FBT001 - diskcache's signature
        if not raw or not isinstance(key, bytes):
            raise IntegrityError("the ledger holds a key that is not bytes")
        return key

    def store(self, value: object, read: bool, key: object = None) -> tuple[int, int, str | None, Any]:  # noqa: FBT001
        if type(value) is not bytes or read:
            raise TypeError(f"ledger values are bytes, not {type(value).__name__}")
        if len(value) <= self.min_file_size:
            return 0, MODE_RAW, None, sqlite3.Binary(value)
        name, path = self.filename(key, value)
        for folder in (Path(path).parent.parent, Path(path).parent):
            folder.mkdir(exist_ok=True, mode=0o700)
        try:
            _write_file(path, value, durable=self.durable)
        except BaseException:
            self.remove(name)  # diskcache leaves half a file behind when the disk is full
            raise
        return len(value), MODE_BINARY, name, None

    def fetch(self, mode: int, filename: str | None, value: object, read: bool) -> bytes:  # noqa: FBT001
        if read:
            raise TypeError("ledger values are bytes, not files")
        return fetch(Path(self._directory), mode, filename, value)

    def remove(self, file_path: object) -> None:
        if isinstance(file_path, str) and FILE_NAME.fullmatch(file_path):
            super().remove(file_path)


class DurableDisk(FramedDisk):
    """A `FramedDisk` whose files are on the medium before the row that names them is."""

    durable = True


def _write_file(path: str, value: bytes, *, durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = memoryview(value)
        while view:
            view = view[os.write(descriptor, view) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if durable:
        for folder in list(Path(path).parents)[:3]:  # two of which may be new
            sync_directory(folder)


def fetch(directory: Path, mode: object, filename: object, value: object) -> bytes:
    """Return the frame of a row, which lies in it or in a file of `directory`.

    Raises
    ------
    IntegrityError
        The file is missing, or the row has a form that is never written here.
    """
    if mode == MODE_RAW and isinstance(value, bytes):
        return value
    if mode == MODE_BINARY and isinstance(filename, str) and FILE_NAME.fullmatch(filename):
        try:
            return _read_file(directory / filename)
        except (OSError, MemoryError) as error:
            raise IntegrityError(f"a file of the ledger cannot be read: {error}") from error
    raise IntegrityError("the ledger holds a row in a form that gristmill never writes")


def _read_file(path: Path) -> bytes:
    """Return a file's content, if it has the length that its frame says: before there is memory for it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe in its place would have us wait
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise IntegrityError("a file of the ledger is no file")
        if framed_size(os.pread(descriptor, HEADER_SIZE, 0)) != status.st_size:
            raise IntegrityError(f"a file of the ledger has {status.st_size} bytes, not what its header says")
        return file.read()


class DamagedError(StoreError):
    """The database cannot be read; it has been set aside, and a new one takes its place."""


def _is_damage(error: Exception) -> bool:
    """Whether SQLite says that the file is no database, or one whose pages contradict each other."""
    if isinstance(error, UnicodeDecodeError) or _is_one_row(error):  # the first in the text of its schema
        return True
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)


def _is_one_row(error: Exception) -> bool:
    """Whether it is the text of a single row that cannot be decoded."""
    return isinstance(error, sqlite3.OperationalError) and "Could not decode to UTF-8" in str(error)


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _connect(path: Path, mode: str, seconds: float) -> sqlite3.Connection:
    reader = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        timeout=seconds,
        isolation_level=None,
        check_same_thread=False,
    )
    # A damaged file name is the fault of one row, and found out where it is used.
    reader.text_factory = lambda data: data.decode("utf-8", "replace")
    try:
        reader.execute("PRAGMA trusted_schema = 0")
        schema.check(reader)
    except BaseException:
        reader.close()
        raise
    return reader


class _Cache(diskcache.Cache):  # type: ignore[misc]
    """A diskcache with one connection, for whichever thread holds the ledger's lock.

    The stock class opens one for each thread, with what the database says of synchronous writes: another process may
    have said so. It can close only that of the calling thread, and none where it cannot be opened: a full disk refuses
    it halfway.
    """

    def __init__(self, directory: Path, **options: Any) -> None:
        self._connection: sqlite3.Connection | None = None
        settings = {**DEFAULT_SETTINGS, **options}
        self._pragmas = {key: settings[key] for key in sorted(settings) if key.startswith("sqlite_")}
        try:
            super().__init__(str(directory), **options)
        except BaseException:
            self.close()
            raise

    @property
    def _con(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = sqlite3.connect(
                os.path.join(self.directory, DBNAME),
                timeout=self.timeout,
                isolation_level=None,
                check_same_thread=False,
            )
            for key, value in self._pragmas.items():
                self.reset(key, value, update=False)
        return self._connection

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Open:
    """The connections of a ledger, closed with it."""

    def __init__(self) -> None:
        self.cache: diskcache.Cache | None = None
        self.reader: sqlite3.Connection | None = None

    def close(self) -> None:
        if self.cache is not None:
            self.cache.close()
        if self.reader is not None:
            self.reader.close()
        self.cache = self.reader = None


class Ledger:
    """Append-only segments and content-addressed objects in one diskcache directory.

    Parameters
    ----------
    directory
        Where the cache lives; created by the first append.
    durable
        Sync every commit to the medium, so that it survives a power cut.
    readonly
        Refuse to append.
    key
        What rows are sealed with, in a store with a secret.
    """

    def __init__(
        self, directory: Path, *, durable: bool = False, readonly: bool = False, key: bytes = NO_KEY
    ) -> None:
        self._directory = directory
        self._database = os.path.join(directory, "cache.db")
        self._key = key
        self._durable = durable
        self._readonly = readonly
        self._lock = threading.RLock()
        self.generation = 0
        """How often the database was found damaged, and begun anew."""
        self.unreadable = ""
        """What SQLite said when it could not read; what is not read is a miss."""
        self._found: set[bytes] = set()
        """The groups of which what was appended has been found again."""
        self._open = _Open()
        self._inode = 0
        self._patience = patience.BUSY_SECONDS
        self._locked = ""
        self._locked_until = 0.0
        self._pid = os.getpid()
        weakref.finalize(self, self._open.close)

    def use(self, key: bytes) -> None:
        """Seal with another key from now on: the store has been made anew."""
        self._key = key

    def append(self, entries: Sequence[Entry], rows: Mapping[bytes, bytes] | None = None) -> list[int]:
        """Append `entries` in one transaction and return their numbers; with it put `rows`, as `put_all` does.

        Numbers grow within a group, and no segment ever has the number of another, even when a damaged
        database has forgotten which there were: other processes know segments by their numbers.

        Raises
        ------
        StoreError
            The ledger is read-only, full or locked; nothing was appended.
        """
        numbers = self._write(lambda cache: self._append_all(cache, entries, rows or {}))
        last = {entry.group: number for entry, number in zip(entries, numbers, strict=True)}
        if not all(self._finds(group, number) for group, number in last.items() if group not in self._found):
            self.rebuild()
        self._found.update(last)
        return numbers

    def put(self, key: bytes, body: bytes) -> None:
        """Store `body` under `key`, which must start with a letter that segments do not use."""
        self._write(lambda cache: cache.set(key, seal(key, body, self._key), retry=False))

    def put_all(self, rows: Mapping[bytes, bytes]) -> None:
        """Store the bodies of `rows` under their keys, all in one transaction.

        A body that replaces another should be short enough for the database: a file is deleted before the
        transaction ends, and a process that is killed in between leaves the row without it.
        """
        self._write(lambda cache: self._put_all(cache, rows))

    def renew(self, key: bytes) -> bool:
        """Mark the row of `key` as about to be named by others; return False where there is none.

        The mark is a row of its own, because diskcache only writes rows anew, files and all.
        """
        return self._write(lambda cache: self._mark(cache, key))

    def delete(self, keys: Sequence[bytes]) -> None:
        """Delete the rows of `keys`; missing ones are ignored."""
        self._write(lambda cache: [cache.delete(key, retry=False) for key in keys])

    def get(self, key: bytes) -> bytes | None:
        """Return the body stored under `key`, or None.

        Raises
        ------
        IntegrityError
            The row exists, and is torn or does not match its checksum.
        """
        rows = self._select("SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1", (key,))
        return unseal(key, fetch(self._directory, *rows[0]), self._key) if rows else None

    def under(self, prefix: bytes, length: int) -> list[tuple[bytes, bytes | None]]:
        """Return (rest of the key, body) of all rows whose key is `prefix` and `length` bytes more.

        A damaged body is None.
        """
        query = "SELECT key, mode, filename, value FROM Cache WHERE key >= ? AND key <= ? AND raw = 1 ORDER BY key"
        low, high = (prefix + byte * length for byte in (b"\x00", b"\xff"))
        found: list[tuple[bytes, bytes | None]] = []
        for key, *stored in self._select(query, (low, high)):
            if not (isinstance(key, bytes) and len(key) == len(low)):
                continue
            body = None
            with contextlib.suppress(IntegrityError):
                body = unseal(key, fetch(self._directory, *stored), self._key)
            found.append((key[len(prefix) :], body))
        return found

    def values(self, group: bytes, number: int) -> bytes | None:
        """Return the values of the segment `number` of `group`, or None where there is no such segment."""
        return self.get(VALUES + group + NUMBER.pack(number))

    def scan(self, group: bytes, after: int) -> Iterator[tuple[int, bytes | None]]:
        """Yield (number, index) of every segment of `group` above `after`; a damaged index is None."""
        low, high = (INDEX + group + NUMBER.pack(n) for n in (after + 1, _LAST_NUMBER))
        query = "SELECT key, mode, filename, value FROM Cache WHERE key >= ? AND key <= ? AND raw = 1 ORDER BY key"
        for key, *stored in self._stream(query, (low, high)):
            if not (isinstance(key, bytes) and low <= key <= high):
                continue  # a damaged index led to the row of somebody else
            number = NUMBER.unpack(key[-8:])[0]
            try:
                yield number, unseal(key, fetch(self._directory, *stored), self._key)
            except IntegrityError:
                yield number, None

    def groups(self) -> list[bytes]:
        """Return the groups that have segments; one whose counter is damaged may be left out."""
        return [name for name, _ in self.under(COUNTER, KEY_SIZE)]

    def replace_by(self, directory: Path) -> None:
        """Put the ledger in `directory` into the place of this one, which is set aside."""
        with self._lock:
            self.close()
            self._set_aside()
            os.rename(directory, self._directory)

    def rebuild(self) -> None:
        """Make the database's index of keys anew: a damaged one leads past rows that are there."""
        path = self._directory / "cache.db"
        if self._readonly or not path.exists():
            return
        with self._lock, contextlib.suppress(sqlite3.Error):  # it is said by what cannot be done without
            self.close()
            connection = sqlite3.connect(path, timeout=self._patience, isolation_level=None)
            with contextlib.closing(connection) as database:
                database.execute("PRAGMA trusted_schema = 0")
                schema.check(database)
                for statement in _REBUILD:
                    database.execute(statement)
            self.generation += 1

    def version(self) -> int:
        """Return a number that differs from the last one if any connection has committed since."""
        if self._open.reader is not None and self._is_another():
            with self._lock:
                self.close()
                self.generation += 1
        rows = self._select("PRAGMA data_version", ())
        return int(rows[0][0]) if rows else -1

    def close(self) -> None:
        """Close both connections; the next call opens them again."""
        with self._lock:
            self._open.close()

    @property
    def parts(self) -> "tuple[Ledger, ...]":
        """The ledgers that a look-up goes through: this one."""
        return (self,)

    def _put_all(self, cache: diskcache.Cache, rows: Mapping[bytes, bytes]) -> None:
        for key, body in rows.items():
            cache.set(key, seal(key, body, self._key), retry=False)

    def _mark(self, cache: diskcache.Cache, key: bytes) -> bool:
        if key not in cache:
            return False
        self._put_all(cache, {RENEWED + key: b""})
        if self._durable:  # whoever has put it need not have waited until it was on the medium
            self._sync_file(key)
        return True

    def _sync_file(self, key: bytes) -> None:
        for (name,) in self._select("SELECT filename FROM Cache WHERE key = ? AND raw = 1", (key,)):
            if isinstance(name, str) and FILE_NAME.fullmatch(name):
                sync_file(self._directory / name, self._directory)

    def _append_all(
        self, cache: diskcache.Cache, entries: Sequence[Entry], rows: Mapping[bytes, bytes]
    ) -> list[int]:
        last: dict[bytes, int] = {}  # of this transaction, which the reading connection does not see
        numbers = []
        for entry in entries:
            before = last[entry.group] if entry.group in last else self._last_number(entry.group)
            last[entry.group] = max(before + 1, _unique_number())
            if last[entry.group] > _LAST_NUMBER:
                raise StoreError(f"the store at {self._directory.parent} has no segment numbers left")
            numbers.append(self._append_one(cache, entry, last[entry.group]))
        self._put_all(cache, rows)
        return numbers

    def _append_one(self, cache: diskcache.Cache, entry: Entry, number: int) -> int:
        name = entry.group + NUMBER.pack(number)
        rows = ((VALUES + name, entry.values), (INDEX + name, entry.index))
        for key, body in (*rows, (COUNTER + entry.group, NUMBER.pack(number))):
            cache.set(key, seal(key, body, self._key), retry=False)
        return number

    def _finds(self, group: bytes, number: int) -> bool:
        """Whether a process that knows nothing would find the segment that was just appended.

        It would not if the database's index were damaged and out of order, of which SQLite says nothing.
        """
        low, high = (INDEX + group + NUMBER.pack(n) for n in (0, number))
        query = "SELECT key FROM Cache WHERE key >= ? AND key <= ? AND raw = 1 ORDER BY key"
        found = [key for (key,) in self._select(query, (low, high))]
        return bool(found) and found[-1] == high and found == sorted(found)

    def _last_number(self, group: bytes) -> int:
        """The highest number that a segment of `group` has or had; a damaged counter does not hide any."""
        low, high = (INDEX + group + NUMBER.pack(n) for n in (0, _LAST_NUMBER))
        query = "SELECT key FROM Cache WHERE key >= ? AND key <= ? AND raw = 1 ORDER BY key DESC LIMIT 1"
        found = [key for (key,) in self._select(query, (low, high)) if isinstance(key, bytes)]
        highest = NUMBER.unpack(found[0][-8:])[0] if found and low <= found[0] <= high else 0
        counter = None
        with contextlib.suppress(IntegrityError):
            counter = self.get(COUNTER + group)
        known = NUMBER.unpack(counter)[0] if counter and len(counter) == NUMBER.size else 0
        return max(highest, known)

    def _write(self, action: Callable[[diskcache.Cache], T]) -> T:
        """Do something in one transaction; once more, if what was damaged could be put out of the way."""
        try:
            with self._writing() as cache:
                return action(cache)
        except DamagedError:
            with self._writing() as cache:
                return action(cache)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[diskcache.Cache]:
        if self._readonly:
            raise StoreError(f"the store at {self._directory.parent} is read-only")
        with self._lock:
            try:
                cache = self._open_cache()
                with cache.transact(retry=False):
                    self._locked_until = 0.0
                    yield cache
                self._relax()
            except (diskcache.Timeout, sqlite3.Error, OSError, UnicodeDecodeError) as error:
                if _is_damage(error):
                    if not (_is_one_row(error) and self._drop_undecodable()):
                        self._set_aside()
                    raise DamagedError(
                        f"the ledger of the store at {self._directory.parent} is damaged"
                    ) from error
                self.close()  # a commit that failed leaves diskcache inside its transaction
                self._patience = patience.BRIEF_SECONDS
                raise StoreError(
                    f"cannot write to the store at {self._directory.parent}: {error!r}"
                ) from error

    def _relax(self) -> None:
        """Wait for others again for as long as ever, after a write that went well."""
        if self._patience != patience.BUSY_SECONDS:
            self._patience = patience.BUSY_SECONDS
            self.close()

    def _is_another(self) -> bool:
        """Whether somebody has put another database in the place of the one that is open."""
        try:
            return os.stat(self._database).st_ino != self._inode
        except OSError:
            return False  # it was deleted: what is open can still be read

    def _check_there(self) -> None:
        """See that what is written goes to a database that others can find.

        Raises
        ------
        OSError
            The directory around it has been deleted; making a part of it would leave something that is no store.
        """
        if not self._directory.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, "it has been deleted", str(self._directory.parent))
        is_open = self._open.cache is not None or self._open.reader is not None
        if is_open and (self._is_another() or not (self._directory / "cache.db").exists()):
            self.close()
            self.generation += 1

    def _open_cache(self) -> diskcache.Cache:
        self._after_fork()
        self._check_there()
        if self._open.cache is None:
            self._prepare()
            disk = DurableDisk if self._durable else FramedDisk
            synchronous = 2 if self._durable else 1
            self._open.cache = _Cache(
                self._directory,
                timeout=self._patience,
                disk=disk,
                sqlite_synchronous=synchronous,
                **_SETTINGS,
            )
            self._inode = (self._directory / "cache.db").stat().st_ino
        return self._open.cache

    def _prepare(self) -> None:
        """Make the database's file, for its owner only, or see to it that diskcache can be let near it.

        Raises
        ------
        OSError
            The disk refuses.
        sqlite3.DatabaseError
            It is no database, or one that is not diskcache's; or it is locked, or cannot be written.
        """
        self._directory.mkdir(exist_ok=True, mode=0o700)
        path = self._directory / "cache.db"
        with contextlib.suppress(FileExistsError):
            # Only if it is new: closing a descriptor of it drops the locks that SQLite has on it in this process
            # (https://www.sqlite.org/howtocorrupt.html, section 2.2).
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            if self._durable:
                sync_file(path, self._directory.parent)
        with contextlib.closing(sqlite3.connect(path, timeout=self._patience)) as connection:
            connection.execute("PRAGMA trusted_schema = 0")
            schema.check(connection)
            # diskcache, when it opens a database that takes no writes, waits for a minute.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
            schema.tidy_settings(connection, _SETTINGS)

    def _select(self, query: str, arguments: tuple[object, ...]) -> list[tuple[Any, ...]]:
        return list(self._stream(query, arguments))

    def _stream(self, query: str, arguments: tuple[object, ...]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query as SQLite finds them: all segments at once would be a lot of memory."""
        with self._lock:
            self._after_fork()
            if time.monotonic() < self._locked_until:
                self.unreadable = self._locked
                return
            try:
                reader = self._open.reader or self._open_reader()
                if reader is not None:
                    yield from reader.execute(query, arguments)
            except (sqlite3.DatabaseError, OSError, UnicodeDecodeError) as error:
                if _is_damage(error):
                    self._set_aside()
                    return
                if "no such table" in str(error):  # somebody is just creating the database
                    return
                self.unreadable = f"cannot read the store at {self._directory.parent}: {error!r}"
                if "locked" in str(error):  # by somebody who may have stopped
                    self.close()
                    self._patience = patience.BRIEF_SECONDS
                    self._locked_until = time.monotonic() + patience.LOOK_SECONDS
                    self._locked = self.unreadable

    def _open_reader(self) -> sqlite3.Connection | None:
        path = self._directory / "cache.db"
        if not path.exists():
            return None
        self._inode = path.stat().st_ino
        try:
            self._open.reader = _connect(path, "mode=ro", self._patience)
        except sqlite3.OperationalError as error:
            if not any(words in str(error) for words in ("unable to open", "readonly")):
                raise
            # SQLite cannot make its log beside a database on a read-only disk, where nobody else writes one.
            self._open.reader = _connect(path, "immutable=1", self._patience)
        return self._open.reader

    def _drop_undecodable(self) -> bool:
        """Delete the rows whose file name is no text; return whether that was possible."""
        self.close()
        path = self._directory / "cache.db"
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=patience.BUSY_SECONDS)) as connection:
                connection.create_function("is_text", 1, _is_text, deterministic=True)
                with connection:
                    connection.execute(_DROP_UNDECODABLE)
        except sqlite3.Error:
            return False
        return True

    def _set_aside(self) -> None:
        """Begin a new database: what the old one held is computed again."""
        path = self._directory / "cache.db"
        with self._lock, contextlib.suppress(OSError):
            opened, self._inode = self._inode, 0
            self._open.close()
            if path.stat().st_ino == opened or not opened:  # else another process was faster
                quarantine = self._directory.parent / "quarantine"
                quarantine.mkdir(exist_ok=True, mode=0o700)
                os.rename(self._directory, quarantine / f"ledger-{os.urandom(8).hex()}")
        self.generation += 1

    def _after_fork(self) -> None:
        """Leave alone what a parent process has open: SQLite must not even close that here."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            _INHERITED.append((self._open.cache, self._open.reader))
            self._open.cache = self._open.reader = None
