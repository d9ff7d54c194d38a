"""Run records of axes that calls have made, and of tree reductions: they load whole, and keep what they need."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill import GristmillError, MapResult, Pipeline, Store, node
from gristmill.engine import recording
from gristmill.engine.extents import decode_space, encode_space
from gristmill.errors import IntegrityError
from gristmill.plan.space import Space

FAN_IN = 4


def parts(x: int) -> list[int]:
    return [10 * x + k for k in range(x % 4)]


def double(parts: int) -> int:
    return 2 * parts


def tile(parts: int) -> Any:
    return np.full(10_000, parts)


def row(double: Any) -> int:
    return int(sum(double))


def scaled(parts: int, z: int) -> int:
    return parts * z


def letters(parts: int) -> list[str]:
    return list("abc"[: parts % 3])


def grid(x: int) -> Any:
    return np.arange(6).reshape(2, 3) + x


def odd_parts(x: int) -> list[int]:
    if x % 2 == 0:
        raise ValueError(x)
    return list(range(x))


def count(items: list[int]) -> int:
    return sum(items)


PARTS = node(parts, mapspec="x[i] -> parts[i, *j]")
PIPELINES: dict[str, tuple[Any, ...]] = {
    "ragged": (PARTS,),
    "mapped over": (PARTS, node(double, mapspec="parts[i, j] -> double[i, j]")),
    "of arrays": (PARTS, node(tile, mapspec="parts[i, j] -> tile[i, j]")),
    "reduced": (
        PARTS,
        node(double, mapspec="parts[i, j] -> double[i, j]"),
        node(row, mapspec="double[i, :] -> row[i]"),
    ),
    "with another axis": (PARTS, node(scaled, mapspec="parts[i, j], z[k] -> scaled[i, j, k]")),
    "ragged below ragged": (PARTS, node(letters, mapspec="parts[i, j] -> letters[i, j, *k]")),
    "dense": (node(grid, mapspec="x[i] -> grid[i, j, k]"),),
    "a tree for each row": (
        PARTS,
        node(count, output_name="count", reduce="parts", axis="j", fan_in=FAN_IN, initial=0),
    ),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def map_(store: Store, nodes: tuple[Any, ...], xs: Any = range(7), **options: Any) -> MapResult:
    pipeline = Pipeline(nodes, store=store)
    given = {"x": xs, "z": [1, 2]} if "z" in pipeline.inputs else {"x": xs}
    names = [name for one in nodes for name in one.output_names]
    return pipeline.map(given, output_name=names, map_executor="sequential", **options)


def listed(result: MapResult) -> dict[str, Any]:
    found = {name: result[name].tolist() for name in result}
    return {name: value for name, value in found.items() if name != "tile"}


@pytest.mark.parametrize("nodes", PIPELINES.values(), ids=PIPELINES)
def test_a_loaded_result_is_the_result(nodes: tuple[Any, ...], store: Store) -> None:
    result = map_(store, nodes)
    with Store(store.location) as other:
        loaded = other.load(result.run_id)
        assert listed(loaded) == listed(result)
        for name in result:
            assert (loaded[name].axes, loaded[name].extents) == (result[name].axes, result[name].extents)
            assert loaded[name].space.ragged == result[name].space.ragged
            assert str(np.asarray(loaded[name])) == str(np.asarray(result[name]))
        assert list(map(str, loaded.rows())) == list(map(str, result.rows())) if len(result) == 1 else True
        assert loaded.stats.computed == result.stats.computed


def test_an_element_of_a_ragged_output_has_an_index(store: Store) -> None:
    run_id = map_(store, PIPELINES["of arrays"]).run_id
    assert store.load(run_id)["tile"][3, 2][0] == 32
    path = store.path(run_id, "tile", (3, 2))
    assert path is not None
    assert path.stat().st_size == 80_000
    with pytest.raises(GristmillError, match=r"no index \(2, 2\)"):
        store.path(run_id, "tile", (2, 2))


def test_failed_calls_leave_what_they_leave_in_the_result(store: Store) -> None:
    nodes = (node(odd_parts, mapspec="x[i] -> odd_parts[i, *j]"),)
    result = map_(store, nodes, on_error="continue")
    loaded = store.load(result.run_id)["odd_parts"]
    assert loaded.tolist() == result["odd_parts"].tolist()
    assert [mask.tolist() for mask in loaded.missing] == [
        mask.tolist() for mask in result["odd_parts"].missing
    ]


def test_what_a_collection_has_moved_still_loads(store: Store) -> None:
    first = map_(store, PIPELINES["reduced"], range(3, 9))
    kept = map_(store, PIPELINES["reduced"])
    wanted = listed(kept)
    del first, kept
    store.gc(keep_runs=1)
    (record,) = store.runs()
    assert listed(store.load(record.run_id)) == wanted


def test_a_record_without_the_space_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "encode_space", lambda _: b"\n")
    run_id = map_(store, PIPELINES["ragged"]).run_id
    with pytest.raises(
        GristmillError, match="does not say where its elements are; map the same inputs again"
    ):
        store.load(run_id)


LENGTHS = np.array([[2, 1], [0, 3], [3, 2]])
SPACES: dict[str, Callable[[], Space]] = {
    "none": Space,
    "dense": lambda: Space(("i", "j"), (2, 3)),
    "ragged": lambda: Space.below(Space(("i",), (3,)), ("j",), LENGTHS[:, :1], frozenset("j")),
    "two axes": lambda: Space.below(Space(("i",), (3,)), ("j", "k"), LENGTHS, frozenset("jk")),
    "nothing": lambda: Space.below(Space(("i",), (2,)), ("j",), np.zeros((2, 1), dtype=int), frozenset("j")),
}


@pytest.mark.parametrize("make", SPACES.values(), ids=SPACES)
def test_a_space_survives_its_bytes(make: Callable[[], Space]) -> None:
    space: Space | None = make()
    made: Space | None = decode_space(encode_space(make()))
    while space is not None:
        assert made is not None
        assert (made.axes, made.shape, made.ragged) == (space.axes, space.shape, space.ragged)
        assert (made.places is None) == (space.places is None)
        if space.places is not None:
            assert np.array_equal(made.places, space.places)  # type: ignore[arg-type]
        space, made = space.outer, made.outer
    assert made is None


@pytest.mark.parametrize("body", [b"", b"{}\n", b"[[[], [], [], 3]]\nx", b"[]\n"])
def test_damaged_bytes_are_no_space(body: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode_space(body)


# -- tree reductions


def square(x: int) -> int:
    return x * x


TREE = (
    node(square, mapspec="x[i] -> square[i]"),
    node(count, output_name="count", reduce="square", fan_in=FAN_IN),
)


def tree(store: Store, length: int) -> MapResult:
    return Pipeline(TREE, store=store).map({"x": range(length)}, map_executor="sequential")


def test_partial_results_are_a_part_of_the_record(store: Store) -> None:
    result = tree(store, 64)
    (record,) = store.runs()
    assert record.computed == result.stats.computed == 64 + 16 + 4 + 1
    titles = [(stage.title, stage.shape) for stage in record.stages]
    assert titles[:2] == [("square", (64,)), ("count", ())]
    assert [shape for _, shape in titles[2:]] == [(16,), (4,)]
    assert store.load(record.run_id)["count"] == result["count"]
    assert set(store.load(record.run_id)) == {"count"}


def test_one_element_more_after_a_collection_computes_one_path(store: Store) -> None:
    tree(store, 20)
    wanted = tree(store, 63).run_id
    store.gc(keep_runs=1)
    assert [record.run_id for record in store.runs()] == [wanted]
    more = tree(store, 64)
    assert more["count"] == sum(k * k for k in range(64))
    assert more.stats.computed == 1 + 3  # the element, and a result on each level above it
