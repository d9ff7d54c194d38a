"""How the cost of an item depends on how many there are: gristmill and the raw limits at growing sizes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.case import Case
from benchmarks.harness import Measured, measure

SMALLEST = 10_000


def sizes(largest: int) -> list[int]:
    """The powers of ten from `SMALLEST` to `largest`."""
    found = []
    size = SMALLEST
    while size <= largest:
        found.append(size)
        size *= 10
    return found


def measure_sizes(
    case: Case, *, largest: int, repeats: int, directory: Path | None, progress: Callable[[str], None]
) -> dict[int, list[Measured]]:
    """Measure gristmill and the raw limits at each size; peers would take all day."""
    runners = tuple(runner for runner in case.runners if runner.kind != "peer")
    return {
        size: measure(
            replace(case, runners=runners),
            items=size,
            repeats=repeats,
            directory=directory,
            progress=progress,
        )
        for size in sizes(largest)
    }


def show(console: Console, case: Case, found: dict[int, list[Measured]]) -> None:
    """Print a row for each system and a column for each size; the slope is the last over the first."""
    console.print(f"\n[bold]{case.name}[/]: {case.title}, {case.unit}", highlight=False)
    table = Table(box=SIMPLE_HEAD)
    table.add_column("system", no_wrap=True)
    for heading in (*(f"{size:,}" for size in found), "last ÷ first"):
        table.add_column(heading, justify="right", no_wrap=True)
    for rows in zip(*found.values(), strict=True):
        figures = [one.figure for one in rows]
        cells = [f"{figure:.3g}" if figure is not None else "–" for figure in figures]
        first, last = figures[0], figures[-1]
        table.add_row(rows[0].runner.system, *cells, f"{last / first:.2f}" if first and last else "–")
    console.print(table)


def as_json(case: Case, found: dict[int, list[Measured]]) -> dict[str, object]:
    """Figures by system and size."""
    systems: dict[str, dict[str, float | None]] = {}
    for size, entries in found.items():
        for entry in entries:
            systems.setdefault(entry.runner.system, {})[str(size)] = entry.figure
    return {"name": case.name, "unit": case.unit, "systems": systems}
