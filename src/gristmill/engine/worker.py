"""The worker: runs batches of one stage, in whatever process or thread it is.

A batch is evaluated in blocks, node by node: a block of one for slow or large items (depth first), up to 1,024
for fast ones. Below a node that it has just computed, a worker looks calls up and claims them itself; everything
above has been looked up and claimed by the engine.
"""

import itertools
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from gristmill.engine.calls import Caller, Outcome, describe_failure
from gristmill.engine.deliver import as_form, assemble, deliver
from gristmill.engine.job import Job, Task
from gristmill.engine.report import BatchReport, Lost
from gristmill.engine.sources import DIGEST, Source, take
from gristmill.engine.writer import Writer
from gristmill.errors import IntegrityError
from gristmill.identity.digest import merkle
from gristmill.identity.keys import SIZE, call_keys
from gristmill.plan.stage import Constant, Element, Slice
from gristmill.storage.claims import Claims
from gristmill.storage.elements import ChunkRef, ObjectRef, Pickled
from gristmill.storage.index import MISSING
from gristmill.storage.local import CallBlock, LocalStorage
from gristmill.storage.segment import Provenance

Array = np.ndarray[Any, Any]

BLOCK_ITEMS = 1024
"""Largest block; measured, node by node over 1,024 items is 1.6 to 4 times as fast as item by item."""
_BLOCK_SECONDS = 0.005
_POLL_SECONDS = 0.005
_REPR_LENGTH = 80


class _Column:
    """One output over the rows of a block."""

    def __init__(self, count: int) -> None:
        self.digests = np.zeros(count, dtype=DIGEST)
        self.forms: list[Any] = [None] * count
        self.locators = np.full(count, MISSING, dtype=np.int64)
        self.alive = np.zeros(count, dtype=bool)
        self.live: dict[int, Array] = {}


