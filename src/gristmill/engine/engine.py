"""The engine: which executor runs what, and how wide."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gristmill.engine import watchdog
from gristmill.engine.batches import BatchSizer
from gristmill.engine.control import Control
from gristmill.engine.executors.base import Transport
from gristmill.engine.executors.concurrent import ConcurrentTransport
from gristmill.engine.executors.sequential import SequentialTransport
from gristmill.engine.faults import OnStoreError
from gristmill.engine.interrupts import guarded
from gristmill.engine.lanes import BUSY
from gristmill.engine.loop import Landed, Loop, RunOutcome
from gristmill.engine.specs import COROUTINES, THREADS, ExecutorSpec, Specs, cpu_count, parse_specs
from gristmill.engine.stagerun import StageRun
from gristmill.engine.stores import Stores
from gristmill.errors import InputError
from gristmill.events import Callback, Observers
from gristmill.plan.compile import Plan

PROCESS_SECONDS = 0.5
"""Estimated work from which `"auto"` starts processes: they take about this long to come up."""

THREAD_SECONDS = 0.02
"""Estimated work from which it starts threads."""

WAITING_SHARE = 0.2
"""Share of CPU time in the wall time of calls below which they are taken to wait, so that threads help."""


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
    on an event loop, other functions in threads), `"parallel"` (loky processes) or `"auto"`."""
    map_executor: Specs = "auto"
    """Runs the indices of a map; a mapping gives output names their own, with `""` for the rest. A width may follow the
    name: `"threaded:100"`."""
    max_workers: int | None = None
    """How many calls run at once; by default as many as CPUs in processes, 32 in threads, and 1,000 coroutines."""
    check_mutation: bool = False
    """Whether arguments are identified again after each call: one that changed them fails. Without it they are
    private copies, or arrays that cannot be written to, so that nobody else sees a change."""
    specs: Mapping[str, Mapping[str, ExecutorSpec]] = field(init=False, repr=False, compare=False)
    """Both executors, parsed."""

    def __post_init__(self) -> None:
        width: object = self.max_workers
        if width is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
            raise InputError(f"max_workers is {width!r}; it must be a positive number of processes, or None")
        specs = {
            "node": parse_specs(self.node_executor, "node_executor"),
            "map": parse_specs(self.map_executor, "map_executor"),
        }
        object.__setattr__(self, "specs", specs)

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
        self.bytes_piped = 0

    def choose(self, run: StageRun, known: BatchSizer, left: int) -> Transport:
        """Return what runs the rest of a stage, given what has been measured of its items."""
        spec = self._spec(run)
        if spec.kind == "auto":
            spec = self._decide(run, spec, known, left)
            if not self._can_travel(run, spec):
                spec = ExecutorSpec("sequential")
        return self._transport(spec)

    @guarded
    def close(self, *, kill: bool) -> None:
        for transport in self._made.values():
            self.bytes_piped += transport.bytes_piped
            transport.close(kill=kill)

    def _spec(self, run: StageRun) -> ExecutorSpec:
        level = "node" if self._level == "node" and not run.stage.axes else "map"
        specs = self._engine.specs[level]
        return specs.get(run.stage.outputs[0], specs[""])

    def _decide(self, run: StageRun, spec: ExecutorSpec, known: BatchSizer, left: int) -> ExecutorSpec:
        """Coroutines on a loop, calls that wait in threads, and processes once the rest is worth starting them.

        A reduction goes where the map went.
        """
        if left < 2 and run.stage.axes:
            return ExecutorSpec("sequential")
        if any(step.node.is_async for step in run.stage.steps):
            return ExecutorSpec("async", spec.width)
        work = (known.seconds_per_item or 0.0) * left
        if known.busy_share is not None and known.busy_share < WAITING_SHARE and work > THREAD_SECONDS:
            return ExecutorSpec("threaded", spec.width)
        parallel = ExecutorSpec("parallel", spec.width)
        if parallel in self._made or work > PROCESS_SECONDS:
            return parallel
        return ExecutorSpec("sequential")

    def _can_travel(self, run: StageRun, spec: ExecutorSpec) -> bool:
        """Whether a stage can be sent to the processes that were chosen for it; tried once."""
        number = run.stage.number
        if spec.kind == "parallel" and number not in self._stays:
            try:
                self._transport(spec).prepare(run)
            except InputError:  # an open connection among its inputs, say
                self._stays.add(number)
        return spec.kind != "parallel" or number not in self._stays

    def _transport(self, spec: ExecutorSpec) -> Transport:
        if spec not in self._made:
            self._made[spec] = self._make(spec)
        return self._made[spec]

    def _make(self, spec: ExecutorSpec) -> Transport:
        # A map inside a node never adds processes or threads.
        if spec.kind == "sequential" or watchdog.is_worker() or BUSY.get():
            return SequentialTransport(self._stores)
        width = spec.width or self._engine.max_workers
        if spec.kind in {"threaded", "async"}:
            threads = width or THREADS
            coroutines = width or (COROUTINES if spec.kind == "async" else THREADS)
            return ConcurrentTransport(spec.kind, self._stores, threads, coroutines)
        from gristmill.engine.executors.parallel import ParallelTransport

        return ParallelTransport(self._stores, width or cpu_count())
