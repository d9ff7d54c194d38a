"""Sources: where a stage's arguments come from, and how worker processes read them by reference.

Inputs are written once to a scratch file that every worker maps; outputs of other stages are read from the
store through their locators. A batch message never carries a value.
"""

import math
import mmap
import os
import pickle
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gristmill.engine.deliver import Shared, as_form
from gristmill.engine.stores import Stores
from gristmill.errors import InputError, IntegrityError
from gristmill.identity.types import SIZE
from gristmill.plan.inputs import MappedInput
from gristmill.storage.columns import Codec, Packed, pack, unpack
from gristmill.storage.elements import SCALARS, Made, Pickled, pickle_value
from gristmill.storage.index import MISSING, KeyIndex
from gristmill.storage.local import LocalStorage

Array = np.ndarray[Any, Any]
DIGEST = np.dtype(f"V{SIZE}")
_BLOCK = 1 << 16
"""Elements published at once, so that what is needed on the way stays small."""

_LONG_ROW = 1024
"""Bytes of an array's element above which the file is mapped, so that an element is read when it is used."""

_FIXED = ("int", "float", "bool", "complex", "scalar")


class Source(Protocol):
    """Elements by position."""

    @property
    def holds_files(self) -> bool:
        """Whether there may be files in the elements, which change while calls read them."""

    def digests(self, positions: Array) -> Array:
        """Return the elements' digests as 16-byte items."""

    def forms(self, positions: Array) -> Sequence[Any]:
        """Return the elements' stored forms."""

    def load(self, form: object) -> Any:
        """Return a private value of a stored form."""

    def publish(self, path: Path) -> "SourceRef":
        """Write what other processes need to files whose names start with `path`."""


class SourceRef(Protocol):
    """A source on its way to another process."""

    def open(self, stores: Stores) -> Source:
        """Return the source there."""


class Making(Protocol):
    """Makes values again that are not stored."""

    def make(self, form: Made) -> Any:
        """Return the value."""

    def publish(self, path: Path) -> "PublishedMaking":
        """Write what other processes need to files whose names start with `path`."""


class PublishedMaking(Protocol):
    """What makes values again, on its way to another process."""

    def open(self, stores: Stores) -> Making:
        """Return it there."""


class InputSource:
    """A mapped input in the process that has it."""

    def __init__(self, given: MappedInput) -> None:
        self._given = given
        self._elements = given.elements
        self._digests = np.frombuffer(given.digests, dtype=DIGEST)

    @property
    def holds_files(self) -> bool:
        """Whether there are files in the elements."""
        return self._given.holds_files

    def digests(self, positions: Array) -> Array:
        """Return the elements' digests as 16-byte items."""
        return take(self._digests, positions)

    def forms(self, positions: Array) -> Sequence[Any]:
        """Return the elements' stored forms."""
        where = as_slice(positions)
        if isinstance(self._elements, np.ndarray):
            rows = list(self._elements[where if where is not None else positions])
            return rows if _is_plain(self._elements) else [as_form(row) for row in rows]
        if where is not None:
            chosen: Sequence[Any] = self._elements[where]
        else:
            chosen = [self._elements[k] for k in positions.tolist()]
        return chosen if set(map(type, chosen)) <= SCALARS else [as_form(value) for value in chosen]

    def load(self, form: object) -> Any:
        """Return a private value of a stored form."""
        return load_input(form)

    def publish(self, path: Path) -> "PublishedInput":
        """Write it to files whose names start with `path`, for other processes."""
        return _publish_input(self._given, path)


