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
        self._names: list[tuple[Array, Array, Array]] = []

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
                self._names.append((found.names[mask], used[found.positions][mask], self.sizes(found)[mask]))

    def sizes(self, found: References) -> Array:
        """Return the bytes of what is named."""
        objects = [self._objects.get(name, 0) for name in as_bytes(found.names)] if found.objects.any() else 0
        return np.where(found.objects, objects, found.sizes)

    def horizon(self, limit: int, sizes: Mapping[bytes, int]) -> "Horizon":
        """Return what has to go so that the rest has at most `limit` bytes."""
        spent = dict(self._packed)
        if self._names:
            names, used, costs = (np.concatenate(column) for column in zip(*self._names, strict=True))
            order = np.lexsort((used, names))
            last = np.append(names[order][1:] != names[order][:-1], True)  # of equal ones, the last used
            for when, cost in zip(used[order][last].tolist(), costs[order][last].tolist(), strict=True):
                spent[when] = spent.get(when, 0.0) + cost
        excess = sum(spent.values()) - max(limit, 0)
        for when in sorted(when for when in spent if np.isfinite(when)):
            if excess <= spent[when]:
                return Horizon(when, excess, self, sizes)
            excess -= spent[when]
        return Horizon(np.inf, 0.0, self, sizes)


@dataclass(slots=True)
class Horizon:
    """What was used last before a time goes, and of what was used at that time, so many bytes."""

    when: float
    left: float = 0.0
    costs: Costs | None = None
    sizes: Mapping[bytes, int] = field(default_factory=dict)

    def cut(self, verdict: Verdict) -> Verdict:
        """Return a verdict under which that goes, too."""
        kept = verdict.kept & (verdict.used >= self.when)
        census = verdict.census
        for place in range(len(census.segments) if self.costs is not None else 0):
            start = int(census.starts[place])
            at = start + np.flatnonzero(
                (kept & (verdict.used == self.when))[start : census.starts[place + 1]]
            )
            if self.left > 0 and len(at) and self.costs is not None:
                cost = np.full(len(at), packed(census, place, self.sizes))
                cost = cost + self._outside(census, place)[at - start]
                going = np.cumsum(cost) - cost < self.left
                kept[at[going]] = False
                self.left -= float(cost[going].sum())
        return replace(verdict, kept=kept)

    def _outside(self, census: Census, place: int) -> Array:
        found = census.references(place)
        count = census.segments[place].count
        if found is None or self.costs is None or not len(found.names):
            return np.zeros(count)
        return np.bincount(found.positions, weights=self.costs.sizes(found), minlength=count)


def packed(census: Census, place: int, sizes: Mapping[bytes, int]) -> float:
    """Return what one call of a segment takes in it, in bytes."""
    segment = census.segments[place]
    name = census.group + NUMBER.pack(segment.number)
    return (sizes.get(INDEX + name, 0) + sizes.get(VALUES + name, 0)) / max(segment.count, 1)
