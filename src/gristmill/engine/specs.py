"""Executor specs: what a user writes, checked: `"parallel"`, `"parallel:4"`, or a mapping by output name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from gristmill.errors import InputError
from gristmill.graph.wording import did_you_mean

KINDS = ("sequential", "async", "threaded", "parallel", "auto")

THREADS = 32
"""Default width of threads: for calls that wait, not for such that compute."""

COROUTINES = 1000
"""Default width of coroutines."""


@dataclass(frozen=True, slots=True)
class ExecutorSpec:
    """One executor, with its width where one was given."""

    kind: str
    width: int | None = None

    @classmethod
    def parse(cls, text: object, what: str) -> "ExecutorSpec":
        """Read a spec.

        Raises
        ------
        InputError
            There is no such executor, or its width is no positive number.

        Examples
        --------
        >>> ExecutorSpec.parse("parallel:4", "map_executor")
        ExecutorSpec(kind='parallel', width=4)
        """
        if not isinstance(text, str):
            raise InputError(f"{what} is {text!r}; use one of {', '.join(map(repr, KINDS))}")
        kind, colon, width = text.partition(":")
        if kind not in KINDS:
            raise InputError(
                f"{what} is {text!r}{did_you_mean(kind, KINDS)}; use one of {', '.join(map(repr, KINDS))}"
            )
        if colon and not (width.isdecimal() and int(width) > 0):
            raise InputError(f"{what} is {text!r}; a width is a positive number, like 'parallel:4'")
        return cls(kind, int(width) if colon else None)


Specs = str | Mapping[str, str]


def parse_specs(given: Specs, what: str) -> dict[str, ExecutorSpec]:
    """Return a spec for each output name that has one of its own, and for `""`, the rest."""
    if isinstance(given, Mapping):
        found = {name: ExecutorSpec.parse(text, f"{what}[{name!r}]") for name, text in given.items()}
        return {"": ExecutorSpec("auto"), **found}
    return {"": ExecutorSpec.parse(given, what)}


def cpu_count() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
