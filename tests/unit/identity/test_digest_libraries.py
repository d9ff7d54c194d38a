"""What makes two values of other libraries the same: schema and content, never chunks, blocks or offsets."""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import itertools
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from gristmill.errors import DigestError
from gristmill.identity.digest import digest

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")
xr = pytest.importorskip("xarray")


def all_different(values: list[Any]) -> bool:
    return len({digest(value) for value in values}) == len(values)


def test_no_library_is_imported_for_values_that_are_not_its_own() -> None:
    program = (
        "import sys; import gristmill.identity.digest as d, numpy as np;"
        "d.digest([1, np.arange(3), {'a': 2.0}]);"
        "print([m for m in ('pandas', 'polars', 'pyarrow', 'xarray', 'torch', 'jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


PANDAS_COLUMNS: dict[str, Any] = {
    "int": [1, 2, 3],
    "float": [1.0, 2.0, np.nan],
    "str": ["x", None, "z"],
    "category": pd.Categorical(["u", "v", "u"]),
    "time": pd.date_range("2020", periods=3, tz="Europe/Berlin"),
    "delta": pd.to_timedelta([1, 2, 3], unit="s"),
    "Int64": pd.array([1, None, 3], dtype="Int64"),
    "boolean": pd.array([True, None, False], dtype="boolean"),
    "Float64": pd.array([1.5, None, 2], dtype="Float64"),
    "period": pd.period_range("2020", periods=3, freq="M"),
    "interval": pd.interval_range(0, 3),
    "sparse": pd.arrays.SparseArray([0, 0, 1]),
    "string": pd.array(["a", None, "c"], dtype="string[python]"),
    "arrow": pd.array([1, None, 2], dtype=pd.ArrowDtype(pa.int8())),
    "object": [1, "x", None],
}


def frame() -> Any:
    return pd.DataFrame(PANDAS_COLUMNS)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f)), lambda f: f.copy()]
)
def test_a_copy_of_a_pandas_frame_is_the_same(copied: Any) -> None:
    assert digest(copied(frame())) == digest(frame())
    for name in PANDAS_COLUMNS:
        assert digest(copied(frame()[name])) == digest(frame()[name])
        assert digest(copied(frame()[name].array)) == digest(frame()[name].array)


@pytest.mark.parametrize("name", PANDAS_COLUMNS)
def test_the_content_of_each_kind_of_pandas_column_counts(name: str) -> None:
    changed = frame()
    changed[name] = frame()[name].iloc[[1, 2, 0]].array
    assert digest(changed) != digest(frame())
    assert digest(changed[name]) != digest(frame()[name])


def test_the_schema_of_a_pandas_frame_counts() -> None:
    base = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    labelled = base.copy()
    labelled.attrs["unit"] = "m"
    values = [
        base,
        base[["b", "a"]],
        base.rename(columns={"a": "c"}),
        base.astype({"a": "int32"}),
        base.set_index("a"),
        base.set_index("a", drop=False),
        base.set_axis([1, 2]),
        base.set_axis(["x", "y"]),
        base.rename_axis("i"),
        base.rename_axis(columns="i"),
        labelled,
        base["a"],
        base["a"].rename("b"),
        base.iloc[:0],
        base.to_numpy(),
    ]
    assert all_different(values)


def test_the_blocks_of_a_pandas_frame_do_not_count() -> None:
    data = np.random.default_rng(0).random((70_000, 3))
    one = pd.DataFrame(data, columns=["a", "b", "c"])
    piecewise = pd.DataFrame({"a": data[:, 0].copy()})
    piecewise["b"] = data[:, 1].copy()
    piecewise["c"] = data[:, 2].copy()
    fortran = pd.DataFrame(np.asfortranarray(data), columns=["a", "b", "c"], copy=False)
    assert digest(one) == digest(piecewise) == digest(fortran)
    assert digest(one.iloc[::2]) == digest(one.iloc[::2].copy())


def test_pandas_indexes_dtypes_and_scalars_have_digests_of_their_own() -> None:
    values = [
        pd.Index([1, 2]),
        pd.Index([1, 2], name="n"),
        pd.Index([1.0, 2.0]),
        pd.Index(["a"]),
        pd.RangeIndex(1, 3),
        pd.MultiIndex.from_product([[1, 2], ["a"]]),
        pd.date_range("2020", periods=3),
        pd.DatetimeIndex(pd.date_range("2020", periods=3), freq=None),
        pd.CategoricalIndex(["a"]),
        pd.Timestamp("2020"),
        pd.Timestamp("2020", tz="UTC"),
        pd.Timestamp("2020").as_unit("ns"),
        pd.NaT,
        pd.NA,
        pd.Timedelta(1),
        pd.Period("2020"),
        pd.Period("2020", "D"),
        pd.Interval(1, 2),
        pd.Interval(1, 2, "both"),
        pd.offsets.Day(),
        pd.offsets.Day(2),
        pd.CategoricalDtype(["a"]),
        pd.CategoricalDtype(["a"], ordered=True),
        pd.CategoricalDtype(["a", "b"]),
        pd.DatetimeTZDtype("ns", "UTC"),
        pd.Int8Dtype(),
        pd.Int16Dtype(),
        pd.StringDtype("python"),
        pd.PeriodDtype("D"),
        pd.ArrowDtype(pa.int8()),
        dt.datetime(2020, 1, 1),  # noqa: DTZ001 - without a zone is a value too
        pd.Categorical(["a", "b"], ["a", "b"]),
        pd.Categorical(["a", "b"], ["b", "a"]),
        pd.Categorical(["a", "b"], ["a", "b"], ordered=True),
    ]
    assert all_different(values)
    for value in values:
        assert digest(pickle.loads(pickle.dumps(value))) == digest(value)


