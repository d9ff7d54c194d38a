"""A disk that fails: operations on one directory go wrong, from the n-th on, in this process.

It stands in for the real faults wherever tests may not mount anything: what Python writes fails in the system call,
what SQLite writes fails in the statement.
"""

import contextlib
import errno
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gristmill.storage import ledger, rows

FAIL, TEAR, LOSE = "fail", "tear", "lose"
"""The operation does nothing; does half of it; does all of it. Each says that it failed."""

_OPERATIONS = ("mkdir", "rename", "replace", "link", "fsync")
_STATEMENTS = ("BEGIN", "COMMIT", "INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True)
class Plan:
    """What goes wrong."""

    location: str
    """The directory whose disk it is."""
    kind: str = FAIL
    first: int = 0
    """The first operation that fails, counted from 0."""
    count: int = 10**9
    """How many fail."""
    code: int = errno.ENOSPC

    def save(self, path: Path) -> None:
        """Write it to a file, for other processes."""
        path.write_text(json.dumps(asdict(self)))


class _State:
    """What is in force in this process."""

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.done = 0
        # For good: what is imported meanwhile may keep one of ours.
        self.genuine: dict[str, Any] = {name: getattr(os, name) for name in (*_OPERATIONS, "write")}
        self.genuine["connect"] = sqlite3.connect
        self.armed_by: str = ""

    def fails(self, *places: object) -> bool:
        """Count an operation, if it is one on that disk; return whether it goes wrong."""
        if self.plan is None or not any(self._is_there(place) for place in places):
            return False
        number, self.done = self.done, self.done + 1
        return self.plan.first <= number < self.plan.first + self.plan.count

    def _is_there(self, place: object) -> bool:
        assert self.plan is not None
        if isinstance(place, int):
            with contextlib.suppress(OSError):
                return str(Path(f"/proc/self/fd/{place}").readlink()).startswith(self.plan.location)
            return False
        return os.fspath(place).startswith(self.plan.location)  # type: ignore[call-overload,no-any-return]

    def error(self) -> OSError:
        assert self.plan is not None
        return OSError(self.plan.code, os.strerror(self.plan.code))


_STATE = _State()


def _write(descriptor: int, data: Any) -> int:
    genuine = _STATE.genuine["write"]
    if _STATE.fails(descriptor):
        assert _STATE.plan is not None
        part = {FAIL: 0, TEAR: len(data) // 2, LOSE: len(data)}[_STATE.plan.kind]
        if part:
            genuine(descriptor, data[:part])
        raise _STATE.error()
    return int(genuine(descriptor, data))


def _whole(name: str) -> Callable[..., Any]:
    """An operation that is done or not, with no half of it."""

    def operation(*arguments: Any, **named: Any) -> Any:
        genuine = _STATE.genuine[name]
        if _STATE.fails(*arguments[:2]):
            assert _STATE.plan is not None
            if _STATE.plan.kind == LOSE:
                genuine(*arguments, **named)
            raise _STATE.error()
        return genuine(*arguments, **named)

    return operation


class _Connection(sqlite3.Connection):
    """A connection to a database, which may turn out to be on that disk."""

    place = ""

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if sql.lstrip().startswith(_STATEMENTS) and _STATE.fails(self.place):
            assert _STATE.plan is not None
            if _STATE.plan.kind == LOSE:
                super().execute(sql, *arguments)
            raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, *arguments)


def _connect(database: Any, *arguments: Any, **named: Any) -> Any:
    found = _STATE.genuine["connect"](database, *arguments, **{"factory": _Connection, **named})
    if isinstance(found, _Connection):
        found.place = str(database).removeprefix("file:")
    return found


def _shim() -> SimpleNamespace:
    """What gristmill uses for sqlite3; the module itself is left alone, since functions that are mapped may use it."""
    return SimpleNamespace(**{**vars(sqlite3), "connect": _connect})


for _module in (ledger, rows):
    vars(_module)["sqlite3"] = (
        _shim()
    )  # for good, too: a connection that is open already has to fail like any other


def arm(plan: Plan) -> None:
    """Let operations of this process go wrong from now on."""
    disarm()
    _STATE.plan, _STATE.done = plan, 0
    os.write = _write
    for name in _OPERATIONS:
        setattr(os, name, _whole(name))


def disarm() -> None:
    """End it."""
    _STATE.plan = None
    for name in (*_OPERATIONS, "write"):
        setattr(os, name, _STATE.genuine[name])


def obey(path: str) -> None:
    """Do what the plan in the file `path` says, if there is one: called by functions that run in workers."""
    there = Path(path)
    text = there.read_text() if there.exists() else ""
    if text != _STATE.armed_by:
        _STATE.armed_by = text
        if text:
            arm(Plan(**json.loads(text)))
        else:
            disarm()


@contextlib.contextmanager
def sabotage(
    location: Path, kind: str = FAIL, first: int = 0, count: int = 10**9, code: int = errno.ENOSPC
) -> Iterator[None]:
    """A block in which operations of this process on `location` go wrong."""
    arm(Plan(str(location), kind, first, count, code))
    try:
        yield
    finally:
        disarm()


def operations() -> int:
    """Return how many operations there were since the disk was armed."""
    return _STATE.done
