"""A stage while it runs: which of its calls are in the ledger, which are to be computed, which failed.

It computes keys and looks them up for whole blocks of positions; it starts nothing itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gristmill.engine import given, slices
from gristmill.engine.interrupts import Interrupts
from gristmill.engine.job import Job, Passed, Task
from gristmill.engine.maker import Maker
from gristmill.engine.report import BatchReport, Failure
from gristmill.engine.sources import DIGEST, OutputSource, Source, take
from gristmill.engine.spread import Spread, unreadable
from gristmill.engine.stores import Stores
from gristmill.graph.nested import is_carrier
from gristmill.identity.keys import call_keys
from gristmill.plan.compile import Plan
from gristmill.plan.space import Space
from gristmill.plan.stage import Argument, Constant, Element, Stage, Step
from gristmill.storage.index import MISSING
from gristmill.storage.local import LocalStorage
from gristmill.storage.segment import EDITED

Array = np.ndarray[Any, Any]

_BLOCK = 1 << 16
"""Positions examined at once: keys and digests are dropped afterwards, so memory stays flat."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What has to be computed, as far as it can be known before anything is."""

    positions: Array
    """Positions at which at least one step is missing."""
    keys: bytes
    """16-byte keys of missing calls whose arguments are known."""
    owners: Array
    """For each of these keys, its position."""
    below: bytes
    """Those of the keys that belong to steps which read another step of the stage."""
    fresh: bool
    """Whether no call at these positions was found."""
    distrusted: bytes = b""
    """Those of the keys that a worker must not look up: it found what the engine does not."""
    attempts: Mapping[tuple[int, int], int] = field(default_factory=dict)
    """How often calls have been made before, by step and position, in processes that have been ended."""


