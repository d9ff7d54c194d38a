"""Inspect: what is in a store, how much of it, and whose it is. Nothing is verified here, and nothing changed."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.errors import IntegrityError
from gristmill.runs import RunRecord, read_runs
from gristmill.storage.census import Census
from gristmill.storage.code_record import CodeRecord
from gristmill.storage.ledger import INDEX, NUMBER, VALUES
from gristmill.storage.local import CODE, OBJECT, LocalStorage
from gristmill.storage.references import NAME, as_bytes
from gristmill.storage.rows import Rows
from gristmill.storage.segment import KEY_SIZE, provenance_of, time_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """The calls of one node, made by one version of its code."""

    node: str
    """Module and qualified name of the function."""
    outputs: tuple[str, ...]
    """Names in the graph, as far as they are known."""
    group: str
    """What the keys of its calls start with, in hexadecimal."""
    calls: int
    """Calls that a look-up finds."""
    bytes: int
    """What they take; bytes that several entries share count for each of them."""
    last_used: float
    """When a recorded run used them last, or else when the last of them was made; seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class RunHits:
    """How much of a run was in the store."""

    run_id: str
    name: str | None
    calls: int
    hits: int

    @property
    def rate(self) -> float:
        """Hits among all calls, between 0 and 1; 0 where there were none."""
        return self.hits / self.calls if self.calls else 0.0


@dataclass(frozen=True, slots=True)
class StoreStats:
    """How much there is in a store."""

    calls: int = 0
    """Calls that a look-up finds."""
    bytes: int = 0
    """Of everything below."""
    kinds: dict[str, int] = field(default_factory=dict)
    """Bytes of `segments`, `objects`, `chunks`, `views` (copies: links take nothing), `records`, and `other`: what
    the database takes around its rows."""
    nodes: dict[str, int] = field(default_factory=dict)
    """Node to the bytes of all its calls."""
    runs: tuple[RunHits, ...] = ()
    """The newest first."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        return {**asdict(self), "runs": [{**asdict(run), "rate": run.rate} for run in self.runs]}


def entries(storage: LocalStorage, node: str | None = None) -> list[StoreEntry]:
    """Return what is in a store, the last used first.

    Parameters
    ----------
    storage
        The store.
    node
        Only entries of this node: its qualified name, with or without its module, or the name of an output.
    """
    rows = Rows(storage.layout.ledger, storage.key)
    sizes = dict(rows.sizes())
    used = _last_used(read_runs(storage))
    codes = dict(_codes(rows))
    found = []
    for group in sorted({key[1 : 1 + KEY_SIZE] for key in sizes if key[:1] == INDEX}):
        entry = _entry(Census(rows, group), codes.get(group), sizes, used.get(group.hex(), 0.0))
        if entry is not None and (node is None or _is_of(entry, node)):
            found.append(entry)
    return sorted(found, key=lambda entry: (-entry.last_used, entry.node, entry.group))


def stats(storage: LocalStorage) -> StoreStats:
    """Return how much there is in a store."""
    records = read_runs(storage)
    listed = entries(storage)
    nodes: dict[str, int] = {}
    for entry in listed:
        nodes[entry.node] = nodes.get(entry.node, 0) + entry.bytes
    kinds = _kinds(storage)
    hits = (
        RunHits(record.run_id, record.name, record.computed + record.cached + record.failed, record.cached)
        for record in records
    )
    calls = sum(entry.calls for entry in listed)
    largest_first = dict(sorted(nodes.items(), key=lambda pair: -pair[1]))
    return StoreStats(calls, sum(kinds.values()), kinds, largest_first, tuple(hits))


def _entry(
    census: Census, code: CodeRecord | None, sizes: dict[bytes, int], used: float
) -> StoreEntry | None:
    calls = int(np.count_nonzero(census.found))
    if not calls:
        return None
    names = [census.group + NUMBER.pack(segment.number) for segment in census.segments]
    packed = sum(sizes.get(kind + name, 0) for name in names for kind in (INDEX, VALUES))
    made = time_of(census.segments[-1].number)
    node, outputs = (code.node, code.outputs) if code is not None else (_name(census), ())
    return StoreEntry(
        node, outputs, census.group.hex(), calls, packed + _outside(census, sizes), used or made
    )


def _name(census: Census) -> str:
    """The node's name out of a segment, where there is no record of its code."""
    for place, segment in enumerate(census.segments):
        with contextlib.suppress(IntegrityError):
            return provenance_of(census.values(place), len(segment.codecs)).node
    return census.group.hex()


def _outside(census: Census, sizes: dict[bytes, int]) -> int:
    """The bytes of the chunks and objects that the calls of a group name, each once."""
    names, amounts = [np.zeros(0, dtype=NAME)], [np.zeros(0, dtype=np.int64)]
    for place in range(len(census.segments)):
        found = census.references(place)
        if found is not None:
            known = [sizes.get(OBJECT + name, 0) for name in as_bytes(found.names[found.objects])]
            amount = found.sizes.astype(np.int64)
            amount[found.objects] = known
            names.append(found.names)
            amounts.append(amount)
    _, first = np.unique(np.concatenate(names), return_index=True)
    return int(np.concatenate(amounts)[first].sum())


def _codes(rows: Rows) -> Iterator[tuple[bytes, CodeRecord]]:
    for row in rows.under(CODE):
        with contextlib.suppress(IntegrityError):
            yield row.key[1 + KEY_SIZE :], CodeRecord.decode(rows.body(row))


def _last_used(records: Iterable[RunRecord]) -> dict[str, float]:
    used: dict[str, float] = {}
    for record in records:
        for stage in record.stages:
            for node in stage.nodes:
                used[node.group] = max(used.get(node.group, 0.0), record.refreshed)
    return used


def _is_of(entry: StoreEntry, node: str) -> bool:
    return node in (entry.node, entry.node.partition(":")[2], *entry.outputs)


def _kinds(storage: LocalStorage) -> dict[str, int]:
    kinds = dict.fromkeys(("segments", "objects", "chunks", "views", "records", "quarantine", "other"), 0)
    for key, size in Rows(storage.layout.ledger, storage.key).sizes():
        kind = {INDEX: "segments", VALUES: "segments", OBJECT: "objects"}.get(key[:1], "records")
        kinds[kind] += size
    layout = storage.layout
    kinds["chunks"] = sum(size for size, _ in _files(layout.chunks))
    kinds["views"] = sum(size for size, links in _files(layout.arrays) if links == 1)
    kinds["quarantine"] = sum(size for size, _ in _files(layout.quarantine))
    inside = kinds["segments"] + kinds["objects"] + kinds["records"]
    kinds["other"] = max(sum(size for size, _ in _files(layout.ledger)) - inside, 0)
    return kinds


def _files(root: Path) -> Iterator[tuple[int, int]]:
    """Bytes, and number of links, of every file below `root`."""
    for path in root.rglob("*"):
        with contextlib.suppress(OSError):
            status = path.stat()
            if path.is_file():
                yield status.st_size, status.st_nlink
