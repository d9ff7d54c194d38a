"""Executor specs: what a user writes, checked: `"parallel"`, `"parallel:4"`, or a mapping by output name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from gristmill.errors import InputError
from gristmill.graph.wording import did_you_mean

KINDS = ("sequential", "async", "threaded", "parallel", "auto")

THREADS = 32
"""Default width of threads: for calls that wait, not for such that compute."""

COROUTINES = 1000
"""Default width of coroutines."""


@runtime_checkable
class Submits(Protocol):
    """A `concurrent.futures.Executor`, or whatever else has a `submit` like it."""

    @property
    def submit(self) -> Any:
        """Takes a function and its arguments, and returns a future: `result`, `done`, `add_done_callback`."""


@dataclass(frozen=True, slots=True, eq=False)
class GivenExecutor:
    """An executor that the user made; it equals itself alone."""

    executor: Submits

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GivenExecutor) and other.executor is self.executor

    def __hash__(self) -> int:
        return id(self.executor)

    @property
    def name(self) -> str:
        """What events and run records call it."""
        return type(self.executor).__name__

    @property
    def text(self) -> str:
        """What messages call it."""
        return f"the executor {self.executor!r}"

    def width(self, most: int | None) -> int:
        """Return how many tasks it is given at once: as many as it says that it has workers, at most `most`."""
        for name in ("_max_workers", "max_workers"):
            own = getattr(self.executor, name, None)
            if isinstance(own, int) and not isinstance(own, bool) and own > 0:
                return min(own, most or own)
        return most or cpu_count()


@dataclass(frozen=True, slots=True)
class ExecutorSpec:
    """One executor, with its width where one was given."""

    kind: str
    width: int | None = None
    given: GivenExecutor | None = None
    """The executor of kind `"given"`."""

    @classmethod
    def parse(cls, text: object, what: str) -> "ExecutorSpec":
        """Read a spec.

        Raises
        ------
        InputError
            There is no such executor, it has no `submit`, or its width is no positive number.

        Examples
        --------
        >>> spec = ExecutorSpec.parse("parallel:4", "map_executor")
        >>> spec.kind, spec.width
        ('parallel', 4)
        """
        if not isinstance(text, str):
            return cls("given", given=_checked(text, what))
        kind, colon, width = text.partition(":")
        if kind not in KINDS:
            raise InputError(
                f"{what} is {text!r}{did_you_mean(kind, KINDS)}; use one of {', '.join(map(repr, KINDS))}"
            )
        if colon and not (width.isdecimal() and int(width) > 0):
            raise InputError(f"{what} is {text!r}; a width is a positive number, like 'parallel:4'")
        return cls(kind, int(width) if colon else None)


def _checked(given: Any, what: str) -> GivenExecutor:
    if isinstance(given, type):
        raise InputError(
            f"{what} is the class {given.__name__}; make one, and close it when you need it no more"
        )
    if not callable(getattr(given, "submit", None)):
        raise InputError(
            f"{what} is {given!r}; use one of {', '.join(map(repr, KINDS))}, or an object with a method submit, "
            "like those of concurrent.futures"
        )
    return GivenExecutor(given)


Spec = str | Submits
Specs = Spec | Mapping[str, Spec]


def parse_specs(given: Specs, what: str) -> dict[str, ExecutorSpec]:
    """Return a spec for each output name that has one of its own, and for `""`, the rest."""
    if isinstance(given, Mapping):
        found = {name: ExecutorSpec.parse(text, f"{what}[{name!r}]") for name, text in given.items()}
        return {"": ExecutorSpec("auto"), **found}
    return {"": ExecutorSpec.parse(given, what)}


def cpu_count() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
