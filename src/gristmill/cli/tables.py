"""Tables for the terminal, and the same as JSON for programs."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

_HEADER = "bold cyan"
_DAY_SECONDS = 86_400


def print_json(content: Any) -> None:
    """Print one JSON value."""
    sys.stdout.write(json.dumps(content, indent=1) + "\n")


def print_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[str] = ()
) -> None:
    """Print a table; the columns in `numbers` are aligned to the right.

    Where nobody looks at a terminal, nothing is shortened to fit one.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=10_000)
    table = Table(box=None, header_style=_HEADER, pad_edge=False)
    for header in headers:
        right = header in numbers
        table.add_column(header, justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def amount(size: int) -> str:
    """Return a number of bytes as a person reads it.

    Examples
    --------
    >>> amount(1_500_000)
    '1.5 MB'
    """
    return decimal(size)


def when(seconds: float) -> str:
    """Return a time, given in seconds since the epoch, by the local clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def lasting(seconds: float) -> str:
    """Return a duration as a person reads it.

    Examples
    --------
    >>> lasting(0.25), lasting(75), lasting(7322), lasting(200_000)
    ('0.25 s', '1:15', '2:02:02', '2 d 7:33:20')
    """
    if seconds < 60:
        return f"{seconds:.2f} s"
    days, rest = divmod(int(seconds), _DAY_SECONDS)
    hours, minutes = divmod(rest // 60, 60)
    clock = f"{hours}:{minutes:02}:{rest % 60:02}" if hours or days else f"{minutes}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock
