"""`gristmill runs` and `gristmill show`: what has run on a store."""

import typer

from gristmill.cli.tables import lasting, print_json, print_table, when
from gristmill.cli.words import counted
from gristmill.runs import RunRecord, read_run
from gristmill.store import Store

DONE, FAILED = 0, 1


def show_runs(store: Store, *, as_json: bool) -> int:
    """Print the records of all runs, the newest first."""
    records = store.runs()
    if as_json:
        print_json([record.to_dict() for record in records])
        return DONE
    rows = [
        (
            record.run_id,
            record.name or "",
            record.state,
            when(record.started),
            lasting(record.seconds),
            f"{record.computed:,}",
            f"{record.cached:,}",
            f"{record.failed:,}",
        )
        for record in records
    ]
    headers = ["run", "pipeline", "state", "started", "took", "computed", "cached", "failed"]
    print_table(headers, rows, numbers=["took", "computed", "cached", "failed"])
    return DONE


def show_run(store: Store, run_id: str, *, as_json: bool) -> int:
    """Print the record of one run; the exit code says whether all its items are there."""
    record = read_run(store.look(), run_id)
    if as_json:
        print_json(record.to_dict())
    else:
        _print(record)
    whole = record.state in ("done", "running") and not record.failed
    return DONE if whole else FAILED


def _print(record: RunRecord) -> None:
    name = f" of {record.name}" if record.name else ""
    typer.echo(f"run {record.run_id}{name}: {record.state}")
    typer.echo(
        f"started {when(record.started)} on {record.host} (pid {record.pid}), {lasting(record.seconds)}"
    )
    typer.echo(", ".join(f"{what} {number}" for what, number in record.versions.items()))
    typer.echo()
    rows = [
        (
            stage.title,
            " × ".join(f"{axis}={n}" for axis, n in zip(stage.axes, stage.shape, strict=False)),
            f"{stage.computed:,}",
            f"{stage.cached:,}",
            f"{stage.failed:,}",
            f"{stage.skipped:,}",
            f"{stage.executor} ({stage.reason})" if stage.reason else stage.executor,
        )
        for stage in record.stages
    ]
    counts = ["computed", "cached", "failed", "skipped"]
    print_table(["stage", "space", *counts, "run by"], rows, numbers=counts)
    for output, path in record.views.items():
        typer.echo(f"\n{output}: {path}")
    if record.error:
        typer.echo(f"\nended with {record.error}")
    if record.failures:
        typer.echo(f"\n{counted(record.failed, 'call')} failed:")
        failed = [(f"{output}{list(index)}", said) for output, index, said in record.failures]
        print_table(["call", "raised"], failed)
