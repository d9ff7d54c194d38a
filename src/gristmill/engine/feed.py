"""The feed: hands the items of a run, as they are completed, from the thread that runs it to whoever takes them.

It holds where items are, not what is in them: values are read from the store when an item is taken. It also says
how far the run may go ahead of who takes the items.
"""

import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gristmill.engine.causes import Causes, item_error
from gristmill.engine.control import Control
from gristmill.engine.failed import ItemError
from gristmill.engine.items import Item, Line
from gristmill.engine.mapped import MappedOutput
from gristmill.engine.sources import OutputSource
from gristmill.engine.stagerun import StageRun
from gristmill.errors import InputError, IntegrityError
from gristmill.events import Callback, StageEvent
from gristmill.plan.compile import Plan
from gristmill.plan.space import Space
from gristmill.storage.index import MISSING

Array = np.ndarray[Any, Any]

AHEAD = 1024
"""How many computed items may wait to be taken before nothing more is sent."""

_BLOCK = 64
"""Items that are located together; a large value is read only when its item is taken."""


class Result(Protocol):
    """What is asked of the result of a run: its outputs, which compute again what is lost of them."""

    def __getitem__(self, name: str, /) -> Any:
        """Return the value of an output, or a `MappedOutput`."""


class _Part:
    """A stage that makes outputs which were asked for, as far as it has come."""

    def __init__(self, run: StageRun) -> None:
        self.run = run
        self.seconds = np.full(run.size, np.nan)
        """For each position, how long its calls took; not a number where none ran."""


@dataclass
class _Block:
    """Items that have been located, but not taken."""

    positions: list[int]
    indices: list[tuple[int, ...]]
    seconds: list[float]
    forms: dict[str, list[Any]]
    """By output, what has been found in the store."""
    at: int = 0
    """How many have been taken."""


