"""Calls: one node called over columns of arguments, each result identified and kept before the next call.

A mutable result is digested and stored at once: the function that returned it may go on writing to it.
"""

import contextlib
import inspect
import itertools
import pickle
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gristmill.engine.deliver import Shared
from gristmill.engine.interrupts import Interrupts, calls_users_code, guarded
from gristmill.engine.onecall import GaveUpError, Manner, OneCall, Times
from gristmill.engine.report import Failure
from gristmill.engine.seat import NOWHERE, Cells, private_cells
from gristmill.errors import DigestError, GristmillError, InputError, StoreError
from gristmill.graph.node import Node
from gristmill.identity.digest import digest, digest_array, digest_block, merkle
from gristmill.identity.files import Encounters
from gristmill.identity.keys import made_identity
from gristmill.identity.types import SIZE
from gristmill.plan.inputs import made_elements
from gristmill.storage.elements import (
    PACK_LIMIT,
    SCALARS,
    ChunkRef,
    Filed,
    Made,
    ObjectRef,
    Pickled,
    is_exact,
    pickle_value,
    to_packed,
)
from gristmill.storage.local import LocalStorage

Array = np.ndarray[Any, Any]
Live = Array | Pickled | Shared | str | bytes | int
_SIZED = frozenset({str, bytes})

_HOW_MADE = (
    "Or, as this node is not cached, say version='1': its value is then identified by how it was made."
)


@dataclass(slots=True)
class OutputColumn:
    """What calls made of one output: aligned lists, where a failed call leaves None."""

    forms: list[Any] = field(default_factory=list)
    digests: bytes = b""
    live: dict[int, Live] = field(default_factory=dict)
    """What was written as chunks and objects, by place, for who runs on it next: nothing is read back."""
    spread: dict[int, "SpreadResult"] = field(default_factory=dict)
    """By place, the elements of results that are spread over axes; their own form is the lengths of these."""


@dataclass(slots=True)
class Outcome:
    """What became of a column of calls."""

    outputs: list[OutputColumn]
    failures: dict[int, BaseException]
    """By place in the column."""
    size: int
    """Estimated bytes that will be packed into segments."""
    unmade: set[int] = field(default_factory=set)
    """Places of calls that count for nothing: they were not made, because of `interrupt`, or not to the end."""
    interrupt: BaseException | None = None
    """What the user stopped the calls with."""
    passed: int = 0
    """How many were not calls, but elements of a tree reduction that go on as they are."""
    attempts: dict[int, int] = field(default_factory=dict)
    """By place, how often calls were made that failed more than once."""
    times: dict[int, Times] = field(default_factory=dict)
    """By position in the stage, when calls began and how long they took, if that is wanted."""


@dataclass(frozen=True, slots=True)
class SpreadResult:
    """The elements of a result that is spread over axes."""

    shape: tuple[int, ...]
    forms: Sequence[Any]
    digests: bytes
    size: int
    """Estimated bytes that will be packed into segments."""


class _Kept:
    """A result that is in its stored form already."""

    __slots__ = ("digest", "form", "live")

    def __init__(self, form: Any, identity: bytes, live: Live | None) -> None:
        self.form = form
        self.digest = identity
        self.live = live


class _Unstored:
    """A result of a node that is not cached, which cannot be digested or not be stored."""

    __slots__ = ("identity", "value")

    def __init__(self, value: Any, identity: bytes | None) -> None:
        self.value = value
        self.identity = identity


