"""Wording for the terminal: counts, paths, and the command that was given."""

import os
import shlex
import shutil
import sys
from pathlib import Path


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> counted(1, "call"), counted(1234, "call"), counted(2, "process", "processes")
    ('1 call', '1,234 calls', '2 processes')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def short_path(path: Path) -> str:
    """Return a path as a person would type it here: relative where it is below the working directory."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - `resolve` would follow the links that the user gave
    here = Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def program(path: str) -> str:
    """Return how a person would call the program at `path`: by its name where the shell finds that."""
    name = Path(path).name
    return name if shutil.which(name) == path else short_path(Path(path))


def again(*left_out: str) -> str:
    """Return the command line that this process was started with.

    Parameters
    ----------
    *left_out
        Options, with their values, that are not repeated.
    """
    words = [program(sys.argv[0])]
    given = iter(sys.argv[1:])
    for word in given:
        if word in left_out:
            next(given, None)
        elif not word.startswith(tuple(f"{option}=" for option in left_out)):
            words.append(word)
    return shlex.join(words)
