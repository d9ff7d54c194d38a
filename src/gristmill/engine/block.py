"""Blocks: a few indices of a stage, evaluated node by node.

Owns the order of look-up, claim, call and record within a block. Below a node that it has just computed, it
looks calls up and claims them itself; everything above has been looked up and claimed by the engine.
"""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.engine import slices
from gristmill.engine.calls import Live, Outcome, OutputColumn, describe_failure
from gristmill.engine.deliver import as_form, deliver
from gristmill.engine.report import BatchReport, Lost, Timed
from gristmill.engine.runner import Runner
from gristmill.engine.sources import DIGEST, Source, load_input, take
from gristmill.engine.writer import SEGMENT_BYTES
from gristmill.errors import DigestError, InputError, IntegrityError, StoreError
from gristmill.identity.digest import digest
from gristmill.identity.keys import call_keys, element_keys, elements_group
from gristmill.identity.types import SIZE
from gristmill.plan.space import Space
from gristmill.plan.stage import Argument, Constant, Element, Slice, Span
from gristmill.storage.elements import ChunkRef, Filed, ObjectRef
from gristmill.storage.index import MISSING
from gristmill.storage.local import CallBlock
from gristmill.storage.segment import EDITED

if TYPE_CHECKING:
    from gristmill.engine.worker import StageWorker

Array = np.ndarray[Any, Any]


class _Column:
    """One output over the rows of a block."""

    def __init__(self, count: int) -> None:
        self.digests = np.zeros(count, dtype=DIGEST)
        self.forms: list[Any] = [None] * count
        self.locators = np.full(count, MISSING, dtype=np.int64)
        self.alive = np.zeros(count, dtype=bool)
        self.live: dict[int, Live] = {}

    def fill(self, rows: Array, made: OutputColumn, alive: Array) -> None:
        """Take in what calls at `rows` made, of which those at `alive` did not fail."""
        self.digests[rows] = np.frombuffer(made.digests, dtype=DIGEST)
        self.alive[alive] = True
        if len(rows) == len(self.forms):
            self.forms, self.live = made.forms, made.live
            return
        places = rows.tolist()
        for row, form in zip(places, made.forms, strict=True):
            self.forms[row] = form
        self.live |= {places[k]: array for k, array in made.live.items()}


@dataclass(frozen=True, slots=True)
class _Calls:
    """The calls of one step in one block."""

    rows: Array
    """Rows of the block."""
    columns: dict[str, bytes]
    """Argument digests: one for all, or one for each row."""
    keys: bytes
    """16 bytes for each row."""
    claimed: Array
    """Which of them this worker has claimed."""


