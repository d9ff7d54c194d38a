"""Reductions that read their elements themselves: `zarr.Array` and `MappedOutput` parameters."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from tests.support.calls import CallLog, record

from gristmill import Callback, MappedOutput, Pipeline, Store, node
from gristmill.errors import GristmillError
from gristmill.events import FaultEvent

SIZE = 20_000


@pytest.fixture
def log(tmp_path: Path) -> CallLog:
    return CallLog(tmp_path / "calls.log")


def image(x: int) -> Any:
    return np.full(SIZE, float(x))


def word(x: int) -> str:
    return "ab" * x


def grid(x: int, y: int) -> int:
    return 10 * x + y


IMAGES = node(image, mapspec="x[i] -> image[i]")
WORDS = node(word, mapspec="x[i] -> word[i]")
GRID = node(grid, mapspec="x[i], y[j] -> grid[i, j]")


def chunks(store: Store) -> dict[float, Path]:
    """The chunk file of each image, by the value that fills it."""
    found = {}
    for path in (store.location / "chunks").rglob("*"):
        if path.is_file():
            found[float(np.frombuffer(path.read_bytes()[:8])[0])] = path
    return found


def flip(path: Path) -> None:
    """Change one bit of a file."""
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


def test_each_form_is_what_was_asked_for(executor: str) -> None:
    def as_zarr(image: zarr.Array[Any]) -> tuple[bool, tuple[int, ...], str, list[str | None], float]:
        given: Any = image
        kind = isinstance(given, zarr.Array) and given.read_only
        names = list(given.metadata.dimension_names or ())
        return kind, image.shape, str(image.dtype), names, float(np.asarray(image[1, :5]).sum())

    def as_output(image: MappedOutput, word: MappedOutput) -> tuple[Any, ...]:
        kinds = type(image).__name__, type(word).__name__
        return *kinds, image.axes, image.shape, word.tolist(), [type(one).__name__ for one in word]

    result = Pipeline([IMAGES, WORDS, as_zarr, as_output]).map({"x": [1, 2]}, map_executor=executor)
    assert result["as_zarr"] == (True, (2, SIZE), "float64", ["i", "dim_0"], 10.0)
    expected = ("MappedOutput", "MappedOutput", ("i",), (2, SIZE), ["ab", "abab"], ["str", "str"])
    assert result["as_output"] == expected


def test_axes_that_are_not_reduced_are_not_in_it(executor: str) -> None:
    def row(grid: zarr.Array[Any]) -> tuple[tuple[int, ...], list[int], list[str | None]]:
        metadata: Any = grid.metadata
        return grid.shape, np.asarray(grid[:]).tolist(), list(metadata.dimension_names or ())

    def column(grid: MappedOutput) -> tuple[tuple[str, ...], list[int]]:
        return grid.axes, grid.tolist()

    rows = node(row, mapspec="grid[i, :] -> row[i]")
    columns = node(column, mapspec="grid[:, j] -> column[j]")
    given = {"x": [1, 2], "y": [3, 4, 5]}
    result = Pipeline([GRID, rows, columns]).map(given, map_executor=executor)
    assert result["row"].tolist() == [((3,), [13, 14, 15], ["j"]), ((3,), [23, 24, 25], ["j"])]
    assert result["column"].tolist() == [(("i",), [13, 23]), (("i",), [14, 24]), (("i",), [15, 25])]


def test_only_what_the_function_reads_is_read(tmp_path: Path, executor: str) -> None:
    def first(image: MappedOutput) -> float:
        return float(image[0][0])

    with Store(tmp_path / "store") as store:
        Pipeline([IMAGES], store=store).map({"x": [1, 2, 3]})
        for value, path in chunks(store).items():
            if value != 1.0:
                flip(path)
    with Store(tmp_path / "store") as store:
        result = Pipeline([IMAGES, first], store=store).map({"x": [1, 2, 3]}, map_executor=executor)
        assert (result["first"], result.stats.computed) == (1.0, 1)


def test_the_form_counts_and_the_result_is_found_again(executor: str) -> None:
    def plain(values: Any) -> int:
        return len(values)

    def listed(values: list[Any]) -> int:
        return len(values)

    def zarred(values: zarr.Array[Any]) -> int:
        return values.shape[0]

    def lazily(values: MappedOutput) -> int:
        return len(values)

    readers = [
        node(function, version="1", renames={"values": "grid"})
        for function in (plain, listed, zarred, lazily)
    ]
    given = {"x": [1, 2], "y": [3]}
    pipeline = Pipeline([GRID, *readers])
    assert pipeline.map(given, map_executor=executor).stats.computed == 2 + 4
    again = pipeline.map(given, map_executor=executor)
    assert (again.stats.computed, [again[name] for name in again]) == (0, [2] * 4)


class Faults(Callback):
    """Collects what was announced as lost."""

    def __init__(self) -> None:
        self.indices: list[tuple[int, ...]] = []

    def on_store_fault(self, event: FaultEvent) -> None:
        self.indices.append(event.index)


@pytest.mark.parametrize("form", ["zarr", "output"])
def test_what_a_function_makes_of_damage_is_not_kept(
    form: str, tmp_path: Path, log: CallLog, executor: str
) -> None:
    path = log.path
    kind: Any = zarr.Array if form == "zarr" else MappedOutput

    def total(image: Any) -> float:
        record(path, "total")
        try:
            return float(sum(np.asarray(image[k]).sum() for k in range(image.shape[0])))
        except Exception:  # noqa: BLE001 - as careless code does
            return -1.0

    total.__annotations__["image"] = kind
    with Store(tmp_path / "store") as store:
        Pipeline([IMAGES], store=store).map({"x": [1, 2, 3]})
        flip(chunks(store)[2.0])
    faults = Faults()
    with Store(tmp_path / "store") as store:
        pipeline = Pipeline([IMAGES, total], store=store, callbacks=[faults])
        assert pipeline.map({"x": [1, 2, 3]}, map_executor=executor)["total"] == 6.0 * SIZE
        assert faults.indices == [(1,)]
        assert len(log.take()) == 2  # the call that met the damage, and the one that counts
        again = pipeline.map({"x": [1, 2, 3]}, map_executor=executor)
        assert (again["total"], again.stats.computed) == (6.0 * SIZE, 0)


def test_failed_elements_are_left_out_on_request(executor: str) -> None:
    def picky(x: int) -> float:
        return 1.0 / x

    def rest(picky: MappedOutput) -> list[float]:
        return list(picky)

    nodes = [node(picky, mapspec="x[i] -> picky[i]"), node(rest, errors="drop")]
    result = Pipeline(nodes).map({"x": [1, 0, 2]}, on_error="continue", map_executor=executor)
    assert result["rest"] == [1.0, 0.5]


def test_elements_that_no_zarr_array_holds_fail_the_call(executor: str) -> None:
    def joined(word: zarr.Array[Any]) -> str:
        return str(word[0])

    with pytest.raises(GristmillError, match="no zarr array"):
        Pipeline([WORDS, joined]).map({"x": [1, 2]}, map_executor=executor)


def test_it_is_not_read_to_see_whether_it_was_changed(executor: str) -> None:
    def first(image: MappedOutput, grid: zarr.Array[Any]) -> float:
        return float(image[0][0]) + float(np.asarray(grid[0, 0]))

    pipeline = Pipeline([IMAGES, GRID, first])
    result = pipeline.map({"x": [1, 2], "y": [3]}, map_executor=executor, check_mutation=True)
    assert result["first"] == 14.0


def test_what_failed_can_be_called_again_with_what_it_was_given(executor: str) -> None:
    def broken(image: zarr.Array[Any], word: MappedOutput) -> float:
        raise ValueError(f"{image.shape} {len(word)}")

    given = {"x": [1, 2]}
    result = Pipeline([IMAGES, WORDS, broken]).map(given, on_error="continue", map_executor=executor)
    assert {name: type(value).__name__ for name, value in result.errors[0].inputs.items()} == {
        "image": "Array",
        "word": "MappedOutput",
    }
    with pytest.raises(ValueError, match=rf"\(2, {SIZE}\) 2"):
        result.errors[0].reproduce()


def test_a_passed_output_is_read_where_it_is(
    tmp_path: Path, executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(pixels: Any) -> Any:
        return pixels / 2

    def first(image: MappedOutput) -> float:
        return float(image[0][0])

    with Store(tmp_path / "one") as one, Store(tmp_path / "two") as two:
        made = Pipeline([IMAGES], store=one).map({"x": [1, 2, 3]})["image"]
        monkeypatch.setattr(MappedOutput, "tolist", lambda _: pytest.fail("all of it was read"))
        monkeypatch.setattr(MappedOutput, "__array__", lambda _: pytest.fail("all of it was read"))
        halves = node(half, renames={"pixels": "image"}, mapspec="image[i] -> half[i]")
        result = Pipeline([halves, first], store=two).map({"image": made}, map_executor=executor)
        assert result["first"] == 1.0
        assert [float(one[0]) for one in result["half"]] == [0.5, 1.0, 1.5]


@pytest.mark.parametrize("over", [True, False])
def test_damage_in_a_passed_output_is_mended_where_it_was_made(
    over: bool,  # noqa: FBT001 - a test's parameter
    tmp_path: Path,
    log: CallLog,
    executor: str,
) -> None:
    path = log.path

    def scan(x: int) -> Any:
        record(path, "scan", x)
        return np.full(SIZE, float(x))

    def peak(scan: Any) -> float:
        return float(scan.max())

    with Store(tmp_path / "one") as one, Store(tmp_path / "two") as two:
        made = Pipeline([node(scan, mapspec="x[i] -> scan[i]")], store=one).map({"x": [1, 2, 3]})["scan"]
        log.take()
        chunks(one)[2.0].unlink()
        faults = Faults()
        taker = node(peak, mapspec="scan[i] -> peak[i]" if over else None)
        result = Pipeline([taker], store=two, callbacks=[faults]).map({"scan": made}, map_executor=executor)
        assert (result["peak"].tolist() if over else result["peak"]) == ([1.0, 2.0, 3.0] if over else 3.0)
        assert (log.take(), faults.indices) == (["scan 2"], [(1,)])


def test_a_broadcast_reduction_is_gathered_once_for_many_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    from gristmill.engine import slices

    gathered = []
    assembled = slices.assembled

    def counted(*given: Any) -> Any:
        gathered.append(1)
        return assembled(*given)

    monkeypatch.setattr(slices, "assembled", counted)

    def share(x: int, grid: Any) -> float:
        return x / float(grid.sum())

    shares = node(share, mapspec="x[i] -> share[i]")
    result = Pipeline([GRID, shares]).map({"x": list(range(1, 300)), "y": [1]}, map_executor="sequential")
    assert result["share"][0] == 1 / sum(10 * x + 1 for x in range(1, 300))
    assert len(gathered) < 20
