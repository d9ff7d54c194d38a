"""The local store: ledger, chunks and claims of one directory and its refuge, behind one object.

It knows stored forms, locators and checksums; it does not know nodes, plans or executors.
"""

import contextlib
import pickle
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.errors import IntegrityError, StoreError
from gristmill.identity.files import Dir, File
from gristmill.identity.memo import StatMemo, is_block, merged
from gristmill.storage.chunks import ChunkFiles, DamagedChunkError
from gristmill.storage.claims import Claims
from gristmill.storage.code_record import CodeRecord
from gristmill.storage.columns import (
    NUMERIC,
    Packed,
    as_array,
    decode_exact,
    encode_exact,
    holds_files,
    unpack,
)
from gristmill.storage.compress import Compressor
from gristmill.storage.elements import (
    PACK_LIMIT,
    ChunkRef,
    Filed,
    Made,
    ObjectRef,
    Pickled,
    is_chunkable,
    is_exact,
    pickle_value,
    to_packed,
)
from gristmill.storage.index import KeyIndex
from gristmill.storage.kept import is_there, keep
from gristmill.storage.layout import NO_STORE, Layout, is_refusal
from gristmill.storage.made import MadeValues
from gristmill.storage.patience import Waiter
from gristmill.storage.presence import Gate, Pin
from gristmill.storage.refuge import Refuge, name_refuge
from gristmill.storage.seal import NO_KEY, Secret, content_checksum
from gristmill.storage.segment import (
    DAMAGED,
    KEY_SIZE,
    Provenance,
    Segment,
    Tombstone,
    encode_segment,
    encode_tombstone,
    payload_of,
    provenance_of,
)
from gristmill.storage.spool import Spool

if TYPE_CHECKING:
    from gristmill.storage.ledger import Ledger

Array = np.ndarray[Any, Any]

_CACHE_BYTES = 64 * 1024 * 1024
"""Packed payloads kept decoded in memory, so that neighbours are not read and verified again."""

_WORKER_CACHE_BYTES = 16 * 1024 * 1024
"""The same in a process that is one of many."""

_WORKER_SORTED = 1 << 17
"""Calls of a group that such a process keeps in order in memory, in 3 MiB."""

OBJECT, CODE, FILES, GONE = b"o", b"c", b"f", b"g"
"""What the keys of rows start with that are neither segments nor records of runs."""

_PICKLE = b"\x80"
"""How every pickle begins (protocol 2 and later)."""

_FILES_NAME = 8
"""Bytes in the name of a row of file hashes: the time, in nanoseconds."""

_FILES_ROWS = 16
"""Rows of file hashes that are merged into one."""


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """How to open the same store in another process."""

    location: str
    durable: bool = False
    readonly: bool = False
    trust: bool = False
    verify: bool = True
    compressor: str = ""
    allow_pickle: bool = True
    secret: Secret | None = None
    refuge: str = ""
    """Where what the store does not take goes; named by the process that opens the store first."""
    absent: bool = False
    """Whether that process could not open the store, so that everything goes to the refuge."""

    def resolved(self) -> "StoreSpec":
        """Return it with the secret of the environment, where it has none."""
        return self if self.secret is not None else replace(self, secret=Secret.from_environment())


@dataclass(frozen=True, slots=True)
class CallBlock:
    """Calls of one group that have been computed, ready to be appended."""

    group: bytes
    keys: bytes
    """16 bytes a call."""
    digests: tuple[bytes, ...]
    """For each output, 16 bytes a call."""
    columns: tuple[Sequence[object], ...]
    """For each output, the stored forms."""
    provenance: Provenance


