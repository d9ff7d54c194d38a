"""The command line: `python -m benchmarks [--quick] [--only NAME] [--items N] [--json FILE]`."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import machine, report
from benchmarks.case import Case
from benchmarks.catalog import CASES
from benchmarks.harness import measure

QUICK_REPEATS = 1
FILE_WIDTH = 110


def main(
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
    *,
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
    results = []
    failed = False
    for case in _chosen(patterns):
        with console.status(case.name) as status:
            entries = measure(
                case,
                items=items or (case.quick_items if quick else case.items),
                repeats=QUICK_REPEATS if quick else repeats,
                directory=directory,
                progress=status.update,
            )
        report.show_case(console, case, entries)
        results.append(report.as_json(case, entries))
        failed = failed or any(entry.failed for entry in entries)
    if quick:
        console.print("\n--quick: too few items and rounds for the figures to mean anything")
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": facts, "quick": quick, "cases": results}, indent=1))
    if failed:
        raise typer.Exit(1)


def _chosen(patterns: list[str]) -> list[Case]:
    return [case for case in CASES if any(fnmatch(case.name, pattern) for pattern in patterns)]


if __name__ == "__main__":
    typer.run(main)
