"""The command line: `gristmill`.

Owns the commands' options. What a command does is imported when it runs, so that `gristmill --help` is quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gristmill.version import __version__

if TYPE_CHECKING:
    from gristmill.cli.pipelines import PipelineCall

app = typer.Typer(
    name="gristmill",
    help="Disk-cached, storage-backed map-reduce for plain Python functions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

store_app = typer.Typer(
    name="store",
    help="Look into a store, check it, and make room.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(store_app)

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store", metavar="PATH", help="Which store: $GRISTMILL_STORE by default, else .gristmill."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it by position
    if wanted:
        typer.echo(f"gristmill {__version__}")
        raise typer.Exit


@app.callback()
def gristmill(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run functions over many inputs; keep every result on disk."""


@app.command()
def demo(
    *,
    kill_after: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="SECONDS",
            help="Kill the demo and its workers with SIGKILL after so long; run it again to see it go on.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="PATH", help="Where to keep results: $GRISTMILL_STORE by default, else .gristmill here."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Worker processes; one per CPU by default.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")] = False,
    source: Annotated[Path | None, typer.Option(hidden=True, exists=True, file_okay=False)] = None,
) -> None:
    """Examine every module of Python's standard library, in parallel.

    The first run computes, the second finds everything in the store. Stop a run however you like: the next
    one computes only what is left.
    """
    import time

    started = time.perf_counter()
    from gristmill.cli.demo import Demo

    raise typer.Exit(Demo(started, source, store, workers, kill_after).main(as_json=json))


PipelineArgument = Annotated[
    str,
    typer.Argument(metavar="MODULE:PIPELINE", help="Where the pipeline is, like jobs.daily:pipeline."),
]
InputOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="NAME=VALUE", help="A Python literal, or @file.json; once for each input."
    ),
]
MapOverOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="An input that the whole pipeline is mapped over."),
]
ProductOption = Annotated[
    bool, typer.Option("--product", help="Give each input that is mapped over an axis of its own.")
]
OutputOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="An output that is wanted; all leaves by default."),
]
OtherStoreOption = Annotated[
    str | None, typer.Option("--store", metavar="PATH", help="Another store than the pipeline's own.")
]
JsonObjectOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


@app.command()
def run(
    pipeline: PipelineArgument,
    *,
    inputs: InputOption = None,
    map_over: MapOverOption = None,
    product: ProductOption = False,
    output: OutputOption = None,
    store: OtherStoreOption = None,
    executor: Annotated[
        str, typer.Option(metavar="NAME", help="What runs it: sequential, parallel or auto.")
    ] = "auto",
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Worker processes; one per CPU by default.")
    ] = None,
    json: JsonObjectOption = False,
) -> None:
    """Map a pipeline, and print its outputs; what fails does not stop the rest.

    Ends with 1 where calls failed, and with 2 where it was asked for what cannot be.
    """
    from gristmill.cli.run import run as run_pipeline

    call = _call(pipeline, inputs, map_over, output, store, product=product)
    options = {"map_executor": executor, "max_workers": workers}
    raise typer.Exit(run_pipeline(call, options, as_json=json))


@app.command()
def explain(
    pipeline: PipelineArgument,
    *,
    inputs: InputOption = None,
    map_over: MapOverOption = None,
    product: ProductOption = False,
    output: OutputOption = None,
    store: OtherStoreOption = None,
    json: JsonObjectOption = False,
) -> None:
    """Say what a map would find in the store, what it would compute, and why.

    Nothing runs, and nothing is written.
    """
    from gristmill.cli.explain import explain as explain_pipeline

    call = _call(pipeline, inputs, map_over, output, store, product=product)
    raise typer.Exit(explain_pipeline(call, as_json=json))


def _call(
    pipeline: str,
    inputs: list[str] | None,
    map_over: list[str] | None,
    output: list[str] | None,
    store: str | None,
    *,
    product: bool,
) -> "PipelineCall":
    from gristmill.cli.pipelines import PipelineCall
    from gristmill.errors import GristmillError

    try:
        return PipelineCall(pipeline, inputs or (), map_over or (), output or (), store, product=product)
    except GristmillError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from None


@app.command()
def runs(*, store: StoreOption = None, json: JsonOption = False) -> None:
    """List what has run on a store, the newest first."""
    from gristmill.cli.runs import show_runs
    from gristmill.cli.store import on_store

    raise typer.Exit(on_store(store, lambda opened: show_runs(opened, as_json=json)))


@app.command()
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or its first characters.")],
    *,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Show one run: its stages, what was computed and found, what failed.

    The exit code is 1 if items failed, or if the run did not come to its end.
    """
    from gristmill.cli.runs import show_run
    from gristmill.cli.store import on_store

    raise typer.Exit(on_store(store, lambda opened: show_run(opened, run, as_json=json)))


@store_app.command("stats")
def store_stats(*, store: StoreOption = None, json: JsonOption = False) -> None:
    """Say how much there is in the store: by kind, by node, and how much of it runs have used."""
    from gristmill.cli.store import on_store, show_stats

    raise typer.Exit(on_store(store, lambda opened: show_stats(opened, as_json=json)))


@store_app.command("ls")
def store_ls(
    node: Annotated[str | None, typer.Argument(metavar="[NODE]", help="A node, or an output of it.")] = None,
    *,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """List what is in the store: each version of each node, the last used first."""
    from gristmill.cli.store import on_store, show_entries

    raise typer.Exit(on_store(store, lambda opened: show_entries(opened, node, as_json=json)))


@store_app.command("verify")
def store_verify(
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set aside what is damaged, so that it is computed again.")
    ] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Read everything in the store, and say what is damaged. The exit code is 1 if something is."""
    from gristmill.cli.store import on_store, verify

    raise typer.Exit(on_store(store, lambda opened: verify(opened, repair=repair, as_json=json)))


@store_app.command("gc")
def store_gc(
    *,
    max_bytes: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Make the store fit into this, like 20G.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Delete what was not used for so long, like 30d.")
    ] = None,
    keep_runs: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Delete what the newest N runs did not use.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Delete what is not needed any more; without options, only what nothing can reach.

    Maps may run meanwhile: they keep what they need.
    """
    from gristmill.cli.store import collect, on_store

    limits = (max_bytes, older_than, keep_runs)
    raise typer.Exit(on_store(store, lambda opened: collect(opened, limits, dry_run=dry_run, as_json=json)))
