"""Digests of the vertices of a directed graph that may have cycles.

Owns the rule that makes them independent of where a walk entered the graph and of whether equal parts are
shared or copies. Knows nothing of what the vertices stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from xxhash import xxh3_128_digest

Combine = Callable[[int, Sequence[bytes]], bytes]
"""Digest of a vertex from the digests of its targets, in the order of its edges."""

_BLANK = bytes(16)


def digests(edges: Sequence[Sequence[int]], combine: Combine) -> list[bytes]:
    """Digest every vertex, such that two agree exactly when everything reachable from them does.

    Outside cycles that is a Merkle tree. Within one, colour refinement: all members start alike and are
    combined again and again until no two more of them can be told apart. The number of rounds is a property
    of the graph, and the set of all colours describes the cycle completely, so it becomes part of every
    member's digest.
    """
    found = [_BLANK] * len(edges)
    for group in components(edges):
        if len(group) == 1 and group[0] not in edges[group[0]]:
            vertex = group[0]
            found[vertex] = combine(vertex, [found[target] for target in edges[vertex]])
        else:
            _refine(group, edges, combine, found)
    return found


def _refine(
    group: Sequence[int], edges: Sequence[Sequence[int]], combine: Combine, found: list[bytes]
) -> None:
    kinds = 1
    while True:
        colours = [combine(vertex, [found[target] for target in edges[vertex]]) for vertex in group]
        for vertex, colour in zip(group, colours, strict=True):
            found[vertex] = colour
        palette = set(colours)
        if len(palette) == kinds:
            break
        kinds = len(palette)
    whole = b"".join(sorted(palette))
    for vertex in group:
        found[vertex] = xxh3_128_digest(found[vertex] + whole)


def components(edges: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Strongly connected components, each after all that it points to (Tarjan 1972, without recursion)."""
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    done: set[int] = set()
    trail: list[int] = []
    for start in range(len(edges)):
        if start in order:
            continue
        work = [(start, iter(edges[start]))]
        order[start] = low[start] = len(order)
        trail.append(start)
        while work:
            vertex, targets = work[-1]
            for target in targets:
                if target not in order:
                    order[target] = low[target] = len(order)
                    trail.append(target)
                    work.append((target, iter(edges[target])))
                    break
                if target not in done:
                    low[vertex] = min(low[vertex], order[target])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[vertex])
                if low[vertex] == order[vertex]:
                    group = _cut(trail, vertex)
                    done.update(group)
                    yield group


def _cut(trail: list[int], vertex: int) -> list[int]:
    """Take from the end of the trail what lies there since `vertex`."""
    group = [trail.pop()]
    while group[-1] != vertex:
        group.append(trail.pop())
    return group
