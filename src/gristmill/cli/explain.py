"""`gristmill explain`: what a map would find in the store, what it would compute, and why."""

import typer

from gristmill.cli.pipelines import PipelineCall
from gristmill.errors import GristmillError

DONE, USAGE = 0, 2


def explain(call: PipelineCall, *, as_json: bool) -> int:
    """Print the explanation, and return the exit code."""
    try:
        found = call.pipeline.explain(call.inputs, **call.options)
    except GristmillError as error:
        typer.echo(f"Error: {error}", err=True)
        return USAGE
    typer.echo(found.to_json() if as_json else str(found))
    return DONE