class Feed(Callback):
    """The items of one run.

    Parameters
    ----------
    plan
        What runs. `check_common_space` has to accept it.
    ordered
        Whether items come in the order of their indices, else as they are completed.
    with_errors
        Whether there are items of failed calls; else the first one ends the run.
    ahead
        How many computed items may wait; None for any number.
    """

    def __init__(self, plan: Plan, *, ordered: bool, with_errors: bool, ahead: int | None = AHEAD) -> None:
        self._plan = plan
        self._ordered = ordered
        self._with_errors = with_errors
        self._ahead = ahead
        self._is_held = False
        self._mapped = [name for name in plan.outputs if plan.axes[name]]
        self._single = [name for name in plan.outputs if not plan.axes[name]]
        self._widest = max(self._mapped, key=lambda name: len(plan.axes[name]), default="")
        self._numbers = {name: plan.stage_of(name).number for name in plan.outputs}
        self._runs: dict[int, StageRun] = {}
        self._parts: dict[int, _Part] = {}
        self._sources: dict[str, OutputSource] = {}
        self._causes: dict[int, Causes] = {}
        self._errors: dict[int, ItemError] = {}
        self._space = Space()
        self._line: Line | None = None
        self._block: _Block | None = None
        self._later: deque[tuple[int, tuple[int, ...], float]] = deque()
        """Items whose bytes are lost: when the run has ended, its result computes them again."""
        self._listeners: list[Callable[[], object]] = []
        self._lock = threading.RLock()
        self._taking = threading.RLock()
        self._refusal: InputError | None = None
        """Why there are no items, although there is a result."""
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._rest: Iterator[Item] | None = None
        self.kept: object = None
        """What items are read from: a temporary store is there for as long as somebody has it."""
        self.exhausted = False
        """Whether there are no more items, and will be none."""
        try:
            check_common_space(plan)
        except InputError as error:
            self._refusal = error
        self.control = Control(self._room, is_timed=True)
        """The hand that whoever takes the items has in the run."""

    # -- the run's side -----------------------------------------------------------------------------------------

    def landed(self, run: StageRun, positions: Array, seconds: Array | float | None) -> None:
        """Take in that positions of a stage may be complete; `seconds` is None where no call was made."""
        number = run.stage.number
        with self._lock:
            if number not in self._runs:  # calls that were set apart have been taken over
                again = set(run.stage.outputs)
                self._runs = {n: one for n, one in self._runs.items() if not again & set(one.stage.outputs)}
            self._runs[number] = run
            if number not in self._numbers.values():
                return
            part = self._parts.setdefault(number, _Part(run))
            if isinstance(seconds, np.ndarray):
                part.seconds[positions] = np.where(np.isnan(seconds), part.seconds[positions], seconds)
            elif seconds is not None:
                part.seconds[positions] = np.fmax(part.seconds[positions], seconds)
            if not run.stage.axes or not self._is_open():
                return
            self._take_in(self._touched(run, positions))
        self._tell()

    def on_stage_end(self, event: StageEvent) -> None:
        """Take in that it is known what calls have made along axes."""
        part = self._parts.get(event.stage)
        if part is None or not any(step.inner for step in part.run.stage.steps):
            return
        with self._lock:
            if self._is_open():
                self._take_in(None)
        self._tell()

    def end(self, result: Result | None, error: BaseException | None = None) -> None:
        """Take in that the run has ended, with a result or an exception."""
        with self._lock:
            if result is not None and self._mapped and self._is_open():
                self._take_in(None)
            self._result, self._error = result, error
            self._rest = self._last_items(result) if result is not None else iter(())
        self._tell()

    def _is_open(self) -> bool:
        """Whether all stages of mapped outputs have started, so that there can be items."""
        if self._line is not None:
            return True
        if (
            self._refusal is not None
            or not self._mapped
            or any(self._numbers[name] not in self._parts for name in self._mapped)
        ):
            return False
        if not all(self._is_spread(name) for name in self._mapped):
            return False
        self._space = self._space_of(self._widest)
        for name in self._mapped:
            self._refusal = _unequal((name, self._space_of(name)), (self._widest, self._space))
            if self._refusal is not None:
                return False
            self._sources[name] = self._run_of(name).source(name)
        self._line = Line(self._space.size, ordered=self._ordered)
        if (unwanted := self._plan.unwanted(self._space)) is not None:
            self._line.skip(np.flatnonzero(unwanted))
        return True

    def _run_of(self, name: str) -> StageRun:
        return self._parts[self._numbers[name]].run

    def _is_spread(self, name: str) -> bool:
        """Whether it is known what an output has along axes that its calls make."""
        run = self._run_of(name)
        step = run.step_of(name)
        return not run.stage.steps[step].inner or run.is_spread(step)

    def _space_of(self, name: str) -> Space:
        return self._run_of(name).space_of(name)

    def _elements(self, name: str, positions: Array) -> Array:
        """For each of some items, the position of its element in an output."""
        return self._space.elements(positions, self._plan.axes[name], self._space_of(name))

    def _touched(self, run: StageRun, positions: Array) -> Array | None:
        """Return the items that positions of a stage belong to; None if that may be any."""
        name = next(name for name in self._mapped if self._numbers[name] == run.stage.number)
        inner = run.stage.steps[run.step_of(name)].inner
        if inner or len(self._plan.axes[name]) < len(self._space.axes):
            return None
        return run.space.elements(positions, self._space.axes, self._space)

    def _take_in(self, positions: Array | None) -> None:
        """Let those of some items be taken that are complete."""
        line = self._line
        if line is None:
            return
        chosen = line.open(positions)
        complete = np.ones(len(chosen), dtype=bool)
        whole, anything = complete.copy(), ~complete
        for name in self._mapped:
            there, dead = self._known(name, self._elements(name, chosen))
            complete &= there | dead
            whole &= there
            anything |= there
        for place in np.flatnonzero(complete & ~whole).tolist():
            complete[place] = self._is_taken(int(chosen[place]), anything=bool(anything[place]))
        done = chosen[complete]
        line.add(done, ~np.isnan(self._seconds(done)))

    def _known(self, name: str, elements: Array) -> tuple[Array, Array]:
        """Masks of the elements of an output that are there, and of those that will never be."""
        run = self._run_of(name)
        step = run.step_of(name)
        if run.stage.steps[step].inner:
            dead = run.spread(step).dead[elements]
            return ~dead, dead
        there = run.locators[step][elements] != MISSING
        return there, ~there & run.dead[step][elements]

    def _is_taken(self, position: int, *, anything: bool) -> bool:
        """Find out why an item lacks a value; return whether it is to be taken all the same."""
        where = np.array([position])
        causes = (self._cause(name, int(self._elements(name, where)[0])) for name in self._mapped)
        if (cause := next(filter(None, causes), None)) is not None:
            self._errors[position] = cause
            return self._with_errors
        if not anything and self._line is not None:
            self._line.skip(where)  # what it is made of was not asked for
        return anything

    def _cause(self, name: str, element: int) -> ItemError | None:
        """Return the failed call because of which an element is missing."""
        run = self._run_of(name)
        step = run.step_of(name)
        if not self._known(name, np.array([element]))[1][0]:
            return None
        call = int(run.spread(step).calls[element]) if run.stage.steps[step].inner else element
        for k in range(step, -1, -1):
            if (failure := run.failures.get((call, k))) is not None:
                return item_error(run, failure)
        number = run.stage.number
        if number not in self._causes:  # of what has failed before this stage, which does not change any more
            self._causes[number] = Causes(dict(self._runs))
        return self._causes[number].at(name, np.array([element]))[0]

    def _seconds(self, positions: Array) -> Array:
        """How long the calls of items took; not a number where none ran."""
        total = np.full(len(positions), np.nan)
        for number, name in {self._numbers[name]: name for name in self._mapped}.items():
            run, calls = self._run_of(name), self._elements(name, positions)
            step = run.step_of(name)
            if run.stage.steps[step].inner:
                calls = run.spread(step).calls[calls]
            total = _sum(total, self._parts[number].seconds[calls])
        return total

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    def _room(self, run: StageRun, flying: int) -> int:
        """How many more items of a stage may be sent.

        As long as there is nothing to take, something may: what is taken next may be among it.
        """
        with self._lock:
            if self._ahead is None or not run.stage.axes or run.stage.number not in self._numbers.values():
                return sys.maxsize
            room = self._ahead - flying
            if self._line is not None and self._line.takeable:
                room -= self._line.waiting
            self._is_held = room < (self._ahead // 2 if self._is_held else 1)
            return 0 if self._is_held else room

    # -- the taker's side ---------------------------------------------------------------------------------------

    def listen(self, listener: Callable[[], object]) -> None:
        """Have `listener` called, in any thread, whenever there may be something to take."""
        self._listeners.append(listener)
        self.control.is_watched = True
        listener()

    def ignore(self, listener: Callable[[], object]) -> None:
        """Do not call `listener` any more."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        self.control.is_watched = bool(self._listeners)

    def hold(self) -> None:
        """Let the run go no further ahead of who takes the items than usual."""
        self._ahead = AHEAD

    def release(self) -> None:
        """Let the run go on, however many items wait."""
        self._ahead = None
        self.control.ring()

    def take(self) -> Item | None:
        """Return the next item; None if there is none now.

        Raises
        ------
        InputError
            There can be none: the outputs have no space in common.
        Exception
            What the map raises, once all items that were completed before have been taken.
        """
        with self._taking:
            if self._refusal is not None:
                raise self._refusal
            return self._take()

    def locate(self) -> None:
        """Have the next item at hand, if there is one, so that taking it takes no long."""
        with self._taking:
            if self._block is None:
                self._locate()

    def _take(self) -> Item | None:
        while not self.exhausted:
            block = self._block or self._locate()
            if block is None:
                return self._take_last()
            place = block.at
            item = self._item(block, place)
            if item is None and self._ordered:
                if self._result is not None:
                    outputs = self._healed(self._result, block.positions[place])
                    item = self._made(
                        block.positions[place], block.indices[place], outputs, block.seconds[place]
                    )
                elif self._rest is None:  # what comes after it has to wait until it can be computed again
                    self.release()
                    return None
            block.at += 1
            if block.at == len(block.positions):
                self._block = None
            if item is not None:
                return item
            self._later.append((block.positions[place], block.indices[place], block.seconds[place]))
        return None

    @property
    def has_located(self) -> bool:
        """Whether the next item is at hand."""
        return self._block is not None

    def _locate(self) -> _Block | None:
        with self._lock:
            if self._line is None:
                return None
            positions = self._line.take(_BLOCK)
            if self._is_held and (not self._line.takeable or self._line.waiting <= AHEAD // 2):
                self.control.ring()
        if not len(positions):
            return None
        forms = {name: self._forms(name, self._elements(name, positions)) for name in self._mapped}
        along = self._space.coordinates(positions)
        indices = list(zip(*(axis.tolist() for axis in along), strict=True))
        self._block = _Block(positions.tolist(), indices, self._seconds(positions).tolist(), forms)
        return self._block

    def _forms(self, name: str, elements: Array) -> list[Any]:
        """The stored forms of elements: None where a call has failed, `_LOST` where there is none to be found."""
        part = self._sources[name].part(elements)
        there = part.locators != MISSING
        forms: list[Any] = [_LOST] * len(elements)
        for place in np.flatnonzero(~there & self._known(name, elements)[1]).tolist():
            forms[place] = None
        places = np.flatnonzero(there)
        try:
            found = part.forms(places)
        except IntegrityError:
            return forms if len(elements) == 1 else [self._forms(name, one)[0] for one in elements[:, None]]
        for place, form in zip(places.tolist(), found, strict=True):
            forms[place] = _Form(form)
        return forms

    def _item(self, block: _Block, place: int) -> Item | None:
        """The item at a place of a block; None if bytes are lost."""
        outputs: dict[str, Any] = {}
        for name, forms in block.forms.items():
            form = forms[place]
            if form is _LOST:
                return None
            try:
                outputs[name] = self._sources[name].load(form.form) if form is not None else None
            except IntegrityError:
                return None
        return self._made(block.positions[place], block.indices[place], outputs, block.seconds[place])

    def _made(
        self, position: int, index: tuple[int, ...], outputs: Mapping[str, Any], seconds: float
    ) -> Item:
        ran = not math.isnan(seconds)
        return Item(index, outputs, not ran, seconds if ran else 0.0, self._errors.pop(position, None))

    def _take_last(self) -> Item | None:
        """After everything that could be taken as the run went on: what is left when it has ended."""
        with self._lock:
            if self._rest is None or (self._line is not None and self._line.takeable):
                return None
        if self._error is not None:
            self.exhausted = True
            raise self._error
        if (item := next(self._rest, None)) is None:
            self.exhausted = True
        return item

    def _last_items(self, result: Result) -> Iterator[Item]:
        while self._later:
            position, index, seconds = self._later.popleft()
            yield self._made(position, index, self._healed(result, position), seconds)
        if (item := self._single_item(result)) is not None:
            yield item

    def _healed(self, result: Result, position: int) -> dict[str, Any]:
        """The outputs of an item, of which something had to be computed again."""
        where = np.array([position])
        outputs: dict[str, MappedOutput] = {name: result[name] for name in self._mapped}
        return {name: output.at(self._space, where)[0] for name, output in outputs.items()}

    def _single_item(self, result: Result) -> Item | None:
        outputs: dict[str, Any] = {}
        error: ItemError | None = None
        seconds = np.full(1, np.nan)
        for name in self._single:
            there, _ = self._known(name, np.zeros(1, dtype=np.int64))
            cause = None if there[0] else self._cause(name, 0)
            if not there[0] and cause is None:
                continue  # it was not asked for
            outputs[name] = result[name] if there[0] else None
            error = error or cause
        for number in {self._numbers[name] for name in outputs}:
            seconds = _sum(seconds, self._parts[number].seconds)
        if not outputs:
            return None
        ran = not np.isnan(seconds[0])
        return Item((), outputs, not ran, float(seconds[0]) if ran else 0.0, error)


class _Form:
    """A stored form that has been found."""

    __slots__ = ("form",)

    def __init__(self, form: Any) -> None:
        self.form = form


_LOST: Any = object()


def check_common_space(plan: Plan) -> None:
    """See that there is one space that has the axes of all outputs which are asked for.

    Raises
    ------
    InputError
        There is none.
    """
    mapped = [name for name in plan.outputs if plan.axes[name]]
    widest = max(mapped, key=lambda name: len(plan.axes[name]), default="")
    for name in mapped:
        if odd := set(plan.axes[name]) - set(plan.axes[widest]):
            raise InputError(
                f"items need one space: {name!r} has the axis {min(odd)!r}, which {widest!r} has not; ask for one of "
                "them with output_name="
            )


def _unequal(one: tuple[str, Space], widest: tuple[str, Space]) -> InputError | None:
    """Say that an output is not as long as another one along the axes that they share, if it is not."""
    for axis, length in zip(one[1].axes, one[1].shape, strict=True):
        other = widest[1].shape[widest[1].axes.index(axis)]
        if length != other or (one[1].axes == widest[1].axes and one[1].size != widest[1].size):
            return InputError(
                f"items need one space: along {axis!r}, {one[0]!r} and {widest[0]!r} differ; ask for one of them with "
                "output_name="
            )
    return None


def _sum(total: Array, more: Array) -> Array:
    """The sum of what are numbers; not a number where neither is."""
    return np.where(np.isnan(more), total, np.nan_to_num(total) + more)
