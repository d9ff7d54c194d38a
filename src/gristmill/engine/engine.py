"""The engine: which executor runs what, and how wide."""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from gristmill.engine import guest, watchdog
from gristmill.engine.batches import BatchSizer
from gristmill.engine.choosing import Choice, decide
from gristmill.engine.control import Control
from gristmill.engine.executors.base import Transport
from gristmill.engine.executors.concurrent import ConcurrentTransport
from gristmill.engine.executors.own import PLACES, own_transport
from gristmill.engine.executors.sequential import SequentialTransport
from gristmill.engine.faults import OnStoreError
from gristmill.engine.guest import Place
from gristmill.engine.interrupts import guarded
from gristmill.engine.lanes import BUSY, ThreadLanes
from gristmill.engine.loop import Landed, Loop, RunOutcome
from gristmill.engine.specs import (
    COROUTINES,
    THREADS,
    ExecutorSpec,
    GivenExecutor,
    Specs,
    cpu_count,
    parse_specs,
)
from gristmill.engine.stagerun import StageRun
from gristmill.engine.stores import Stores
from gristmill.errors import InputError
from gristmill.events import Callback, Observers
from gristmill.graph.wording import joined
from gristmill.plan.compile import Plan
from gristmill.plan.stage import Stage
from gristmill.plan.tree import LEVEL

OnWorkerDeath = Literal["retry", "fail"]


@dataclass(frozen=True)
class Engine:
    """How pipelines run.

    Examples
    --------
    >>> Engine(map_executor="parallel", max_workers=4).map_executor
    'parallel'
    """

    node_executor: Specs = "sequential"
    """Runs the nodes of one `run`, independent ones side by side: `"sequential"`, `"threaded"`, `"async"` (coroutines
    on an event loop, other functions in threads), `"parallel"` (loky processes), `"auto"`, or an executor of your own:
    any object with a method `submit` like that of `concurrent.futures.Executor`. It is used again by every run, and
    never shut down."""
    map_executor: Specs = "auto"
    """Runs the indices of a map: any of these. A mapping gives output names their own, with `""` for the rest. A width
    may follow the name: `"threaded:100"`."""
    max_workers: int | None = None
    """How many calls run at once; by default as many as CPUs in processes, 32 in threads (100 where `"auto"` finds that
    calls do little but wait), and 1,000 coroutines. In an executor of your own never more than that says that it has
    workers."""
    on_worker_death: OnWorkerDeath = "retry"
    """What becomes of a call whose process dies: it is made again, and given up when two processes that ran nothing
    else have died of it (`"retry"`), or it fails at once (`"fail"`). Other calls of the process are made again."""
    check_mutation: bool = False
    """Whether arguments are identified again after each call: one that changed them fails. Without it they are
    private copies, or arrays that cannot be written to, so that nobody else sees a change."""
    specs: Mapping[str, Mapping[str, ExecutorSpec]] = field(init=False, repr=False, compare=False)
    """Both executors, parsed."""

    def __post_init__(self) -> None:
        width: object = self.max_workers
        if width is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
            raise InputError(f"max_workers is {width!r}; it must be a positive number of processes, or None")
        if self.on_worker_death not in get_args(OnWorkerDeath):
            known = get_args(OnWorkerDeath)
            raise InputError(f"on_worker_death is {self.on_worker_death!r}; use {joined(known, 'or')}")
        specs = {
            "node": parse_specs(self.node_executor, "node_executor"),
            "map": parse_specs(self.map_executor, "map_executor"),
        }
        object.__setattr__(self, "specs", specs)

    def spec(self, level: str, outputs: Sequence[str], is_mapped: bool) -> ExecutorSpec:  # noqa: FBT001 - an `Executors`
        """Return what runs a node.

        Parameters
        ----------
        level
            `"map"`, or `"node"` for one `run`.
        outputs
            Of the node: it has what any of them is given.
        is_mapped
            Whether it has axes.
        """
        specs = self.specs["map" if is_mapped else level]
        return next((specs[name] for name in outputs if name in specs), specs[""])

    def runs_in_line(self, level: str) -> bool:
        """Whether nodes without axes run one after the other anyway, so that they may share a stage."""
        in_line = {"sequential", "auto"} if level == "map" else {"sequential"}
        return all(spec.kind in in_line for spec in self.specs[level].values())

    def execute(
        self,
        plan: Plan,
        stores: Stores,
        *,
        level: str,
        on_error: str,
        on_store_error: OnStoreError = "ignore",
        callbacks: Sequence[Callback] = (),
        on_landed: Landed = lambda _run, _positions, _seconds: (),
        control: Control | None = None,
    ) -> "Execution":
        """Run a plan.

        Parameters
        ----------
        plan, stores
            What to run, and where results live.
        level
            `"map"`, or `"node"` for one `run`: which executor runs stages without axes.
        on_error
            `"raise"` to end at the first failure, `"continue"` to go on without what depends on it.
        on_store_error
            What to do when the store does not take what is computed; see `FaultWatch`.
        callbacks
            Who is told.
        on_landed, control
            See `Loop`.
        """
        run_id = os.urandom(6).hex()
        with self._transports(plan, stores, level) as pool:
            loop = Loop(
                plan,
                stores,
                pool.choose,
                Observers(callbacks),
                run_id,
                stop_at_failure=on_error == "raise",
                check_mutation=self.check_mutation,
                on_store_error=on_store_error,
                on_landed=on_landed,
                deaths=2 if self.on_worker_death == "retry" else 1,
                control=control,
            )
            outcome = loop.run()
        return Execution(run_id, outcome, pool.bytes_piped)

    @contextlib.contextmanager
    def _transports(self, plan: Plan, stores: Stores, level: str) -> "Iterator[_Pool]":
        pool = _Pool(self, plan, stores, level)
        finished = False
        try:
            yield pool
            finished = True
        finally:
            pool.close(kill=not finished)