def test_what_a_subclass_of_a_frame_carries_along_counts() -> None:
    class Survey(pd.DataFrame):  # type: ignore[misc, name-defined, unused-ignore]
        _metadata = ["place"]  # noqa: RUF012 - as pandas documents it

        @property
        def _constructor(self) -> type:
            return Survey

    def make(place: str) -> Any:
        survey = Survey({"a": [1]})
        survey.place = place
        return survey

    assert digest(make("x")) == digest(make("x"))
    assert all_different([make("x"), make("y"), pd.DataFrame({"a": [1]})])


def test_an_error_names_the_column() -> None:
    with pytest.raises(DigestError, match=r"^value\['a'\]\[1\] has no digest"):
        digest(pd.DataFrame({"a": [1, iter(())]}, dtype=object))
    with pytest.raises(DigestError, match=r"^value\['o'\]\[1\] has no digest"):
        digest(pl.DataFrame({"o": pl.Series([1, iter(())], dtype=pl.Object)}))


DAY = dt.date(2020, 1, 1)
NOON = dt.datetime(2020, 1, 1, 12)  # noqa: DTZ001 - without a zone is a value too

ARROW: list[tuple[list[Any], Any]] = [
    ([1, None, 3], pa.int64()),
    ([1, None, 3], pa.int8()),
    ([1.5, None], pa.float32()),
    ([1.5, None], pa.float16()),
    (["a", None, "", "bc"], pa.string()),
    (["a", None, "bc"], pa.large_string()),
    (["a", None, "bc"], pa.string_view()),
    ([b"a", None], pa.binary()),
    ([b"abc", None], pa.binary(3)),
    ([True, None, False], pa.bool_()),
    ([[1, 2], None, [], [3]], pa.list_(pa.int64())),
    ([[1], [2, None]], pa.large_list(pa.int8())),
    ([[1, 2], None, [3, 4]], pa.list_(pa.int8(), 2)),
    ([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}], pa.struct([("a", pa.int8()), ("b", pa.string())])),
    ([[("k", 1)], None], pa.map_(pa.string(), pa.int8())),
    (["a", "b", "a", None], pa.dictionary(pa.int8(), pa.string())),
    ([NOON, None], pa.timestamp("us", "UTC")),
    ([NOON, None], pa.timestamp("us")),
    ([DAY, None], pa.date32()),
    ([dt.time(1), None], pa.time64("us")),
    ([dt.timedelta(1), None], pa.duration("us")),
    ([decimal.Decimal("1.2"), None], pa.decimal128(5, 1)),
    ([None, None], pa.null()),
]


@pytest.mark.parametrize(("values", "kind"), ARROW, ids=[str(kind) for _, kind in ARROW])
def test_how_arrow_data_is_laid_out_does_not_count(values: list[Any], kind: Any) -> None:
    array = pa.array(values, kind)
    doubled = pa.concat_arrays([array, array])
    assert digest(doubled[len(array) :]) == digest(array) == digest(doubled[: len(array)])
    assert digest(pa.chunked_array([array[:1], array[1:]])) == digest(pa.chunked_array([array]))
    assert digest(pickle.loads(pickle.dumps(array))) == digest(array)
    assert all_different(
        [array, array[:-1], pa.chunked_array([array]), array.type, array[0], pa.array([], kind)]
    )


def test_arrow_types_differ() -> None:
    assert all_different([pa.array(values, kind) for values, kind in ARROW])
    assert all_different([pa.array([], kind) for _, kind in ARROW])


def test_what_lies_under_an_arrow_null_does_not_count() -> None:
    array = pa.array([1, None, 3])
    validity, _ = array.buffers()
    other = pa.Array.from_buffers(pa.int64(), 3, [validity, pa.py_buffer(np.array([1, 77, 3]).tobytes())])
    assert digest(array) == digest(other)


