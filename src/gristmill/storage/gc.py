"""Collecting: deletes what no root needs, safely beside anybody who runs, reads or is killed.

Roots are the run records that are kept, and the runs and results that are present in any process. Of each
group of calls the collector takes a census, decides, and then sweeps: what is left of a partly dead segment is
appended again in the transaction that takes the old one back, and only then is the old one deleted. Chunks and
objects go when no call names them, and nobody has renewed them since. So a kill at any instant leaves litter.

Memory is that of the census of the largest group, and 16 bytes for each chunk and object that stays.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.errors import IntegrityError, StoreError
from gristmill.runs import (
    CALLS,
    HEAD,
    Calls,
    RunRecord,
    calls_rows,
    decode_head,
    head_key,
    read_calls,
    read_runs,
    row_keys,
)
from gristmill.storage.census import Census
from gristmill.storage.columns import unpack
from gristmill.storage.costs import Costs, Horizon, Verdict, packed
from gristmill.storage.gone import MOST_NOTES, Gone
from gristmill.storage.layout import sweep
from gristmill.storage.ledger import INDEX, NUMBER, RENEWED, VALUES
from gristmill.storage.local import GONE, OBJECT, LocalStorage
from gristmill.storage.presence import Presence, present
from gristmill.storage.references import NAME, References, references
from gristmill.storage.rows import Rows
from gristmill.storage.segment import (
    COLLECTED,
    KEY_SIZE,
    Entry,
    Segment,
    Tombstone,
    decode_index,
    encode_segment,
    encode_tombstone,
    payload_of,
    provenance_of,
    time_of,
)
from gristmill.storage.views import drop_links

Array = np.ndarray[Any, Any]

GRACE_SECONDS = 600.0
"""How long bytes that no call names yet are left alone while any run goes on: it may be about to name them."""

_SLACK_SECONDS = 1.0
"""How much earlier than a run says it started, or was refreshed, its calls may have been committed."""

_TOMBSTONE_SECONDS = 3600.0
"""How long a tombstone stays once all its segments are gone, for processes that still remember them."""

_AT_ONCE = 16
"""Segments that are swept while the gate is closed."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What is to be collected, besides what nothing can reach."""

    max_bytes: int | None = None
    older_than: float | None = None
    """Seconds."""
    keep_runs: int | None = None

    @property
    def is_selective(self) -> bool:
        """Whether calls that can be found go unless a root needs them."""
        return self.older_than is not None or self.keep_runs is not None


@dataclass(slots=True)
class GcReport:
    """What was collected, or would be."""

    dry_run: bool = False
    """Whether nothing was done."""
    runs: int = 0
    """Run records."""
    calls: int = 0
    """Calls that could be found, and cannot any more."""
    superseded: int = 0
    """Rows of calls that were taken back before, or stand in another segment too."""
    segments: int = 0
    rewritten: int = 0
    """Segments of which a part went; the rest was written again."""
    objects: int = 0
    chunks: int = 0
    links: int = 0
    """Files in views."""
    litter: int = 0
    """Files and rows that crashes left behind, and what was quarantined."""
    kept_calls: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    """Of the whole store; of a dry run, an estimate."""
    seconds: float = 0.0

    @property
    def freed(self) -> int:
        """Bytes that the file system has back."""
        return max(self.bytes_before - self.bytes_after, 0)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        return {**asdict(self), "freed": self.freed}


def collect(storage: LocalStorage, policy: Policy, *, dry_run: bool = False) -> GcReport:
    """Delete what no root needs.

    Parameters
    ----------
    storage
        The store.
    policy
        What the roots are.
    dry_run
        Only say what would go.

    Raises
    ------
    StoreError
        Another process is collecting, or the store cannot be written.
    """
    started = time.perf_counter()
    report = GcReport(dry_run)
    if not storage.layout.marker.exists():
        return report
    if storage.spec.readonly and not dry_run:
        raise StoreError(f"the store at {storage.layout.root} is read-only; nothing can be collected")
    with contextlib.nullcontext() if dry_run else _alone(storage):
        report.bytes_before = size_of(storage)
        _collect(storage, policy, report)
        if not dry_run:
            report.bytes_after = size_of(storage)
            limit, cut = policy.max_bytes, 0
            while limit is not None and report.bytes_after > limit and cut < limit:
                # Twice what is too much: an estimate was too low, or nothing that can be deleted is as small as that.
                cut = max(2 * (report.bytes_after - limit), 2 * cut)
                _collect(storage, replace(policy, max_bytes=max(limit - cut, 0)), report)
                report.bytes_after = size_of(storage)
    report.seconds = time.perf_counter() - started
    return report


