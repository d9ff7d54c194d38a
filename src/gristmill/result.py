"""Results: what `map` gives back, by reference: values are read, and verified, when they are asked for."""

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.engine.deliver import assemble, read_only
from gristmill.errors import GristmillError, IntegrityError
from gristmill.graph.wording import did_you_mean, joined
from gristmill.identity.digest import merkle
from gristmill.identity.types import Root
from gristmill.plan.space import Space
from gristmill.storage.index import MISSING, KeyIndex
from gristmill.storage.local import LocalStorage

if TYPE_CHECKING:
    from zarr import Array as ZarrArray

Array = np.ndarray[Any, Any]
_BLOCK = 4096
_ATTEMPTS = 3


@dataclass
class Located:
    """Where the elements of one output are."""

    storage: LocalStorage
    index: KeyIndex
    locators: Array
    """One per element, in C order; -1 where there is none."""
    output: int
    """Which output of the node it is."""


@dataclass(frozen=True)
class Stats:
    """What a run did, in calls (one node at one index)."""

    computed: int = 0
    """Calls that were executed."""
    cached: int = 0
    """Calls whose results were found in the store."""
    failed: int = 0
    """Calls that raised."""
    skipped: int = 0
    """Calls that were not made because what they need had failed."""
    seconds: float = 0.0
    """Wall time."""
    bytes_written: int = 0
    """Bytes that were added to the store."""
    bytes_piped: int = 0
    """Bytes of batch messages and reports; results never pass through a pipe."""


@dataclass(frozen=True, eq=False)
class ItemError:
    """One call that failed."""

    output_name: str
    """The output it should have made (the first of several)."""
    index: tuple[int, ...]
    """Where in the node's space."""
    error: BaseException
    """What it raised."""
    traceback: str
    """Where, as text."""
    function: Callable[..., Any]
    """What was called."""
    read_inputs: Callable[[], Mapping[str, Any]] = field(repr=False)
    """Reads what the function was given."""
    attempts: int = 1
    """How often it was tried."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What the function was given, by its own parameter names; read from the store when asked for."""
        return self.read_inputs()

    def reproduce(self) -> Any:
        """Make exactly that call again, here: it raises again, or returns the value."""
        return self.function(**self.inputs)

    def __repr__(self) -> str:
        text = traceback.format_exception_only(self.error)[0].strip()  # str() of it may raise
        return f"<ItemError {self.output_name}{list(self.index)}: {text}>"


