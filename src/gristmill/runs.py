"""Run records: the durable account of each map, and which calls belong to it.

A record is a head, which is small JSON, and for each node the calls of its indices as ranges of rows of
segments. Heads are read to list runs; calls are read to load a result, and by the collector. All of it lies in
rows that are short enough for the database, so that a refresh replaces them in one transaction.

It knows stored rows and locators; it does not know plans, engines or results.
"""

import contextlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from gristmill.errors import IntegrityError, StoreError
from gristmill.graph.wording import did_you_mean
from gristmill.storage.index import MISSING, KeyIndex
from gristmill.storage.local import LocalStorage
from gristmill.storage.presence import Presence, present

Array = np.ndarray[Any, Any]
State = Literal["running", "done", "failed", "killed"]

HEAD, CALLS = b"r", b"s"
"""What the keys of the two kinds of rows start with; the run's id follows."""

_FORMAT = 1
_ID_SIZE = 6
_PLACE = struct.Struct(">HH")
_SPACE = 1 << 15
"""Added to the number of a node in the rows that say where its elements are, if they are ragged."""

_COUNTS = struct.Struct("<QQQ")
_PART_BYTES = 24 * 1024
"""Of a row; a longer one would be a file, which cannot be replaced in a transaction."""

_BLOCK = 1 << 16
"""Indices or ranges dealt with together, so that what is needed on the way stays small."""


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """One node of a stage."""

    node: str
    """Module and qualified name of the function."""
    outputs: tuple[str, ...]
    """Names in the graph."""
    group: str
    """What the keys of its calls start with, in hexadecimal: code, output structure and delivered forms."""
    kept: bool = True
    """Whether its results are kept; False for `cache=False`."""
    elements: bool = False
    """Whether these are not calls but the elements of one output, along axes that calls have made."""
    axes: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    """Of the elements."""
    seconds: float = 0.0
    """Wall time in which its calls were made, summed over workers; calls side by side in one of them count once."""
    cpu_seconds: float = 0.0
    """How much of it a CPU was used by the thread that made them; 0 for calls in threads and coroutines."""