class LocalStorage:
    """One store in a directory of this machine.

    Parameters
    ----------
    spec
        Where it is and how to treat it.
    make
        False to take a directory that is no store yet for an empty one, and not to make it.

    Raises
    ------
    StoreError
        The directory must not be used; see `Layout.open`. One that cannot be written is no reason.
    """

    def __init__(self, spec: StoreSpec, *, make: bool = True) -> None:
        from gristmill.storage.homeward import Homeward
        from gristmill.storage.ledger import Ledger
        from gristmill.storage.places import Chunks, Ledgers, Shelter

        if not spec.refuge:  # else it has been opened before, by a process with an environment of its own
            spec = spec.resolved()
        self.layout = Layout(Path(spec.location).absolute())
        self.spec = spec if spec.refuge else replace(spec, refuge=name_refuge(self.layout.root))
        self.refuge = Refuge(self.spec.refuge, owned=not spec.refuge)
        self.shelter = Shelter(self.layout, self.refuge, readonly=spec.readonly)
        self._is_first = not spec.refuge
        self._identity = NO_STORE
        self._key = self._open() if make or self.layout.exists else NO_KEY
        self._compressor = Compressor.parse(spec.compressor) if spec.compressor else None
        store = Ledger(self.layout.ledger, durable=spec.durable, readonly=spec.readonly, key=self._key)
        self._ledger = Ledgers(store, self.shelter, key=self._key)
        self._chunks = Chunks(
            self.layout, self.shelter, durable=spec.durable, verify=spec.verify, key=self._key
        )
        self._homeward = Homeward(self._ledger, self._chunks, self.shelter, self._moved)
        self._scratch: Path | None = None
        self._indexes: dict[bytes, KeyIndex] = {}
        self._spool = Spool(lambda: self.scratch)
        self._version: tuple[int, ...] = ()
        self._generation = 0
        self._files_known = 0
        self.epoch = 0
        """Grows whenever there may be more to find than before, whoever in this process noticed."""
        self.bytes_written = 0
        """Bytes of chunks, objects and segments that this process has added."""
        self._most_sorted = 2**62
        self._cache_bytes = _CACHE_BYTES
        self._lock = threading.RLock()
        self._scratch_lock = (
            threading.RLock()
        )  # its own: an index asks for a file while others wait for the index
        self._columns = _ColumnCache(self._cache_bytes)
        self._made = MadeValues()
        self._gate_waiter = Waiter()

    @property
    def key(self) -> bytes:
        """What everything is sealed with; `NO_KEY` in a store without a secret."""
        return self._key

    @property
    def scratch(self) -> Path:
        """A directory for temporary files, removed when the store is closed or this process is gone."""
        with self._scratch_lock:
            if self._scratch is None:
                self._scratch = self.shelter.write(lambda: self._chunks.scratch, lambda: self.refuge.scratch)
            return self._scratch

    def move_scratch(self, error: OSError) -> bool:
        """Have `scratch` elsewhere, because of an error in writing there; return whether that is possible."""
        with self._scratch_lock:
            if self._scratch is None or self._scratch.is_relative_to(self.refuge.path):
                return False
            self._scratch = None
            self.shelter.avoid(f"cannot write to the store at {self.layout.root}: {error}")
            return True

    @property
    def ledger(self) -> "Ledger":
        """The rows of the store itself, for who looks after it."""
        return self._ledger.store

    @property
    def gate(self) -> Gate:
        """What keeps look-ups and deletions apart."""
        # A directory that is no store yet must stay one that can be made a store.
        layout = self.layout if self.shelter.is_opened else self.refuge.layout
        return Gate(layout.gate, make=not self.spec.readonly, waiter=self._gate_waiter)

    @property
    def own_scratch(self) -> Path:
        """A directory of the store itself for temporary files, never one of the refuge.

        Raises
        ------
        StoreError
            The file system refuses.
        """
        return self._chunks.scratch

    def pin(self, run_id: str) -> Pin | None:
        """Say in the store that a run goes on; None where nothing can be written."""
        if self.spec.readonly or not self.shelter.is_opened:
            return None
        with contextlib.suppress(OSError, StoreError):  # a full disk: what is collected meanwhile is a miss
            return Pin(self.own_scratch, run_id)
        return None

    @property
    def chunks(self) -> ChunkFiles:
        """The chunk files."""
        return self._chunks

    def claims(self, friend: int = 0) -> Claims:
        """Return a new owner in the claim table; it is a file and a thread once it has claimed something."""
        is_kept_out = self.spec.readonly or not (self.shelter.is_opened and self.layout.exists)
        layout = self.refuge.layout if is_kept_out else self.layout
        return Claims(layout.claims, friend=friend)

    def index(self, group: bytes, outputs: int | None = None) -> KeyIndex:
        """Return the key index of `group`, read from the ledger when it is asked for first.

        Parameters
        ----------
        group
            The call prefix.
        outputs
            How many outputs its calls have, where the caller relies on that.
        """
        with self._lock:
            index = self._indexes.get(group)
            if index is None:
                index = self._indexes[group] = KeyIndex(self._ledger, group, self._spool, self._most_sorted)
                index.refresh()
            if outputs is not None:
                index.expect(outputs)
            return index

    @property
    def is_current(self) -> bool:
        """Whether the store is the one that was opened, whole, and nothing was appended since the last look at it."""
        return (
            self.layout.identity() == self._identity != NO_STORE
            and self._ledger.version() == self._version
            and self._ledger.generation == self._generation
            and (len(self._version) == 1 or self.is_whole)  # one ledger: there is no refuge
        )

    def refresh(self) -> bool:
        """Take in what others have appended since the last call; return whether there was anything."""
        with self._lock:
            version = self._ledger.version()
            if self._ledger.generation != self._generation:
                self._start_again()
            elif version == self._version:
                return False
            self._version = version
            self.epoch += 1
            if not self._refresh_indexes():  # the database does not find what was put there
                self._ledger.rebuild()
                if self._ledger.generation != self._generation:
                    self._start_again()
                    self._refresh_indexes()
            return True

    def _refresh_indexes(self) -> bool:
        return False not in [index.refresh() for index in self._indexes.values()]

    def _start_again(self) -> None:
        self._generation = self._ledger.generation
        for index in self._indexes.values():
            index.restart()

    def keep(self, value: object, checksum: bytes | None = None) -> object:
        """Return the stored form of `value`, after writing its chunk or object if it has one.

        Parameters
        ----------
        value
            What a function returned, or its pickle.
        checksum
            xxh3_128 of the C-order buffer, where the caller has just hashed an array.

        Raises
        ------
        StoreError
            The value has to be pickled, and cannot or must not be; or the file system refuses.
        """
        packed = to_packed(value)
        if packed is not None or value is None:
            return packed
        if type(value) is np.ndarray and is_chunkable(value):
            return self._keep_chunk(np.ascontiguousarray(value), checksum)
        if is_exact(value):
            return self._keep_object(encode_exact(value))
        self.check_pickle(value)
        data = value.data if type(value) is Pickled else pickle_value(value)
        return Pickled(data) if len(data) <= PACK_LIMIT else self._keep_object(data)

    def check_pickle(self, value: object) -> None:
        """Refuse a value that has to be pickled, where nothing may be.

        Raises
        ------
        StoreError
            The store was opened with `allow_pickle=False`.
        """
        if not self.spec.allow_pickle:
            what = "value" if type(value) is Pickled else type(value).__qualname__
            raise StoreError(
                f"a {what} can only be stored as a pickle, and this store has allow_pickle=False: "
                "return numbers, text, bytes or arrays of them, in several outputs if need be"
            )

    def keep_files(self, value: Pickled, places: Sequence[tuple[File | Dir, bytes]]) -> Filed:
        """Return the stored form of a value with files in it, after copying their content to the store.

        Parameters
        ----------
        places
            The files and folders, with the hashes of their content.

        Raises
        ------
        InputError
            One of them changes meanwhile.
        StoreError
            The file system refuses.
        """
        self.check_pickle(value)
        kept = []
        for place, content in dict(places).items():
            one, written = keep(self.chunks, place, content)
            kept.append(one)
            self.bytes_written += written
        return Filed(value.data, tuple(kept))

    def edited(self, index: KeyIndex, locators: Array, *, repair: bool) -> Array:
        """Return the mask of the calls at `locators` whose files are not what they returned.

        Parameters
        ----------
        repair
            Put back files that are missing.
        """
        edited = np.zeros(len(locators), dtype=bool)
        if not self.spec.allow_pickle:  # then nobody is handed these values, and no file is put anywhere
            return edited
        for k in np.flatnonzero(index.filed(locators)).tolist():
            segment, _ = index.locate(int(locators[k]))
            for output, codec in enumerate(segment.codecs):
                if holds_files(codec) and not edited[k]:
                    edited[k] = not self._is_there(index, locators[k : k + 1], output, repair=repair)
        return edited

    def append(self, blocks: Sequence[CallBlock]) -> list[Segment]:
        """Append one segment per block, all in one transaction, and take them into the indexes.

        Raises
        ------
        StoreError
            Neither the store nor the refuge takes them; nothing was appended.
        """
        encoded = [
            encode_segment(block.group, block.keys, block.digests, block.columns, block.provenance)
            for block in blocks
        ]
        numbers = self._ledger.append([entry for entry, _ in encoded], outside=self._refers_outside(blocks))
        self.bytes_written += sum(len(entry.index) + len(entry.values) for entry, _ in encoded)
        with self._lock:
            self.epoch += 1
            segments = [replace(segment, number=n) for (_, segment), n in zip(encoded, numbers, strict=True)]
            for block, segment in zip(blocks, segments, strict=True):
                if (index := self._indexes.get(block.group)) is not None:
                    index.add(segment)
            return segments

    def forms(self, index: KeyIndex, locators: Array, output: int) -> list[Any]:
        """Return the stored forms of `output` at `locators`, verified.

        Raises
        ------
        IntegrityError
            A segment's values are missing or damaged; `quarantine` what it names.
        """
        forms: list[Any] = []
        for segment, _, positions in index.runs(locators):
            column = self._column(index.group, segment, output)
            first, count = int(positions[0]), len(positions)
            if int(positions[-1]) == first + count - 1 and (count < 3 or (np.diff(positions) == 1).all()):
                forms.extend(column[first : first + count])
            else:
                forms.extend([column[k] for k in positions.tolist()])
        return forms

    def form(self, index: KeyIndex, locator: int, output: int) -> Any:
        """Return the stored form of `output` of one call; as `forms`."""
        segment, position = index.locate(locator)
        return self._column(index.group, segment, output)[position]

    def array(self, index: KeyIndex, locators: Array, output: int) -> Array | None:
        """Return packed numbers at `locators` as one array, or None where they are not all of one kind."""
        runs = list(index.runs(locators))
        if not runs or any(segment.codecs[output] != runs[0][0].codecs[output] for segment, _, _ in runs):
            return None
        if runs[0][0].codecs[output]["kind"] not in NUMERIC:
            return None
        parts = []
        for segment, _, positions in runs:
            part = as_array(self._packed(index.group, segment, output), segment.count)
            parts.append(part[positions])
        return np.concatenate(parts)

    def value(self, form: object) -> Any:
        """Return the value of a stored form: a private, plain, writable one.

        Raises
        ------
        IntegrityError
            Its chunk or object is missing or damaged.
        StoreError
            It is a pickle, and the store was opened with `allow_pickle=False`.
        """
        match form:
            case Pickled(data) | Filed(data):
                return self._unpickled(data)
            case ChunkRef():
                return self.chunks.read(form)
            case ObjectRef(checksum):
                body = self._object(checksum)
                return self._unpickled(body) if body[:1] == _PICKLE else decode_exact(body)
            case np.ndarray():
                return form.copy()
            case Made():
                return self._made.get(form)
        return form

    def keep_made(self, form: Made, value: object) -> None:
        """Hold a value that is not stored, for as long as few others are made after it."""
        self._made.put(form, value)

    def check(self, form: object) -> None:
        """Verify the chunk or object of a stored form, without making a value of it.

        Raises
        ------
        IntegrityError
            It is missing or damaged.
        """
        match form:
            case ChunkRef():
                self.chunks.read(form, verify=True)
            case ObjectRef(checksum):
                self._object(checksum)

    def digests(self, index: KeyIndex, locators: Array, output: int) -> Array:
        """Return the output digests at `locators` as 16-byte items."""
        return index.digests(locators, output)

    def provenance(self, index: KeyIndex, segment: Segment) -> Provenance:
        """Return what the calls of `segment` were given."""
        body = self._ledger.values(index.group, segment.number)
        if body is None:
            raise IntegrityError(f"the values of segment {segment.number} are missing")
        return provenance_of(body, len(segment.codecs))

    def remembered_files(self) -> list[bytes]:
        """Return what is known of files, as `StatMemo` takes it; what cannot be read is left out."""
        return [body for _, body in self.ledger.under(FILES, _FILES_NAME) if body and is_block(body)]

    def remember_files(self, memo: StatMemo) -> None:
        """Keep what `memo` has learned since the last time, if the store takes it now."""
        block, self._files_known = memo.added(self._files_known)
        if block:
            self.shelter.spare(lambda: self._put_files(block))

    def describe(self, record: CodeRecord, group: bytes) -> None:
        """Keep the code record of a group, unless there is one, if the store takes it now."""
        key = CODE + record.place + group
        if self.ledger.get(key) is None:
            self.shelter.spare(lambda: self.ledger.put(key, record.encode()))

    def note(self, rows: Mapping[bytes, bytes]) -> bool:
        """Put rows into the store's ledger that nobody will miss; return whether it has taken them."""
        return self.shelter.attempt(lambda: self.ledger.put_all(rows))

    def descriptions(self, place: bytes) -> dict[bytes, CodeRecord]:
        """Return the code record of each group of the node at `place`; what cannot be read is left out."""
        found: dict[bytes, CodeRecord] = {}
        for group, body in self.ledger.under(CODE + place, KEY_SIZE):
            with contextlib.suppress(IntegrityError):
                found[group] = CodeRecord.decode(body or b"")
        return found

    def quarantine(self, index: KeyIndex, locators: Array, output: int) -> None:
        """Take back the calls at `locators`, because the bytes of their `output` are lost.

        Damaged chunks are moved aside; where a whole segment cannot be read, all its calls are taken back.
        """
        dead: dict[int, tuple[int, ...] | None] = {}
        for segment, _, positions in index.runs(np.sort(locators)):
            dead[segment.number] = tuple(positions.tolist())
            try:
                column = self._column(index.group, segment, output)
            except IntegrityError:
                dead[segment.number] = None
                continue
            for position in positions.tolist():
                self._set_aside(column[position])
        self._bury(index, dead, DAMAGED)

    def rebuild(self) -> None:
        """Have the ledger find again what is in it, after something that was put there was not found."""
        self._ledger.rebuild()
        self.refresh()

    def take_back(self, index: KeyIndex, locators: Array, why: str) -> None:
        """Take back the calls at `locators`, whose bytes are not lost."""
        runs = index.runs(np.sort(locators))
        self._bury(index, {segment.number: tuple(at.tolist()) for segment, _, at in runs}, why)

    def _bury(self, index: KeyIndex, dead: Mapping[int, tuple[int, ...] | None], why: str) -> None:
        number = self._ledger.append([encode_tombstone(index.group, dead, why)])[0]
        with self._lock:
            index.bury(Tombstone(number, dead, why))

    def _is_there(self, index: KeyIndex, locator: Array, output: int, *, repair: bool) -> bool:
        try:
            form = self.forms(index, locator, output)[0]
            places = form.places if isinstance(form, Filed) else ()
            return all(is_there(self.chunks, place, repair=repair) for place in places)
        except IntegrityError as error:
            if isinstance(error, DamagedChunkError):
                self.chunks.quarantine(error.checksum, self.layout.quarantine)
            return False

    def _set_aside(self, form: object) -> None:
        if isinstance(form, ChunkRef):
            self.chunks.quarantine(form.checksum, self.layout.quarantine)
        elif isinstance(form, ObjectRef):
            self._ledger.delete([OBJECT + form.checksum])

    def reopen(self) -> None:
        """Start anew if somebody has deleted the directory, as people do to reset a cache."""
        if self.spec.absent and not self._is_first:
            return  # whoever opened it first tries again
        with (
            self._lock
        ):  # several threads may begin runs at once: what one has opened is no news to the others
            now = self.layout.identity()
            is_same = now[:2] == self._identity[:2] != NO_STORE[:2]
            # A marker that is damaged is no new one: those are whole when they appear.
            if is_same and (now == self._identity or not self.layout.is_marked()):
                return
            self.close()
            self._key = self._open()
            self._ledger.use(self._key)
            self._chunks.use(self._key)
            self._homeward.forget()
            self._spool = Spool(lambda: self.scratch)
            for index in self._indexes.values():  # which runs in other threads may be using
                index.restart(self._spool)
            self._columns = _ColumnCache(self._cache_bytes)
            self._version = ()

    @property
    def is_whole(self) -> bool:
        """Whether all that was computed is in the store itself, and nothing in the refuge alone."""
        return self._homeward.is_done

    def move_home(self) -> None:
        """Move what is in the refuge into the store, as far as that takes it."""
        if not self.spec.readonly:
            self._homeward.move()

    def bound_memory(self) -> None:
        """Hold little in memory, in a process that is one of many; before anything is looked up."""
        self._most_sorted, self._cache_bytes = _WORKER_SORTED, _WORKER_CACHE_BYTES
        self._columns = _ColumnCache(self._cache_bytes)

    def close(self) -> None:
        """Close files."""
        self._ledger.close()
        self._chunks.close()
        self.refuge.close()
        self._scratch = None

    def _open(self) -> bytes:
        """Open the store, if that is possible, and return the key of what goes to it and to the refuge."""
        spec, salt, opened = self.spec, self.refuge.salt, False
        key = NO_KEY
        if self._is_first or not spec.absent:  # else the key is that of whoever opened it first
            try:
                key = self.layout.open(
                    readonly=spec.readonly, trust=spec.trust, secret=spec.secret, salt=salt
                )
                opened = True
            except StoreError as error:
                if not is_refusal(error.__cause__):
                    raise
                self.shelter.avoid(error)
        self.shelter.is_opened = opened
        self._identity = self.layout.identity() if opened else NO_STORE
        self.spec = replace(spec, absent=not opened)
        if not opened and spec.secret is not None:
            return spec.secret.key(salt)
        return key

    def _moved(self, group: bytes, number: int, to: int) -> None:
        """Take in that a segment of the refuge is in the store now."""
        with self._lock:
            if (index := self._indexes.get(group)) is not None:
                index.rename(number, to)

    def _refers_outside(self, blocks: Sequence[CallBlock]) -> bool:
        """Whether anything in `blocks` refers to what is only in the refuge."""
        from gristmill.storage.places import references

        outside = self.shelter.names
        if not outside:
            return False
        forms = (form for block in blocks for column in block.columns for form in column)
        return any(name in outside for name in references(forms))

    def _put_files(self, block: bytes) -> None:
        rows = self.ledger.under(FILES, _FILES_NAME)
        self.ledger.put(FILES + _name_now(), block)
        if len(rows) >= _FILES_ROWS:
            known = [body for _, body in rows if body and is_block(body)]
            self.ledger.put(FILES + _name_now(), merged([*known, block]))
            self.ledger.delete([FILES + name for name, _ in rows])

    def _has_object(self, checksum: bytes) -> bool:
        key = OBJECT + checksum
        if not self.shelter.is_open:
            return checksum in self.shelter.names
        try:
            # A collector that has found nothing that names it yet must know that something soon will.
            return self.ledger.get(key) is not None and self._ledger.renew(key)
        except IntegrityError:
            return False  # it is damaged, and is put again

    def _keep_chunk(self, array: Array, checksum: bytes | None) -> ChunkRef:
        ref, written = self.chunks.keep(array, self._compressor, checksum)
        self.bytes_written += written
        return ref

    def _keep_object(self, body: bytes) -> ObjectRef:
        name = content_checksum(body, self._key)
        if not self._has_object(name):
            self._ledger.put(OBJECT + name, body)
            self.bytes_written += len(body)
        return ObjectRef(name)

    def _unpickled(self, data: bytes) -> Any:
        if not self.spec.allow_pickle:
            raise StoreError(
                f"a value in the store at {self.layout.root} is a pickle, and it was opened with allow_pickle=False, "
                "so that it is not loaded. Open the store without that option if you trust whoever wrote to it"
            )
        return pickle.loads(data)  # noqa: S301 - the store's owner is the user (see Layout.open)

    def _object(self, checksum: bytes) -> bytes:
        data = self._ledger.get(OBJECT + checksum)
        if data is None or content_checksum(data, self._key) != checksum:
            raise IntegrityError(f"the object {checksum.hex()} is missing or damaged")
        return data

    def _packed(self, group: bytes, segment: Segment, output: int) -> Packed:
        if segment.codecs[output]["kind"] in ("chunk", "none"):
            return segment.packed(output, b"")
        body = self._ledger.values(group, segment.number)
        if body is None:
            raise IntegrityError(f"the values of segment {segment.number} are missing")
        return segment.packed(output, payload_of(body, output, segment.keys))

    def _column(self, group: bytes, segment: Segment, output: int) -> list[Any]:
        name = (group, segment.number, output)
        column = self._columns.get(name)
        if column is None:
            packed = self._packed(group, segment, output)
            column = unpack(packed, segment.count)
            self._columns.put(name, column, 64 * segment.count + 2 * len(packed.payload))
        return column


def _name_now() -> bytes:
    return time.time_ns().to_bytes(_FILES_NAME, "big")


class _ColumnCache:
    """Decoded columns, the least recently used of which go first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._items: OrderedDict[tuple[bytes, int, int], tuple[list[Any], int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: tuple[bytes, int, int]) -> list[Any] | None:
        with self._lock:
            found = self._items.get(name)
            if found is None:
                return None
            self._items.move_to_end(name)
            return found[0]

    def put(self, name: tuple[bytes, int, int], column: list[Any], size: int) -> None:
        with self._lock:
            self._size += size - self._items.pop(name, ([], 0))[1]
            self._items[name] = (column, size)
            while self._size > self._limit and len(self._items) > 1:
                self._size -= self._items.popitem(last=False)[1][1]
