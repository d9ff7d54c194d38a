"""Evaluating a plan: the stores, views and run record that a run has, and the result that is made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from gristmill.engine.causes import Causes
from gristmill.engine.engine import Engine, Execution
from gristmill.engine.faults import OnStoreError
from gristmill.engine.feed import Feed
from gristmill.engine.interrupts import Interrupts, guarded
from gristmill.engine.linking import Linker
from gristmill.engine.mapped import MappedOutput
from gristmill.engine.recording import Recorder
from gristmill.engine.report import Failure
from gristmill.engine.sources import OutputSource
from gristmill.engine.stagerun import StageRun
from gristmill.engine.stores import Stores
from gristmill.events import Callback
from gristmill.graph.wording import joined
from gristmill.identity.memo import Memos
from gristmill.identity.types import Digest
from gristmill.plan.compile import Plan
from gristmill.plan.inputs import GivenOutput
from gristmill.result import MapResult, Stats, labels, lazy
from gristmill.storage.claims import NESTED
from gristmill.store import Store

Array = np.ndarray[Any, Any]

OnError = Literal["raise", "continue"]
Level = Literal["map", "node"]

_HEALING = Engine(map_executor="sequential")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A plan, and all that says how it is to be evaluated; it can be run any number of times."""

    plan: Plan
    engine: Engine
    store: Store | None
    """Where results are kept; None keeps them for as long as the result is in use."""
    level: Level
    """Whether this is one `run`, or a map."""
    on_error: OnError
    on_store_error: OnStoreError
    callbacks: tuple[Callback, ...]
    name: str | None
    """The pipeline's, for the record."""
    record: bool
    """Whether it leaves a run record."""

    def run(self, *, callbacks: Sequence[Callback] = (), feed: Feed | None = None) -> MapResult:
        """Evaluate the plan in this thread.

        Parameters
        ----------
        callbacks
            Who is told besides those of the pipeline.
        feed
            Is given the items as they are completed, and says how far the map may go ahead of who takes them.
        """
        with Interrupts():
            store, private, stores = self._open_stores()
            linker = Linker(self.plan, store.storage)
            recorder = self._recorder(store)
            if feed is not None:
                feed.kept = store, private

            def landed(
                run: StageRun, positions: Array, seconds: Array | float | None
            ) -> Sequence[tuple[str, int]]:
                lost = linker.landed(run, positions)
                if recorder is not None:
                    recorder.landed(run)
                if feed is not None:
                    feed.landed(run, positions, seconds)
                return lost

            told: tuple[Callback, ...] = (*self.callbacks, *callbacks)
            if feed is not None:
                told = (*told, feed)
            try:
                execution = self.engine.execute(
                    self.plan,
                    stores,
                    level=self.level,
                    on_error=self.on_error,
                    on_store_error=self.on_store_error,
                    callbacks=[*told, recorder] if recorder is not None else told,
                    on_landed=landed,
                    control=feed.control if feed is not None else None,
                )
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and self.store is not None:
                    error.add_note(_way_on(recorder, store))
                if recorder is not None:
                    recorder.end(None, error=error, views={})
                raise
            views = linker.finish()
            outcome = execution.outcome
            raised = outcome.failed[1].exception if outcome.failed is not None else None
            pin = recorder.end(outcome, error=raised, views=views) if recorder is not None else None
        if outcome.failed is not None:
            stage, failure = outcome.failed
            raise _explained(outcome.stages[stage.number], failure)
        return _result(self.plan, stores, (store, private, pin), execution, views)

    def _recorder(self, store: Store) -> Recorder | None:
        """What keeps the run record; a map inside a node is a part of what the outer map did."""
        if not self.record or self.store is None or store.storage.spec.readonly or NESTED.get():
            return None
        return Recorder(self.plan, store.storage, self.name)

    @guarded  # what it imports, too: an import that is interrupted cannot always be tried again
    def _open_stores(self) -> tuple[Store, Store | None, Stores]:
        store = self.store or Store.temporary()
        private = Store.temporary() if Stores.needs_private(self.plan.graph.nodes) else None
        if not store.storage.spec.readonly:
            store.storage.remember_files(Memos.current)
        own = {store.storage.spec.location, private.storage.spec.location if private else ""}
        others = {
            given.output.elements.storage.spec.location: given.output.elements.storage
            for given in self.plan.inputs.values()
            if isinstance(given, GivenOutput)
        }
        elsewhere = tuple(storage for place, storage in others.items() if place not in own)
        return store, private, Stores(store.storage, private.storage if private else None, elsewhere)


def _way_on(recorder: Recorder | None, store: Store) -> str:
    """What to tell a user who has pressed Ctrl-C."""
    done, total = recorder.progress if recorder is not None else (0, 0)
    kept = f"The results of {done:,} of {total:,} calls are" if total else "What was finished is"
    return f"{kept} kept in {store.location}: run the same again to go on from there."


def _explained(run: StageRun, failure: Failure) -> BaseException:
    """The user's exception, with a note that says which call it was."""
    step = run.stage.steps[failure.step]
    index = run.space.index(failure.position)
    key = Digest(run.key(failure.step, failure.position))
    where = f" at index {index}" if index else ""
    error = failure.exception
    often = f", tried {failure.attempts} times" if failure.attempts > 1 else ""
    error.add_note(f"in node {step.node.name} (output {joined(step.outputs)}){where}, call key {key}{often}")
    if error.__traceback__ is None and failure.traceback:
        error.add_note(f"In the worker process:\n{failure.traceback.rstrip()}")
    return error


def _result(
    plan: Plan, stores: Stores, keep: object, execution: Execution, views: Mapping[str, str]
) -> MapResult:
    stages = execution.outcome.stages
    sources = {name: _source(stages, plan, name) for name in plan.outputs}

    def mend(source: OutputSource, positions: Array, _alive: object = keep) -> None:
        """Compute what is lost of an output again; a temporary store lives as long as its results."""
        source.set_aside(positions)
        again = _HEALING.execute(plan, stores, level="map", on_error="continue").outcome.stages
        for name, other in sources.items():
            found = _source(again, plan, name)
            other.storage, other.index, other.locators = found.storage, found.index, found.locators

    outputs: dict[str, Any] = {}
    causes = Causes(stages)
    for name, source in sources.items():
        space = stages[plan.stage_of(name).number].space_of(name)
        why = partial(causes.at, name) if causes.errors else None  # which holds what the run had
        output = MappedOutput(name, space, source, partial(mend, source), causes=why)
        outputs[name] = output if plan.axes[name] else lazy(output.scalar)
    stats = Stats(
        computed=sum(run.computed for run in stages.values()),
        cached=sum(run.cached for run in stages.values()),
        failed=len(causes.errors),
        skipped=sum(run.skipped for run in stages.values()),
        seconds=execution.outcome.seconds,
        bytes_written=execution.outcome.bytes_written,
        bytes_piped=execution.bytes_piped,
    )
    return MapResult(outputs, causes.errors, stats, execution.run_id, views, labels(plan))


def _source(stages: Mapping[int, StageRun], plan: Plan, name: str) -> OutputSource:
    return stages[plan.stage_of(name).number].source(name)