@dataclass(frozen=True, slots=True)
class StageRecord:
    """One stage, and what became of its calls."""

    title: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    nodes: tuple[NodeRecord, ...]
    computed: int = 0
    cached: int = 0
    failed: int = 0
    skipped: int = 0
    executor: str = ""
    """What ran the calls; empty where none had to be made."""
    reason: str = ""
    """Why `"auto"` chose that; empty where the user did."""
    seconds: float = 0.0
    """What workers spent on it; besides what its nodes say: looking up, reading arguments, and storing results."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One map, or one recorded `run`, as the store remembers it."""

    run_id: str
    name: str | None
    """Of the pipeline."""
    state: State
    """`"killed"`: it never ended, and its process is gone. `"failed"`: it ended with an exception."""
    started: float
    """Seconds since the epoch."""
    refreshed: float
    """When the record was written last: every few seconds while the run goes on; of one that was killed, about when."""
    ended: float | None
    outputs: tuple[str, ...]
    """What was asked for."""
    stages: tuple[StageRecord, ...]
    """Those that have started, in order."""
    seconds: float = 0.0
    """Wall time."""
    bytes_written: int = 0
    """Bytes that were added to the store."""
    error: str = ""
    """What it ended with, if that was an exception."""
    failures: tuple[tuple[str, tuple[int, ...], str], ...] = ()
    """The first calls that failed: output, index, what was raised."""
    views: Mapping[str, str] = field(default_factory=dict)
    """Output name to the path of its zarr array."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Digests of what was given, by name, defaults included; private ones are left out."""
    host: str = ""
    pid: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of Python, gristmill and numpy."""

    @property
    def computed(self) -> int:
        """Calls that were executed."""
        return sum(stage.computed for stage in self.stages)

    @property
    def cached(self) -> int:
        """Calls whose results were found in the store."""
        return sum(stage.cached for stage in self.stages)

    @property
    def failed(self) -> int:
        """Calls that raised."""
        return sum(stage.failed for stage in self.stages)

    @property
    def skipped(self) -> int:
        """Calls that were not made because what they need had failed."""
        return sum(stage.skipped for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        counts = {name: getattr(self, name) for name in ("computed", "cached", "failed", "skipped")}
        return {**json.loads(json.dumps(_fields(self), default=_fields)), **counts}


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls of one node's indices, in order, as ranges of rows of segments."""

    numbers: Array
    """Numbers of the segments; -1 where there is no result."""
    starts: Array
    """The first row of each range."""
    counts: Array
    """How many indices each range covers."""

    @classmethod
    def of(cls, index: KeyIndex, locators: Array) -> "Calls":
        """Return what `locators` of `index` name, in a form that means the same in every process."""
        numbers, starts = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.uint32)]
        first = [np.empty(0, dtype=np.int64)]
        last = None
        for at in range(0, len(locators), _BLOCK):
            part = locators[at : at + _BLOCK].copy()  # somebody may be writing to them
            begins = np.flatnonzero(~_follow(part, last))
            rows = index.portable(part[begins])
            numbers.append(rows[:, 0].copy())
            starts.append(np.maximum(rows[:, 1], 0).astype(np.uint32))
            first.append(at + begins)
            last = int(part[-1])
        counts = np.diff(np.concatenate(first), append=len(locators)).astype(np.uint32)
        return cls(np.concatenate(numbers), np.concatenate(starts), counts)

    @classmethod
    def of_rows(cls, rows: Array) -> "Calls":
        """Return what `rows` gives back."""
        missing = rows[:, 0] < 0
        same = (np.diff(rows[:, 0]) == 0) & ((np.diff(rows[:, 1]) == 1) | missing[1:])
        first = np.flatnonzero(np.concatenate(([True], ~same))) if len(rows) else np.zeros(0, dtype=int)
        counts = np.diff(np.append(first, len(rows)))
        return cls(rows[first, 0], np.maximum(rows[first, 1], 0), counts)

    @property
    def size(self) -> int:
        """How many indices there are."""
        return int(self.counts.sum())

    def rows(self) -> Array:
        """Return (segment number, row) of each index; -1 where there is no result."""
        numbers = np.repeat(self.numbers, self.counts)
        before = np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        places = np.arange(len(numbers)) - before + np.repeat(self.starts, self.counts)
        return np.stack((numbers, np.where(numbers < 0, MISSING, places)), axis=1)

    def encode(self) -> bytes:
        """Return them as bytes."""
        packer = zlib.compressobj(1)
        body = b"".join([*map(packer.compress, self._packed()), packer.flush()])
        return _COUNTS.pack(len(self.numbers), self.size, len(body)) + body

    def _packed(self) -> Iterator[bytes]:
        """Yield what is compressed, a block at a time: the columns may be as long as the map."""
        blocks = range(0, len(self.numbers), _BLOCK)
        for at in blocks:
            before = self.numbers[at - 1] if at else 0
            yield np.diff(self.numbers[at : at + _BLOCK], prepend=before).astype("<i8").tobytes()
        for column in (self.starts, self.counts):
            for at in blocks:
                yield column[at : at + _BLOCK].astype("<u4").tobytes()

    @classmethod
    def decode(cls, body: bytes) -> "Calls":
        """Return what `encode` made a body of.

        Raises
        ------
        IntegrityError
            The body is not one of these.
        """
        try:
            ranges, size, length = _COUNTS.unpack_from(body)  # rows of a longer body may follow
            packed = zlib.decompress(body[_COUNTS.size : _COUNTS.size + length])
            ends = [8 * ranges, 12 * ranges]
            numbers = np.cumsum(np.frombuffer(packed[: ends[0]], dtype="<i8"))
            starts = np.frombuffer(packed[ends[0] : ends[1]], dtype="<u4").astype(np.int64)
            counts = np.frombuffer(packed[ends[1] :], dtype="<u4").astype(np.int64)
        except (struct.error, zlib.error, ValueError) as error:
            raise IntegrityError(f"the calls of a run cannot be decoded: {error}") from error
        if not len(numbers) == len(starts) == len(counts) == ranges or int(counts.sum()) != size:
            raise IntegrityError("the calls of a run are not as many as they should be")
        return cls(numbers, starts, counts)


def _follow(locators: Array, before: int | None) -> Array:
    """Mask of the locators that go on where the one before them was, or are missing like that one."""
    previous = np.concatenate((locators[:1] if before is None else [before], locators[:-1]))
    missing, were_missing = locators == MISSING, previous == MISSING
    follow: Array = np.where(were_missing, missing, locators - previous == 1)
    if before is None:
        follow[0] = False
    return follow


def encode_head(record: RunRecord) -> bytes:
    """Return a record as the body of a row."""
    return json.dumps({"format": _FORMAT, **_fields(record)}, separators=(",", ":"), default=_fields).encode()


def _fields(record: Any) -> dict[str, Any]:
    """As `dataclasses.asdict`, which copies what is in it and takes ten times as long."""
    return {name: getattr(record, name) for name in record.__slots__}


def decode_head(body: bytes) -> RunRecord:
    """Return the record that `encode_head` made a body of.

    Raises
    ------
    IntegrityError
        The body is no record of this format.
    """
    try:
        fields: dict[str, Any] = json.loads(body)
        if (form := fields.pop("format")) != _FORMAT:
            raise IntegrityError(f"run records of format {form} are not known here")
        fields["stages"] = tuple(_stage(stage) for stage in fields["stages"])
        fields["outputs"] = tuple(fields["outputs"])
        fields["failures"] = tuple((name, tuple(at), text) for name, at, text in fields["failures"])
        return RunRecord(**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"a run record cannot be decoded: {error!r}") from error