class StageWorker:
    """Runs batches of one job.

    Parameters
    ----------
    job
        The stage, with open sources.
    storage
        Where results go.
    claims
        Claims on calls below a computed one.
    stop
        Set when nothing more may be started.
    portable
        Whether reports leave this process.
    """

    def __init__(
        self, job: Job, storage: LocalStorage, claims: Claims, stop: threading.Event, *, portable: bool
    ) -> None:
        self.job = job
        self.storage = storage
        self.claims = claims
        self._stop = stop
        self.portable = portable
        self.block_items = 1
        self.depth_first = False
        """Whether a large array goes from node to node: then one index after the other, to hold only one."""
        self.writer = Writer(storage, self._committed)
        self.runners = [_Runner(job, k, storage, interruptible=not portable) for k in range(len(job.tasks))]
        self.makers = {name: runner for runner in self.runners for name in runner.node.output_names}
        self.claimed: list[bytes] = []
        self.recent: dict[bytes, tuple[int, int]] = {}
        self.recent_blocks: list[CallBlock] = []

    def run(self, positions: Array, *, fresh: bool) -> BatchReport:
        """Run one batch.

        Parameters
        ----------
        positions
            The batch's positions in the stage's space, increasing.
        fresh
            Whether none of the calls that the engine could look up was found.

        Raises
        ------
        StoreError
            The store refused to take what was computed.
        """
        started = time.perf_counter()
        report = BatchReport([0] * len(self.runners))
        written = self.storage.bytes_written
        if not fresh or len(self.runners) > 1:
            self.storage.refresh()
        waiting = [self._run_blocks(positions, report, look_up=not fresh)]
        self.writer.flush()
        while len(waiting[0]) and not self._stop.is_set():
            time.sleep(_POLL_SECONDS)  # another process is at these calls; we hold no claim while we wait
            self.storage.refresh()
            waiting[0] = self._run_blocks(waiting[0], report, look_up=True)
            self.writer.flush()
        report.seconds = time.perf_counter() - started
        report.bytes_written = self.storage.bytes_written - written
        return report

    def close(self) -> None:
        """Commit what is left and end the writer's thread."""
        self.writer.close()
        for runner in self.runners:
            runner.caller.close()

    def remember(self, block: CallBlock) -> None:
        """Keep calls at hand until they are committed, in case one of them is needed again before that."""
        number = len(self.recent_blocks)
        self.recent_blocks.append(block)
        names = np.frombuffer(block.keys, dtype=DIGEST).tolist()
        self.recent.update(zip(names, zip(itertools.repeat(number), range(len(names)), strict=False), strict=False))

    def _run_blocks(self, positions: Array, report: BatchReport, *, look_up: bool) -> Array:
        """Run all of `positions` and return those that wait for somebody else's call."""
        at, waiting = 0, [positions[:0]]
        while at < len(positions) and not self._stop.is_set():
            started = time.perf_counter()
            block = positions[at : at + self.block_items]
            waiting.append(_Block(self, block, report, look_up=look_up).run())
            at += len(block)
            self._adapt(time.perf_counter() - started, len(block))
        return np.concatenate(waiting)

    def _adapt(self, seconds: float, count: int) -> None:
        if self.depth_first:
            self.block_items = 1
        elif seconds > _BLOCK_SECONDS:
            self.block_items = max(1, self.block_items // 2)
        elif count == self.block_items and self.block_items < BLOCK_ITEMS:
            self.block_items *= 4

    def _committed(self, blocks: Sequence[CallBlock]) -> None:
        claimed, self.claimed = self.claimed, []
        self.claims.drop(b"".join(claimed))
        self.recent.clear()
        self.recent_blocks.clear()


class _Runner:
    """One step of the job, with what does not change between batches."""

    def __init__(self, job: Job, number: int, storage: LocalStorage, *, interruptible: bool) -> None:
        self.task = task = job.tasks[number]
        self.node = task.node
        made_here = {name for other in job.tasks for name in other.node.output_names}
        taken = {a.source for other in job.tasks for a in other.arguments if isinstance(a, Element)}
        self.caller = Caller(
            task.node,
            [a.parameter for a in task.arguments],
            storage,
            interruptible=interruptible,
            feeds=not taken.isdisjoint(task.node.output_names),
        )
        self.index = storage.index(task.prefix)
        self.inner = [a.source for a in task.arguments if isinstance(a, Element) and a.source in made_here]
        self.twin = any(other.prefix == task.prefix for other in job.tasks[:number])
        """Whether the same function comes earlier in the stage, and may have made the same calls."""
        self.keeps_recent = bool(self.inner) or sum(other.prefix == task.prefix for other in job.tasks) > 1
        self.constants = {a.parameter: as_form(a.given.value) for a in task.arguments if isinstance(a, Constant)}
        self.notes = _constant_notes(task)

    def provenance(self, columns: dict[str, bytes]) -> Provenance:
        name = f"{getattr(self.node.function, '__module__', '?')}:{self.node.name}"
        return Provenance(name, self.notes, columns)


def _constant_notes(task: Task) -> dict[str, tuple[str, str]]:
    own_private = set(task.node.own_private)
    return {
        a.parameter: (a.given.digest.hex(), "" if a.parameter in own_private else _short(a.given.value))
        for a in task.arguments
        if isinstance(a, Constant)
    }


def _short(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"array{value.shape} {value.dtype}"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a user's __repr__ may raise anything, and this is only a note
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= _REPR_LENGTH else f"{text[:_REPR_LENGTH]}…"


class _Block:
    """One block of a batch while it is being evaluated."""

    def __init__(self, worker: StageWorker, positions: Array, report: BatchReport, *, look_up: bool) -> None:
        self._worker = worker
        self._storage = worker.storage
        self._job = worker.job
        self._positions = positions
        self._report = report
        self._look_up = look_up
        self._columns: dict[str, _Column] = {}
        self._computed: dict[str, Array] = {}
        self._waiting = np.zeros(len(positions), dtype=bool)

    def run(self) -> Array:
        """Evaluate the steps in order; return the positions that wait for somebody else."""
        for number, runner in enumerate(self._worker.runners):
            for name in runner.node.output_names:
                self._columns[name] = _Column(len(self._positions))
            alive = np.ones(len(self._positions), dtype=bool)
            for name in runner.inner:
                alive &= self._columns[name].alive
            rows = np.flatnonzero(alive)
            if len(rows):
                self._run_step(number, runner, rows)
        return self._positions[self._waiting]

    def _run_step(self, number: int, runner: _Runner, rows: Array) -> None:
        columns = self._digests(runner, rows)
        keys = call_keys(runner.task.prefix, list(columns.values()), len(rows))
        ours = self._below_computed(runner, rows)
        found = np.full(len(rows), MISSING, dtype=np.int64)
        if self._look_up or ours.any():
            found = runner.index.find(keys)
        missing = np.flatnonzero(found == MISSING)
        if len(missing) < len(rows):
            hits = np.flatnonzero(found != MISSING)
            self._report.cached += int(np.count_nonzero(ours[hits]))
            self._take_hits(runner, rows[hits], found[hits])
        if len(missing) and ours.any():
            missing = self._claim(runner, rows, keys, ours, missing)
        if len(missing):
            self._compute(number, runner, rows, columns, keys, missing)

    def _below_computed(self, runner: _Runner, rows: Array) -> Array:
        """Which rows depend on something this block computed: the engine could not look those up."""
        mask = np.full(len(rows), runner.twin)
        for name in runner.inner:
            mask |= self._columns[name].locators[rows] == MISSING
        return mask

    def _digests(self, runner: _Runner, rows: Array) -> dict[str, bytes]:
        """The digests of each argument: one for all calls, or one for each row."""
        found: dict[str, bytes] = {}
        positions = take(self._positions, rows)
        for argument in runner.task.arguments:
            match argument:
                case Constant(parameter, given):
                    found[parameter] = given.digest
                case Element(parameter, source, axes):
                    if source in self._columns:
                        found[parameter] = take(self._columns[source].digests, rows).tobytes()
                    else:
                        elements = self._job.space.elements(positions, axes)
                        found[parameter] = self._source(source).digests(elements).tobytes()
                case Slice(parameter, source):
                    found[parameter] = b"".join(
                        slice_digests(self._source(source), argument, self._job, positions)
                    )
        return found

    def _source(self, name: str) -> Source:
        source: Source = self._job.sources[name]
        return source

    def _take_hits(self, runner: _Runner, rows: Array, locators: Array) -> None:
        for output, name in enumerate(runner.node.output_names):
            column = self._columns[name]
            column.digests[rows] = runner.index.digests(locators, output)
            column.locators[rows] = locators
            column.alive[rows] = True

    def _claim(self, runner: _Runner, rows: Array, keys: bytes, ours: Array, missing: Array) -> Array:
        """Claim what the engine could not; return the missing calls that are to be computed here and now."""
        worker = self._worker
        places = missing[ours[missing]].tolist()
        names = np.frombuffer(keys, dtype=DIGEST)[places].tolist()
        first = dict(zip(reversed(names), reversed(places), strict=True))
        known = first.keys() & worker.recent.keys()
        wanted = [key for key in first if key not in known] if known else list(first)
        granted = worker.claims.take(b"".join(wanted))
        mine = wanted if granted.all() else [key for key, ok in zip(wanted, granted.tolist(), strict=True) if ok]
        worker.claimed += mine
        if mine and self._storage.refresh():
            found = runner.index.find(b"".join(mine)) != MISSING
            mine = [key for key, there in zip(mine, found.tolist(), strict=True) if not there]
        if len(mine) == len(places) == len(missing):
            return missing
        chosen = {first[key] for key in mine}
        for key, k in zip(names, places, strict=True):
            if key in known:
                self._take_recent(runner, int(rows[k]), *worker.recent[key])
            elif k not in chosen:
                self._waiting[rows[k]] = True
        return np.array([k for k in missing.tolist() if not ours[k] or k in chosen], dtype=np.int64)

    def _take_recent(self, runner: _Runner, row: int, number: int, place: int) -> None:
        """Use a result that this batch has computed and not committed yet."""
        self._report.cached += 1
        block = self._worker.recent_blocks[number]
        for name, forms, digests in zip(runner.node.output_names, block.columns, block.digests, strict=True):
            column = self._columns[name]
            column.forms[row] = forms[place]
            column.digests[row] = np.void(digests[place * SIZE : (place + 1) * SIZE])
            column.alive[row] = True

    def _compute(
        self, number: int, runner: _Runner, rows: Array, columns: dict[str, bytes], keys: bytes, chosen: Array
    ) -> None:
        arguments = []
        readable = np.ones(len(chosen), dtype=bool)
        for argument in runner.task.arguments:
            forms = self._forms(runner, argument, rows[chosen], readable)
            arguments.append(forms)
        if not readable.all():
            kept = np.flatnonzero(readable)
            arguments = [[column[k] for k in kept.tolist()] for column in arguments]
            chosen = chosen[kept]
        if not len(chosen):
            return
        outcome = runner.caller.run(arguments, len(chosen))
        self._report.computed[number] += len(chosen) - len(outcome.failures)
        self._record(number, runner, rows, columns, keys, chosen, outcome)

    def _record(
        self,
        number: int,
        runner: _Runner,
        rows: Array,
        columns: dict[str, bytes],
        keys: bytes,
        chosen: Array,
        outcome: Outcome,
    ) -> None:
        done = np.arange(len(chosen))
        if outcome.failures:
            self._fail(number, rows[chosen], outcome)
            done = np.array([k for k in range(len(chosen)) if k not in outcome.failures], dtype=np.int64)
        if any(made.live for made in outcome.outputs):
            self._worker.depth_first = True
        for name, made in zip(runner.node.output_names, outcome.outputs, strict=True):
            column = self._columns[name]
            column.digests[rows[chosen]] = np.frombuffer(made.digests, dtype=DIGEST)
            column.alive[rows[chosen[done]]] = True
            if len(chosen) == len(column.forms):
                column.forms, column.live = made.forms, made.live
            else:
                for k, form in enumerate(made.forms):
                    column.forms[rows[chosen[k]]] = form
                column.live = {int(rows[chosen[k]]): array for k, array in made.live.items()}
        self._store(runner, columns, keys, chosen[done], done, outcome, len(rows))

    def _store(
        self,
        runner: _Runner,
        columns: dict[str, bytes],
        keys: bytes,
        chosen: Array,
        done: Array,
        outcome: Outcome,
        count: int,
    ) -> None:
        if not len(chosen):
            return
        own_keys = _pick(keys, chosen, count)
        digests = tuple(_pick(made.digests, done, len(made.forms)) for made in outcome.outputs)
        everything = len(done) == len(outcome.outputs[0].forms)
        forms = tuple(
            made.forms if everything else [made.forms[k] for k in done.tolist()] for made in outcome.outputs
        )
        mapped = {
            a.parameter: _pick(columns[a.parameter], chosen, count)
            for a in runner.task.arguments
            if not isinstance(a, Constant) and len(columns[a.parameter]) == count * SIZE
        }
        block = CallBlock(runner.task.prefix, own_keys, digests, forms, runner.provenance(mapped))
        if runner.keeps_recent:
            self._worker.remember(block)
        self._worker.writer.add(block, outcome.size)

    def _fail(self, number: int, rows: Array, outcome: Outcome) -> None:
        for k, error in outcome.failures.items():
            position = int(self._positions[rows[k]])
            self._report.failures.append(
                describe_failure(position, number, error, portable=self._worker.portable)
            )

    def _forms(self, runner: _Runner, argument: Any, rows: Array, readable: Array) -> Sequence[Any]:
        """What the calls of `rows` are handed for one argument; marks what could not be read."""
        writable = runner.node.writable
        load = self._storage.value
        match argument:
            case Constant(parameter):
                return deliver([runner.constants[parameter]] * len(rows), load, writable=writable)
            case Slice():
                return self._slices(argument, rows, readable, writable=writable)
            case Element(_, source, axes):
                if source in self._columns:
                    return self._inner_forms(source, rows, readable, writable=writable)
                elements = self._job.space.elements(self._positions[rows], axes)
                try:
                    return deliver(self._source(source).forms(elements), load, writable=writable)
                except IntegrityError:
                    return self._one_by_one(source, elements, readable, writable=writable)
        raise AssertionError(argument)

    def _one_by_one(self, source: str, elements: Array, readable: Array, *, writable: bool) -> list[Any]:
        """Read what can be read; report the rest as lost."""
        found: list[Any] = []
        for k, element in enumerate(elements):
            try:
                forms = self._source(source).forms(elements[k : k + 1])
                found += deliver(forms, self._storage.value, writable=writable)
            except IntegrityError:
                self._report.lost.append(Lost(source, int(element)))
                readable[k] = False
                found.append(None)
        return found

    def _inner_forms(self, source: str, rows: Array, readable: Array, *, writable: bool) -> Sequence[Any]:
        column = self._columns[source]
        for k in np.flatnonzero(column.locators[rows] != MISSING).tolist():
            row = int(rows[k])
            if column.forms[row] is None and not self._reload(source, row):
                readable[k] = False
                self._waiting[row] = True
        whole = len(rows) == len(column.forms)
        forms = column.forms if whole else [column.forms[row] for row in rows.tolist()]
        if column.live:
            forms = [column.live.get(row, form) for row, form in zip(rows.tolist(), forms, strict=True)]
        return deliver(forms, self._storage.value, writable=writable)

    def _reload(self, source: str, row: int) -> bool:
        """Fetch a result that was found in the ledger; where its bytes are lost, take it back and return False."""
        runner = self._worker.makers[source]
        column = self._columns[source]
        output = runner.node.output_names.index(source)
        try:
            form = self._storage.forms(runner.index, column.locators[row : row + 1], output)[0]
            if isinstance(form, ChunkRef | ObjectRef):
                form = self._storage.value(form)
        except IntegrityError:
            self._storage.quarantine(runner.index, int(column.locators[row]), output)
            return False
        column.forms[row] = as_form(form) if not isinstance(form, Pickled) else form
        return True

    def _slices(self, argument: Slice, rows: Array, readable: Array, *, writable: bool) -> list[Any]:
        shape = self._job.shapes[argument.source]
        reduced = tuple(n for n, axis in zip(shape, argument.axes, strict=True) if axis is None)
        parts = self._job.space.slices(self._positions[rows], argument.axes, shape)
        found = []
        for k, elements in enumerate(parts):
            before = len(self._report.lost)
            ok = np.ones(len(elements), dtype=bool)
            source = self._source(argument.source)
            try:
                values: Sequence[Any] = [self._storage.value(form) for form in source.forms(elements)]
            except IntegrityError:
                values = self._one_by_one(argument.source, elements, ok, writable=True)
            if len(self._report.lost) > before:
                readable[k] = False
                found.append(None)
                continue
            value = assemble(values, reduced, argument.form)
            if isinstance(value, np.ndarray):
                value.flags.writeable = writable
            found.append(value)
        return found


def slice_digests(source: Source, argument: Slice, job: Job, positions: Array) -> list[bytes]:
    """Return the Merkle root of each call's slice: its elements are not read for that."""
    shape = job.shapes[argument.source]
    reduced = tuple(n for n, axis in zip(shape, argument.axes, strict=True) if axis is None)
    parts = job.space.slices(positions, argument.axes, shape)
    return [bytes(merkle(reduced, source.digests(elements).tobytes())) for elements in parts]


def _pick(block: bytes, chosen: Array, count: int) -> bytes:
    """Return the chosen 16-byte items of a block of `count`."""
    return block if len(chosen) == count else np.frombuffer(block, dtype=DIGEST)[chosen].tobytes()
