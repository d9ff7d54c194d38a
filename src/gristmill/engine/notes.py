"""Notes: what is recorded beside calls for `explain` to read, never for a look-up."""

import reprlib
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from gristmill.graph.node import Node
from gristmill.identity.code.walk import python_version
from gristmill.plan.stage import Argument, Constant, Slice, Span
from gristmill.storage.code_record import CodeRecord

_REPR_LENGTH = 80
"""Characters of a constant's repr that a record keeps."""


def node_name(node: Node) -> str:
    """Return the module and the name that records call a node by."""
    module = getattr(node.function, "__module__", None) or "?"
    return f"{'__main__' if module == '__mp_main__' else module}:{node.name}"


def constant_notes(arguments: Iterable[Argument], private: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return (digest in hex, short repr) of each argument that all calls share.

    Parameters
    ----------
    arguments
        All arguments of a node.
    private
        The function's own names of parameters whose values are not shown.
    """
    hidden = set(private)
    return {
        a.parameter: (a.given.digest.hex(), "" if a.parameter in hidden else short_repr(a.given.value))
        for a in arguments
        if isinstance(a, Constant)
    }


def code_record(node: Node, arguments: Iterable[Argument]) -> CodeRecord:
    """Return the record of the code that a node has now."""
    report = node.code
    forms = {a.parameter: a.form if isinstance(a, Slice | Span) else "value" for a in arguments}
    return CodeRecord(
        node_name(node),
        node.output_names,
        report.digest,
        python_version(),
        forms,
        report.parts,
        time.time(),
    )


def short_repr(value: Any) -> str:
    """Return a repr of one line, cut where it is long."""
    if isinstance(value, np.ndarray):
        return f"array{value.shape} {value.dtype}"
    brief = reprlib.Repr()  # a million elements are not formatted for a line of 80 characters
    brief.maxlist = brief.maxtuple = brief.maxset = brief.maxdict = 8
    brief.maxstring = brief.maxother = brief.maxlong = _REPR_LENGTH
    try:
        text = " ".join(brief.repr(value).split())
    except Exception:  # noqa: BLE001 - a user's __repr__ may raise anything, and this is only a note
        text = f"<{type(value).__qualname__}>"
    return text if len(text) <= _REPR_LENGTH else f"{text[:_REPR_LENGTH]}…"