def _stage(fields: dict[str, Any]) -> StageRecord:
    lists = ("outputs", "axes", "shape")
    nodes = tuple(
        NodeRecord(**{**node, **{name: tuple(node[name]) for name in lists if name in node}})
        for node in fields.pop("nodes")
    )
    axes, shape = tuple(fields.pop("axes")), tuple(fields.pop("shape"))
    return StageRecord(axes=axes, shape=shape, nodes=nodes, **fields)


def head_key(run_id: str) -> bytes:
    """Return the key of a record's head."""
    return HEAD + bytes.fromhex(run_id)


def calls_rows(run_id: str, node: int, calls: Calls) -> dict[bytes, bytes]:
    """Return the rows that hold the calls of a run's node: its nodes are numbered through its stages."""
    return _rows(run_id, node, calls.encode())


def space_rows(run_id: str, node: int, space: bytes) -> dict[bytes, bytes]:
    """Return the rows that hold the ragged space of a run's node."""
    return _rows(run_id, _SPACE + node, space)


def _rows(run_id: str, number: int, body: bytes) -> dict[bytes, bytes]:
    parts = [body[at : at + _PART_BYTES] for at in range(0, len(body), _PART_BYTES)]
    key = CALLS + bytes.fromhex(run_id)
    return {key + _PLACE.pack(number, part): data for part, data in enumerate(parts)}


def read_runs(storage: LocalStorage) -> list[RunRecord]:
    """Return all records, the newest first; what cannot be read is left out."""
    found = []
    for _, body in storage.ledger.under(HEAD, _ID_SIZE):
        with contextlib.suppress(IntegrityError):
            found.append(decode_head(body or b""))
    there = present(storage.layout.scratch) if any(record.state == "running" for record in found) else {}
    judged = [_judged(storage, record, there) for record in found]
    return sorted(judged, key=lambda record: (record.started, record.run_id), reverse=True)


def read_run(storage: LocalStorage, run_id: str) -> RunRecord:
    """Return the record of a run, given its id or as much of it as is unique.

    Raises
    ------
    StoreError
        There is no such run, or there are several.
    """
    records = read_runs(storage)
    matches = [record for record in records if record.run_id.startswith(run_id)] if run_id else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise StoreError(f"{run_id!r} is the beginning of {len(matches)} runs; give more of it")
    known = [record.run_id for record in records]
    raise StoreError(
        f"there is no run {run_id!r} in the store at {storage.layout.root}{did_you_mean(run_id, known)}; "
        f"it has {len(known)} run records"
    )


def read_calls(storage: LocalStorage, record: RunRecord) -> list[Calls | None]:
    """Return the calls of each node of a run, in the order of its stages; None where they cannot be read."""
    bodies = _bodies(storage, record.run_id)
    nodes = sum(len(stage.nodes) for stage in record.stages)
    return [_calls(bodies.get(node, b"")) for node in range(nodes)]


def read_space(storage: LocalStorage, record: RunRecord, node: int) -> bytes:
    """Return the ragged space of a run's node; empty where the record has none."""
    return _bodies(storage, record.run_id).get(_SPACE + node, b"")


def _bodies(storage: LocalStorage, run_id: str) -> dict[int, bytes]:
    """Return what the rows of a run hold, put together, by their number."""
    parts: dict[int, list[tuple[int, bytes]]] = {}
    for place, body in storage.ledger.under(CALLS + bytes.fromhex(run_id), _PLACE.size):
        number, part = _PLACE.unpack(place)
        parts.setdefault(number, []).append((part, body or b""))
    return {number: b"".join(body for _, body in sorted(found)) for number, found in parts.items()}


def _calls(body: bytes) -> Calls | None:
    try:
        return Calls.decode(body)
    except IntegrityError:
        return None


def row_keys(storage: LocalStorage, run_id: str) -> list[bytes]:
    """Return the keys of all rows of a run."""
    prefix = CALLS + bytes.fromhex(run_id)
    places = [prefix + place for place, _ in storage.ledger.under(prefix, _PLACE.size)]
    return [head_key(run_id), *places]


def _judged(storage: LocalStorage, record: RunRecord, there: Mapping[str, Presence]) -> RunRecord:
    """Tell a run that goes on from one that was killed, and from one that has ended since it was read."""
    pin = there.get(record.run_id)
    if record.state != "running" or (pin is not None and pin.running):
        return record
    with contextlib.suppress(IntegrityError):
        record = decode_head(storage.ledger.get(head_key(record.run_id)) or b"")
    if record.state != "running":
        return record
    return replace(record, state="killed", seconds=record.refreshed - record.started)
