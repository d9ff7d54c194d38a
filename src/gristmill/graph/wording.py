"""Phrases that error messages of this layer share. Knows nothing of what they are about."""

import difflib
import functools
from collections.abc import Iterable
from typing import Any


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """`" (did you mean 'x'?)"` for the names in `known` that are close to `name`, else nothing.

    Examples
    --------
    >>> did_you_mean("lenght", ["length", "width"])
    " (did you mean 'length'?)"
    >>> did_you_mean("z", ["length"])
    ''
    """
    by_lower = {other.lower(): other for other in known}
    close = [by_lower[lower] for lower in difflib.get_close_matches(str(name).lower(), by_lower, n=3)]
    return f" (did you mean {joined(close, 'or')}?)" if close else ""


def joined(names: Iterable[str], conjunction: str = "and") -> str:
    """Quoted names as a phrase.

    Examples
    --------
    >>> joined(["a", "b", "c"])
    "'a', 'b' and 'c'"
    >>> joined([])
    'none'
    """
    quoted = [repr(name) for name in names]
    if not quoted:
        return "none"
    return f" {conjunction} ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


def title(function: Any) -> str:
    """What to call a function in a message: its qualified name, or what it is made of.

    Examples
    --------
    >>> title(len), title(functools.partial(round, 2.5)), title(3)
    ('len', 'partial(round)', '3')
    """
    if isinstance(function, functools.partial):
        return f"partial({title(function.func)})"
    if not callable(function):
        return repr(function)
    name = getattr(function, "__qualname__", None)
    return name.rpartition("<locals>.")[2] if isinstance(name, str) else f"{title(type(function))} instance"
