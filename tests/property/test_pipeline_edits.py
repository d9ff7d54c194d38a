"""Random edits of inputs: cached equals uncached, and exactly the predicted calls are executed."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.support.calls import CallLog, record

from gristmill import Pipeline, Store, node

NUMBERS = st.integers(-3, 12)
INPUTS = st.lists(NUMBERS, max_size=8)
WIDTHS = st.integers(1, 4)


class Model:
    """Three nodes in plain Python, and the calls that have been made of them so far."""

    def __init__(self) -> None:
        self.made: set[str] = set()

    def run(self, x: Sequence[int], width: int) -> tuple[list[int], list[list[int]], Any, list[str]]:
        """Return the three outputs, and the calls that have not been made before."""
        halves = [k // 2 for k in x]
        grid = [[half % width + column for column in range(width)] for half in halves]
        total = (len(x), sum(map(sum, grid)))
        calls = [f"half {k}" for k in x]
        calls += [f"shift {half} {column} {width}" for half in halves for column in range(width)]
        calls.append(f"total {grid} {width}")
        new = sorted(set(calls) - self.made)
        self.made.update(calls)
        return halves, grid, total, new


def make_pipeline(log: str, store: Store | None) -> Pipeline:
    """`half` is fused with nothing, `shift` is a product, `total` reduces."""

    def half(x: int) -> int:
        record(log, "half", x)
        return x // 2

    def shift(half: int, column: int, width: int) -> int:
        record(log, "shift", half, column, width)
        return half % width + column

    def total(shift: list[list[int]], width: int) -> tuple[int, int]:
        record(log, "total", shift, width)
        return len(shift), sum(map(sum, shift))

    nodes = [
        node(half, mapspec="x[i] -> half[i]"),
        node(shift, mapspec="half[i], column[j] -> shift[i, j]"),
        node(total),
    ]
    return Pipeline(nodes, store=store)


OUTPUTS = ["half", "shift", "total"]


class Edits(RuleBasedStateMachine):
    """One store, a sequence of maps with edited inputs."""

    executors: Sequence[str] = ("sequential",)

    def __init__(self) -> None:
        super().__init__()
        self.directory = TemporaryDirectory()
        self.store = Store(Path(self.directory.name) / "store")
        self.log = CallLog(Path(self.directory.name) / "calls.log")
        self.model = Model()
        self.x: list[int] = []
        self.width = 2
        self.turn = 0

    @initialize(x=INPUTS)
    def start(self, x: list[int]) -> None:
        self.x = x

    @rule(extra=INPUTS)
    def append(self, extra: list[int]) -> None:
        self.x = self.x + extra

    @rule(extra=NUMBERS, where=st.integers(0, 20))
    def insert(self, extra: int, where: int) -> None:
        at = min(where, len(self.x))
        self.x = [*self.x[:at], extra, *self.x[at:]]

    @rule(where=st.integers(0, 20))
    def remove(self, where: int) -> None:
        self.x = self.x[:where] + self.x[where + 1 :]

    @rule(chance=st.randoms(use_true_random=False))
    def shuffle(self, chance: Any) -> None:
        self.x = chance.sample(self.x, len(self.x))

    @rule(width=WIDTHS)
    def widen(self, width: int) -> None:
        self.width = width

    @rule()
    def reopen(self) -> None:
        self.store.close()

    @invariant()
    def cached_equals_uncached(self) -> None:
        executor = self.executors[self.turn % len(self.executors)]
        self.turn += 1
        halves, grid, total, new = self.model.run(self.x, self.width)
        given_ = {"x": self.x, "column": range(self.width), "width": self.width}
        pipeline = make_pipeline(self.log.path, self.store)
        result = pipeline.map(given_, output_name=OUTPUTS, map_executor=executor)
        assert result["half"].tolist() == halves
        assert result["shift"].tolist() == grid
        assert result["total"] == total
        assert self.log.take() == new
        assert result.stats.computed == len(new)

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()


class EditsInParallel(Edits):
    """The same, with the executor changing from map to map."""

    executors = ("parallel", "sequential", "auto")


TestEdits = Edits.TestCase
TestEdits.settings = settings(
    max_examples=26, stateful_step_count=15, suppress_health_check=[HealthCheck.too_slow]
)
TestEditsInParallel = EditsInParallel.TestCase
TestEditsInParallel.settings = settings(
    max_examples=11, stateful_step_count=10, suppress_health_check=[HealthCheck.too_slow]
)


ELEMENTS = st.one_of(NUMBERS, st.floats(), st.text(max_size=3), st.none(), st.booleans())


@settings(max_examples=40)
@given(x=st.lists(ELEMENTS, max_size=10), twice=st.booleans())
def test_a_cached_map_returns_what_the_function_returns(x: list[Any], twice: bool) -> None:  # noqa: FBT001 - a drawn value
    def describe(x: Any) -> tuple[str, Any]:
        return type(x).__name__, x

    with Store.temporary() as store:
        pipeline = Pipeline([node(describe, mapspec="x[i] -> describe[i]")], store=store)
        for _ in range(1 + twice):
            found = pipeline.map({"x": x}, map_executor="sequential")["describe"].tolist()
            assert repr(found) == repr([(type(one).__name__, one) for one in x])


@pytest.mark.parametrize("count", [1, 1023, 1024, 1025, 5000])
def test_adding_to_either_end_computes_only_that(count: int, tmp_path: Path) -> None:
    log = CallLog(tmp_path / "calls.log")
    path = log.path

    def step(x: int) -> int:
        record(path, x)
        return -x

    pipeline = Pipeline([node(step, mapspec="x[i] -> step[i]")])
    pipeline.map({"x": range(10, 10 + count)}, map_executor="sequential")
    assert len(log.take()) == count
    result = pipeline.map({"x": range(20 + count)}, map_executor="sequential")
    assert result["step"].tolist() == [-x for x in range(20 + count)]
    assert len(log.take()) == 20
