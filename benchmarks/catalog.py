"""Every case there is, in the order of the report."""

from benchmarks.case import Case, Runner
from benchmarks.cases import (
    arrays,
    cold,
    executors,
    hashing,
    imports,
    ledger,
    parallel,
    product,
    resumed,
    runs,
    sharing,
)

CASES: tuple[Case, ...] = (
    *resumed.CASES,
    *ledger.CASES,
    *cold.CASES,
    *runs.CASES,
    *product.CASES,
    *parallel.CASES,
    *executors.CASES,
    *arrays.CASES,
    *hashing.CASES,
    *imports.CASES,
    *sharing.CASES,
)


def find_runner(case: str, system: str) -> Runner:
    """The runner of that name in the case of that name."""
    return next(
        runner for entry in CASES if entry.name == case for runner in entry.runners if runner.system == system
    )
