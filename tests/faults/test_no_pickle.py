"""With allow_pickle=False nothing is pickled into the store, and nothing that is there is unpickled."""

import datetime as dt
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.values import same

from gristmill import File, MapResult, Pipeline, Store, StoreError, node

EXACT: dict[str, Any] = {
    "int": 7,
    "large int": 10**200_000,
    "float": 0.1,
    "none": None,
    "bool": True,
    "complex": 1 + 2j,
    "text": "grist",
    "large text": "größe" * 50_000,
    "large bytes": bytes(200_000),
    "numpy scalar": np.float32(0.5),
    "numpy text": np.str_("a\0"),
    "large numpy text": np.str_("ab" * 50_000 + "\0"),
    "array": np.arange(5),
    "0-d array": np.array(3.5),
    "large array": np.arange(20_000.0).reshape(100, 200),
    "large big-endian array": np.arange(20_000).astype(">i4"),
    "large array of times": np.arange(20_000).astype("M8[s]"),
    "large array of text": np.array(["a", "bc"] * 20_000),
}
PICKLED: dict[str, Any] = {
    "list": [1, 2],
    "dict": {"a": 1},
    "date": dt.date(2020, 1, 1),
    "large list": [str(k) for k in range(30_000)],
    "array of objects": np.array([None, 1], dtype=object),
    "array of records": np.zeros(3, dtype="i4,f8"),
    "masked array": np.ma.MaskedArray([1, 2], [True, False]),
    "long double": np.longdouble(1),
}


def use(location: Path, values: list[Any], executor: str = "sequential", **options: Any) -> MapResult:
    """Run a map that returns `values`, one for each index."""
    give = node(lambda k: values[k], output_name="y", mapspec="k[i] -> y[i]", version=str(len(values)))
    with Store(location, **{"allow_pickle": False, **options}) as store:
        result = Pipeline([give], store=store).map(
            {"k": range(len(values))}, map_executor=executor, max_workers=2, on_error="continue"
        )
        result["y"].tolist()
        return result


@pytest.fixture
def no_unpickling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle, "loads", lambda *_, **__: pytest.fail("something was unpickled"))


def stored_pickles(location: Path) -> list[Path]:
    """Files of the store in which a pickle of one of the marked values could be."""
    files = [
        path
        for path in location.rglob("*")
        if path.is_file() and "tmp" not in path.relative_to(location).parts
    ]
    return [path for path in files if b"marked value" in path.read_bytes()]


@pytest.mark.usefixtures("no_unpickling")
def test_what_needs_no_pickle_is_stored_and_found_without_one(tmp_path: Path) -> None:
    values = list(EXACT.values())
    for computed in (len(values), 0):
        result = use(tmp_path / "store", values)
        assert (result.errors, result.stats.computed) == ([], computed)
        for name, found, value in zip(EXACT, result["y"].tolist(), values, strict=True):
            assert same(found, value), name
            assert type(found) is type(value), name


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("value", PICKLED.values(), ids=PICKLED)
def test_a_result_that_needs_pickle_fails_alone(value: Any, executor: str, tmp_path: Path) -> None:
    values = [1, value, np.arange(20_000.0)]
    result = use(tmp_path / "store", values, executor)
    assert [error.index for error in result.errors] == [(1,)]
    assert "allow_pickle=False" in str(result.errors[0].error)
    assert isinstance(result.errors[0].error, StoreError)
    found = result["y"].tolist()
    assert (found[0], found[1], found[2][-1]) == (1, None, 19_999.0)


def test_large_text_goes_from_node_to_node(tmp_path: Path) -> None:
    text = node(lambda x: "größe" * 50_000 + x, output_name="text", mapspec="x[i] -> text[i]")
    size = node(lambda text: len(text) + 0, output_name="size", mapspec="text[i] -> size[i]")
    for executor in ("sequential", "parallel"):
        for computed in (4, 0):
            with Store(tmp_path / executor, allow_pickle=False) as store:
                result = Pipeline([text, size], store=store).map({"x": ["a", "bc"]}, map_executor=executor)
                assert (result["size"].tolist(), result.stats.computed) == ([250_001, 250_002], computed)


def test_nothing_pickled_is_written(tmp_path: Path) -> None:
    values = [["marked value", k] for k in range(3)]
    assert len(use(tmp_path / "none", values).errors) == 3
    assert stored_pickles(tmp_path / "none") == []
    assert use(tmp_path / "some", values, allow_pickle=True).errors == []
    assert stored_pickles(tmp_path / "some") != []


@pytest.mark.parametrize("length", [3, 30_000])
def test_a_pickle_that_was_stored_before_is_refused_and_stays(length: int, tmp_path: Path) -> None:
    values = [["marked value"] + [str(k) for k in range(length)]]
    made = use(tmp_path / "store", values, allow_pickle=True)
    assert made.stats.computed == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pickle, "loads", lambda *_, **__: pytest.fail("it was unpickled"))
        with pytest.raises(StoreError, match="allow_pickle=False"):
            use(tmp_path / "store", values)
    again = use(tmp_path / "store", values, allow_pickle=True)
    assert (again.stats.computed, again["y"].tolist()) == (0, values)


def test_a_function_is_not_handed_a_pickle_that_was_stored_before(tmp_path: Path) -> None:
    made = node(lambda x: [x], output_name="y", mapspec="x[i] -> y[i]")
    below = node(lambda y: y[0], output_name="z", mapspec="y[i] -> z[i]")
    with Store(tmp_path / "store") as store:
        Pipeline([made], store=store).map({"x": [1, 2]}, map_executor="sequential")
    for executor in ("sequential", "parallel"):
        with (
            Store(tmp_path / "store", allow_pickle=False) as store,
            pytest.raises(StoreError, match="allow_pickle=False"),
        ):
            Pipeline([made, below], store=store).map({"x": [1, 2]}, map_executor=executor)


@pytest.mark.usefixtures("no_unpickling")
def test_no_file_is_put_anywhere_that_a_stored_text_names(tmp_path: Path) -> None:
    target = tmp_path / "page"

    def page(x: int) -> File:
        target.write_text(str(x))
        return File(target)

    made = node(page, mapspec="x[i] -> page[i]", version="1")
    with pytest.MonkeyPatch.context() as patch, Store(tmp_path / "store") as store:
        patch.undo()
        Pipeline([made], store=store).map({"x": [1]}, map_executor="sequential")
    target.unlink()
    with Store(tmp_path / "store", allow_pickle=False) as store:
        result = Pipeline([made], store=store).map({"x": [1]}, map_executor="sequential")
        with pytest.raises(StoreError, match="allow_pickle=False"):
            result["page"].tolist()
    assert not target.exists()


def test_a_file_as_a_result_needs_pickle(tmp_path: Path) -> None:
    (tmp_path / "page").write_text("page")
    result = use(tmp_path / "store", [File(tmp_path / "page"), 2])
    assert [str(error.error).count("allow_pickle=False") for error in result.errors] == [1]
    assert result["y"].tolist() == [None, 2]