class StoredSource:
    """Elements in a store, wherever it is known from where they are.

    Parameters
    ----------
    storage, index
        Where they are.
    output
        Which output of its node.
    digests
        Of the elements, where another process has looked them up.
    maker
        Makes elements again that are not stored.
    """

    def __init__(
        self,
        storage: LocalStorage,
        index: KeyIndex,
        output: int,
        digests: "Array | _FileRows | None" = None,
        maker: Making | None = None,
    ) -> None:
        self.storage = storage
        self.index = index
        self.output = output
        self._digests = digests
        self._maker = maker

    def located(self, positions: Array) -> Array:
        """Return the locators of elements; missing where there is none, or where this process cannot find it."""
        raise NotImplementedError

    @property
    def holds_files(self) -> bool:
        """Whether there are files in the elements."""
        return self.index.has_files

    def digests(self, positions: Array) -> Array:
        """Return the elements' digests as 16-byte items."""
        if self._digests is not None:
            return take(self._digests, positions)
        return self.index.digests(self.located(positions), self.output)

    def forms(self, positions: Array) -> Sequence[Any]:
        """Return the elements' stored forms.

        Raises
        ------
        IntegrityError
            One of them is not in the store any more.
        """
        return self.storage.forms(self.index, self.located(positions), self.output)

    def load(self, form: object) -> Any:
        """Return a private value of a stored form; the value itself where it is not stored."""
        if isinstance(form, Made) and self._maker is not None:
            return self._maker.make(form)
        return self.storage.value(form)

    def part(self, positions: Array) -> "OutputSource":
        """Return the elements at `positions` as a source of their own."""
        digests = None if self._digests is None else take(self._digests, positions)
        locators = self.located(positions)
        return OutputSource(self.storage, self.index, locators, self.output, digests, self._maker)

    def damaged(self, positions: Array) -> Array:
        """Return those of `positions` whose bytes cannot be read back."""
        return np.array([p for p in positions.tolist() if not self._is_intact(p)], dtype=np.int64)

    def _is_intact(self, position: int) -> bool:
        try:
            self.storage.check(self.forms(np.array([position]))[0])
        except IntegrityError:
            return False
        return True


class OutputSource(StoredSource):
    """One output of a node, in the store: of another stage, or of an earlier map.

    Parameters
    ----------
    storage, index
        Where it is.
    locators
        Of the elements; missing where there is none, or where this process cannot find it.
    output, digests, maker
        See `StoredSource`.
    """

    def __init__(
        self,
        storage: LocalStorage,
        index: KeyIndex,
        locators: Array,
        output: int,
        digests: Array | None = None,
        maker: Making | None = None,
    ) -> None:
        super().__init__(storage, index, output, digests, maker)
        self.locators = locators

    def located(self, positions: Array) -> Array:
        """Return the locators of elements; missing where there is none, or where this process cannot find it."""
        return take(self.locators, positions)

    def packed(self) -> Array | None:
        """Return all elements as one array with an axis over them; None where they are not packed numbers of a kind.

        Raises
        ------
        IntegrityError
            One of them is not in the store any more.
        """
        return self.storage.array(self.index, self.locators, self.output)

    @property
    def missing(self) -> Array:
        """Mask of the elements that are nowhere."""
        return np.asarray(self.locators == MISSING)

    def set_aside(self, positions: Array) -> None:
        """Take back what cannot be read of the calls that made the elements at `positions`."""
        lost = self.locators[self.damaged(positions)]
        lost = lost[lost != MISSING]
        if len(lost):
            self.storage.quarantine(self.index, lost, self.output)

    def publish(self, path: Path) -> "PublishedOutput":
        """Write where the elements are, for other processes."""
        rows, digests = f"{path}.rows", f"{path}.digests"
        with open(rows, "wb") as places, open(digests, "wb") as identities:  # noqa: PTH123 - as numpy takes them
            for start in range(0, len(self.locators), _BLOCK):
                locators = self.locators[start : start + _BLOCK]
                self.index.portable(locators).tofile(places)
                known = np.zeros(len(locators), dtype=DIGEST)
                there = locators != MISSING
                known[there] = self.index.digests(locators[there], self.output)
                known.tofile(identities)
        maker = self._maker.publish(path.with_name(f"{path.name}-m")) if self._maker else None
        return PublishedOutput(
            self.storage.spec.location, self.index.group, self.output, rows, digests, maker
        )

    def extend(self, path: Path, positions: Array) -> None:
        """Write where more elements are to the files that `publish` has made; who has them open sees it."""
        there = positions[self.locators[positions] != MISSING]
        locators, count = self.locators[there], len(self.locators)
        known = np.asarray(self.index.digests(locators, self.output))
        for name, column in (("rows", self.index.portable(locators)), ("digests", known)):
            shape = (count, *column.shape[1:])
            rows = np.memmap(f"{path}.{name}", column.dtype, "r+", shape=shape)
            rows[there] = column