def size_of(storage: LocalStorage) -> int:
    """Return the bytes of everything in a store but views, whose files are links to chunks."""
    layout = storage.layout
    return sum(
        size for folder in (layout.ledger, layout.chunks, layout.quarantine) for _, size, _ in _files(folder)
    )


def _collect(storage: LocalStorage, policy: Policy, report: GcReport) -> None:
    report.kept_calls = 0  # of the last round
    _Collector(storage, policy, report).run()


@contextlib.contextmanager
def _alone(storage: LocalStorage) -> Iterator[None]:
    descriptor = os.open(storage.layout.collector, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(f"another process is collecting the store at {storage.layout.root}") from error
        yield
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Root:
    """A run whose calls are kept."""

    record: RunRecord
    used: float
    """When its calls were used last."""
    present: bool
    """Whether it goes on, or its result is in use."""
    calls: dict[bytes, list[tuple[int, Calls]]] = field(default_factory=dict)
    """For each group, the numbers of the nodes and their calls."""


class _Collector:
    """One collection."""

    def __init__(self, storage: LocalStorage, policy: Policy, report: GcReport) -> None:
        self._storage = storage
        self._policy = policy
        self._report = report
        self._rows = Rows(storage.layout.ledger, storage.key)
        self._now = time.time()
        self._limit = self._now
        self._roots: list[_Root] = []
        self._names: list[Array] = [np.zeros(0, dtype=NAME)]
        self._freed_rows = 0

    def run(self) -> None:
        """Collect everything that may go."""
        self._limit = self._tick()
        there = present(self._storage.layout.scratch)
        if any(pin.running for pin in there.values()):
            self._limit -= GRACE_SECONDS
        records = read_runs(self._storage)
        self._roots, dropped = self._divide(records, there)
        sizes = dict(self._rows.sizes())
        groups = sorted({key[1 : 1 + KEY_SIZE] for key in sizes if key[:1] == INDEX})
        horizon = self._horizon(groups, sizes)
        for group in groups:
            verdict = horizon.cut(self._judge(group))
            self._count(verdict, sizes)
            if self._report.dry_run:
                self._name(verdict, range(len(verdict.census.segments)))
            else:
                self._sweep(verdict)
        if self._report.dry_run:
            self._report.runs += len(dropped)
            self._count_unnamed(sizes)
            return
        self._drop_records(dropped)
        self._sweep_unnamed()
        self._sweep_litter()
        self._rows.shrink()
        self._storage.refresh()

    # -- roots

    def _divide(
        self, records: Sequence[RunRecord], there: Mapping[str, Presence]
    ) -> tuple[list[_Root], list[RunRecord]]:
        """Return the runs whose calls are kept, and the others."""
        roots, dropped = [], []
        for place, record in enumerate(records):
            if record.run_id in there or self._is_root(record, place):
                roots.append(self._root(record, present=record.run_id in there))
            else:
                dropped.append(record)
        return roots, dropped

    def _is_root(self, record: RunRecord, place: int) -> bool:
        if not self._policy.is_selective:
            return True
        newest = self._policy.keep_runs is not None and place < self._policy.keep_runs
        young = (
            self._policy.older_than is not None and record.refreshed >= self._now - self._policy.older_than
        )
        return newest or young

    def _root(self, record: RunRecord, *, present: bool) -> _Root:
        root = _Root(record, record.refreshed, present)
        nodes = [node for stage in record.stages for node in stage.nodes]
        for number, (node, calls) in enumerate(zip(nodes, read_calls(self._storage, record), strict=True)):
            if calls is not None and node.kept:
                root.calls.setdefault(bytes.fromhex(node.group), []).append((number, calls))
        return root

    # -- deciding

    def _judge(self, group: bytes) -> Verdict:
        census = Census(self._rows, group)
        selective = self._policy.is_selective
        kept = np.zeros(len(census), dtype=bool) if selective else census.found.copy()
        used = census.times
        if selective and self._policy.older_than is not None:
            kept |= census.found & (used >= self._now - self._policy.older_than)
        for root in self._roots:
            for _, calls in root.calls.get(group, ()):
                named = census.of_run(calls)
                kept[named] = True
                used[named] = np.maximum(used[named], root.used)
            if root.record.state == "killed" and self._made_by(root.record, group):
                late = census.found & (census.times >= root.record.refreshed - _SLACK_SECONDS)
                kept |= late  # committed after its record was written for the last time
        untouched = self._untouchable(census, self._roots_present())[census.owners]
        kept |= untouched
        used = np.where(untouched, np.inf, used)
        return Verdict(census, kept, used)

    def _made_by(self, record: RunRecord, group: bytes) -> bool:
        return any(node.group == group.hex() for stage in record.stages for node in stage.nodes)

    def _roots_present(self) -> list[_Root]:
        return [root for root in self._roots if root.present]

    def _untouchable(self, census: Census, roots: Iterable[_Root]) -> Array:
        """Return the mask of the segments that runs which go on, and results in use, may read or name."""
        mask = np.zeros(len(census.segments), dtype=bool)
        there = present(self._storage.layout.scratch)
        running = [pin.since for pin in there.values() if pin.running]
        if running:
            since = min(running) - _SLACK_SECONDS
            mask |= np.array([time_of(segment.number) >= since for segment in census.segments], dtype=bool)
        for root in roots:
            for _, calls in root.calls.get(census.group, ()):
                mask |= census.places(calls.numbers.tolist())
        return mask

    def _horizon(self, groups: Sequence[bytes], sizes: Mapping[bytes, int]) -> Horizon:
        if self._policy.max_bytes is None:
            return Horizon(-np.inf)
        costs = Costs({key[1:]: size for key, size in sizes.items() if key[:1] == OBJECT})
        for group in groups:
            costs.add(self._judge(group), sizes)
        other = sum(size for key, size in sizes.items() if key[:1] not in (INDEX, VALUES, OBJECT))
        return costs.horizon(self._policy.max_bytes - other, sizes)

    def _count(self, verdict: Verdict, sizes: Mapping[bytes, int]) -> None:
        found = verdict.census.found
        self._report.calls += int(np.count_nonzero(found & ~verdict.kept))
        self._report.superseded += int(np.count_nonzero(~found & ~verdict.kept))
        self._report.kept_calls += int(np.count_nonzero(found & verdict.kept))
        for place in range(len(verdict.census.segments)):
            kept = verdict.kept[verdict.census.starts[place] : verdict.census.starts[place + 1]]
            self._report.segments += not kept.any()
            self._freed_rows += int(packed(verdict.census, place, sizes) * np.count_nonzero(~kept))
            self._report.rewritten += bool(kept.any() and not kept.all())

    def _name(self, verdict: Verdict, places: Iterable[int]) -> None:
        """Note what the kept calls of some segments name."""
        census = verdict.census
        for place in places:
            found = census.references(place)
            if found is not None:
                kept = verdict.kept[census.starts[place] : census.starts[place + 1]]
                self._names.append(found.names[kept[found.positions]])

    # -- sweeping calls

    def _sweep(self, verdict: Verdict) -> None:
        census = verdict.census
        partly = [
            place
            for place in range(len(census.segments))
            if not verdict.kept[census.starts[place] : census.starts[place + 1]].all()
            or not census.segments[place].count
        ]
        where = census.locations()
        for start in range(0, len(partly), _AT_ONCE):
            with self._storage.gate.closed():
                self._sweep_some(verdict, partly[start : start + _AT_ONCE], where)
        old = [t for t in census.tombstones if not census.places(t.dead).any()]
        Gone(self._storage.ledger, census.group).tidy()
        past = self._now - _TOMBSTONE_SECONDS
        keys = [INDEX + census.group + NUMBER.pack(t.number) for t in old if time_of(t.number) < past]
        self._rows.remove([key for index in keys for key in (index, VALUES + index[1:])])

    def _sweep_some(self, verdict: Verdict, places: Sequence[int], where: Array) -> None:
        """Sweep some segments while nobody looks anything up: what is left is written before they go."""
        census = verdict.census
        untouched = self._untouchable(census, self._arrived())
        entries: list[Entry] = []
        moved: list[tuple[int, Array]] = []
        gone = []
        for place in places:
            segment = census.segments[place]
            chosen = np.flatnonzero(verdict.kept[census.starts[place] : census.starts[place + 1]])
            if untouched[place]:
                continue
            if len(chosen):
                try:
                    entries.append(_rest(census, place, chosen))
                except IntegrityError:
                    continue  # a map finds out, or verify does
                moved.append((place, chosen))
            gone.append(segment.number)
        if not gone:
            return
        lost = census.found & ~verdict.kept & np.isin(census.owners, np.flatnonzero(census.places(gone)))
        rows = Gone(self._storage.ledger, census.group).rows(census.keys(np.flatnonzero(lost)))
        tombstone = encode_tombstone(census.group, dict.fromkeys(gone), COLLECTED)
        numbers = self._storage.ledger.append([*entries, tombstone], rows)
        for (place, chosen), number in zip(moved, numbers, strict=False):
            flat = census.starts[place] + chosen
            where[flat, 0], where[flat, 1] = number, np.arange(len(chosen))
        self._redirect(census, gone, where)
        names = [kind + census.group + NUMBER.pack(number) for number in gone for kind in (VALUES, INDEX)]
        self._rows.remove(names)

    def _arrived(self) -> list[_Root]:
        """Return the runs that are present now, as their records name their calls now."""
        found = []
        for run_id in present(self._storage.layout.scratch):
            with contextlib.suppress(IntegrityError):
                body = self._storage.ledger.get(head_key(run_id))
                if body is not None:
                    found.append(self._root(decode_head(body), present=True))
        return found

    def _redirect(self, census: Census, gone: Sequence[int], where: Array) -> None:
        """Let the records of runs name the calls where they are now."""
        changed: dict[bytes, bytes] = {}
        for root in self._roots:
            for k, (node, calls) in enumerate(root.calls.get(census.group, ())):
                if np.isin(calls.numbers, gone).any():
                    now = census.moved(calls, where)
                    root.calls[census.group][k] = (node, now)
                    changed |= calls_rows(root.record.run_id, node, now)
        if changed:
            self._storage.ledger.put_all(changed)

    def _drop_records(self, dropped: Sequence[RunRecord]) -> None:
        with self._storage.gate.closed():
            here = present(self._storage.layout.scratch)
            for record in dropped:
                if record.run_id not in here:
                    self._rows.remove(row_keys(self._storage, record.run_id))
                    self._report.runs += 1

    # -- sweeping bytes

    def _sweep_unnamed(self) -> None:
        """Delete the chunks and objects that no call names, unless somebody may be about to."""
        names = self._all_names()
        rows = dict(self._rows.sizes())
        objects = [key for key in rows if key[:1] == OBJECT and len(key) == 1 + KEY_SIZE]
        unnamed = [key for key, named in zip(objects, _are_in(objects, names), strict=True) if not named]
        self._report.objects += len(self._rows.remove_unnamed(unnamed, RENEWED, self._limit))
        renewed = self._rows.times(RENEWED)
        self._rows.remove([key for key, when in renewed.items() if when < self._now - GRACE_SECONDS])
        inodes = set()
        for path, _, status in _files(self._storage.layout.chunks):
            if not _is_name(path.name) or _are_in([b"?" + bytes.fromhex(path.name)], names)[0]:
                inodes.add(status.st_ino)
            elif status.st_mtime < self._limit and self._unlink(path):
                self._report.chunks += 1
            else:
                inodes.add(status.st_ino)
        self._report.links += drop_links(
            self._storage.layout.arrays, inodes, self._limit, self._storage.chunks.path
        )

    def _all_names(self) -> Array:
        """Return what all calls name that are on record now, sorted."""
        names = [np.zeros(0, dtype=NAME)]
        for row in self._rows.under(INDEX):
            with contextlib.suppress(IntegrityError):
                found = self._named_by(row.key[1:], decode_index(0, self._rows.body(row)))
                names.append(found.names)
        return np.unique(np.concatenate(names))

    def _named_by(self, rest: bytes, entry: Segment | Tombstone) -> References:
        if isinstance(entry, Tombstone):
            raise IntegrityError("a tombstone names nothing")
        row = self._rows.get(VALUES + rest)

        def values() -> bytes:
            if row is None:
                raise IntegrityError("the values are missing")
            return self._rows.body(row)

        return references(entry, values)

    def _unlink(self, path: Path) -> bool:
        """Delete a chunk, unless it is renewed at the last moment; a writer that finds it gone writes it again."""
        aside = self._storage.own_scratch / os.urandom(12).hex()
        try:
            os.rename(path, aside)
        except OSError:
            return False
        if aside.stat().st_mtime >= self._limit:
            os.rename(aside, path)
            return False
        aside.unlink()
        return True

    def _sweep_litter(self) -> None:
        layout = self._storage.layout
        keys = [key for key, _ in self._rows.sizes()]  # as they were at one moment
        there = set(keys)
        heads = {key[1:] for key in keys if key[:1] == HEAD}
        left = [
            key
            for key in keys
            if (key[:1] == VALUES and INDEX + key[1:] not in there)
            or (key[:1] == CALLS and key[1:7] not in heads)
        ]
        notes = sorted((key for key in keys if key[:1] == GONE), key=lambda key: key[-8:])
        self._rows.remove([*left, *notes[:-MOST_NOTES]])
        orphans = self._rows.orphans()
        self._rows.remove_orphans(orphans)
        quarantined = list(layout.quarantine.iterdir()) if layout.quarantine.exists() else []
        for path in quarantined:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        sweep(layout.scratch)
        self._report.litter += len(left) + len(orphans) + len(quarantined)

    def _count_unnamed(self, sizes: Mapping[bytes, int]) -> None:
        """Say what would go, for a dry run."""
        names = np.unique(np.concatenate(self._names))
        objects = [key for key in sizes if key[:1] == OBJECT]
        freed = self._freed_rows
        for key, named in zip(objects, _are_in(objects, names), strict=True):
            if not named:
                self._report.objects += 1
                freed += sizes[key]
        for path, size, _ in _files(self._storage.layout.chunks):
            if _is_name(path.name) and not _are_in([b"?" + bytes.fromhex(path.name)], names)[0]:
                self._report.chunks += 1
                freed += size
        for path, size, _ in _files(self._storage.layout.quarantine):
            self._report.litter += path.parent == self._storage.layout.quarantine
            freed += size
        self._report.bytes_after = max(self._report.bytes_before - freed, 0)

    def _tick(self) -> float:
        """Return a time by the file system's clock that is later than that of all that has been written."""
        if self._storage.spec.readonly:
            return time.time()
        path = self._storage.own_scratch / os.urandom(12).hex()
        try:
            path.touch()
            first = path.stat().st_mtime
            while (now := path.stat().st_mtime) <= first:
                path.touch()
        finally:
            path.unlink(missing_ok=True)
        return now


def _rest(census: Census, place: int, chosen: Array) -> Entry:
    """What is left of a segment, as a segment of its own."""
    segment, values = census.segments[place], census.values(place)
    outputs = range(len(segment.codecs))
    columns = []
    for output in outputs:
        body = payload_of(values, output, segment.keys)
        column = unpack(segment.packed(output, body), segment.count)
        columns.append([column[k] for k in chosen.tolist()])
    provenance = provenance_of(values, len(segment.codecs))
    given = {name: _items(column, chosen) for name, column in provenance.columns.items()}
    digests = [_items(segment.digests_of(output), chosen) for output in outputs]
    entry, _ = encode_segment(
        census.group,
        _items(segment.keys, chosen),
        digests,
        columns,
        replace(provenance, columns=given),
    )
    return entry


def _items(block: bytes, chosen: Array) -> bytes:
    return np.frombuffer(block, dtype=f"V{KEY_SIZE}")[chosen].tobytes()


def _are_in(keys: Sequence[bytes], names: Array) -> Array:
    """The mask of the keys that, without their first byte, are in the sorted `names`."""
    wanted = np.frombuffer(b"".join(key[1:] for key in keys), dtype=NAME)
    at = np.minimum(np.searchsorted(names, wanted), max(len(names) - 1, 0))
    return names[at] == wanted if len(names) else np.zeros(len(wanted), dtype=bool)


def _is_name(name: str) -> bool:
    return len(name) == 2 * KEY_SIZE and all(letter in "0123456789abcdef" for letter in name)


def _files(root: Path) -> Iterator[tuple[Path, int, os.stat_result]]:
    for folder, inner, names in os.walk(root):
        inner.sort()
        for name in sorted(names):
            with contextlib.suppress(OSError):  # it has just been deleted
                status = os.stat(os.path.join(folder, name))
                yield Path(folder, name), status.st_size, status
