"""Verify: reads everything in a store, and says what is damaged.

What is damaged can be set aside, so that the next map computes it again: bytes go to the quarantine, and the
calls that need them are taken back. Nothing that is intact is deleted. Memory is some 40 bytes for each time
that a call names a chunk or an object, and nothing per byte.
"""

import contextlib
import os
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.errors import IntegrityError, StoreError
from gristmill.runs import CALLS, HEAD, decode_head
from gristmill.storage.code_record import CodeRecord
from gristmill.storage.ledger import COUNTER, INDEX, NUMBER, RENEWED, VALUES, Ledger
from gristmill.storage.local import CODE, FILES, GONE, OBJECT, LocalStorage
from gristmill.storage.presence import Gate
from gristmill.storage.references import NAME, References, as_bytes, references
from gristmill.storage.rows import Row, Rows
from gristmill.storage.seal import content_checksum, content_hasher
from gristmill.storage.segment import (
    DAMAGED,
    KEY_SIZE,
    Segment,
    Tombstone,
    decode_index,
    encode_tombstone,
    payload_of,
    provenance_of,
)
from gristmill.storage.views import is_mask

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], None]

_BLOCK = 4 << 20
_BATCH_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not what it should be."""

    what: str
    """`"segment"`, `"values"`, `"object"`, `"chunk"`, `"record"`, `"view"`, `"database"` or `"store.json"`."""
    name: str
    """Which one."""
    node: str
    """Whose calls need it; empty where that is not known, or none do."""
    why: str


@dataclass(slots=True)
class VerifyReport:
    """What was found in a store."""

    calls: int = 0
    """Calls on record, those that were taken back included."""
    segments: int = 0
    objects: int = 0
    chunks: int = 0
    links: int = 0
    """Files in views."""
    bytes: int = 0
    """Bytes that were read and verified."""
    orphans: int = 0
    """Objects, chunks, files of the ledger and links that nothing needs; harmless, and collected by `gc`."""
    orphan_bytes: int = 0
    quarantined: int = 0
    """Things that were set aside, now or earlier."""
    repaired: bool = False
    """Whether what is damaged has been set aside."""
    seconds: float = 0.0
    damaged: list[Damage] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        return {"ok": self.ok, **asdict(self)}


def verify(storage: LocalStorage, *, repair: bool = False, progress: Progress | None = None) -> VerifyReport:
    """Read everything in the store.

    Parameters
    ----------
    storage
        The store.
    repair
        Set aside what is damaged, so that the next map computes it again.
    progress
        Called with the bytes that have been read, and with about how many there are.

    Raises
    ------
    StoreError
        With `repair`, the store cannot be written.
    """
    started = time.perf_counter()
    check = _Check(storage, repair=repair, progress=progress or (lambda _done, _total: None))
    made = storage.layout.marker.exists()
    with Gate(storage.layout.collector).closed() if repair and made else contextlib.nullcontext():
        check.run()
    check.report.seconds = time.perf_counter() - started
    return check.report


@dataclass(slots=True)
class _Named:
    """What the segments name, as columns that are joined when everything has been read."""

    found: list[References] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    """Which segment each of them is of."""

    def of_kind(self, dead: Callable[[int, Array], Array], *, objects: bool) -> tuple[Array, Array]:
        """Return the names of one kind, and their owners, without what is named by calls that are `dead`."""
        names, owners = [np.zeros(0, dtype=NAME)], [np.zeros(0, dtype=np.int32)]
        for found, owner in zip(self.found, self.owners, strict=True):
            chosen = (found.objects == objects) & ~dead(owner, found.positions)
            names.append(found.names[chosen])
            owners.append(np.full(np.count_nonzero(chosen), owner, dtype=np.int32))
        return np.concatenate(names), np.concatenate(owners)


class _Check:
    """One pass over a store."""

    def __init__(self, storage: LocalStorage, *, repair: bool, progress: Progress) -> None:
        self.report = VerifyReport()
        self._storage = storage
        self._layout = storage.layout
        self._rows = Rows(storage.layout.ledger, storage.key)
        self._repair = repair
        self._progress = progress
        self._total = 0
        self._segments: list[tuple[bytes, int]] = []
        self._nodes: dict[bytes, str] = {}
        self._named = _Named()
        self._dead: dict[tuple[bytes, int], set[int] | None] = {}
        self._objects: list[bytes] = []
        self._chunks: list[bytes] = []
        self._inodes: set[int] = set()
        self._bad_inodes = {path.stat().st_ino for path, _ in _files(storage.layout.quarantine)}
        self._bad_rows: list[Row] = []
        self._bad_names: set[bytes] = set()
        self._lost: dict[bytes, dict[int, tuple[int, ...] | None]] = {}

    def run(self) -> None:
        """Check everything, and repair it if that was asked for."""
        if self._repair and self._storage.spec.readonly:
            raise StoreError(f"the store at {self._layout.root} is read-only; nothing in it can be repaired")
        if not self._layout.marker.exists():
            return  # nothing has been stored here yet
        self._total = sum(size for _, size in _files(self._layout.root))
        self._check_marker()
        if self._check_database():
            self._check_rows()
            self._check_chunks()
            self._check_names()
        else:
            self._check_chunks()
        self._check_views()
        self._count_orphan_files()
        if self._repair:
            self._repair_rows()
        quarantine = self._layout.quarantine
        self.report.quarantined = len(list(quarantine.iterdir())) if quarantine.exists() else 0
        self.report.repaired = self._repair

    def _say(self, what: str, name: str, why: str, node: str = "") -> None:
        self.report.damaged.append(Damage(what, name, node, why))

    def _read(self, size: int) -> None:
        self.report.bytes += size
        self._progress(self.report.bytes, max(self._total, self.report.bytes))

    def _check_marker(self) -> None:
        if not self._layout.is_marked():
            self._say("store.json", "store.json", "it is not what was written")
            if self._repair:
                spec = self._storage.spec
                self._layout.open(trust=spec.trust, secret=spec.secret)

    # -- the ledger

    def _check_database(self) -> bool:
        """Return whether the table can be read."""
        try:
            problems = self._rows.problems()
        except sqlite3.Error as error:
            problems = [str(error)]
        for problem in problems:
            self._say("database", "cache.db", problem)
        if problems and self._repair:
            salvage(self._storage)
            self._rows = Rows(self._layout.ledger, self._storage.key)
            return True
        return not problems

    def _check_rows(self) -> None:
        for row in self._rows.under(CODE):
            self._learn_node(row)
        values: set[bytes] = set()
        for row in self._rows:
            if row.key[:1] == VALUES:
                values.add(row.key[1:])
            try:
                body = self._rows.body(row)
                self._read(len(body))
                self._check_row(row, body)
            except (IntegrityError, struct.error) as error:
                self._bad_rows.append(row)
                self._say_row(row, str(error))
        for owner, (group, number) in enumerate(self._segments):
            if group + NUMBER.pack(number) not in values and self._dead.get((group, number), ()) is not None:
                self._lose(group, number, None)
                self._say("values", str(number), "they are missing", self._node_of(owner))

    def _learn_node(self, row: Row) -> None:
        with contextlib.suppress(IntegrityError):
            self._nodes[row.key[1 + KEY_SIZE :]] = CodeRecord.decode(self._rows.body(row)).node

    def _check_row(self, row: Row, body: bytes) -> None:
        kind, rest = row.key[:1], row.key[1:]
        if kind == INDEX:
            self._check_index(rest[:KEY_SIZE], NUMBER.unpack(rest[KEY_SIZE:])[0], body)
        elif kind == VALUES:
            self._check_values(rest, body)
        elif kind == OBJECT:
            self.report.objects += 1
            if content_checksum(body, self._storage.key) != rest:
                raise IntegrityError("it does not match its checksum")
            self._objects.append(rest)
        elif kind == CODE:
            CodeRecord.decode(body)
        elif kind == HEAD:
            decode_head(body)
        elif kind not in (CALLS, COUNTER, FILES, RENEWED, GONE):
            raise IntegrityError("a key that gristmill never writes")

    def _check_index(self, group: bytes, number: int, body: bytes) -> None:
        entry = decode_index(number, body)
        if isinstance(entry, Tombstone):
            self._bury(group, entry)
            return
        self.report.segments += 1
        self.report.calls += entry.count
        owner = len(self._segments)
        self._segments.append((group, number))
        with contextlib.suppress(IntegrityError):  # what is wrong with the values is said where they are read
            found = references(entry, partial(self._values, group, number))
            if len(found.names):
                self._named.found.append(found)
                self._named.owners.append(owner)

    def _bury(self, group: bytes, tombstone: Tombstone) -> None:
        for number, positions in tombstone.dead.items():
            before = self._dead.get((group, number), set())
            whole = positions is None or before is None
            self._dead[group, number] = None if whole else {*(before or ()), *(positions or ())}

    def _is_dead(self, owner: int, positions: Array) -> Array:
        """The mask of the calls of a segment that were taken back."""
        dead = self._dead.get(self._segments[owner], set())
        if dead is None:
            return np.ones(len(positions), dtype=bool)
        return np.isin(positions, list(dead))

    def _values(self, group: bytes, number: int) -> bytes:
        row = self._rows.get(VALUES + group + NUMBER.pack(number))
        if row is None:
            raise IntegrityError("the values are missing")
        return self._rows.body(row)

    def _check_values(self, rest: bytes, body: bytes) -> None:
        group, number = rest[:KEY_SIZE], NUMBER.unpack(rest[KEY_SIZE:])[0]
        row = self._rows.get(INDEX + rest)
        if row is None:
            self.report.orphans += 1
            self.report.orphan_bytes += len(body)
            return
        try:
            entry = decode_index(number, self._rows.body(row))
        except IntegrityError:
            return  # the index is damaged, and that is said where it is read
        if isinstance(entry, Segment):
            for output in range(len(entry.codecs)):
                payload_of(body, output, entry.keys)
            self._nodes.setdefault(group, provenance_of(body, len(entry.codecs)).node)

    def _say_row(self, row: Row, why: str) -> None:
        kind, rest = row.key[:1], row.key[1:]
        group = rest[:KEY_SIZE]
        node = self._nodes.get(group, group.hex() if kind in (INDEX, VALUES) else "")
        if kind == INDEX:
            self._say("segment", str(int.from_bytes(rest[KEY_SIZE:], "big")), why, node)
        elif kind == VALUES:
            number = NUMBER.unpack(rest[KEY_SIZE:])[0]
            self._lose(group, number, None)
            self._say("values", str(number), why, node)
        elif kind == OBJECT:
            return  # it is missing from what the calls name, and that is said once, with the node
        else:
            self._say("record", row.key[:40].hex(), why)

    # -- chunks

    def _check_chunks(self) -> None:
        for path, size in _files(self._layout.chunks):
            self._inodes.add(path.stat().st_ino)
            self.report.chunks += 1
            try:
                content = _checksum(path, self._storage.key)
            except OSError as error:
                content = str(error).encode()
            self._read(size)
            if content.hex() == path.name:
                self._chunks.append(content)
            else:
                self._inodes.discard(path.stat().st_ino)
                self._bad_inodes.add(path.stat().st_ino)
                with contextlib.suppress(ValueError):
                    self._bad_names.add(bytes.fromhex(path.name))
                if self._repair:
                    self._quarantine(path)

    def _check_names(self) -> None:
        """Compare what is named with what is there."""
        for objects, there in ((True, self._objects), (False, self._chunks)):
            names, owners = self._named.of_kind(self._is_dead, objects=objects)
            have = np.frombuffer(b"".join(there), dtype=NAME)
            absent = ~np.isin(names, have)
            self._say_absent(names[absent], owners[absent], objects=objects)
            orphans = have[~np.isin(have, names)]
            self.report.orphans += len(orphans)
            self.report.orphan_bytes += sum(self._size(name, objects=objects) for name in as_bytes(orphans))
        bad = np.frombuffer(b"".join(sorted(self._bad_names)), dtype=NAME)
        for name in as_bytes(bad[~np.isin(bad, self._named.of_kind(self._is_dead, objects=False)[0])]):
            self._say("chunk", name.hex(), "it does not match its checksum; nothing names it")

    def _say_absent(self, names: Array, owners: Array, *, objects: bool) -> None:
        what = "object" if objects else "chunk"
        unique, first = np.unique(names, return_index=True)
        bad = self._bad_names | {row.key[1:] for row in self._bad_rows if row.key[:1] == OBJECT}
        for checksum, at in zip(as_bytes(unique), first, strict=True):
            damaged = checksum in bad
            why = "it does not match its checksum" if damaged else "it is missing"
            self._say(what, checksum.hex(), why, self._node_of(int(owners[at])))
        if len(names):
            self._lose_owners(np.unique(owners), names)

    def _lose_owners(self, owners: Array, names: Array) -> None:
        """Note which calls of some segments name what is not there."""
        for owner in owners.tolist():
            group, number = self._segments[owner]
            row = self._rows.get(INDEX + group + NUMBER.pack(number))
            entry = decode_index(number, self._rows.body(row)) if row is not None else None
            if isinstance(entry, Segment):
                values = partial(self._values, group, number)
                with contextlib.suppress(IntegrityError):  # then they are lost all the same
                    found = references(entry, values)
                    self._lose(group, number, found.positions[np.isin(found.names, names)])

    def _size(self, name: bytes, *, objects: bool) -> int:
        if not objects:
            return self._storage.chunks.path(name).stat().st_size
        row = self._rows.get(OBJECT + name)
        return len(self._rows.body(row)) if row is not None else 0

    def _node_of(self, owner: int) -> str:
        group = self._segments[owner][0]
        return self._nodes.get(group, group.hex())

    def _lose(self, group: bytes, number: int, positions: Array | None) -> None:
        dead = self._lost.setdefault(group, {})
        if positions is None or dead.get(number, ()) is None:
            dead[number] = None
        else:
            dead[number] = tuple(sorted({*(dead.get(number) or ()), *positions.tolist()}))

    # -- views and litter

    def _check_views(self) -> None:
        for path, _ in _files(self._layout.arrays):
            if not path.name.startswith("c.") or is_mask(path):
                continue
            self.report.links += 1
            inode = path.stat().st_ino
            if inode in self._inodes or (_is_copy(path) and self._is_right_copy(path)):
                continue
            if inode in self._bad_inodes or _is_copy(path):
                self._say("view", str(path.relative_to(self._layout.arrays)), "it shows a damaged element")
            else:
                self.report.orphans += 1
            if self._repair:
                path.unlink(missing_ok=True)

    def _is_right_copy(self, path: Path) -> bool:
        return self._storage.chunks.path(_checksum(path, self._storage.key)).exists()

    def _count_orphan_files(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            for path in self._rows.orphans():
                self.report.orphans += 1
                with contextlib.suppress(OSError):
                    self.report.orphan_bytes += path.stat().st_size

    # -- repair

    def _repair_rows(self) -> None:
        for row in self._bad_rows:
            with contextlib.suppress(IntegrityError):
                self._keep_aside(row)
        self._rows.remove([row.key for row in self._bad_rows if row.key])
        for group, dead in self._lost.items():
            self._storage.ledger.append([encode_tombstone(group, dead, DAMAGED)])
        self._storage.refresh()

    def _keep_aside(self, row: Row) -> None:
        data = row.value if isinstance(row.value, bytes) else None
        if data is None and row.filename is not None:
            with contextlib.suppress(OSError):
                data = (self._layout.ledger / row.filename).read_bytes()
        self._layout.quarantine.mkdir(exist_ok=True, mode=0o700)
        (self._layout.quarantine / f"row-{row.key.hex()[:80]}").write_bytes(data or b"")

    def _quarantine(self, path: Path) -> None:
        self._layout.quarantine.mkdir(exist_ok=True, mode=0o700)
        with contextlib.suppress(OSError):
            os.rename(path, self._layout.quarantine / path.name)


def salvage(storage: LocalStorage) -> int:
    """Set the damaged database aside, and go on with one that has all rows that can still be read.

    Returns
    -------
    How many rows there are.
    """
    directory = storage.scratch / "ledger"
    made = Ledger(directory, durable=storage.spec.durable, key=storage.key)
    kept, size, batch = 0, 0, dict[bytes, bytes]()
    rows = Rows(storage.layout.ledger, storage.key)
    for row in rows.readable():
        try:
            batch[row.key] = body = rows.body(row)
        except IntegrityError:
            continue
        kept, size = kept + 1, size + len(body)
        if size > _BATCH_BYTES:
            made.put_all(batch)
            batch, size = {}, 0
    made.put_all(batch)
    made.close()
    storage.ledger.replace_by(directory)
    storage.refresh()
    return kept


def _checksum(path: Path, key: bytes) -> bytes:
    """The checksum of a chunk, read block by block."""
    state, block = content_hasher(key), memoryview(bytearray(_BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            state.update(block[:count])
    return state.digest()


def _files(root: Path) -> Iterator[tuple[Path, int]]:
    """Every file below `root` with its size, folder by folder."""
    for folder, inner, names in os.walk(root):
        inner.sort()
        for name in sorted(names):
            path = Path(folder, name)
            with contextlib.suppress(OSError):  # it has just been deleted
                yield path, path.stat().st_size


def _is_copy(path: Path) -> bool:
    """Whether a view's file was copied: a link has the permissions of its chunk, which nobody may write."""
    return bool(path.stat().st_mode & 0o200)