class Caller:
    """Calls one node.

    Parameters
    ----------
    node
        What to call.
    parameters
        The function's own names of the arguments, in the order of the columns that `run` will get.
    storage
        Where large results go at once.
    feeds
        Whether another node of the stage runs on the results.
    manner
        How calls are made here.
    step
        Which node of its stage it is.
    """

    def __init__(
        self,
        node: Node,
        parameters: Sequence[str],
        storage: LocalStorage,
        manner: Manner,
        step: int = 0,
        *,
        feeds: bool = False,
    ) -> None:
        self._node = node
        self._storage = storage
        self._interruptible = manner.interruptible
        self._feeds = feeds
        self._alone = True
        self._keys = b""
        self._positional, self._keywords = calling_order(node.function, parameters)
        self._parameters = tuple(parameters)
        self._inner = node.mapspec.inner_axes if node.mapspec else ()
        self._single = len(node.output_names) == 1 and node.output_picker is None
        self._step = step
        self._cells: Cells = manner.seat.cells if manner.seat is not None else private_cells()
        names = [parameters[k] for k in self._positional]
        self._call = OneCall(node, names, manner, step)

    def stream(
        self, columns: Sequence[Sequence[Any]], positions: Sequence[int], keys: bytes
    ) -> Iterator[tuple[Array, Outcome]]:
        """Call the node for each of `positions`; yield places of calls that have ended, and what became of them."""
        yield np.arange(len(positions)), self.run(columns, positions, keys)

    @calls_users_code
    def run(self, columns: Sequence[Sequence[Any]], positions: Sequence[int], keys: bytes) -> Outcome:
        """Call the node with one item of each column at a time, or until the user stops it.

        Parameters
        ----------
        columns
            The arguments.
        positions
            Of the calls, in the stage.
        keys
            The calls' keys, 16 bytes each.
        """
        Interrupts.check()
        self._keys = keys
        self._call.passed, self._call.times = 0, {}
        failures: dict[int, BaseException] = {}
        attempts: dict[int, int] = {}
        interrupt = None
        results: list[Any] = []
        count = len(positions)
        self._alone = count == 1
        cells = self._cells
        cells[1] = self._step
        call = self._node.function if self._call.is_plain else self._made
        arguments = zip(self._arguments(columns, count), positions, strict=False)
        scalars, keep, append = SCALARS, self._keep, results.append
        single = self._single and not self._inner
        while len(results) < count:
            try:
                for (positional, named), position in arguments:
                    cells[0] = position
                    result = call(*positional, **named)
                    if single and type(result) in scalars:
                        append(result)
                    else:
                        append(keep(result))
                        Interrupts.check()
            except BaseException as error:  # noqa: BLE001 - SystemExit and the like fail one item
                place = len(results)
                if isinstance(error, GaveUpError):
                    attempts[place], failures[place] = error.attempts, error.error
                else:
                    failures[place] = error
                if isinstance(failures[place], KeyboardInterrupt) and self._interruptible:
                    interrupt = failures.pop(place)
                    break
                append(None)
        cells[0] = NOWHERE
        outcome = self._outcome(results, failures, count, interrupt)
        outcome.passed, outcome.attempts, outcome.times = self._call.passed, attempts, self._call.times
        return outcome

    @calls_users_code
    def _made(self, *positional: Any, **named: Any) -> Any:
        """What a call returns that is more than a call of the function."""
        return self._call.make(self._cells[0], positional, named)

    def close(self) -> None:
        """Close the event loop of an async node."""
        self._call.close()

    def _arguments(
        self, columns: Sequence[Sequence[Any]], count: int
    ) -> Iterator[tuple[Any, dict[str, Any]]]:
        positional = [columns[k] for k in self._positional]
        rows: Iterator[Any] = zip(*positional, strict=True) if positional else itertools.repeat((), count)
        if not self._keywords:
            return zip(rows, itertools.repeat({}))
        names = [self._parameters[k] for k in self._keywords]
        values = zip(*(columns[k] for k in self._keywords), strict=True)
        return zip(rows, (dict(zip(names, row, strict=True)) for row in values), strict=False)

    @guarded
    def _keep(self, result: Any) -> Any:
        if self._inner:
            return self._keep_spread(result)
        if self._single:
            return self._keep_one(result)
        return [self._keep_one(part) for part in self._node.split(result)]

    def _keep_spread(self, result: Any) -> Any:
        """Keep each element of a result by itself."""
        parts = [result] if self._single else self._node.split(result)
        kept = [self._spread_one(part) for part in parts]
        shapes = {one.shape for one in kept}
        if len(shapes) > 1:
            raise InputError(
                f"{self._node.name} makes {', '.join(self._node.output_names)} along {', '.join(self._inner)} with "
                f"lengths {', '.join(map(str, sorted(shapes)))}; they have to be the same"
            )
        return kept[0] if self._single else kept

    def _spread_one(self, value: Any) -> SpreadResult:
        name = f"what {self._node.name} returned"
        shape, elements = made_elements(self._node.name, value, self._inner)
        values = list(elements)
        if set(map(type, values)) <= SCALARS and not _any_large(values):
            return SpreadResult(shape, values, digest_block(values, name=name), _size(values))
        kept = [self._store_one(value) for value in values]
        forms = [one.form for one in kept]
        return SpreadResult(shape, forms, b"".join([one.digest for one in kept]), _size(forms))

    def _keep_one(self, value: Any) -> "_Kept | _Unstored":
        if self._node.cache:
            return self._store_one(value)
        try:
            return self._store_one(value)
        except DigestError as error:
            if self._node.version is None:
                raise DigestError(f"{error} {_HOW_MADE}") from None
            return _Unstored(value, None)
        except StoreError:  # it cannot be pickled, and need not be
            return _Unstored(value, bytes(digest(value)))

    def _store_one(self, value: Any) -> _Kept:
        if type(value) is np.ndarray and value.dtype != object:
            identity, checksum = digest_array(value)
            form = self._storage.keep(value, checksum)
            return _Kept(form, identity, self._live(value) if _is_reference(form) else None)
        with Encounters() as met:
            identity = digest(value, name=f"what {self._node.name} returned")
        if met.places:
            return _Kept(self._storage.keep_files(self._pickled(value), met.places), identity, None)
        packed = to_packed(value)
        if packed is not None or value is None:
            return _Kept(packed, identity, None)
        whole = value if is_exact(value) else self._pickled(value)
        form = self._storage.keep(whole)
        return _Kept(form, identity, whole if self._feeds and _is_reference(form) else None)

    def _pickled(self, value: Any) -> Pickled:
        self._storage.check_pickle(value)
        return Pickled(pickle_value(value))

    def _live(self, array: Array) -> Array | None:
        """What the next node is handed: a copy if the function may write to the array before that."""
        if not self._feeds:
            return None
        return np.ascontiguousarray(array) if self._alone else array.copy(order="C")

    @guarded
    def _outcome(
        self,
        results: list[Any],
        failures: dict[int, BaseException],
        count: int,
        interrupt: BaseException | None = None,
    ) -> Outcome:
        unmade = set(range(len(results), count))
        results += [None] * len(unmade)
        width = len(self._node.output_names)
        parts = [results] if self._single else [[r and r[k] for r in results] for k in range(width)]
        outputs = [self._column(part, output) for output, part in enumerate(parts)]
        size = sum(_size(column.forms) for column in outputs)
        return Outcome(outputs, failures, size, unmade, interrupt)

    def _column(self, results: list[Any], output: int) -> OutputColumn:
        if self._inner:
            return _spread_column(results)
        kinds = set(map(type, results))
        if kinds <= SCALARS and not (kinds & _SIZED and _any_large(results)):
            return OutputColumn(results, digest_block(results))
        kept = [
            r
            if type(r) is _Kept
            else self._held(r, k, output)
            if type(r) is _Unstored
            else self._store_one(r)
            for k, r in enumerate(results)
        ]
        live = {k: item.live for k, item in enumerate(kept) if item.live is not None}
        return OutputColumn([item.form for item in kept], b"".join([item.digest for item in kept]), live)

    def _held(self, result: _Unstored, place: int, output: int) -> _Kept:
        """Keep what is not stored for this process; its identity is its own, or how it was made."""
        key = self._keys[place * SIZE : (place + 1) * SIZE]
        form = Made(result.identity or made_identity(key, output), key, output)
        self._storage.keep_made(form, result.value)
        return _Kept(form, form.identity, Shared(result.value))


