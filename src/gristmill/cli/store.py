"""`gristmill store …`: what is in a store, whether it is sound, and making room."""

import re
from collections.abc import Callable
from dataclasses import asdict

import typer

from gristmill.cli.tables import amount, print_json, print_table, when
from gristmill.cli.words import counted
from gristmill.errors import GristmillError, InputError
from gristmill.store import Store

DONE, FAILED, USAGE = 0, 1, 2

_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


def on_store(location: str | None, action: Callable[[Store], int]) -> int:
    """Do something with a store, say what is wrong with the request, and return the exit code."""
    try:
        with Store(location) as store:
            return action(store)
    except GristmillError as error:
        typer.echo(f"Error: {error}", err=True)
        return USAGE


def show_stats(store: Store, *, as_json: bool) -> int:
    """Print how much there is in the store."""
    stats = store.stats()
    if as_json:
        print_json({"store": str(store.location), **stats.to_dict()})
        return DONE
    typer.echo(f"{store.location}: {counted(stats.calls, 'call')}, {amount(stats.bytes)}\n")
    kinds = [(kind, amount(size)) for kind, size in stats.kinds.items() if size]
    print_table(["kind", "size"], kinds, numbers=["size"])
    if stats.nodes:
        typer.echo()
        nodes = [(node, amount(size)) for node, size in stats.nodes.items()]
        print_table(["node", "size"], nodes, numbers=["size"])
    if stats.runs:
        typer.echo()
        runs = [(run.run_id, run.name or "", f"{run.calls:,}", f"{run.rate:.0%}") for run in stats.runs[:10]]
        print_table(["run", "pipeline", "calls", "hits"], runs, numbers=["calls", "hits"])
    return DONE


def show_entries(store: Store, node: str | None, *, as_json: bool) -> int:
    """Print what is in the store."""
    listed = store.ls(node)
    if as_json:
        print_json([asdict(entry) for entry in listed])
        return DONE
    rows = [
        (
            entry.node,
            ", ".join(entry.outputs),
            f"{entry.calls:,}",
            amount(entry.bytes),
            when(entry.last_used),
            entry.group[:8],
        )
        for entry in listed
    ]
    headers = ["node", "outputs", "calls", "size", "last used", "version"]
    print_table(headers, rows, numbers=["calls", "size"])
    return DONE


def verify(store: Store, *, repair: bool, as_json: bool) -> int:
    """Check everything in the store, and print what is damaged."""
    report = store.verify(repair=repair)
    if as_json:
        print_json(report.to_dict())
        return DONE if report.ok or report.repaired else FAILED
    read = f"{counted(report.calls, 'call')}, {counted(report.chunks, 'chunk')}, {amount(report.bytes)} read"
    if report.ok:
        typer.echo(f"sound: {read}")
        return DONE
    print_table(["what", "name", "node", "why"], [(d.what, d.name, d.node, d.why) for d in report.damaged])
    found = counted(len(report.damaged), "thing") + " damaged"
    if report.repaired:
        typer.echo(f"{found}, and set aside: the next map computes what is missing ({read})")
        return DONE
    typer.echo(f"{found} ({read}); --repair sets aside what is damaged, to be computed again")
    return FAILED


def collect(
    store: Store,
    limits: tuple[str | None, str | None, int | None],
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Delete what is not needed any more, and print what went."""
    size, age, keep_runs = limits
    report = store.gc(
        parse_size(size) if size is not None else None,
        parse_age(age) if age is not None else None,
        keep_runs,
        dry_run=dry_run,
    )
    if as_json:
        print_json(report.to_dict())
        return DONE
    went = [
        counted(report.calls, "call"),
        counted(report.runs, "run"),
        counted(report.chunks, "chunk"),
        counted(report.objects, "object"),
    ]
    does = "would go" if dry_run else "gone"
    typer.echo(f"{', '.join(went)} {does}: {amount(report.freed)}; {counted(report.kept_calls, 'call')} kept")
    return DONE


def parse_size(text: str) -> int:
    """Return the bytes that a text like `20G` or `500MB` means.

    Examples
    --------
    >>> parse_size("1.5 GB"), parse_size("2048")
    (1500000000, 2048)

    Raises
    ------
    InputError
        It means none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if match is None:
        raise InputError(f"--max-bytes {text!r} is no size; write it like 500MB or 20G")
    return int(float(match[1]) * _SIZES[match[2]])


def parse_age(text: str) -> float:
    """Return the seconds that a text like `30d` or `12h` means.

    Examples
    --------
    >>> parse_age("2h"), parse_age("90")
    (7200.0, 90.0)

    Raises
    ------
    InputError
        It means none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text.strip().lower())
    if match is None:
        raise InputError(f"--older-than {text!r} is no age; write it like 12h, 30d or 2w")
    return float(match[1]) * _TIMES[match[2] or "s"]
