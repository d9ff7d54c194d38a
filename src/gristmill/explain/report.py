"""The explanation as a value: what it says of each node, as text, as a table, as JSON."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

Verdict = Literal["hit", "miss"]
Index = tuple[int, ...]

_RANGES_SHOWN = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """What holds for some calls of one node."""

    indices: tuple[tuple[Index, Index], ...]
    """Ranges of indices, each (first, last), both included, in C order; `((), ())` where there are no axes."""
    count: int
    """How many calls these are."""
    verdict: Verdict
    """`"hit"`: the store has the result. `"miss"`: the call would run."""
    reason: str
    """Why it is a miss; empty for a hit."""

    @property
    def where(self) -> str:
        """The ranges as text; empty where there are no axes."""
        shown = [_range(first, last) for first, last in self.indices[:_RANGES_SHOWN] if first]
        more = len(self.indices) - _RANGES_SHOWN
        return ", ".join(shown) + (f", … {more:,} more ranges" if more > 0 else "")

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "verdict": self.verdict,
            "count": self.count,
            "indices": [[list(first), list(last)] for first, last in self.indices],
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class NodeExplanation:
    """What would happen to the calls of one node."""

    node: str
    """The function's name."""
    output_names: tuple[str, ...]
    axes: tuple[str, ...]
    """Names of the axes that its indices count along."""
    total: int
    """Calls."""
    hits: int
    """Calls whose results are in the store."""
    misses: int
    """Calls that would run, those included that depend on others that would: where these give the values they
    gave before, what depends on them may be found after all."""
    findings: tuple[Finding, ...]
    """Every call is in one of them."""
    unfollowed: tuple[str, ...] = ()
    """What its code may depend on and its fingerprint does not know."""

    @property
    def title(self) -> str:
        """The node with what it makes."""
        index = f"[{', '.join(self.axes)}]" if self.axes else ""
        return f"{self.node} → {', '.join(name + index for name in self.output_names)}"

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "node": self.node,
            "output_names": list(self.output_names),
            "axes": list(self.axes),
            "total": self.total,
            "hits": self.hits,
            "misses": self.misses,
            "findings": [finding.to_dict() for finding in self.findings],
            "unfollowed": list(self.unfollowed),
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.title}: {summary(self.total, self.hits, self.misses)}"
        for finding in self.findings:
            if finding.verdict == "miss" or self.misses:
                words = ("  " + finding.verdict, finding.where, finding.reason)
                yield "  ".join(word for word in words if word)
        for what in self.unfollowed:
            yield f"  not followed: {what}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a run would find in the store, what it would compute, and why.

    A hit means that the store has a record of the call. Its bytes are verified when they are read; where they turn
    out to be damaged or gone, the call runs again.

    Examples
    --------
    >>> from gristmill import Pipeline, Store
    >>> def scale(x, factor):
    ...     return x * factor
    >>> pipeline = Pipeline([(scale, "x[i] -> scale[i]")], store=Store.temporary())
    >>> _ = pipeline.map({"x": [1, 2, 3], "factor": 2})
    >>> print(pipeline.explain({"x": [1, 2, 3, 4], "factor": 2}))
    scale → scale[i]: 4 calls, 3 hits, 1 miss
      hit  0–2
      miss  3  input x[3] is new
    >>> print(pipeline.explain({"x": [1, 2, 3], "factor": 3}))
    scale → scale[i]: 3 calls, 3 misses
      miss  0–2  argument factor: 2 → 3
    """

    nodes: tuple[NodeExplanation, ...]
    """One for each node, in the order in which they would run."""

    @property
    def hits(self) -> int:
        """Calls whose results are in the store."""
        return sum(node.hits for node in self.nodes)

    @property
    def misses(self) -> int:
        """Calls that would run."""
        return sum(node.misses for node in self.nodes)

    def __getitem__(self, output_name: str) -> NodeExplanation:
        for node in self.nodes:
            if output_name in node.output_names:
                return node
        raise KeyError(output_name)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        nodes = [node.to_dict() for node in self.nodes]
        return {"hits": self.hits, "misses": self.misses, "nodes": nodes}

    def to_json(self, *, indent: int | None = None) -> str:
        """Return it as JSON."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False)

    def __str__(self) -> str:
        return "\n".join(map(str, self.nodes))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("node", "calls", "verdict", "indices", "reason"))
        rows = "".join(_rows(node) for node in self.nodes)
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def summary(total: int, hits: int, misses: int) -> str:
    """Return how many calls there are, and how many of them are what.

    Examples
    --------
    >>> summary(1000, 999, 1), summary(1, 1, 0)
    ('1,000 calls, 999 hits, 1 miss', '1 call, 1 hit')
    """
    counts = [counted(total, "call")]
    if hits:
        counts.append(counted(hits, "hit"))
    if misses:
        counts.append(counted(misses, "miss", "misses"))
    return ", ".join(counts)


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun.

    Examples
    --------
    >>> counted(1, "call"), counted(1234, "call")
    ('1 call', '1,234 calls')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def shown(index: Index) -> str:
    """Return an index as text.

    Examples
    --------
    >>> shown((3,)), shown((1, 2))
    ('3', '(1, 2)')
    """
    return str(index[0]) if len(index) == 1 else str(index)


def _range(first: Index, last: Index) -> str:
    return shown(first) if first == last else f"{shown(first)}–{shown(last)}"


def _rows(node: NodeExplanation) -> str:
    rows: list[tuple[str, str, str, str]] = [
        (f.verdict, f"{f.count:,}", f.where, f.reason) for f in node.findings
    ]
    rows += [("not followed", "", "", what) for what in node.unfollowed]
    rows = rows or [("", "0", "", "")]
    return "".join(
        f"<tr><td>{escape(node.title) if k == 0 else ''}</td><td>{count}</td><td>{verdict}</td>"
        f"<td>{where}</td><td>{escape(reason)}</td></tr>"
        for k, (verdict, count, where, reason) in enumerate(rows)
    )