@dataclass(frozen=True)
class Execution:
    """One finished run."""

    run_id: str
    outcome: RunOutcome
    bytes_piped: int


class _Pool:
    """The transports of one run, each made when it is needed first."""

    def __init__(self, engine: Engine, plan: Plan, stores: Stores, level: str) -> None:
        self._engine = engine
        self._plan = plan
        self._stores = stores
        self._level = level
        self._made: dict[ExecutorSpec, Transport] = {}
        self._stays: set[int] = set()
        """Stages that cannot be sent to other processes."""
        self._places: dict[GivenExecutor, Place] = {}
        self._nodes: dict[int, BatchSizer] = {}
        """What has been measured of the nodes of one `run`, by stage."""
        self.bytes_piped = 0
        if not _is_inside():
            for given in [given for stage in plan.stages if (given := self._spec(stage).given) is not None]:
                self._place(given)  # one that takes no tasks is an error before anything runs

    def choose(self, run: StageRun, known: BatchSizer, left: int) -> Transport:
        """Return what runs the rest of a stage, given what has been measured of its items."""
        spec, choice = self._spec(run.stage), None
        if spec.kind == "auto":
            if self._level == "node" and not run.stage.axes:
                known, left = self._of_nodes(run.stage, known)
            choice = decide(run, spec.width, known, left, self._made)
            if not self._can_travel(run, choice.spec):
                choice = Choice(ExecutorSpec("sequential"), "what it needs cannot be sent to another process")
            spec = choice.spec
        transport = self._transport(spec)
        _note(run, transport.name, choice)
        return transport

    @guarded
    def close(self, *, kill: bool) -> None:
        for transport in self._made.values():
            self.bytes_piped += transport.bytes_piped
            transport.close(kill=kill)

    def _of_nodes(self, stage: Stage, known: BatchSizer) -> tuple[BatchSizer, int]:
        """What has been measured of the slowest node so far, which speaks for the others, and how many are left."""
        self._nodes.setdefault(stage.number, known)
        measured = [one for one in self._nodes.values() if one.seconds_per_item is not None]
        left = sum(not one.axes and one.number not in self._nodes for one in self._plan.stages) + 1
        return max(measured, key=lambda one: one.seconds_per_item or 0.0, default=known), left

    def _spec(self, stage: Stage) -> ExecutorSpec:
        names = [name.partition(LEVEL)[0] for name in stage.steps[0].outputs]
        outputs = [self._plan.owners.get(name, name) for name in names]
        spec = self._engine.spec(self._level, outputs, bool(stage.axes))
        return spec if spec.width else replace(spec, width=self._engine.max_workers)

    def _place(self, given: GivenExecutor) -> Place:
        """Return where an executor of the user's runs tasks."""
        if given not in self._places:
            self._places[given] = PLACES.of(given)
        return self._places[given]

    def _can_travel(self, run: StageRun, spec: ExecutorSpec) -> bool:
        """Whether a stage can be sent to the processes that were chosen for it; tried once."""
        number = run.stage.number
        if spec.kind == "parallel" and number not in self._stays:
            try:
                self._transport(spec).prepare(run)
            except InputError:  # an open connection among its inputs, say
                self._stays.add(number)
        return spec.kind != "parallel" or number not in self._stays

    def _is_busy(self) -> bool:
        """Whether anything runs batches now."""
        return any(transport.is_busy for transport in self._made.values())

    def _transport(self, spec: ExecutorSpec) -> Transport:
        if spec not in self._made:
            self._made[spec] = self._make(spec)
        return self._made[spec]

    def _make(self, spec: ExecutorSpec) -> Transport:
        if spec.kind == "sequential" or _is_inside():
            return SequentialTransport(self._stores, self._is_busy)
        if spec.given is not None:
            place = self._place(spec.given)
            return own_transport(self._stores, spec.given, place, self._engine.max_workers, self._is_busy)
        width = spec.width
        if spec.kind in {"threaded", "async"}:
            threads = width or THREADS
            coroutines = width or (COROUTINES if spec.kind == "async" else THREADS)
            stop = threading.Event()
            return ConcurrentTransport(spec.kind, self._stores, ThreadLanes(threads), coroutines, stop)
        from gristmill.engine.executors.parallel import ParallelTransport

        return ParallelTransport(self._stores, width or cpu_count())


def _is_inside() -> bool:
    """Whether this is a call of another engine: a map inside it never adds processes or threads."""
    return watchdog.is_worker() or guest.is_guest() or BUSY.get()


def _note(run: StageRun, executor: str, choice: Choice | None) -> None:
    """Note what runs a stage: of several things one after the other, what followed on the first calls."""
    if choice is None or executor != choice.spec.kind:
        run.executor, run.reason = executor, ""
        return
    first = not run.executor
    if first or not run.is_chosen or executor not in (run.executor, "sequential"):
        run.executor, run.reason, run.is_chosen = executor, choice.reason, choice.is_final
