"""Views: zarr groups of hard links that stock programs read, derived, and remade at will."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr

from gristmill import MapResult, Pipeline, node


def image(x: int) -> Any:
    return np.full((100, 100), float(x))


def pair(x: int) -> tuple[Any, Any]:
    return np.full(20_000, x, dtype="i4"), np.full((2, 10_000), x, dtype="f4")


IMAGE = node(image, mapspec="x[i] -> image[i]")


def run(*nodes: Any, **options: Any) -> MapResult:
    inputs = options.pop("inputs", {"x": range(3)})
    return Pipeline(nodes or [IMAGE]).map(inputs, map_executor="sequential", **options)


def test_a_view_is_an_array_per_output_with_named_dimensions() -> None:
    made = run(node(pair, output_name=("a", "b"), mapspec="x[i] -> a[i], b[i]"))
    assert sorted(made.views) == ["a", "b"]
    for name, shape, dtype in (("a", (3, 20_000), "i4"), ("b", (3, 2, 10_000), "f4")):
        array = zarr.open_array(made.views[name], mode="r")
        assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
        assert np.array_equal(np.asarray(array[:]), np.asarray(made[name]))
    with xarray.open_zarr(Path(made.views["a"]).parent, consolidated=False) as dataset:
        assert dataset["a"].dims[0] == "i"
        assert dataset["b"].dims[0] == "i"
        assert dataset["b"].dims[1:] != dataset["a"].dims[1:]


def test_a_view_over_two_axes() -> None:
    made = run(
        node(lambda x, y: image(10 * x + y), output_name="z", mapspec="x[i], y[j] -> z[i, j]"),
        inputs={"x": [1, 2], "y": [3, 4, 5]},
    )
    array = zarr.open_array(made.views["z"], mode="r")
    assert array.shape == (2, 3, 100, 100)
    assert np.asarray(array[:, :, 0, 0]).tolist() == [[13, 14, 15], [23, 24, 25]]


def test_a_view_costs_no_space(default_store: Path) -> None:
    made = run()
    chunks = {path.stat().st_ino for path in (default_store / "chunks").glob("*/*")}
    linked = {path.stat().st_ino for path in Path(made.views["image"]).glob("c*")}
    assert linked == chunks


def test_every_element_has_a_file_and_no_directory() -> None:
    made = run()
    names = sorted(path.name for path in Path(made.views["image"]).iterdir())
    assert names == ["c.0.0.0", "c.1.0.0", "c.2.0.0", "zarr.json"]


def test_a_view_that_was_deleted_is_made_again(default_store: Path) -> None:
    made = run()
    shutil.rmtree(default_store / "arrays")
    again = run()
    assert again.stats.computed == 0
    assert np.array_equal(
        np.asarray(zarr.open_array(again.views["image"], mode="r")[:]), np.asarray(made["image"])
    )


def test_the_same_map_has_the_same_view_and_another_map_another() -> None:
    first, again, other = run(), run(), run(inputs={"x": range(1, 4)})
    assert first.views == again.views
    assert first.views != other.views


def test_done_says_which_elements_are_there() -> None:
    def sometimes(x: int) -> Any:
        if x == 1:
            raise ValueError("one")
        return image(x)

    made = run(node(sometimes, mapspec="x[i] -> sometimes[i]"), on_error="continue")
    group = zarr.open_group(Path(made.views["sometimes"]).parent, mode="r")
    assert np.asarray(group["done"][:]).tolist() == [True, False, True]  # type: ignore[index]


def test_elements_of_another_shape_or_type_have_no_view() -> None:
    shapes = node(lambda x: np.zeros(20_000 + x), output_name="y", mapspec="x[i] -> y[i]")
    dtypes = node(
        lambda x: np.zeros(20_000, dtype="f4" if x else "f8"), output_name="z", mapspec="x[i] -> z[i]"
    )
    small = node(lambda x: np.zeros(20_000) if x else np.zeros(2), output_name="s", mapspec="x[i] -> s[i]")
    made = run(shapes, dtypes, small, IMAGE)
    assert list(made.views) == ["image"]
    assert [len(element) for element in made["s"]] == [2, 20_000, 20_000]


@pytest.mark.parametrize(
    "name", ["done", "UPPER", "upper", "ünïcode", "a" * 300, "a.b", "a/b", "zarr.json", ".."]
)
def test_outputs_of_any_name_have_views(name: str) -> None:
    try:
        one = node(image, output_name=name)
    except Exception:  # noqa: BLE001 - names that are refused when a node is made need no view
        return
    made = Pipeline([one]).map({"x": range(3)}, map_over="x", map_executor="sequential")
    assert np.array_equal(np.asarray(zarr.open_array(made.views[name], mode="r")[:]), np.asarray(made[name]))


@pytest.mark.parametrize("code", [errno.EMLINK, errno.EPERM, errno.EXDEV])
def test_where_links_fail_files_are_copied(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def refuse(source: Any, target: Any, **options: Any) -> None:
        if "arrays" in str(target):
            raise OSError(code, os.strerror(code))
        link(source, target, **options)

    monkeypatch.setattr("gristmill.storage.views.os.link", refuse)
    made = run()
    assert np.array_equal(
        np.asarray(zarr.open_array(made.views["image"], mode="r")[:]), np.asarray(made["image"])
    )


def test_a_view_that_cannot_be_made_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def refuse(source: Any, target: Any, **options: Any) -> None:
        if "arrays" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        link(source, target, **options)

    monkeypatch.setattr("gristmill.storage.views.os.link", refuse)
    with pytest.warns(RuntimeWarning, match="zarr view.*No space left"):
        made = run()
    assert np.asarray(made["image"])[2, 0, 0] == 2
    assert made.views == {}


def test_writing_through_a_view_does_not_reach_results(default_store: Path) -> None:
    """Chunk files are read-only; whoever forces his way is found out by the checksum."""
    made = run()
    path = Path(made.views["image"]) / "c.1.0.0"
    assert path.stat().st_mode & 0o222 == 0
    path.chmod(0o644)
    path.write_bytes(bytes(path.stat().st_size))
    assert np.asarray(made["image"])[:, 0, 0].tolist() == [0, 1, 2]
    again = run()
    assert np.asarray(zarr.open_array(again.views["image"], mode="r")[:, 0, 0]).tolist() == [0, 1, 2]


def test_equal_elements_share_one_file(default_store: Path) -> None:
    made = run(node(lambda x: image(7), output_name="y", mapspec="x[i] -> y[i]"))
    assert len(list((default_store / "chunks").glob("*/*"))) == 1
    assert np.asarray(zarr.open_array(made.views["y"], mode="r")[:, 0, 0]).tolist() == [7, 7, 7]