class Block:
    """One block of a batch while it is being evaluated."""

    def __init__(
        self, worker: "StageWorker", positions: Array, report: BatchReport, *, look_up: bool, again: bool
    ) -> None:
        self._worker = worker
        self._job = worker.job
        self._positions = positions
        self._report = report
        self._look_up = look_up
        self._again = again
        self._columns: dict[str, _Column] = {}
        self._waiting = np.zeros(len(positions), dtype=bool)
        self._unread: dict[int, list[Lost]] = {}
        """By row, what a running call could not read of an argument that it reads itself."""

    def run(self) -> Array:
        """Evaluate the steps in order; return the positions that wait for somebody else."""
        for number, runner in enumerate(self._worker.runners):
            for name in runner.node.output_names:
                self._columns[name] = _Column(len(self._positions))
            alive = np.ones(len(self._positions), dtype=bool)
            for name in runner.inner:
                alive &= self._columns[name].alive
            for argument in runner.task.arguments:
                alive &= ~self._lacks(runner, argument)
            if self._again and self._worker.failed_at:
                tried = self._worker.failed_at
                alive &= [(number, position) not in tried for position in self._positions.tolist()]
            rows = np.flatnonzero(alive)
            if len(rows):
                self._run_step(number, runner, rows)
        return self._positions[self._waiting]

    def _elements(self, argument: Element, positions: Array) -> Array:
        """Which element of its source each of `positions` takes."""
        return self._job.space.elements(positions, argument.axes, self._job.spaces[argument.source])

    def _lacks(self, runner: Runner, argument: Argument) -> Array:
        """Mask of the positions that cannot be run, because what an argument comes from has failed upstream."""
        none = np.zeros(len(self._positions), dtype=bool)
        if isinstance(argument, Constant) or argument.source not in self._job.dead:
            return none
        dead = self._job.dead[argument.source]
        if isinstance(argument, Element):
            return np.asarray(dead[self._elements(argument, self._positions)])
        return slices.lacking(argument, self._job, self._positions) if runner.node.errors != "drop" else none

    def _run_step(self, number: int, runner: Runner, rows: Array) -> None:
        columns = self._digests(runner, rows)
        keys = call_keys(runner.task.prefix, list(columns.values()), len(rows))
        found = np.full(len(rows), MISSING, dtype=np.int64)
        epoch = self._worker.stores.epoch
        if self._look_up or runner.is_below:
            found = self._find(runner, keys)
            if (
                runner.index.has_files
                and (edited := runner.storage.edited(runner.index, found, repair=True)).any()
            ):
                runner.storage.take_back(runner.index, found[edited], EDITED)
                found[edited] = MISSING
        missing = np.flatnonzero(found == MISSING)
        if len(missing) < len(rows):
            hits = np.flatnonzero(found != MISSING)
            self._take_hits(runner, rows[hits], found[hits])
        claimed = np.zeros(len(rows), dtype=bool)
        if len(missing) and runner.is_below:
            missing = self._claim(runner, rows, keys, missing, epoch)
            claimed[missing] = True
        if len(missing):
            calls = _Calls(rows, columns, keys, claimed)
            self._compute(number, runner, calls, missing)

    def _find(self, runner: Runner, keys: bytes) -> Array:
        found = runner.index.find(keys)
        if distrusted := self._worker.distrusted:
            found[[key in distrusted for key in np.frombuffer(keys, dtype=DIGEST).tolist()]] = MISSING
        return found

    def _digests(self, runner: Runner, rows: Array) -> dict[str, bytes]:
        """The digests of each argument: one for all calls, or one for each row."""
        found: dict[str, bytes] = {}
        positions = take(self._positions, rows)
        for argument in runner.task.arguments:
            match argument:
                case Constant(parameter, given):
                    found[parameter] = given.digest
                case Element(parameter, source, _):
                    if source in self._columns:
                        found[parameter] = take(self._columns[source].digests, rows).tobytes()
                    else:
                        elements = self._elements(argument, positions)
                        found[parameter] = self._source(source).digests(elements).tobytes()
                case Slice(parameter, source) | Span(parameter, source):
                    found[parameter] = slices.digests(self._source(source), argument, self._job, positions)
        return found

    def _source(self, name: str) -> Source:
        source: Source = self._job.sources[name]
        return source

    def _take_hits(self, runner: Runner, rows: Array, locators: Array) -> None:
        for output, name in enumerate(runner.node.output_names):
            column = self._columns[name]
            column.digests[rows] = runner.index.digests(locators, output)
            column.locators[rows] = locators
            column.alive[rows] = True

    def _claim(self, runner: Runner, rows: Array, keys: bytes, missing: Array, epoch: int) -> Array:
        """Claim what the engine could not; return the missing calls that are to be computed here and now."""
        worker = self._worker
        places = missing.tolist()
        names = np.frombuffer(keys, dtype=DIGEST)[places].tolist()
        first = dict(zip(reversed(names), reversed(places), strict=True))
        known = first.keys() & worker.recent.keys()
        wanted = [key for key in first if key not in known] if known else list(first)
        entitled = self._claimed_by_engine(runner, wanted)
        granted = worker.claims.take(b"".join(wanted), entitled)
        mine = wanted
        if not granted.all():  # what failed in this batch is still claimed by the engine, and fails here too
            mine = [k for k, ok in zip(wanted, granted.tolist(), strict=True) if ok or k in worker.failed]
        worker.stores.refresh()
        if mine and worker.stores.epoch != epoch:  # something may have been committed since the look-up
            there = (self._find(runner, b"".join(mine)) != MISSING).tolist()
            worker.claims.drop(b"".join([key for key, found in zip(mine, there, strict=True) if found]))
            mine = [key for key, found in zip(mine, there, strict=True) if not found]
        if len(mine) == len(places):
            return missing
        chosen = {first[key] for key in mine}
        for key, k in zip(names, places, strict=True):
            if key in known:
                self._take_recent(runner, int(rows[k]), *worker.recent[key])
            elif k not in chosen:
                self._waiting[rows[k]] = True
        return np.array([k for k in places if k in chosen], dtype=np.int64)

    def _claimed_by_engine(self, runner: Runner, keys: Sequence[bytes]) -> Array:
        """Which calls the engine knew, and claimed for this batch."""
        if self._worker.impatient or (runner.twin and not runner.inner):
            return np.ones(len(keys), dtype=bool)
        claimed = self._worker.entitled
        if not claimed:
            return np.zeros(len(keys), dtype=bool)
        return np.array([key in claimed for key in keys], dtype=bool)

    def _take_recent(self, runner: Runner, row: int, number: int, place: int) -> None:
        """Use a result that this batch has computed and not committed yet."""
        block = self._worker.recent_blocks[number]
        for name, forms, digests in zip(runner.node.output_names, block.columns, block.digests, strict=True):
            column = self._columns[name]
            column.forms[row] = forms[place]
            column.digests[row] = np.void(digests[place * SIZE : (place + 1) * SIZE])
            column.alive[row] = True

    def _compute(self, number: int, runner: Runner, calls: "_Calls", chosen: Array) -> None:
        readable = np.ones(len(chosen), dtype=bool)
        rows = calls.rows[chosen]
        arguments = [
            self._delivered(number, runner, argument, rows, readable) for argument in runner.task.arguments
        ]
        if not readable.all():
            self._release(calls, chosen[~readable])
            kept = np.flatnonzero(readable)
            arguments = [[column[k] for k in kept.tolist()] for column in arguments]
            chosen = chosen[kept]
        if not len(chosen):
            return
        keys = _pick(calls.keys, chosen, len(calls.rows))
        positions = self._positions[calls.rows[chosen]].tolist()
        started, worked = time.perf_counter(), time.thread_time()
        for places, outcome in runner.caller.stream(arguments, positions, keys):
            wall, busy = self._report.spent.get(number, (0.0, 0.0))
            now, work = time.perf_counter(), time.thread_time()
            self._report.spent[number] = wall + now - started, busy + work - worked
            self._take_in(number, runner, calls, chosen[places], outcome)
            if outcome.interrupt is not None:
                raise outcome.interrupt
            started, worked = time.perf_counter(), time.thread_time()

    def _take_in(self, number: int, runner: Runner, calls: "_Calls", chosen: Array, outcome: Outcome) -> None:
        """Check and record calls that have ended."""
        self._check_reading(calls.rows[chosen], outcome)
        self._check_files(runner, calls.rows[chosen], outcome)
        lost = len(outcome.failures) + len(outcome.unmade) + outcome.passed
        self._report.computed[number] += len(chosen) - lost
        if outcome.times:
            begun, seconds = zip(*outcome.times.values(), strict=True)
            self._report.timed.append(Timed(number, list(outcome.times), list(begun), list(seconds)))
        self._record(number, runner, calls, chosen, outcome)

    def _check_reading(self, rows: Array, outcome: Outcome) -> None:
        """Disregard the calls that met damage in what they read themselves, whatever they made of it."""
        for k, row in enumerate(rows.tolist() if self._unread else ()):
            if (lost := self._unread.pop(row, None)) is not None:
                outcome.failures.pop(k, None)
                outcome.unmade.add(k)
                self._report.lost += dict.fromkeys(lost)

    def _check_files(self, runner: Runner, rows: Array, outcome: Outcome) -> None:
        """Fail the calls whose arguments had files in them that have changed since they were identified."""
        for argument in runner.task.arguments:
            for k in self._changed(runner, argument, rows):
                if k not in outcome.failures and k not in outcome.unmade:
                    outcome.failures[k] = InputError(
                        f"a file in the argument {argument.parameter!r} changed while {runner.node.name} ran, so it "
                        "is not known which content the result belongs to, and it is not kept; run again"
                    )

    def _changed(self, runner: Runner, argument: Argument, rows: Array) -> Sequence[int]:
        if isinstance(argument, Constant):
            given = argument.given
            still = not given.holds_files or _is_still(
                load_input(runner.constants[argument.parameter]), given.digest
            )
            return () if still else range(len(rows))
        name = argument.source
        if name in self._columns:
            if Filed not in set(map(type, self._columns[name].forms)):
                return ()
        elif not self._source(name).holds_files:
            return ()
        held = enumerate(self._held_files(argument, rows))
        return [k for k, pairs in held if not all(itertools.starmap(_is_still, pairs))]

    def _held_files(
        self, argument: Element | Slice | Span, rows: Array
    ) -> Iterator[Iterable[tuple[Any, bytes]]]:
        """For each call, the values that may have files in them, with the digests they had."""
        name = argument.source
        if name in self._columns:
            column, storage = self._columns[name], self._worker.makers[name].storage
            for row in rows.tolist():
                form = column.forms[row]
                yield (
                    [(storage.value(form), column.digests[row].tobytes())] if isinstance(form, Filed) else ()
                )
            return
        source = self._source(name)
        if isinstance(argument, Element):
            elements = self._elements(argument, self._positions[rows])
            for pair in _identified(source, elements):
                yield (pair,)
            return
        for elements, _ in slices.parts(argument, self._job, self._positions[rows]):
            has = slices.there(argument, self._job, elements)
            yield _identified(source, elements if has is None else elements[has])

    def _release(self, calls: "_Calls", places: Array) -> None:
        self._worker.claims.drop(_pick(calls.keys, places[calls.claimed[places]], len(calls.rows)))

    def _record(self, number: int, runner: Runner, calls: "_Calls", chosen: Array, outcome: Outcome) -> None:
        rows = calls.rows[chosen]
        done = np.arange(len(chosen))
        if outcome.failures:
            self._fail(number, rows, outcome)
            failed = chosen[list(outcome.failures)]
            self._worker.failed.update(np.frombuffer(calls.keys, dtype=DIGEST)[failed].tolist())
        if outcome.failures or outcome.unmade:
            lost = {*outcome.failures, *outcome.unmade}
            self._release(calls, chosen[sorted(lost)])
            done = np.array([k for k in range(len(chosen)) if k not in lost], dtype=np.int64)
        if any(made.live for made in outcome.outputs):
            self._worker.depth_first = True
        for name, made in zip(runner.node.output_names, outcome.outputs, strict=True):
            self._columns[name].fill(rows, made, rows[done])
        if len(done):
            self._store(runner, calls, chosen[done], done, outcome)

    def _store(self, runner: Runner, calls: "_Calls", chosen: Array, done: Array, outcome: Outcome) -> None:
        count = len(calls.rows)
        keys = _pick(calls.keys, chosen, count)
        digests = tuple(_pick(made.digests, done, len(made.forms)) for made in outcome.outputs)
        whole = len(done) == len(outcome.outputs[0].forms)
        forms = tuple(
            made.forms if whole else [made.forms[k] for k in done.tolist()] for made in outcome.outputs
        )
        mapped = {
            a.parameter: _pick(_each(calls.columns[a.parameter], count), chosen, count)
            for a in runner.task.arguments
            if not isinstance(a, Constant)
        }
        if self._worker.distrusted:
            self._worker.distrusted.difference_update(np.frombuffer(keys, dtype=DIGEST).tolist())
        block = CallBlock(runner.task.prefix, keys, digests, forms, runner.provenance(mapped))
        if runner.keeps_recent:
            self._worker.remember(block)
        self._store_elements(runner, keys, done, outcome)
        claimed = _pick(calls.keys, chosen[calls.claimed[chosen]], count)
        self._worker.writer(runner).add(block, outcome.size, claimed)

    def _store_elements(self, runner: Runner, keys: bytes, done: Array, outcome: Outcome) -> None:
        """Record the elements that calls have made along axes, before the calls themselves."""
        for output, made in enumerate(outcome.outputs):
            parts = [made.spread[k] for k in done.tolist()] if made.spread else []
            if not any(part.forms for part in parts):
                continue
            calls = np.repeat(np.frombuffer(keys, dtype=DIGEST), [len(part.forms) for part in parts])
            places = np.concatenate([np.indices(part.shape).reshape(len(part.shape), -1).T for part in parts])
            forms = list(itertools.chain.from_iterable(part.forms for part in parts))
            digests = b"".join([part.digests for part in parts])
            size = sum(part.size for part in parts)
            group = elements_group(runner.task.prefix, output)
            names = element_keys(calls.tobytes(), places)
            step = max(1, len(forms) * SEGMENT_BYTES // max(size, 1))
            for low in range(0, len(forms), step):
                chosen = slice(low * SIZE, (low + step) * SIZE)
                part = forms[low : low + step]
                block = CallBlock(
                    group, names[chosen], (digests[chosen],), (part,), runner.element_provenance
                )
                self._worker.writer(runner).add(block, size * len(part) // len(forms))

    def _fail(self, number: int, rows: Array, outcome: Outcome) -> None:
        for k, error in outcome.failures.items():
            position = int(self._positions[rows[k]])
            self._worker.failed_at.add((number, position))
            self._report.failures.append(
                describe_failure(
                    position,
                    number,
                    error,
                    portable=self._worker.portable,
                    attempts=outcome.attempts.get(k, 1),
                )
            )

    def _delivered(
        self, number: int, runner: Runner, argument: Argument, rows: Array, readable: Array
    ) -> Sequence[Any]:
        """What `_forms` gives; where an argument cannot be made, its call fails and no other."""
        try:
            return self._forms(runner, argument, rows, readable)
        except StoreError:
            raise
        except Exception:  # noqa: BLE001 - a user's __setstate__ may raise anything
            return [
                self._delivered_alone(number, runner, argument, rows[k : k + 1], readable[k : k + 1])
                for k in range(len(rows))
            ]

    def _delivered_alone(
        self, number: int, runner: Runner, argument: Argument, row: Array, readable: Array
    ) -> Any:
        try:
            return self._forms(runner, argument, row, readable)[0]
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            error.add_note(f"while the argument {argument.parameter!r} was made from what is stored")
            position = int(self._positions[row[0]])
            self._worker.failed_at.add((number, position))
            portable = self._worker.portable
            self._report.failures.append(describe_failure(position, number, error, portable=portable))
            readable[0] = False
            return None

    def _forms(self, runner: Runner, argument: Argument, rows: Array, readable: Array) -> Sequence[Any]:
        """What the calls of `rows` are handed for one argument; marks what could not be read."""
        writable = runner.node.writable
        match argument:
            case Constant(parameter):
                return deliver([runner.constants[parameter]] * len(rows), load_input, writable=writable)
            case Slice() | Span():
                return self._slices(argument, rows, readable, writable=writable)
            case Element(_, source, _):
                if source in self._columns:
                    return self._inner_forms(source, rows, readable, writable=writable)
                elements = self._elements(argument, self._positions[rows])
                place = self._source(source)
                try:
                    return deliver(place.forms(elements), place.load, writable=writable)
                except IntegrityError:
                    return self._one_by_one(source, elements, readable, writable=writable)

    def _one_by_one(self, source: str, elements: Array, readable: Array, *, writable: bool) -> list[Any]:
        """Read what can be read; report the rest as lost."""
        place = self._source(source)
        found: list[Any] = []
        for k in range(len(elements)):
            try:
                found += deliver(place.forms(elements[k : k + 1]), place.load, writable=writable)
            except IntegrityError:
                self._report.lost.append(Lost(source, int(elements[k])))
                readable[k] = False
                found.append(None)
        return found

    def _inner_forms(self, source: str, rows: Array, readable: Array, *, writable: bool) -> Sequence[Any]:
        column = self._columns[source]
        storage = self._worker.makers[source].storage
        found = np.flatnonzero(column.locators[rows] != MISSING).tolist()
        self._reload_all(source, [row for row in rows[found].tolist() if column.forms[row] is None])
        for k in found:
            row = int(rows[k])
            if column.forms[row] is None and not self._reload(source, row):
                readable[k] = False
                self._waiting[row] = True
        whole = len(rows) == len(column.forms)
        forms = column.forms if whole else [column.forms[row] for row in rows.tolist()]
        if column.live:
            forms = [column.live.get(row, form) for row, form in zip(rows.tolist(), forms, strict=True)]
        try:
            return deliver(forms, storage.value, writable=writable)
        except IntegrityError:
            return [
                self._inner_alone(source, form, rows[k : k + 1], readable[k : k + 1], writable=writable)
                for k, form in enumerate(forms)
            ]

    def _inner_alone(self, source: str, form: Any, row: Array, readable: Array, *, writable: bool) -> Any:
        """One value made in this batch; where its bytes are gone already, its call is taken back."""
        storage = self._worker.makers[source].storage
        try:
            return deliver([form], storage.value, writable=writable)[0]
        except IntegrityError:
            self._take_back(source, row)
            readable[0] = False
            self._waiting[row] = True
            return None

    def _take_back(self, source: str, row: Array) -> None:
        runner = self._worker.makers[source]
        self._worker.writer(runner).flush()
        key = call_keys(runner.task.prefix, list(self._digests(runner, row).values()), 1)
        self._worker.recent.pop(key, None)
        locators = runner.index.find(key)
        found = locators[locators != MISSING]
        if len(found):
            runner.storage.quarantine(runner.index, found, runner.node.output_names.index(source))

    def _reload_all(self, source: str, rows: list[int]) -> None:
        """Fetch packed results that were found in the ledger, unless one of them is lost."""
        runner = self._worker.makers[source]
        column = self._columns[source]
        output = runner.node.output_names.index(source)
        try:
            forms = runner.storage.forms(runner.index, column.locators[rows], output) if rows else ()
        except IntegrityError:
            return
        for row, form in zip(rows, forms, strict=True):
            if not isinstance(form, ChunkRef | ObjectRef):
                column.forms[row] = form

    def _reload(self, source: str, row: int) -> bool:
        """Fetch a result that was found in the ledger; where its bytes are lost, take it back."""
        runner = self._worker.makers[source]
        column = self._columns[source]
        output = runner.node.output_names.index(source)
        try:
            form = runner.storage.forms(runner.index, column.locators[row : row + 1], output)[0]
            if isinstance(form, ChunkRef | ObjectRef):
                form = as_form(runner.storage.value(form))
        except IntegrityError:
            runner.storage.quarantine(runner.index, column.locators[row : row + 1], output)
            return False
        column.forms[row] = form
        return True

    def _slices(self, argument: Slice | Span, rows: Array, readable: Array, *, writable: bool) -> list[Any]:
        found: list[Any] = []
        shared = None
        for k, (elements, part) in enumerate(slices.parts(argument, self._job, self._positions[rows])):
            if argument.form in slices.LAZY:
                found.append(self._reader(argument, elements, part, int(rows[k]), readable[k : k + 1]))
                continue
            if shared is not None:
                found.append(shared)
                continue
            values = self._gather(argument, elements)
            if values is None:
                readable[k] = False
                found.append(None)
                continue
            value = slices.handed(argument, int(self._positions[rows[k]]), values, part)
            if isinstance(value, np.ndarray):
                value.flags.writeable = writable
                if argument.is_whole and not writable and value.dtype != object:
                    shared = value
            found.append(value)
        return found

    def _reader(self, argument: Slice | Span, elements: Array, part: Space, row: int, readable: Array) -> Any:
        """What a call reads a slice with; what it finds damaged is lost, and so is what the call returns then."""
        name = argument.source
        source = self._source(name)
        if len(gone := slices.vanished(source, argument, self._job, elements)):
            self._report.lost += [Lost(name, position) for position in gone.tolist()]
            readable[0] = False
            return None

        def lost(positions: Array) -> None:
            self._unread.setdefault(row, []).extend(Lost(name, p) for p in positions.tolist())

        return slices.reader(source, argument, self._job, elements, part, lost)

    def _gather(self, argument: Slice | Span, elements: Array) -> Sequence[Any] | None:
        """The elements of a slice, or None where some are lost."""
        source = self._source(argument.source)
        has = slices.there(argument, self._job, elements)
        stored = elements if has is None else elements[has]
        try:
            values: Sequence[Any] = [source.load(form) for form in source.forms(stored)]
        except IntegrityError:
            whole = np.ones(len(stored), dtype=bool)
            values = self._one_by_one(argument.source, stored, whole, writable=True)
            if not whole.all():
                return None
        return slices.completed(argument, self._job, elements, has, values)


def _identified(source: Source, elements: Array) -> Iterable[tuple[Any, bytes]]:
    return zip(map(source.load, source.forms(elements)), source.digests(elements).tolist(), strict=True)


def _is_still(value: Any, identity: bytes) -> bool:
    try:
        return bytes(digest(value)) == identity
    except (DigestError, InputError, OSError):  # it is gone, or changing right now
        return False


def _each(column: bytes, count: int) -> bytes:
    """Return a column of digests with one for each call."""
    return column if len(column) == count * SIZE else column * count


def _pick(block: bytes, chosen: Array, count: int) -> bytes:
    """Return the chosen 16-byte items of a block of `count`."""
    return block if len(chosen) == count else np.frombuffer(block, dtype=DIGEST)[chosen].tobytes()
