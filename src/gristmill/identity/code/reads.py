"""What a fingerprint was computed from, and whether that still holds.

Owns the record of objects looked at, compared by identity, and of mutable values, compared by digest. Knows
nothing of why they were looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from operator import is_
from types import CellType, FunctionType
from typing import Any, Final
from weakref import ref

MISSING: Final = object()
"""Stands for a name that is not there, and for the content of an empty cell."""

Recheck = Callable[[object], object]


def content(cell: CellType) -> object:
    """What a closure's cell holds."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _makings(function: FunctionType) -> tuple[object, ...]:
    return (function.__code__, function.__defaults__, function.__kwdefaults__, function.__closure__)


@dataclass(slots=True)
class Reads:
    """A record of what was read.

    Functions are referred to weakly, so that a record does not keep alive the one that it is about.
    """

    _spaces: dict[int, tuple[Mapping[str, object], list[str], list[object]]] = field(default_factory=dict)
    _groups: list[tuple[Callable[[], Iterable[object]], tuple[object, ...]]] = field(default_factory=list)
    _cells: list[CellType] = field(default_factory=list)
    _contents: list[object] = field(default_factory=list)
    _functions: list[tuple[ref[FunctionType], tuple[object, ...]]] = field(default_factory=list)
    _values: list[tuple[Callable[[], object], object]] = field(default_factory=list)

    def get(self, space: Mapping[str, Any], name: str) -> Any:
        """Look a name up in a namespace."""
        value = space.get(name, MISSING)
        _, names, values = self._spaces.setdefault(id(space), (space, [], []))
        names.append(name)
        values.append(value)
        return value

    def items(self, space: Mapping[str, Any]) -> list[tuple[str, Any]]:
        """All of a namespace, sorted by name."""
        self.group(space.values)
        return sorted(space.items())

    def group(self, look: Callable[[], Iterable[object]]) -> None:
        """Note which objects, in which order, `look` finds."""
        self._groups.append((look, tuple(look())))

    def cell(self, cell: CellType) -> Any:
        """What a closure's cell holds."""
        value = content(cell)
        self._cells.append(cell)
        self._contents.append(value)
        return value

    def function(self, function: FunctionType) -> None:
        """Note a function's code, defaults and closure."""
        self._functions.append((ref(function), _makings(function)))

    def value(self, look: Callable[[], object], found: object) -> None:
        """Note a mutable value by what a function finds out about it."""
        self._values.append((look, found))

    def hold(self) -> bool:
        """Whether everything is as it was."""
        for space, names, values in self._spaces.values():
            if not all(map(is_, [space.get(name, MISSING) for name in names], values)):
                return False
        for look, saved in self._groups:
            now = tuple(look())
            if len(now) != len(saved) or not all(map(is_, now, saved)):
                return False
        if not all(map(is_, map(content, self._cells), self._contents)):
            return False
        for reference, makings in self._functions:
            function = reference()
            if function is None or not all(map(is_, _makings(function), makings)):
                return False
        return all(look() == found for look, found in self._values)
