"""Results: what `map` gives back, by reference: values are read, and verified, when they are asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.engine.failed import ItemError
from gristmill.engine.mapped import MappedOutput
from gristmill.errors import GristmillError
from gristmill.graph.wording import did_you_mean, joined


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
        for output in mapped.values():
            for axis, length in zip(output.axes, output.space.shape, strict=True):
                if length != widest.space.shape[widest.axes.index(axis)]:
                    raise GristmillError(
                        f"rows() needs one space: along {axis!r}, {output.name!r} and {widest.name!r} differ; "
                        "ask for them one by one"
                    )
        space = widest.space
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
