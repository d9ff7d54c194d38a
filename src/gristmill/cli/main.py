"""The command line: `gristmill`.

Owns the commands' options. What a command does is imported when it runs, so that `gristmill --help` is quick.
"""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="gristmill",
    help="Disk-cached, storage-backed map-reduce for plain Python functions.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it by position
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gristmill {version('gristmill')}")
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


@app.command()
def explain(
    pipeline: Annotated[
        str,
        typer.Argument(metavar="MODULE:PIPELINE", help="Where the pipeline is, like jobs.daily:pipeline."),
    ],
    *,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="NAME=VALUE", help="A Python literal, or @file.json; once for each input."
        ),
    ] = None,
    map_over: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An input that the whole pipeline is mapped over."),
    ] = None,
    product: Annotated[
        bool, typer.Option("--product", help="Give each input that is mapped over an axis of its own.")
    ] = False,
    output: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An output that is wanted; all leaves by default."),
    ] = None,
    store: Annotated[
        str | None, typer.Option(metavar="PATH", help="Another store than the pipeline's own.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Say what a map would find in the store, what it would compute, and why.

    Nothing runs, and nothing is written.
    """
    from gristmill.cli.explain import ExplainCommand

    command = ExplainCommand(pipeline, inputs or (), map_over or (), product, output or (), store)
    raise typer.Exit(command.main(as_json=json))
