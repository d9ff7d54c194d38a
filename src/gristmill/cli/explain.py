"""`gristmill explain`: what a map would find in the store, what it would compute, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

import typer

from gristmill.cli.pipelines import load_pipeline, parse_inputs
from gristmill.errors import GristmillError

DONE, USAGE = 0, 2


@dataclass(frozen=True)
class ExplainCommand:
    """The command with its options."""

    pipeline: str
    """Module and name."""
    inputs: Sequence[str]
    map_over: Sequence[str]
    product: bool
    outputs: Sequence[str]
    store: str | None

    def main(self, *, as_json: bool) -> int:
        """Print the explanation, and return the exit code."""
        try:
            pipeline = load_pipeline(self.pipeline)
            if self.store is not None:
                pipeline = pipeline.with_(store=self.store)
            found = pipeline.explain(
                parse_inputs(self.inputs),
                map_over=list(self.map_over) or None,
                map_mode="product" if self.product else "zip",
                output_name=list(self.outputs) or None,
            )
        except GristmillError as error:
            typer.echo(f"Error: {error}", err=True)
            return USAGE
        typer.echo(found.to_json() if as_json else str(found))
        return DONE