class MappedOutput:
    """A mapped output, array-like and lazy: elements are read from the store, and verified, when asked for.

    `output[3]` and iteration give an element with exactly the type the function returned; slices and
    `numpy.asarray` give arrays by the rule for what a reduction receives.

    Parameters
    ----------
    name, space
        What it is called, and its axes and extents.
    located
        Where its elements are.
    heal
        Computes what has been lost again, and updates `located`.
    """

    def __init__(self, name: str, space: Space, located: Located, heal: Callable[[], None]) -> None:
        self.name = name
        self._space = space
        self._located = located
        self._heal = heal
        self._array: Array | None = None

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of its axes; dimensions of the elements come after them and have none."""
        return self._space.axes

    @property
    def extents(self) -> tuple[int, ...]:
        """Lengths of its axes."""
        return self._space.shape

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of its axes, then the shape of the elements where they are arrays of one shape and dtype."""
        return self._space.shape + self._layout()[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that `numpy.asarray` gives."""
        return self._layout()[1]

    @property
    def ndim(self) -> int:
        """Number of dimensions, the elements' included."""
        return len(self.shape)

    @property
    def missing(self) -> Array:
        """Mask over the axes: True where there is no element, because its call failed or was skipped."""
        return np.asarray((self._located.locators == MISSING).reshape(self._space.shape))

    def __len__(self) -> int:
        return self._space.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if len(self._space.axes) > 1:
            yield from (self[k] for k in range(len(self)))
            return
        step = self.step
        for start in range(0, len(self), step):
            yield from self._values(np.arange(start, min(start + step, len(self))))

    def __getitem__(self, index: Any) -> Any:
        every = np.arange(self._space.size).reshape(self._space.shape)
        chosen = every[index]
        if np.ndim(chosen) == 0:
            return self._values(np.array([chosen]))[0]
        self._check_complete(chosen.reshape(-1))
        return assemble(self._values(chosen.reshape(-1)), chosen.shape, "array")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:  # noqa: FBT001 - numpy's protocol
        if self._array is None:
            self._check_complete(np.arange(self._space.size))
            self._array = self._read_array()
        array = self._array if dtype is None else self._array.astype(dtype, copy=False)
        if array is not self._array:
            return array
        return read_only(array) if copy is False else array.copy()

    def __digest__(self) -> Root:
        """Return the identity that it has as a reduction's argument; no element is read for that.

        Raises
        ------
        GristmillError
            Elements are missing, because their calls failed.
        """
        every = np.arange(self._space.size)
        self._check_complete(every)
        located = self._located
        return merkle(self._space.shape, located.index.digests(located.locators, located.output).tobytes())

    def assembled(self, form: str) -> Any:
        """Return all elements as a reduction receives them: `"array"`, or nested `"list"`.

        Raises
        ------
        GristmillError
            Elements are missing, because their calls failed.
        """
        self._check_complete(np.arange(self._space.size))
        return self.tolist() if form == "list" else np.asarray(self)

    def tolist(self) -> list[Any]:
        """Return nested lists of the exact elements; None where one is missing."""
        values: list[Any] = []
        for start in range(0, self._space.size, _BLOCK):
            positions = np.arange(start, min(start + _BLOCK, self._space.size))
            values += self._values(positions, absent=None)
        nested: list[Any] = assemble(values, self._space.shape, "list")
        return nested

    def masked(self) -> "np.ma.MaskedArray[Any, Any]":
        """Return a masked array, in which missing elements are masked."""
        there = np.flatnonzero(self._located.locators != MISSING)
        values = assemble(self._values(there), (len(there),), "array")
        data = np.zeros((self._space.size, *values.shape[1:]), dtype=values.dtype)
        data[there] = values
        mask = np.ones(data.shape, dtype=bool)
        mask[there] = False
        shape = self._space.shape + data.shape[1:]
        return np.ma.MaskedArray(data.reshape(shape), mask.reshape(shape))

    @property
    def zarr(self) -> "ZarrArray[Any]":
        """A read-only `zarr.Array` whose chunks are read from the store, verified.

        Raises
        ------
        GristmillError
            The elements are not arrays or numbers of one shape and dtype.
        """
        from gristmill.storage.zarrstore import open_array

        shape, dtype = self._layout()
        if dtype.kind not in "biufc" or dtype.char in "gG":
            raise GristmillError(
                f"{self.name!r} has elements of different shapes or types, or of {dtype}, which no zarr array holds; "
                f"use result[{self.name!r}].tolist()"
            )
        return open_array(
            self._space.axes, self._space.shape, self._space.shape + shape, dtype, self._element_bytes
        )

    def to_zarr(self, path: str) -> "ZarrArray[Any]":
        """Write a zarr array of its own to `path`, chunked as here, and return it."""
        from gristmill.storage.zarrstore import copy_array

        return copy_array(self.zarr, self._space.axes, path)

    def scalar(self) -> Any:
        """Return the one element of an output without axes."""
        if self._located.locators[0] == MISSING:
            raise GristmillError(
                f"{self.name!r} has no value, because a call it needs failed; see result.errors"
            )
        return self._values(np.zeros(1, dtype=np.int64))[0]

    @property
    def step(self) -> int:
        """How many elements are read at once when all are: one where they are too large to be packed."""
        kinds = {
            segment.codecs[self._located.output]["kind"]
            for segment, _, _ in self._located.index.runs(
                self._located.locators[self._located.locators != MISSING]
            )
        }
        return 1 if kinds & {"chunk", "mixed"} else _BLOCK

    def at(self, space: Space, positions: Array) -> list[Any]:
        """Return the elements for `positions` of a space that has all axes of this output; None where missing."""
        return self._values(space.elements(positions, self._space.axes), absent=None)

    def __repr__(self) -> str:
        named = ", ".join(f"{axis}={n}" for axis, n in zip(self._space.axes, self._space.shape, strict=True))
        missing = int(np.count_nonzero(self._located.locators == MISSING))
        return f"<MappedOutput {self.name}[{named}]{f', {missing} missing' if missing else ''}>"

    def _element_bytes(self, position: int) -> Any:
        """The C-order buffer of one element as an array, for zarr."""
        dtype = self._layout()[1].newbyteorder("<")
        value = self._values(np.array([position]))[0]
        return np.ascontiguousarray(np.asarray(value, dtype=dtype))

    def _layout(self) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape of the elements and dtype of the whole: from the segments' headers where those tell."""
        there = self._located.locators[self._located.locators != MISSING]
        kinds = set()
        for segment, _, _ in self._located.index.runs(there):
            codec = segment.codecs[self._located.output]
            kinds.add((codec["kind"], codec.get("dtype"), tuple(codec.get("shape", ()))))
        known = {"int": np.int64, "float": np.float64, "bool": np.bool_, "complex": np.complex128}
        if len(kinds) == 1:
            kind, dtype, shape = kinds.pop()
            if kind in known:
                return (), np.dtype(known[kind])
            if kind in ("scalar", "array", "chunk"):
                return shape, np.dtype(dtype)
        array = assemble(
            self._values(np.flatnonzero(self._located.locators != MISSING)), (len(there),), "array"
        )
        return array.shape[1:], array.dtype

    def _read_array(self) -> Array:
        packed = self._retry(
            lambda: self._located.storage.array(
                self._located.index, self._located.locators, self._located.output
            )
        )
        if packed is not None:
            return np.asarray(packed.reshape(self._space.shape + packed.shape[1:]))
        shape, dtype = self._layout()
        if dtype == np.dtype(object):
            return np.asarray(assemble(self._values(np.arange(self._space.size)), self._space.shape, "array"))
        array = np.empty((self._space.size, *shape), dtype=dtype)
        for start in range(0, self._space.size, 64):
            positions = np.arange(start, min(start + 64, self._space.size))
            for position, value in zip(positions, self._values(positions), strict=True):
                array[position] = value
        return array.reshape(self._space.shape + shape)

    def _check_complete(self, positions: Array) -> None:
        missing = np.flatnonzero(self._located.locators[positions] == MISSING)
        if len(missing):
            index = self._space.index(int(positions[missing[0]]))
            raise GristmillError(
                f"{len(missing)} of {len(positions)} elements of {self.name!r} are missing, the first at {index}: "
                "their calls failed (see result.errors). Use .masked() for a masked array, or .tolist()"
            )

    def _values(self, positions: Array, *, absent: Any = IntegrityError) -> list[Any]:
        """The elements at `positions`; `absent` stands for missing ones, which are an error by default."""
        there = np.flatnonzero(self._located.locators[positions] != MISSING)
        if len(there) < len(positions) and absent is IntegrityError:
            self._check_complete(positions)
        found = self._retry(lambda: self._load(positions[there]))
        if len(there) == len(positions):
            return list(found)
        values = [absent] * len(positions)
        for place, value in zip(there.tolist(), found, strict=True):
            values[place] = value
        return values

    def _load(self, positions: Array) -> list[Any]:
        located = self._located
        forms = located.storage.forms(located.index, located.locators[positions], located.output)
        return [located.storage.value(form) for form in forms]

    def _retry(self, read: Callable[[], Any]) -> Any:
        """Read; where stored bytes are damaged or gone, have them computed again and read again."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return read()
            except IntegrityError:
                self._quarantine()
                self._heal()
        return read()

    def _quarantine(self) -> None:
        """Take back every element that cannot be read."""
        located = self._located
        lost = []
        for locator in located.locators[located.locators != MISSING]:
            try:
                form = located.storage.forms(located.index, np.array([locator]), located.output)[0]
                located.storage.check(form)
            except IntegrityError:
                lost.append(locator)
        if lost:
            located.storage.quarantine(located.index, np.array(lost), located.output)


class MapResult(Mapping[str, Any]):
    """What a map made: output name to value, or to a `MappedOutput` where it is mapped."""

    def __init__(
        self,
        outputs: Mapping[str, Any],
        errors: Sequence[ItemError],
        stats: Stats,
        run_id: str,
        views: Mapping[str, str],
    ) -> None:
        self._outputs = dict(outputs)
        self.errors = list(errors)
        """The calls that failed."""
        self.stats = stats
        """What the run did."""
        self.run_id = run_id
        """Names the run."""
        self.views = dict(views)
        """Output name to the path of its zarr array on disk, for outputs that have one."""

    def __getitem__(self, name: str) -> Any:
        if name not in self._outputs:
            raise KeyError(
                f"{name!r} was not asked for{did_you_mean(name, self._outputs)}; this result has "
                f"{joined(self._outputs)}. Leaves come back by default: pass output_name= for others"
            )
        value = self._outputs[name]
        return value() if isinstance(value, _Lazy) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a dict for each index of the outputs' common space; outputs with fewer axes repeat.

        Missing elements are None.
        """
        mapped = {name: value for name, value in self._outputs.items() if isinstance(value, MappedOutput)}
        if not mapped:
            return
        widest = max(mapped.values(), key=lambda output: len(output.axes))
        odd = [name for name, output in mapped.items() if not set(output.axes) <= set(widest.axes)]
        if odd:
            raise GristmillError(
                f"rows() needs one space: {odd[0]!r} has axes {list(mapped[odd[0]].axes)}, which are not all among "
                f"{list(widest.axes)} of {widest.name!r}; ask for them one by one"
            )
        space = Space(widest.axes, widest.extents)
        step = min(output.step for output in mapped.values())
        for start in range(0, space.size, step):
            positions = np.arange(start, min(start + step, space.size))
            columns = [output.at(space, positions) for output in mapped.values()]
            for row in zip(*columns, strict=True):
                yield dict(zip(mapped, row, strict=True))

    def __repr__(self) -> str:
        parts = [repr(v) if isinstance(v, MappedOutput) else name for name, v in self._outputs.items()]
        return f"<MapResult {', '.join(parts)}; {self.stats.computed} computed, {self.stats.cached} cached>"


@dataclass(frozen=True)
class _Lazy:
    """A value without axes, read when it is asked for."""

    read: Callable[[], Any]

    def __call__(self) -> Any:
        return self.read()


def lazy(read: Callable[[], Any]) -> _Lazy:
    """Return an output that `MapResult` reads when it is asked for."""
    return _Lazy(read)
