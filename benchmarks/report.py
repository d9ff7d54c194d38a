"""Shows what was measured: a table for each case, and JSON for programs."""

import statistics
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.case import AtMost, Case, SpeedOf
from benchmarks.harness import Measured

UNSTEADY = 1.5
"""How far apart two rounds may be before the report warns."""


def show_machine(console: Console, facts: dict[str, str]) -> None:
    """Print what it was measured on."""
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        grid.add_row(Text(name, style="dim"), value)
    console.print(grid)


def show_case(console: Console, case: Case, entries: list[Measured]) -> None:
    """Print a case's table, what one must know to read it, and where gristmill stands in it."""
    ours = figure_of(entries, kind="ours")
    console.print(f"\n[bold]{case.name}[/]: {case.title}", highlight=False)
    table = Table(box=SIMPLE_HEAD)
    table.add_column("system", no_wrap=True)
    for heading in ("items", case.unit, "lowest–highest", "× gristmill", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in entries:
        style = {"ours": "bold", "raw": "dim"}.get(entry.runner.kind, "")
        table.add_row(entry.runner.system, *_cells(entry, ours), style=style)
    console.print(table)
    for entry in entries:
        if remarks := _remarks(entry):
            console.print(Text(f"  {entry.runner.system}: {remarks}"), style="dim")
    console.print(f"  {verdict(case, entries)}", highlight=False)


def _cells(entry: Measured, ours: float | None) -> tuple[str, str, str, str, str]:
    if entry.figure is None:
        return (f"{entry.items:,}", "skipped" if entry.skipped else "failed", "–", "–", "–")
    figures = [sample.figure for sample in entry.samples]
    spread = f"{_short(min(figures))}–{_short(max(figures))}"
    ratio = f"{entry.figure / ours:.2f}" if ours else "–"
    return (f"{entry.items:,}", _short(entry.figure), spread, ratio, f"{_growth(entry):+,.0f} MB")


def _growth(entry: Measured) -> float:
    """The median growth of the process in MB."""
    return statistics.median(sample.growth for sample in entry.samples) / 1e6


def _remarks(entry: Measured) -> str:
    facts = (f"{name} {value:.4g}" for name, value in median_facts(entry).items())
    failure = entry.failed.splitlines()[-1] if entry.failed else ""
    return "; ".join(filter(None, (entry.runner.note, *facts, _unrest(entry), entry.skipped, failure)))


def _unrest(entry: Measured) -> str:
    figures = [sample.figure for sample in entry.samples]
    apart = max(figures) / min(figures) if figures else 1.0
    return f"unsteady, {apart:.1f} × between rounds: measure on a quiet machine" if apart > UNSTEADY else ""


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.3g}"


def median_facts(entry: Measured) -> dict[str, float]:
    """The median of each further fact that a runner reported."""
    names = entry.samples[0].facts if entry.samples else {}
    return {name: statistics.median(sample.facts[name] for sample in entry.samples) for name in names}


def figure_of(entries: list[Measured], *, kind: str) -> float | None:
    """The lowest figure among the runners of a kind."""
    return min((e.figure for e in entries if e.runner.kind == kind and e.figure is not None), default=None)


def speed_against(entries: list[Measured], system: str) -> float | None:
    """Gristmill's speed over another's: the median over rounds, a round sharing one mood of the disk."""
    ours = _ours(entries)
    theirs = next((e for e in entries if e.runner.system == system), None)
    if ours is None or theirs is None or not ours.samples or not theirs.samples:
        return None
    pairs = zip(ours.samples, theirs.samples, strict=True)
    return statistics.median(other.figure / own.figure for own, other in pairs)


def _ours(entries: list[Measured]) -> Measured | None:
    return next((entry for entry in entries if entry.runner.kind == "ours"), None)


def verdict(case: Case, entries: list[Measured]) -> str:
    """Where gristmill stands: against the best peer, and against its budget."""
    ours = figure_of(entries, kind="ours")
    if ours is None:
        return "gristmill: not measured"
    peer = figure_of(entries, kind="peer")
    parts = [f"{peer / ours:.3g} × the speed of the best peer"] if peer else []
    match case.budget:
        case AtMost(limit):
            parts.append(
                f"budget {case.budget} {case.unit}: {'within' if ours <= limit else 'OVER'} ({_short(ours)})"
            )
        case SpeedOf(system, ratio):
            speed = speed_against(entries, system)
            if speed is not None:
                parts.append(f"budget {case.budget}: {'within' if speed >= ratio else 'OVER'} ({speed:.3g})")
    if (entry := _ours(entries)) is not None:
        parts += _memory(case, entry)
    return "gristmill: " + ("; ".join(parts) or "no peer and no budget")


def _memory(case: Case, entry: Measured) -> list[str]:
    growth, parts = _growth(entry), []
    if case.memory is not None:
        limit = case.memory / 1e6
        parts.append(f"memory ≤ {limit:,.0f} MB: {'within' if growth <= limit else 'OVER'} ({growth:+,.0f})")
    if case.memory_per_item is not None:
        each = 1e6 * growth / entry.items
        word = "within" if each <= case.memory_per_item else "OVER"
        parts.append(f"memory ≤ {case.memory_per_item} B/item: {word} ({each:.0f})")
    return parts


def show_profile(
    console: Console, case: Case, items: int, seconds: float, spots: list[tuple[str, int, float]]
) -> None:
    """Print where the time of the measuring thread went; a profile makes calls dearer than they are."""
    console.print(f"\n[bold]{case.name}[/]: {case.title}", highlight=False)
    console.print(f"  {items:,} items in {seconds:.3g} s under the profile")
    table = Table(box=SIMPLE_HEAD)
    table.add_column("function")
    for heading in ("own time", "calls/item", "µs/item"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, calls, own in spots:
        table.add_row(Text(name), f"{own / seconds:.1%}", f"{calls / items:.3g}", f"{1e6 * own / items:.3g}")
    console.print(table)


def as_json(case: Case, entries: list[Measured]) -> dict[str, Any]:
    """Everything that was measured, every sample included."""
    return {
        "name": case.name,
        "title": case.title,
        "unit": case.unit,
        "budget": str(case.budget) if case.budget else None,
        "verdict": verdict(case, entries),
        "runners": [
            {
                "system": entry.runner.system,
                "kind": entry.runner.kind,
                "note": entry.runner.note,
                "items": entry.items,
                "median": entry.figure,
                "skipped": entry.skipped or None,
                "failed": entry.failed or None,
                "samples": [
                    {"figure": sample.figure, "growth": sample.growth, "facts": sample.facts}
                    for sample in entry.samples
                ],
            }
            for entry in entries
        ],
    }
