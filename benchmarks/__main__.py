"""The command line: `python -m benchmarks`, with `--help` for what else it does."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import machine, report, scaling
from benchmarks.case import Case
from benchmarks.catalog import CASES
from benchmarks.harness import measure, profiled

QUICK_REPEATS = 1
FILE_WIDTH = 110


def main(  # noqa: PLR0913 - the options of a command line
    only: Annotated[
        list[str] | None,
        typer.Option(help="Cases to run, or patterns of them; unless given, all but the long ones."),
    ] = None,
    items: Annotated[
        int | None, typer.Option(help="Items of every case, in place of its own number.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Rounds; the median counts.")] = 5,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write every sample to this file.")] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Where stores are made; the system's if not given.")
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(help="Measure gristmill at 10,000 items and each power of ten up to so many."),
    ] = None,
    *,
    profile: Annotated[bool, typer.Option("--profile", help="Say where gristmill spends its time.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Show that everything runs; measures nothing.")
    ] = False,
) -> None:
    """Measure gristmill beside its peers and the raw limits."""
    patterns = only or [case.name for case in CASES if not case.long]
    unknown = [pattern for pattern in patterns if not _chosen([pattern])]
    if unknown:
        names = ", ".join(case.name for case in CASES)
        raise typer.BadParameter(f"no case named {', '.join(sorted(unknown))}; there are {names}")
    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    facts = machine.facts(directory)
    report.show_machine(console, facts)
    rounds = QUICK_REPEATS if quick else repeats

    def one(case: Case) -> dict[str, Any]:
        if profile:
            return _profile(console, case, items, directory)
        if scale is not None:
            return _scale(console, case, scale, rounds, directory)
        return _measure(
            console, case, items or (case.quick_items if quick else case.items), rounds, directory
        )

    cases = [one(case) for case in _chosen(patterns)]
    if quick:
        console.print("\n--quick: too few items and rounds for the figures to mean anything")
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": facts, "quick": quick, "cases": cases}, indent=1))
    if any(runner.get("failed") for case in cases for runner in case.get("runners", ())):
        raise typer.Exit(1)


def _measure(
    console: Console, case: Case, items: int, repeats: int, directory: Path | None
) -> dict[str, Any]:
    with console.status(case.name) as status:
        entries = measure(case, items=items, repeats=repeats, directory=directory, progress=status.update)
    report.show_case(console, case, entries)
    return report.as_json(case, entries)


def _scale(
    console: Console, case: Case, largest: int, repeats: int, directory: Path | None
) -> dict[str, Any]:
    with console.status(case.name) as status:
        found = scaling.measure_sizes(
            case, largest=largest, repeats=repeats, directory=directory, progress=status.update
        )
    scaling.show(console, case, found)
    return scaling.as_json(case, found)


def _profile(console: Console, case: Case, items: int | None, directory: Path | None) -> dict[str, Any]:
    count = items or case.items
    with console.status(f"{case.name}: profile"):
        seconds, spots = profiled(case, items=count, directory=directory)
    report.show_profile(console, case, count, seconds, spots)
    return {"name": case.name, "items": count, "seconds": seconds, "spots": spots}


def _chosen(patterns: list[str]) -> list[Case]:
    return [case for case in CASES if any(fnmatch(case.name, pattern) for pattern in patterns)]


if __name__ == "__main__":
    typer.run(main)