def as_slice(positions: Array) -> slice | None:
    """Return consecutive `positions` as a slice, or None."""
    count = len(positions)
    if count and int(positions[-1]) - int(positions[0]) == count - 1 and (np.diff(positions) == 1).all():
        return slice(int(positions[0]), int(positions[0]) + count)
    return None


def take(array: "Array | _FileRows", positions: Array) -> Array:
    """Return `array[positions]`, as a view where they are consecutive."""
    where = as_slice(positions)
    return array[where] if where is not None else array[positions]


@dataclass(frozen=True, slots=True)
class PublishedInput:
    """A mapped input that was written to files for workers to map."""

    digests: str
    values: str
    codec: Codec | None
    """How items of one width are packed; None where the file holds pickles."""
    shape: tuple[int, ...] | None
    """For arrays, the shape of the whole; None for sequences."""
    dtype: str
    holds_files: bool

    def open(self, stores: Stores) -> Source:
        """Return the source, in a worker."""
        return _MappedFile(self)


@dataclass(frozen=True, slots=True)
class PublishedOutput:
    """The output of another stage, by segment numbers, which mean the same in every process."""

    location: str
    """Of the store. No more of how it is opened: a secret must not get into a file."""
    group: bytes
    output: int
    rows: str
    digests: str
    maker: PublishedMaking | None

    def open(self, stores: Stores) -> Source:
        """Return the source, in a worker."""
        storage = stores.at(self.location)
        index = storage.index(self.group)
        storage.refresh()
        rows = _FileRows(self.rows, np.dtype(np.int64), (2,))
        digests = _FileRows(self.digests, DIGEST)
        maker = self.maker.open(stores) if self.maker else None
        return _PublishedSource(storage, index, rows, self.output, digests, maker)


class _PublishedSource(StoredSource):
    """The output of another stage, in a worker."""

    def __init__(
        self,
        storage: LocalStorage,
        index: KeyIndex,
        rows: "_FileRows",
        output: int,
        digests: "_FileRows",
        maker: Making | None,
    ) -> None:
        super().__init__(storage, index, output, digests, maker)
        self._rows = rows

    def located(self, positions: Array) -> Array:
        """Return the locators of elements; missing where this process cannot find them."""
        return self.index.locators(take(self._rows, positions))

    def publish(self, path: Path) -> SourceRef:
        """Refuse: a worker has no workers."""
        raise NotImplementedError


class _MappedFile:
    """A published input, in a worker."""

    def __init__(self, ref: PublishedInput) -> None:
        self._ref = ref
        self.holds_files = ref.holds_files
        self._digests = _FileRows(ref.digests, DIGEST)
        self._array: Array | _FileRows
        dtype = np.dtype(ref.dtype or np.uint8)
        if ref.shape is not None and 0 < dtype.itemsize * math.prod(ref.shape[1:]) <= _LONG_ROW:
            self._array = _FileRows(ref.values, dtype, ref.shape[1:])
        elif ref.shape is not None:
            self._array = map_file(ref.values, dtype).reshape(ref.shape)
        elif ref.codec is not None:
            self._array = _FileRows(ref.values, dtype)
        else:
            self._array = map_file(ref.values, dtype)
            self._bounds = _FileRows(ref.values + ".bounds", np.dtype(np.int64))

    def digests(self, positions: Array) -> Array:
        """Return the elements' digests as 16-byte items."""
        return take(self._digests, positions)

    def load(self, form: object) -> Any:
        return load_input(form)

    def publish(self, path: Path) -> SourceRef:
        return self._ref

    def forms(self, positions: Array) -> Sequence[Any]:
        """Return the elements' stored forms."""
        if self._ref.shape is not None:
            return list(take(self._array, positions))
        if self._ref.codec is not None:
            part = np.ascontiguousarray(take(self._array, positions))
            return unpack(Packed(self._ref.codec, part.tobytes()), len(part))
        starts, ends = self._bounds[positions], self._bounds[positions + 1]
        raw = self._array
        return [pickle.loads(raw[a:b].tobytes()) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]  # noqa: S301 - written by the parent process