def _spread_column(results: Sequence[SpreadResult | None]) -> OutputColumn:
    """A column of results that are spread: what is recorded of each is the lengths of its axes."""
    spread = {k: one for k, one in enumerate(results) if one is not None}
    forms = [None if one is None else np.array(one.shape, dtype="<i8").tobytes() for one in results]
    digests = [bytes(SIZE) if one is None else merkle(one.shape, one.digests) for one in results]
    return OutputColumn(forms, b"".join(digests), spread=spread)


def _is_reference(form: object) -> bool:
    return isinstance(form, ChunkRef | ObjectRef)


def _any_large(values: list[Any]) -> bool:
    return any(len(value) * 4 > PACK_LIMIT for value in values if isinstance(value, str | bytes))


def _size(forms: list[Any]) -> int:
    """Estimate the packed size of a column from its first items: types rarely change within one."""
    sample = [_form_size(form) for form in forms[:8]]
    return len(forms) * (sum(sample) // max(len(sample), 1) + 32)


def _form_size(form: Any) -> int:
    if isinstance(form, Pickled | Filed):
        return len(form.data)
    if isinstance(form, np.ndarray):
        return form.nbytes
    return len(form) if isinstance(form, str | bytes) else 8


def calling_order(function: Callable[..., Any], parameters: Sequence[str]) -> tuple[list[int], list[int]]:
    """Which columns are passed by position, in order, and which by name."""
    places = {name: k for k, name in enumerate(parameters)}
    positional: list[int] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY or parameter.name not in places:
            break
        positional.append(places[parameter.name])
    return positional, [k for k in range(len(parameters)) if k not in positional]


def describe_failure(
    position: int, step: int, error: BaseException, *, portable: bool, attempts: int = 1
) -> Failure:
    """Return the record of a failed call.

    Parameters
    ----------
    position, step
        Which call it was.
    error
        What it raised.
    portable
        Whether the record leaves this process: then the exception is replaced if it does not survive that.
    attempts
        How often the call was made.
    """
    error.__traceback__ = users_traceback(error)
    if isinstance(error, ValueError) and "read-only" in str(error):
        error.add_note(
            "Array arguments are read-only views, because other calls may be handed the same array; "
            "give the node writable=True for private copies."
        )
    text = "".join(traceback.format_exception(error))
    if not portable:
        return Failure(position, step, error, text, attempts)
    return Failure(position, step, survivor(error), text, attempts)


_NOT_THE_USERS = ("gristmill.engine", "tenacity", "concurrent.futures")


def users_traceback(error: BaseException) -> Any:
    """Return the traceback of `error` from the first frame that is neither ours nor that of what makes retries."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(_NOT_THE_USERS):
        if trace.tb_next is None:
            break
        trace = trace.tb_next
    return trace


def survivor(error: BaseException) -> BaseException:
    """Return `error`, or what says the same if pickle cannot carry it there and back."""
    with contextlib.suppress(BaseException):  # a user's __reduce__ or __init__ may raise anything
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own pickle
        if type(again) is type(error):
            return error
    text = traceback.format_exception_only(error)[0].strip()  # str() of a user's exception may raise
    replacement = GristmillError(text)
    replacement.add_note(f"the original {type(error).__qualname__} cannot be pickled")
    return replacement
