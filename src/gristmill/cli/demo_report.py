"""What the demo found, as tables for people or as JSON for programs."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from rich.columns import Columns
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from gristmill.cli.words import counted, program, short_path
from gristmill.result import MapResult, Stats

_ROWS = 10
_HEADER = "bold cyan"


@dataclass(frozen=True)
class Report:
    """Everything that is said at the end."""

    modules: int
    lines: int
    stats: Stats
    seconds: float
    """From the command's start."""
    store: Path
    matrices: str | None
    """Path of the zarr array of all byte-pair matrices."""
    identifiers: list[tuple[str, int]]
    similar: list[tuple[float, str, str]]
    problems: dict[str, str]
    """Modules that could not be parsed, and why."""

    @classmethod
    def of(cls, result: MapResult, modules: list[str], store: Path, seconds: float) -> Self:
        """Read a finished map."""
        return cls(
            modules=len(modules),
            lines=result["lines"],
            stats=result.stats,
            seconds=seconds,
            store=store,
            matrices=result.views.get("bigrams"),
            identifiers=result["identifiers"],
            similar=result["similar"],
            problems=result["problems"],
        )

    def print_json(self) -> None:
        """Print one JSON object."""
        content: dict[str, Any] = {**asdict(self), "store": str(self.store)}
        sys.stdout.write(json.dumps(content, indent=1) + "\n")

    def show(self, console: Console) -> None:
        """Print tables."""
        console.print()
        for name, text in self._account().items():  # no table: it would fold a long path
            console.print(Text(f"{name:<10}", style=_HEADER).append(text, style="default"), soft_wrap=True)
        console.print()
        console.print(Columns([self._identifiers(), self._pairs()], padding=(0, 2)))
        console.print()
        for name, problem in list(self.problems.items())[:_ROWS]:
            console.print(f"{name} is not valid Python: {problem}", style="yellow")
        if self.matrices is not None:
            console.print("The matrices of all modules are one zarr array on disk; open it with")
            console.print(f"  {self._opener(self.matrices)}", soft_wrap=True)

    def _account(self) -> dict[str, str]:
        return {
            "examined": f"{counted(self.modules, 'module')}, {counted(self.lines, 'line')}",
            "computed": counted(self.stats.computed, "call"),
            "reused": counted(self.stats.cached, "call"),
            "written": decimal(self.stats.bytes_written),
            "store": short_path(self.store),
            "took": f"{self.seconds:.1f} s",
        }

    def _identifiers(self) -> Table:
        table = _table("identifier", "times")
        for name, count in self.identifiers[:_ROWS]:
            table.add_row(name, f"{count:,}")
        return table

    def _pairs(self) -> Table:
        table = _table("similar modules", "", "cosine")
        for cosine, first, second in self.similar[:_ROWS]:
            table.add_row(first, second, f"{cosine:.3f}")
        return table

    def _opener(self, path: str) -> str:
        code = f"import zarr; print(zarr.open_array({short_path(Path(path))!r}, mode='r'))"
        return f'{program(sys.executable)} -c "{code}"'


def _table(*headers: str) -> Table:
    """A table without lines, whose last column holds numbers."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=_HEADER)
    for header in headers[:-1]:
        table.add_column(header)
    table.add_column(headers[-1], justify="right")
    return table