class StageRun:
    """The state of one stage in one run.

    Parameters
    ----------
    plan, stage
        What it is.
    sources, spaces
        Everything its arguments come from outside the stage, and the indices of that.
    stores
        Where its results are looked up.
    dead
        For each upstream output of the same run, the positions that have no value (failed or skipped).
    passed
        The errors for those of these positions that a step wants to be handed errors for.
    repair
        Put back files that calls returned and that are missing; otherwise nothing is written.
    """

    def __init__(
        self,
        plan: Plan,
        stage: Stage,
        sources: Mapping[str, Source],
        spaces: Mapping[str, Space],
        stores: Stores,
        dead: Mapping[str, Array],
        *,
        passed: Mapping[str, Passed] | None = None,
        repair: bool = True,
    ) -> None:
        self.plan = plan
        self.stage = stage
        self.space = plan.space(stage, spaces)
        self.stores = stores
        self.sources = sources
        self.size = self.space.size
        self.locators = [np.full(self.size, MISSING, dtype=np.int64) for _ in stage.steps]
        self.indexes = [stores.of(step.node).index(step.prefix, len(step.outputs)) for step in stage.steps]
        self.failures: dict[tuple[int, int], Failure] = {}
        self.dead = [np.zeros(self.size, dtype=bool) for _ in stage.steps]
        self.computed = 0
        """Calls of the user's functions that were made; what only carries values into a nested graph is not one."""
        self._own = [k for k, step in enumerate(stage.steps) if not is_carrier(step.node)]
        self.edited = [np.zeros(self.size, dtype=bool) for _ in stage.steps]
        """Which calls were found, and are computed again because a file that they returned has changed."""
        self._repair = repair
        self.check_mutation = False
        """Whether workers identify arguments again after each call."""
        self.executor = ""
        """What runs it; empty as long as there was nothing to run."""
        self.reason = ""
        """Why that was chosen; empty where the user has."""
        self.is_chosen = False
        """Whether that was chosen from what has been measured."""
        self.worked = 0.0
        """Seconds that workers have spent on its batches."""
        self.spent = [(0.0, 0.0) for _ in stage.steps]
        """Of these, by step the wall time in which calls were made, and how much of it a CPU was used."""
        self.fail_fast = False
        """Whether a failure is a reason to start no more calls."""
        self.begun: Callable[[int, int], None] | None = None
        """Told the step and the position of each call that begins in this process; calls are timed then."""
        self._tasks = tuple(Task.of(step) for step in stage.steps)
        self._spaces = {name: spaces[name] for name in sources}
        self._spread: dict[int, Spread] = {}
        self._step_of = {name: k for k, step in enumerate(stage.steps) for name in step.outputs}
        self._upstream_dead: dict[str, Array] = {}
        self._passed = passed or {}
        self._unwanted = 0
        if (unwanted := plan.unwanted(self.space)) is not None:
            self.dead = [mask | unwanted for mask in self.dead]
            self._unwanted = len(self._own) * int(np.count_nonzero(unwanted))
        self.mark_dead(dead)

    @property
    def job(self) -> Job:
        """What a worker needs; its sources are this process's."""
        return self._job(self._tasks, self.sources)

    def _job_of(self, step: Step) -> Job:
        """What is needed to make one call of a step, wherever its arguments come from."""
        names = {argument.source for argument in step.arguments if not isinstance(argument, Constant)}
        sources = {name: self._source(name) for name in names}
        return self._job((Task.of(step),), sources)

    def _job(self, tasks: tuple[Task, ...], sources: Mapping[str, Source]) -> Job:
        dead = self._upstream_dead
        return Job(
            self.space,
            tasks,
            self._spaces,
            dead,
            self.check_mutation,
            self.fail_fast,
            self.begun is not None,
            self._passed,
            sources,
        )

    def examine(self, positions: Array, *, files: bool = False) -> Missing:
        """Look up all steps at `positions`; with `files`, what they returned on disk has to be there as well."""
        blocks = range(0, len(positions), _BLOCK)
        parts = []
        for start in blocks:
            Interrupts.check()
            parts.append(self._examine_block(positions[start : start + _BLOCK], files=files))
        if len(parts) == 1:
            return parts[0]
        empty = np.empty(0, dtype=np.int64)
        return Missing(
            np.concatenate([empty, *(part.positions for part in parts)]),
            b"".join([part.keys for part in parts]),
            np.concatenate([empty, *(part.owners for part in parts)]),
            b"".join([part.below for part in parts]),
            all(part.fresh for part in parts),
        )

    def source(self, name: str) -> OutputSource:
        """Return the output `name` as a source for other stages."""
        k = self._step_of[name]
        step = self.stage.steps[k]
        output = step.outputs.index(name)
        if step.inner:
            return self.spread(k).source(output)
        maker = None if step.node.cache else Maker(self._job_of(step), self.storage(k))
        return OutputSource(self.storage(k), self.indexes[k], self.locators[k], output, maker=maker)

    def elements(self, argument: Element, positions: Array) -> Array:
        """Return which element of its source, outside the stage, an argument takes at each of `positions`."""
        return self.space.elements(positions, argument.axes, self._spaces[argument.source])

    def storage(self, step: int) -> LocalStorage:
        """Return where the results of a step are."""
        return self.stores.of(self.stage.steps[step].node)

    def step_of(self, name: str) -> int:
        """Return which step makes `name`."""
        return self._step_of[name]

    def record(self, positions: Array, report: BatchReport) -> Array:
        """Take in what became of a batch; return the positions that have to be run again."""
        for failure in report.failures:
            self.failures[failure.position, failure.step] = failure
            self._kill(failure.position, failure.step)
        self.computed += sum(report.computed[k] for k in self._own)
        self.worked += report.seconds
        for k, (wall, busy) in report.spent.items():
            self.spent[k] = self.spent[k][0] + wall, self.spent[k][1] + busy
        return self.examine(positions).positions

    def absorb(self, failures: Sequence[Failure], computed: int) -> None:
        """Take in what became of calls that were made for this stage in another one."""
        for failure in failures:
            self.failures[failure.position, failure.step] = failure
            self._kill(failure.position, failure.step)
        self.computed += computed

    def forget(self, step: int, positions: Array) -> tuple[Array, Array]:
        """Take back calls whose bytes are lost; return those that were found so far, and their locators."""
        known = positions[self.locators[step][positions] != MISSING]
        locators = self.locators[step][known]
        self.locators[step][known] = MISSING
        return known, locators

    def dead_positions(self, name: str) -> Array:
        """Return the mask of the elements of `name` that have no value because of a failure."""
        k = self._step_of[name]
        return self.spread(k).dead if self.stage.steps[k].inner else self.dead[k]

    def space_of(self, name: str) -> Space:
        """Return the indices of the output `name`."""
        k = self._step_of[name]
        return self.spread(k).space if self.stage.steps[k].inner else self.space

    def spread(self, step: int) -> Spread:
        """Return the elements along the axes that the calls of a step have made, once they have.

        Raises
        ------
        RaggedError
            The calls have made axes of different lengths, and the mapspec does not say that they may.
        """
        if step not in self._spread:
            self._spread[step] = Spread(self, step)
        return self._spread[step]

    def is_spread(self, step: int) -> bool:
        """Whether it is known what the calls of a step have made along axes."""
        return step in self._spread

    def settle(self) -> Array:
        """Return the positions whose calls have to be made again, since what they made along axes is gone."""
        again = []
        for k, step in enumerate(self.stage.steps):
            if not step.inner:
                continue
            if len(lost := unreadable(self, k)):
                again.append(self._take_back(k, lost))
                continue
            if k in self._spread:
                self._spread[k].find()
            again.append(self._take_back(k, self.spread(k).unsettled()))
        return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *again]))

    def _take_back(self, step: int, positions: Array) -> Array:
        known, locators = self.forget(step, positions)
        if len(known):
            self.storage(step).quarantine(self.indexes[step], locators, 0)
        return known

    def rebuild(self) -> None:
        """Have the stores find again what is in them, after a call was recorded and then not found."""
        for storage in {id(one): one for one in map(self.storage, range(len(self.stage.steps)))}.values():
            storage.rebuild()

    def callers(self, name: str, elements: Array) -> Array:
        """Return the positions of the calls that have made elements of the output `name`."""
        k = self._step_of[name]
        return np.unique(self.spread(k).calls[elements]) if self.stage.steps[k].inner else elements

    @property
    def cached(self) -> int:
        """Calls whose results were found, before or during the run."""
        return sum(int(np.count_nonzero(self.locators[k] != MISSING)) for k in self._own) - self.computed

    @property
    def skipped(self) -> int:
        """Calls that were not made because what they need had failed."""
        dead = int(sum(np.count_nonzero(self.dead[k]) for k in self._own))
        return dead - len(self.failures) - self._unwanted

    def key(self, step: int, position: int) -> bytes:
        """Return the call key of a step whose arguments are known."""
        return self.keys(step, np.array([position]))

    def keys(self, step: int, positions: Array) -> bytes:
        """Return the call keys of a step at positions where all its arguments are known."""
        return self._step_keys(self.stage.steps[step], positions)

    def digests(self, argument: Argument, positions: Array) -> Array:
        """Return the digests of an argument at positions where it is known, one each."""
        found = np.frombuffer(self._argument_digests(argument, positions), dtype=DIGEST)
        return np.broadcast_to(found, len(positions)) if len(found) == 1 else found

    def arguments(self, step: int, position: int) -> dict[str, Any]:
        """Return what a call was handed, by the function's own parameter names, read from where it is."""
        job = self.job
        return {
            argument.parameter: given.value(argument, job, self._source, position)
            for argument in self.stage.steps[step].arguments
        }

    def mark_dead(self, dead: Mapping[str, Array]) -> None:
        """Mark the calls that cannot be made, because what they need has failed in an earlier stage."""
        self._upstream_dead = {
            name: mask for name, mask in dead.items() if name in self.sources and mask.any()
        }
        everything, job = np.arange(self.size), self.job
        for k, step in enumerate(self.stage.steps):
            for argument in step.arguments:
                if isinstance(argument, Constant):
                    continue
                if argument.source in self._step_of:
                    self.dead[k] |= self.dead[self._step_of[argument.source]]
                elif (mask := self._upstream_dead.get(argument.source)) is None:
                    continue
                elif isinstance(argument, Element):
                    space = self._spaces[argument.source]
                    self.dead[k] |= mask[self.space.elements(everything, argument.axes, space)]
                elif step.node.errors != "drop":
                    self.dead[k] |= slices.lacking(argument, job, everything)

    def _kill(self, position: int, step: int) -> None:
        self.dead[step][position] = True
        for k in range(step + 1, len(self.stage.steps)):
            for argument in self.stage.steps[k].arguments:
                if isinstance(argument, Element) and argument.source in self._step_of:
                    self.dead[k][position] |= self.dead[self._step_of[argument.source]][position]

    def _examine_block(self, positions: Array, *, files: bool) -> Missing:
        incomplete = np.zeros(len(positions), dtype=bool)
        fresh = True
        below: list[bytes] = []
        keys, owners = [], [positions[:0]]
        for k, step in enumerate(self.stage.steps):
            dead = take(self.dead[k], positions)
            ready = ~dead
            for argument in step.arguments:
                if isinstance(argument, Element) and argument.source in self._step_of:
                    ready &= take(self.locators[self._step_of[argument.source]], positions) != MISSING
            incomplete |= ~ready & ~dead
            rows = np.flatnonzero(ready)
            if not len(rows):
                continue
            chosen = positions if len(rows) == len(positions) else positions[rows]
            step_keys = self._step_keys(step, chosen)
            found = self.indexes[k].find(step_keys)
            if files and self.indexes[k].has_files:
                self._check_files(k, chosen, found)
            self.locators[k][chosen] = found
            missing = found == MISSING
            fresh &= bool(missing.all())
            if missing.any():
                incomplete[rows[missing]] = True
                keys.append(np.frombuffer(step_keys, dtype=DIGEST)[missing].tobytes())
                if any(isinstance(a, Element) and a.source in self._step_of for a in step.arguments):
                    below.append(keys[-1])
                owners.append(chosen[missing])
        return Missing(positions[incomplete], b"".join(keys), np.concatenate(owners), b"".join(below), fresh)

    def _check_files(self, step: int, positions: Array, found: Array) -> None:
        """Unset what is `found` but has returned files that are others now."""
        storage, index = self.storage(step), self.indexes[step]
        edited = storage.edited(index, found, repair=self._repair)
        if edited.any():
            if self._repair:
                storage.take_back(index, found[edited], EDITED)
            self.edited[step][positions[edited]] = True
            found[edited] = MISSING

    def _step_keys(self, step: Step, positions: Array) -> bytes:
        columns = [self._argument_digests(argument, positions) for argument in step.arguments]
        return call_keys(step.prefix, columns, len(positions))

    def _argument_digests(self, argument: Any, positions: Array) -> bytes:
        if isinstance(argument, Constant):
            return argument.given.digest
        return given.identities(argument, self.job, self._source, positions)

    def _source(self, name: str) -> Source:
        return self.source(name) if name in self._step_of else self.sources[name]