def load_input(form: object) -> Any:
    """Return a private value of the stored form of an input."""
    if isinstance(form, Pickled):
        return pickle.loads(form.data)  # noqa: S301 - pickled in this run
    return form.copy() if isinstance(form, np.ndarray) else form


def map_file(path: str, dtype: np.dtype[Any]) -> Array:
    """Return a file's content as an array that is read when it is used."""
    if not Path(path).stat().st_size:
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r").view(np.ndarray)


class _FileRows:
    """An array in a file, of which only what is asked for is in memory.

    Parameters
    ----------
    path
        Of the file, which may be deleted meanwhile.
    dtype, shape
        Of a row, which has at least one byte.
    """

    def __init__(self, path: str, dtype: np.dtype[Any], shape: tuple[int, ...] = ()) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self._dtype = dtype
        self._shape = shape
        self._width = dtype.itemsize * math.prod(shape)
        self._count = os.fstat(self._descriptor).st_size // self._width

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, where: slice | Array) -> Array:
        if not isinstance(where, slice) and len(where):
            return self._rows(mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ))[where]
        start, stop, _ = where.indices(len(self)) if isinstance(where, slice) else (0, 0, 1)
        return self._rows(os.pread(self._descriptor, (stop - start) * self._width, start * self._width))

    def _rows(self, data: bytes | mmap.mmap) -> Array:
        return np.frombuffer(data, self._dtype).reshape(-1, *self._shape)


def _publish_input(given: MappedInput, path: Path) -> PublishedInput:
    """Write `given` to files whose names start with `path`."""
    digests, values = f"{path}.digests", f"{path}.values"
    Path(digests).write_bytes(given.digests)
    elements = given.elements
    if isinstance(elements, np.ndarray) and _is_plain(elements):
        elements.tofile(values)
        return PublishedInput(digests, values, None, elements.shape, elements.dtype.str, holds_files=False)
    packed = pack(list(elements)) if _fixed_width(elements) else None
    if packed is not None and packed.codec["kind"] in _FIXED:
        Path(values).write_bytes(packed.payload)
        width = len(packed.payload) // len(elements)
        return PublishedInput(digests, values, packed.codec, None, f"V{width}", holds_files=False)
    _write_pickles(given.name, elements, values)
    return PublishedInput(digests, values, None, None, "", given.holds_files)


def _is_plain(array: Array) -> bool:
    """Whether rows of `array` are what its raw bytes say: no subclass, no objects, no fields."""
    return type(array) is np.ndarray and array.dtype.kind in "biufcmMSU"


def _fixed_width(elements: Sequence[Any] | Array) -> bool:
    kinds = set(map(type, elements))
    if len(kinds) != 1:
        return False
    kind = kinds.pop()
    if issubclass(kind, np.generic):
        return kind.__module__ == "numpy" and np.dtype(kind).kind in "biufcmM"
    return kind in (int, float, bool, complex)


def _write_pickles(name: str, elements: Sequence[Any] | Array, path: str) -> None:
    lengths = np.zeros(len(elements) + 1, dtype=np.int64)
    with Path(path).open("wb") as file:
        for position, element in enumerate(elements):
            form = as_form(element)
            if isinstance(form, Shared):
                raise InputError(
                    f"{name}[{position}] cannot be sent to a worker process, since a "
                    f"{type(element).__qualname__} cannot be pickled; run this map with "
                    "map_executor='sequential', or pass what makes it"
                )
            lengths[position + 1] = file.write(pickle_value(form))
    np.cumsum(lengths).tofile(f"{path}.bounds")
