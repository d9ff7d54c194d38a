"""The loop: drives a plan to its end, whatever runs the batches.

For each stage: look everything up; claim what is missing; send batches; take in reports, which say only what
was done: results are found in the ledger like anybody else's. A stage starts when the stages it reads are
complete.
"""

import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gristmill.engine.active import Active, Flight
from gristmill.engine.apart import take_over
from gristmill.engine.batches import BatchSizer
from gristmill.engine.causes import with_errors
from gristmill.engine.control import Control
from gristmill.engine.deaths import bury, time_out
from gristmill.engine.executors.base import SlotDiedError, Transport
from gristmill.engine.faults import FaultWatch, OnStoreError
from gristmill.engine.flow import is_there, taken
from gristmill.engine.interrupts import Bell, Interrupts, guarded
from gristmill.engine.job import Passed
from gristmill.engine.losses import Losses
from gristmill.engine.narrator import Narrator
from gristmill.engine.overdue import LOOK_SECONDS as OVERDUE_SECONDS
from gristmill.engine.overdue import OverdueCalls
from gristmill.engine.report import BatchReport, Failure
from gristmill.engine.stagerun import Missing, StageRun
from gristmill.engine.stages import Stages
from gristmill.engine.stopped import LOOK_SECONDS, StoppedBatches
from gristmill.engine.stores import Stores
from gristmill.events import FaultEvent, Observers, RunEvent, StageEvent
from gristmill.identity.types import SIZE
from gristmill.plan.compile import Plan
from gristmill.plan.stage import Stage

Array = np.ndarray[Any, Any]

_POLL_SECONDS = 0.01
"""How often calls that another process has claimed are looked at again."""

WATCH_SECONDS = 0.1
"""How often it is looked which items of a batch under way are done, if somebody waits for items."""

_GRACE_SECONDS = 1.5
"""How long batches may go on after Ctrl-C before their processes are ended."""

Landed = Callable[[StageRun, Array, Array | float | None], Sequence[tuple[str, int]]]


@dataclass
class RunOutcome:
    """What a run left behind, besides what is in the store."""

    stages: dict[int, StageRun] = field(default_factory=dict)
    bytes_written: int = 0
    seconds: float = 0.0
    failed: "tuple[Stage, Failure] | None" = None
    """The first failure of a run that stops at one."""


