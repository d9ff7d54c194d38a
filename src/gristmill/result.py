"""Results: what `map` gives back, by reference: values are read, and verified, when they are asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.engine.failed import ItemError
from gristmill.engine.mapped import MappedOutput
from gristmill.errors import GristmillError
from gristmill.graph.wording import did_you_mean, joined
from gristmill.plan.compile import Plan
from gristmill.plan.inputs import MappedInput
from gristmill.plan.space import Space
from gristmill.plan.stage import Element

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped, unused-ignore]
    import xarray


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


@dataclass(frozen=True)
class Labels:
    """What an input has along one axis, as labels of it."""

    axis: str
    values: "Sequence[Any] | np.ndarray[Any, Any]"


def labels(plan: Plan) -> dict[str, Labels]:
    """Return the inputs of a map that are mapped along one axis, by name."""
    found: dict[str, Labels] = {}
    for argument in (a for stage in plan.stages for step in stage.steps for a in step.arguments):
        one = plan.inputs.get(argument.source) if isinstance(argument, Element) else None
        if isinstance(one, MappedInput) and isinstance(argument, Element) and len(argument.axes) == 1:
            if getattr(one.elements, "ndim", 1) > 1 or getattr(one.elements, "rest", ()):
                continue  # elements that are arrays label nothing
            found.setdefault(one.name, Labels(argument.axes[0], one.elements))
    return found


class MapResult(Mapping[str, Any]):
    """What a map made: output name to value, or to a `MappedOutput` where it is mapped."""

    def __init__(
        self,
        outputs: Mapping[str, Any],
        errors: Sequence[ItemError],
        stats: Stats,
        run_id: str,
        views: Mapping[str, str],
        inputs: Mapping[str, Labels] | None = None,
    ) -> None:
        self._outputs = dict(outputs)
        self._inputs = dict(inputs or {})
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

    def __contains__(self, name: object) -> bool:
        return name in self._outputs  # without reading it, as Mapping would

    def __iter__(self) -> Iterator[str]:
        return iter(self._outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a dict for each index of the outputs' common space; outputs with fewer axes repeat.

        Missing elements are None.
        """
        mapped = self._mapped
        if not mapped:
            return
        space = self._widest("rows()").space
        step = min(output.step for output in mapped.values())
        for start in range(0, space.size, step):
            positions = np.arange(start, min(start + step, space.size))
            columns = [output.at(space, positions) for output in mapped.values()]
            for row in zip(*columns, strict=True):
                yield dict(zip(mapped, row, strict=True))

    def to_xarray(self) -> "xarray.Dataset":
        """Return an `xarray.Dataset`: mapped outputs over their axes, other outputs as single values.

        Dimensions are named by the axes; those of the elements have names of their own. An input that is mapped along
        one axis labels it. Missing elements are NaN (NaT for times), which makes floats of ints.

        Raises
        ------
        GristmillError
            Two outputs have an axis of one name and different lengths.
        """
        import xarray

        lengths: dict[str, int] = {}
        variables: dict[str, Any] = {}
        for name, output in self._outputs.items():
            if not isinstance(output, MappedOutput):
                variables[name] = xarray.Variable((), _boxed(self[name]))
                continue
            data = output.labelled()
            own = output.axes[: data.ndim] if output.space.places is not None else output.axes
            for axis, length in zip(own, data.shape, strict=False):
                if lengths.setdefault(axis, length) != length:
                    raise GristmillError(
                        f"a dataset has one length for each axis: {name!r} has {length} along {axis!r}, another output "
                        f"{lengths[axis]}; ask for them one by one, or rename an axis"
                    )
            inside = (f"{name}_{k}" for k in range(data.ndim - len(own)))
            variables[name] = xarray.Variable((*own, *inside), data)
        coordinates = {
            name: xarray.Variable((one.axis,), _line(one.values))
            for name, one in self._inputs.items()
            if lengths.get(one.axis) == len(one.values)
        }
        return xarray.Dataset(variables, coordinates)

    def to_dataframe(self) -> "pd.DataFrame":
        """Return a `pandas.DataFrame` with a row for each index of the outputs' common space, as `rows` gives them.

        The index has a level for each axis. Inputs that are mapped along one axis are columns before the outputs;
        missing elements are None, which pandas shows as NaN among numbers.
        """
        import pandas as pd  # type: ignore[import-untyped, unused-ignore]

        mapped = self._mapped
        space = self._widest("to_dataframe()").space if mapped else Space()
        positions = np.arange(space.size)
        along = dict(zip(space.axes, space.coordinates(positions), strict=True))
        columns: dict[str, Any] = {}
        for name, one in self._inputs.items():
            if one.axis in along and len(one.values) > int(along[one.axis].max(initial=-1)):
                columns[name] = pd.Series([one.values[k] for k in along[one.axis].tolist()])
        for name, output in mapped.items():
            columns[name] = pd.Series(output.at(space, positions), dtype=None if space.size else object)
        frame = pd.DataFrame(columns)
        if len(space.axes) == 1:
            frame.index = pd.Index(positions, name=space.axes[0])
        elif space.axes:
            frame.index = pd.MultiIndex.from_arrays(list(along.values()), names=space.axes)
        return frame

    @property
    def _mapped(self) -> dict[str, MappedOutput]:
        return {name: value for name, value in self._outputs.items() if isinstance(value, MappedOutput)}

    def _widest(self, what: str) -> MappedOutput:
        """The output whose space has the axes of all others."""
        mapped = self._mapped
        widest = max(mapped.values(), key=lambda output: len(output.axes))
        odd = [name for name, output in mapped.items() if not set(output.axes) <= set(widest.axes)]
        if odd:
            raise GristmillError(
                f"{what} needs one space: {odd[0]!r} has axes {list(mapped[odd[0]].axes)}, which are not all among "
                f"{list(widest.axes)} of {widest.name!r}; ask for them one by one"
            )
        for output in mapped.values():
            for axis, length in zip(output.axes, output.space.shape, strict=True):
                if length != widest.space.shape[widest.axes.index(axis)]:
                    raise GristmillError(
                        f"{what} needs one space: along {axis!r}, {output.name!r} and {widest.name!r} differ; "
                        "ask for them one by one"
                    )
        return widest

    def __repr__(self) -> str:
        parts = [repr(v) if isinstance(v, MappedOutput) else name for name, v in self._outputs.items()]
        return f"<MapResult {', '.join(parts)}; {self.stats.computed} computed, {self.stats.cached} cached>"


def _boxed(value: Any) -> Any:
    """A value as an array without dimensions, whatever it is."""
    box = np.empty((), dtype=object)
    box[()] = value
    return np.asarray(value) if isinstance(value, bool | int | float | complex | str | np.generic) else box


def _line(values: "Sequence[Any] | np.ndarray[Any, Any]") -> Any:
    """Labels as an array of one dimension, whatever they are."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return values
    kinds = set(map(type, values))
    if len(kinds) == 1 and kinds <= {bool, int, float, complex, str}:
        return np.array(values)
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):  # numpy would look into values that are lists
        array[place] = value
    return array


@dataclass(frozen=True)
class _Lazy:
    """A value without axes, read when it is asked for."""

    read: Callable[[], Any]

    def __call__(self) -> Any:
        return self.read()


def lazy(read: Callable[[], Any]) -> _Lazy:
    """Return an output that `MapResult` reads when it is asked for."""
    return _Lazy(read)