def test_the_schema_of_an_arrow_table_counts() -> None:
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    assert digest(pa.concat_tables([table[:1], table[1:]])) == digest(table)
    others = [
        table.rename_columns(["a", "c"]),
        table.select(["b", "a"]),
        table.replace_schema_metadata({"k": "v"}),
        table.set_column(0, "a", pa.array([1, 2], pa.int8())),
        table.cast(pa.schema([pa.field("a", pa.int64(), nullable=False), pa.field("b", pa.string())])),
        table.to_batches()[0],
        table.schema,
        table.schema.field("a"),
    ]
    assert all_different([table, *others])


POLARS: list[tuple[list[Any], Any]] = [
    ([1, None, 3], pl.Int64),
    ([1, 2, 3], pl.Int8),
    ([1, 2, 3], pl.UInt8),
    ([1.5, None], pl.Float64),
    (["a", None, "bc"], pl.String),
    ([b"a", None], pl.Binary),
    ([True, None, False], pl.Boolean),
    ([[1, 2], None, [], [None, 3]], pl.List(pl.Int64)),
    ([[["a"], []], [["b", "c"]]], pl.List(pl.List(pl.String))),
    ([[1, 2], [3, 4]], pl.Array(pl.Int8, 2)),
    ([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}], pl.Struct({"a": pl.Int8, "b": pl.String})),
    ([DAY, None], pl.Date),
    ([NOON, None], pl.Datetime("us")),
    ([NOON, None], pl.Datetime("ms")),
    ([NOON, None], pl.Datetime("us", "UTC")),
    ([dt.timedelta(1), None], pl.Duration("us")),
    ([dt.time(1), None], pl.Time),
    (["a", "b", "a"], pl.Categorical),
    (["a", "b"], pl.Enum(["a", "b"])),
    (["a", "b"], pl.Enum(["a", "b", "c"])),
    ([decimal.Decimal("1.2"), None], pl.Decimal(10, 1)),
    ([None, None], pl.Null),
    ([1, 2], pl.Int128),
]


@pytest.mark.parametrize(("values", "kind"), POLARS, ids=[str(kind) for _, kind in POLARS])
def test_the_chunks_of_a_polars_series_do_not_count(values: list[Any], kind: Any) -> None:
    series = pl.Series("s", values, dtype=kind)
    assert digest(pl.concat([series[:1], series[1:]], rechunk=False)) == digest(series)
    assert digest(pl.concat([series, series])[len(series) :]) == digest(series)
    assert digest(pickle.loads(pickle.dumps(series))) == digest(series)
    assert all_different([series, series[:-1], series.rename("t"), series.to_frame(), series.dtype])


def test_polars_types_and_contents_differ() -> None:
    assert all_different([pl.Series("s", values, dtype=kind) for values, kind in POLARS])
    pairs = [([1, None, 3], [1, 3, None]), ([[1], [2, 3]], [[1, 2], [3]]), (["a", "bc"], ["ab", "c"])]
    for one, other in pairs:
        assert digest(pl.Series(one)) != digest(pl.Series(other))
    base = pl.DataFrame({"a": [1, 2], "b": ["x", None]})
    assert all_different([base, base.select("b", "a"), base.rename({"a": "c"}), base[:1], base.select("a")])


def test_a_polars_query_is_refused() -> None:
    with pytest.raises(DigestError, match="pass what it collects"):
        digest(pl.DataFrame({"a": [1]}).lazy())


def test_names_dimensions_coordinates_and_attributes_make_an_xarray_value() -> None:
    base = xr.DataArray(
        np.arange(6.0).reshape(2, 3), dims=("x", "y"), coords={"x": [1, 2]}, name="q", attrs={"unit": "m"}
    )
    values = [
        base,
        base.rename("r"),
        base.transpose(),
        base.rename(x="z"),
        base.assign_coords(x=[1, 3]),
        base.drop_vars("x"),
        base.assign_attrs(unit="k"),
        base + 1,
        base.variable,
        base.to_dataset(),
        base.to_dataset().assign_attrs(a=1),
        base.to_dataset().rename(q="r"),
        base.assign_coords(z=3).to_dataset(),
        base.assign_coords(z=3).to_dataset().reset_coords(),
        base.to_numpy(),
    ]
    assert all_different(values)
    for value in values:
        assert digest(pickle.loads(pickle.dumps(value))) == digest(value)
        assert digest(copy.deepcopy(value)) == digest(value)


def test_values_of_different_libraries_differ() -> None:
    column = [1, 2, 3]
    values = [
        column,
        np.array(column),
        pd.Series(column),
        pl.Series(column),
        pa.array(column),
        pd.Index(column),
        xr.DataArray(column),
        pd.DataFrame({"a": column}),
        pl.DataFrame({"a": column}),
        pa.table({"a": column}),
        xr.Dataset({"a": ("x", column)}),
    ]
    assert all_different(values)
    assert len(list(itertools.combinations(values, 2))) == 55