class Loop:
    """One run of one plan.

    Parameters
    ----------
    plan
        What to run.
    storage
        Where results live.
    choose
        Gives the transport for a stage: called when the stage starts, and again with what has been measured.
    observers
        Who is told.
    run_id
        Names the run.
    stop_at_failure
        Whether the first failure ends the run.
    check_mutation
        Whether a call fails that changes its arguments.
    on_store_error
        What to do when the store does not take what is computed; see `FaultWatch`.
    on_landed
        Called with a stage, the positions that may be complete now, for derived data, and the seconds that the
        calls of each of them took, None where no call was made; returns the outputs and positions whose
        bytes turned out to be gone.
    deaths
        How often a call may kill its process, alone in it or seen at work, before it is given up.
    control
        What others ask of the run while it goes on.
    """

    def __init__(
        self,
        plan: Plan,
        stores: Stores,
        choose: Callable[[StageRun, BatchSizer, int], Transport],
        observers: Observers,
        run_id: str,
        *,
        stop_at_failure: bool,
        check_mutation: bool,
        on_store_error: OnStoreError,
        on_landed: Landed,
        deaths: int = 2,
        control: Control | None = None,
    ) -> None:
        self._plan = plan
        self._stores = stores
        self._claims = stores.kept.claims()
        self._choose = choose
        self._observers = observers
        self._run_id = run_id
        self._stop_at_failure = stop_at_failure
        self._check_mutation = check_mutation
        self._on_landed = on_landed
        self._deaths = deaths
        self._faults = FaultWatch(stores, on_store_error, observers, run_id)
        self._stages = Stages(plan, stores)
        self._losses = Losses(self._stages, self._tell_lost)
        self._flights: dict[Future[BatchReport], Flight] = {}
        self._bell = Bell()
        self._control = control or Control()
        self._control.attach(self._bell)
        self._watched = 0.0
        self._held = False
        """Whether something is not sent because there is no room for it."""
        self._stopped = StoppedBatches()
        self._overdue = OverdueCalls()
        self._narrator = Narrator(observers, run_id, self._bell, is_timed=self._control.is_timed)
        self._polled = 0.0
        self.outcome = RunOutcome(self._stages.runs)

    @guarded
    def run(self) -> RunOutcome:
        """Run to the end, or to the first failure; what was finished is kept in any case."""
        started, written = time.perf_counter(), self._stores.bytes_written
        self._tell_run("on_run_start", 0.0)
        failed = True
        try:
            self._stores.kept.reopen()
            self._stores.kept.move_home()
            self._stores.refresh()
            while self._advance():
                pass
            self._faults.check()
            self._stores.kept.move_home()
            failed = self.outcome.failed is not None
        except BaseException:
            self._land_rest()
            raise
        finally:
            self.outcome.seconds = time.perf_counter() - started
            self.outcome.bytes_written += self._stores.bytes_written - written
            self._claims.close()
            self._tell_run("on_run_end", self.outcome.seconds, failed=failed)
        return self.outcome

    def _advance(self) -> bool:
        """Do what can be done now; return whether anything is left."""
        Interrupts.check()
        self._control.check()
        if self.outcome.failed is None:
            self._start_stages()
            self._dispatch()
        if self._flights:
            waiting = any(active.waiting for active in self._stages.active.values())
            if not any(map(Future.done, self._flights)):
                self._bell.wait(_POLL_SECONDS if waiting else self._patience())
                self._release_stopped()
                self._look()
            for future in [one for one in self._flights if one.done()]:
                self._land(future)
            if self._control.is_watched:
                self._watch()
        elif self.outcome.failed is not None:
            return False
        elif any(active.waiting for active in self._stages.active.values()):
            time.sleep(_POLL_SECONDS)
        elif self._held:
            self._bell.wait(LOOK_SECONDS)
        return not self._stages.are_complete

    # -- starting -----------------------------------------------------------------------------------------------

    def _start_stages(self) -> None:
        while (stage := self._stages.startable()) is not None:
            if not self._stages.is_grown(stage):
                self._stages.grow(stage)
                continue
            with self._stores.kept.gate.entered():  # what is found here is not collected before it is named
                self._stores.refresh()
                self._start_stage(stage)

    def _start_stage(self, stage: Stage) -> None:
        active = self._start(stage)
        self._stages.active[stage.number] = active
        self._stages.runs[stage.number] = active.run
        self._tell(active, "on_stage_start")
        self._narrator.open(active.run)
        self._landed(active, np.arange(active.run.size))
        self._settle(active)
        if active.complete:
            self._end_stage(active)

    def _start(self, stage: Stage) -> Active:
        sources, dead = self._stages.sources(stage), self._stages.dead(stage)
        passed: Mapping[str, Passed] = {}
        if self._stores.private is not None:  # nowhere else may be kept what is made of errors
            stage, passed = with_errors(stage, dead, self._stages.runs)
        spaces = self._stages.spaces(sources)
        run = StageRun(self._plan, stage, sources, spaces, self._stores, dead, passed=passed)
        run.check_mutation = self._check_mutation
        run.fail_fast = self._stop_at_failure
        if (whole := self._stages.apart.get(stage.number)) is not None:
            take_over(run, self._stages.runs.pop(whole))
        active = Active(run, None, BatchSizer(1), 0)
        active.held.hold(np.arange(run.size))
        self._release(active)
        return active

    def _release(self, active: Active) -> tuple[Array, Array]:
        """Look up and queue what can be run of a stage; return it, and what is missing of it."""
        run = active.run
        under_way = self._stages.under_way(run.stage)
        free = active.held.release(run, under_way)
        active.flows |= bool(under_way)
        if active.transport is not None and active.flows and len(free):
            active.transport.extend(run, taken(run, free, run.sources))
        missing = run.examine(free, files=True)
        self._enqueue(active, missing)
        active.found += len(free) - len(missing.positions)
        return free, missing.positions

    def _enqueue(self, active: Active, missing: Missing) -> None:
        """Queue what is missing; of positions that make the same call, one now and the others later."""
        halves = np.frombuffer(missing.keys, dtype="<u8")[::2]
        _, first, inverse = np.unique(halves, return_index=True, return_inverse=True)
        if len(first) < len(halves):
            repeated = missing.owners != missing.owners[first][inverse]
            later = np.unique(missing.owners[repeated])
            active.later.append(later)
            now = np.setdiff1d(missing.positions, later, assume_unique=True)
        else:
            now = missing.positions
        active.queue(now)

    # -- sending ------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        self._held = False
        for active in self._in_order():
            if not self._is_fed(active):
                continue
            while active.left and self._has_room(active, transport := self._transport(active)):
                if (room := self._control.room(active.run, active.flying)) < 1:
                    self._held = True
                    break
                is_alone = not transport.is_shared or bool(active.suspects)
                batch = self._next_batch(active, transport, room)
                sent = self._send(active, transport, batch, is_alone=is_alone)
                if sent is not None and sent.done():
                    return  # its report is there already
            if not active.flying and not active.left:
                self._revive(active)

    def _in_order(self) -> list[Active]:
        """The stages, with those last of which a batch runs in this thread and keeps it from sending others."""
        return sorted(
            self._stages.active.values(),
            key=lambda one: one.transport is not None and one.transport.is_direct,
        )

    def _is_fed(self, active: Active) -> bool:
        """Have positions queued as what they take comes; return whether those that are can be run."""
        stage = active.run.stage
        if not self._stages.is_ready(stage):
            if not self._stages.may_flow(stage):
                return False  # an element of an earlier stage was lost and is being computed again
            if active.is_doubtful:
                self._hold_back(active)
            if active.left or not active.held.is_due:
                return True
        if len(active.held):
            found = np.setdiff1d(*self._release(active), assume_unique=True)
            self._landed(active, found)
            self._settle(active)
            if len(found):
                self._note_progress(active)
        return True

    def _hold_back(self, active: Active) -> None:
        """Take back queued positions of which something may be gone."""
        active.is_doubtful = False
        suspects = set(active.suspects)
        for one in (*active.pending, *active.later, *active.waiting):
            active.held.hold(one)
        active.pending.clear()
        active.later, active.waiting = [], []
        under_way = self._stages.under_way(active.run.stage)
        there = is_there(active.run, np.array(active.suspects, dtype=np.int64), under_way)
        active.suspects = deque(
            one for one, is_safe in zip(active.suspects, there.tolist(), strict=True) if is_safe
        )
        active.held.hold(np.array(sorted(suspects - set(active.suspects)), dtype=np.int64))

    def _transport(self, active: Active) -> Transport:
        active.transport = self._choose(active.run, active.sizer, active.left + len(active.held))
        return active.transport

    def _has_room(self, active: Active, transport: Transport) -> bool:
        """Whether another batch may be sent now: where a death takes all along, none beside a suspect."""
        if transport.free(active.run) <= 0:
            return active.sizer.is_brisk(active.left) and transport.ahead(active.run) > 0
        if not transport.is_shared:
            return True
        under_way = [one for one in self._flights.values() if one.transport is transport]
        suspects = any(one.suspects for one in self._stages.active.values() if one.transport is transport)
        return not under_way or not (suspects or any(one.is_alone for one in under_way))

    def _next_batch(self, active: Active, transport: Transport, room: int) -> Array:
        if active.suspects and (transport.is_shared or not active.pending):
            return np.array([active.suspects.popleft()])
        active.sizer.width = transport.width
        size = min(room, max(active.sizer.next(active.left), transport.least(active.run)))
        head = active.pending.popleft()
        if len(head) > size:
            active.pending.appendleft(head[size:])
        return head[:size]

    def _send(
        self, active: Active, transport: Transport, positions: Array, *, is_alone: bool
    ) -> "Future[BatchReport] | None":
        """Claim, look up again if anything was appended meanwhile, and send what is ours, if anything is."""
        epoch = self._stores.epoch
        missing = active.run.examine(positions)
        granted = self._claims.take(missing.keys)
        claimed = _chosen(missing.keys, granted)
        self._stores.refresh()
        changed = self._stores.epoch != epoch
        missing_now = active.run.examine(missing.positions) if changed else missing
        refused = np.unique(missing.owners[~granted])
        self._landed(active, np.setdiff1d(positions, missing_now.positions, assume_unique=True))
        ours = np.setdiff1d(missing_now.positions, refused, assume_unique=True)
        others = np.intersect1d(missing_now.positions, refused, assume_unique=True)
        if len(others):
            active.waiting.append(others)
            # What is not sent is not held: who computes what it waits for may be waiting for it.
            unsent = granted & np.isin(missing.owners, others)
            self._claims.drop(_chosen(missing.keys, unsent))
            claimed = _chosen(missing.keys, granted & ~unsent)
        if not len(ours):
            self._claims.drop(claimed)
            self._note_progress(active)
            return None
        distrusted = missing_now.keys if self._losses.is_repeated(active, ours) else b""
        attempts: Mapping[tuple[int, int], int] = {}
        if active.attempts:
            sent = set(ours.tolist())
            attempts = {call: made for call, made in active.attempts.items() if call[1] in sent}
        future = transport.submit(
            active.run,
            ours,
            self._claims,
            replace(
                missing_now,
                below=missing.below,
                distrusted=distrusted,
                attempts=attempts,
                fresh=missing_now.fresh and not active.flows,
            ),
        )
        active.flying += len(ours)
        self._flights[future] = Flight(active, ours, claimed, transport, is_alone, ours)
        future.add_done_callback(self._bell.ring)
        return future

    def _revive(self, active: Active) -> None:
        """Look again at what had to wait, once nothing of the stage itself is under way."""
        if active.later:
            positions, active.later = np.concatenate(active.later), []
        elif active.waiting:
            now = time.monotonic()
            if not self._stores.refresh() and now - self._polled < 10 * _POLL_SECONDS:
                return
            self._polled = now
            positions, active.waiting = np.concatenate(active.waiting), []
        else:
            return
        missing = active.run.examine(np.sort(positions))
        self._enqueue(active, missing)
        self._landed(active, np.setdiff1d(positions, missing.positions))
        self._settle(active)
        self._note_progress(active)

    # -- taking in ----------------------------------------------------------------------------------------------

    def _land(self, future: "Future[BatchReport]") -> None:
        flight = self._flights.pop(future)
        active = flight.active
        active.flying -= len(flight.positions)
        seconds: Array | float | None = 0.0
        try:
            report = future.result()
        except SlotDiedError as error:
            self._stores.refresh()
            late = self._overdue.take(future)
            lost = bury(flight, error, self._deaths) if late is None else time_out(flight, late)
            if lost is not None:
                self._fail(active, lost)
        else:
            self._stores.refresh()
            self._overdue.take(future)
            self._take_in(active, flight, report)
            seconds = _seconds_each(flight, report)
        finally:
            self._claims.drop(flight.claimed)
        self._landed(active, flight.positions, seconds)
        self._settle(active)
        self._note_progress(active)

    def _watch(self) -> None:
        """See which items of batches under way are done: nobody has to wait for the slowest of a batch."""
        now = time.monotonic()
        if now < self._watched + WATCH_SECONDS:
            return
        self._watched = now
        self._stores.refresh()
        for future, flight in tuple(self._flights.items()):
            run = flight.active.run
            left = run.examine(flight.left).positions
            done = np.setdiff1d(flight.left, left, assume_unique=True)
            self._flights[future] = replace(flight, left=left)
            if len(done):  # callbacks hear of them with the report, which knows their times
                self._losses.recompute(self._on_landed(run, done, now - flight.sent))

    def _settle(self, active: Active) -> None:
        """Once all calls are made, see what they have made along axes; queue those of which something is gone."""
        if active.complete and self.outcome.failed is None and len(again := active.run.settle()):
            self._losses.repeat(active, again, excused=False)

    def _landed(self, active: Active, positions: Array, seconds: "Array | float | None" = None) -> None:
        if not len(positions):
            return
        self._narrator.land(active.run, positions)
        self._losses.recompute(self._on_landed(active.run, positions, seconds))

    def _take_in(self, active: Active, flight: Flight, report: BatchReport) -> None:
        active.sizer.learn(len(flight.positions), report.seconds, report.busy_seconds)
        self.outcome.bytes_written += report.bytes_written
        self._faults.check(report.fault)
        again = active.run.record(flight.positions, report)
        self._narrator.take_in(active.run, report)
        if not self._stop_at_failure:
            _forget_frames(report.failures)
        if report.failures and self._stop_at_failure:
            self.outcome.failed = (
                active.run.stage,
                min(report.failures, key=lambda one: (one.position, one.step)),
            )
        if report.failures:
            self._stages.mark_dead(active.run)
        self._losses.recompute([(lost.source, lost.position) for lost in report.lost])
        if len(again):
            self._losses.repeat(active, again, excused=bool(report.lost))

    def _fail(self, active: Active, failure: Failure) -> None:
        """Take in a call that failed with its process."""
        run = active.run
        report = BatchReport([0] * len(run.stage.steps), failures=[failure])
        run.record(np.array([failure.position]), report)
        self._narrator.take_in(run, report)
        self._stages.mark_dead(run)
        if self._stop_at_failure:
            self.outcome.failed = (run.stage, failure)

    def _patience(self) -> float:
        """How long nothing need be looked at."""
        steps = (
            step
            for active in self._stages.active.values()
            if active.flying
            for step in active.run.stage.steps
        )
        limits = [step.node.timeout for step in steps if step.node.timeout is not None]
        looked_for = self._narrator.looks or self._control.is_watched
        longest = WATCH_SECONDS if looked_for else LOOK_SECONDS
        return min([longest, *(max(0.01, min(limit / 10, OVERDUE_SECONDS)) for limit in limits)])

    def _release_stopped(self) -> None:
        """Let others make the calls of batches whose processes have been stopped for long."""
        for future in self._stopped.overdue(self._stages.transports):
            if (flight := self._flights.get(future)) is not None:
                self._claims.drop(flight.claimed)
                self._flights[future] = replace(flight, claimed=b"")

    def _land_rest(self) -> None:
        """After an interruption: give running batches a moment, so that their work is kept."""
        for active in self._stages.active.values():
            if active.transport is not None:
                active.transport.halt()
        deadline = time.monotonic() + _GRACE_SECONDS
        while (left := deadline - time.monotonic()) > 0 and not all(map(Future.done, self._flights)):
            self._bell.wait(left)
        for flight in self._flights.values():
            self._claims.drop(flight.claimed)
        self._flights.clear()

    # -- telling ------------------------------------------------------------------------------------------------

    def _note_progress(self, active: Active) -> None:
        self._tell(active, "on_stage_progress")
        if active.complete:
            self._end_stage(active)

    def _end_stage(self, active: Active) -> None:
        self._tell(active, "on_stage_end")
        self._narrator.close(active.run, time.perf_counter() - active.started)

    def _look(self) -> None:
        """See what worker processes are at."""
        self._narrator.hear()
        for transport in self._stages.transports:
            for batch, call in transport.underway().items():
                flight = self._flights.get(batch)
                if flight is None or call.position not in flight.positions:
                    continue
                run = flight.active.run
                self._narrator.see(run, call)
                if self._overdue.is_late(batch, run.stage.steps[call.step].node, call):
                    transport.end(batch)

    def _tell_lost(self, name: str, index: tuple[int, ...]) -> None:
        event = FaultEvent(self._run_id, name, index, "stored bytes are missing or damaged")
        self._observers.tell("on_store_fault", event)

    def _tell(self, active: Active, method: str) -> None:
        run = active.run
        event = StageEvent(
            self._run_id,
            run.stage.number,
            run.stage.title,
            run.size,
            active.done,
            active.found,
            len(run.failures),
            active.transport.name if active.transport else "",
        )
        self._observers.tell(method, event)

    def _tell_run(self, method: str, seconds: float, *, failed: bool = False) -> None:
        titles = tuple(stage.title for stage in self._plan.stages)
        self._observers.tell(method, RunEvent(self._run_id, self._plan.outputs, titles, seconds, failed))


def _forget_frames(failures: Sequence[Failure]) -> None:
    """Let go of what failed calls had in their local variables: a run may go on past many of them."""
    for failure in failures:
        error: BaseException | None = failure.exception
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__


def _seconds_each(flight: Flight, report: BatchReport) -> "Array | float | None":
    """How long the calls of each item of a batch took, not a number without any; None if no call was made."""
    if not any(report.computed) and not report.failures:
        return None
    if report.timed:
        found = np.full(len(flight.positions), np.nan)
        for timed in report.timed:
            places = np.searchsorted(flight.positions, timed.positions)
            found[places] = np.nan_to_num(found[places]) + timed.seconds
        return found
    return report.seconds / len(flight.positions)


def _chosen(keys: bytes, mask: Array) -> bytes:
    if mask.all():
        return keys
    return np.frombuffer(keys, dtype=f"V{SIZE}")[mask].tobytes()
