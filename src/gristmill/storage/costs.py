"""Costs: what calls take in the store, and which have to go so that the rest fits."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gristmill.storage.census import Census
from gristmill.storage.ledger import INDEX, NUMBER, VALUES
from gristmill.storage.references import References, as_bytes

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Verdict:
    """What is to become of the calls of one group."""

    census: Census
    kept: Array
    """Mask of the calls that stay."""
    used: Array
    """When each was used last; infinite where it may not go."""


class Costs:
    """What calls cost, by when they were used last."""

    def __init__(self, objects: Mapping[bytes, int]) -> None:
        self._objects = objects
        self._packed: dict[float, float] = {}
        self._places: list[tuple[bytes, int]] = []
        self._names: list[tuple[Array, Array, Array, Array]] = []

    def add(self, verdict: Verdict, sizes: Mapping[bytes, int]) -> None:
        """Take in one group."""
        census = verdict.census
        for place in range(len(census.segments)):
            chosen = slice(int(census.starts[place]), int(census.starts[place + 1]))
            kept, used = verdict.kept[chosen], verdict.used[chosen]
            if not kept.any():
                continue
            each = packed(census, place, sizes)
            times, counts = np.unique(used[kept], return_counts=True)
            for when, count in zip(times.tolist(), counts.tolist(), strict=True):
                self._packed[when] = self._packed.get(when, 0.0) + each * count
            found = census.references(place)
            if found is not None and len(found.names):
                mask = kept[found.positions]
                at = found.positions[mask]
                self._places.append((census.group, place))
                self._names.append((found.names[mask], used[at], self.sizes(found)[mask], at))

    def sizes(self, found: References) -> Array:
        """Return the bytes of what is named."""
        objects = [self._objects.get(name, 0) for name in as_bytes(found.names)] if found.objects.any() else 0
        return np.where(found.objects, objects, found.sizes)

    def horizon(self, limit: int, sizes: Mapping[bytes, int]) -> "Horizon":
        """Return what has to go so that the rest has at most `limit` bytes."""
        spent = dict(self._packed)
        freed = np.zeros(0)
        if self._names:
            names, used, costs, _ = (np.concatenate(column) for column in zip(*self._names, strict=True))
            order = np.lexsort((used, names))
            last = np.append(names[order][1:] != names[order][:-1], True)  # of equal ones, the last used
            freed = np.zeros(len(order))
            freed[order[last]] = costs[order[last]]
            times, where = np.unique(used, return_inverse=True)
            for when, cost in zip(times.tolist(), np.bincount(where, weights=freed).tolist(), strict=True):
                spent[when] = spent.get(when, 0.0) + cost
        excess = sum(spent.values()) - max(limit, 0)
        for when in sorted(when for when in spent if np.isfinite(when)):
            if excess <= spent[when]:
                return Horizon(when, excess, self._freed_at(when, freed), sizes)
            excess -= spent[when]
        return Horizon(np.inf, 0.0, {}, sizes)

    def _freed_at(self, when: float, freed: Array) -> dict[tuple[bytes, int], tuple[Array, Array]]:
        """By group and segment, of calls used last at a time: the bytes that go with each once those before it have."""
        found, end = {}, 0
        for place, (_, used, _, at) in zip(self._places, self._names, strict=True):
            start, end = end, end + len(used)
            now = used == when
            if now.any():
                found[place] = at[now], freed[start:end][now]
        return found


@dataclass(slots=True)
class Horizon:
    """What was used last before a time goes, and of what was used at that time, so many bytes."""

    when: float
    left: float = 0.0
    freed: Mapping[tuple[bytes, int], tuple[Array, Array]] = field(default_factory=dict)
    """By group and segment, positions in that and the bytes outside of segments that go with each call."""
    sizes: Mapping[bytes, int] | None = None

    def cut(self, verdict: Verdict) -> Verdict:
        """Return a verdict under which that goes, too; groups come in the order in which they were added."""
        kept = verdict.kept & (verdict.used >= self.when)
        census = verdict.census
        for place in range(len(census.segments) if self.sizes is not None else 0):
            start = int(census.starts[place])
            at = start + np.flatnonzero(
                (kept & (verdict.used == self.when))[start : census.starts[place + 1]]
            )
            if self.left > 0 and len(at) and self.sizes is not None:
                cost = np.full(len(at), packed(census, place, self.sizes))
                cost = cost + self._outside(census, place)[at - start]
                going = np.cumsum(cost) - cost < self.left
                kept[at[going]] = False
                self.left -= float(cost[going].sum())
        return replace(verdict, kept=kept)

    def _outside(self, census: Census, place: int) -> Array:
        count = census.segments[place].count
        if (found := self.freed.get((census.group, place))) is None:
            return np.zeros(count)
        return np.bincount(found[0], weights=found[1], minlength=count)


def packed(census: Census, place: int, sizes: Mapping[bytes, int]) -> float:
    """Return what one call of a segment takes in it, in bytes."""
    segment = census.segments[place]
    name = census.group + NUMBER.pack(segment.number)
    return (sizes.get(INDEX + name, 0) + sizes.get(VALUES + name, 0)) / max(segment.count, 1)
