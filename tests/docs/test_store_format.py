"""The reader in the documentation of the store's format reads what a store holds, and does not need gristmill."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill import Pipeline, Store, node

PAGE = Path(__file__).parents[2] / "docs" / "store-format.md"


def reader() -> str:
    """The program, as it stands on the page."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return next(block for block in blocks if "def rows" in block)


@pytest.fixture
def calls() -> Any:
    names: dict[str, Any] = {}
    exec(reader(), names)
    return names["calls"]


def test_it_is_short_and_imports_no_gristmill() -> None:
    assert len(list(filter(None, reader().splitlines()))) <= 40
    assert "gristmill" not in reader()


def everything(k: int) -> tuple[Any, ...]:
    return (
        *(k, k / 2, k % 2 == 0, k * 1j, None, f"größe {k}", bytes([k])),
        *(np.float32(k), np.full((2, 3), k), np.full((100, 100), k, dtype="i2")),
    )


def test_it_reads_every_kind_of_column(calls: Any, tmp_path: Path) -> None:
    outputs = tuple(f"o{k}" for k in range(10))
    mapspec = "k[i] -> " + ", ".join(f"{name}[i]" for name in outputs)
    with Store(tmp_path / "store") as store:
        made = node(everything, output_name=outputs, mapspec=mapspec, version="1")
        Pipeline([made], store=store).map({"k": range(5)}, map_executor="sequential")
    rows = sorted(calls(tmp_path / "store").values(), key=lambda row: int(row[0]))
    for k, row in enumerate(rows):
        for found, value in zip(row, everything(k), strict=True):
            assert type(found) is type(value)
            assert np.array_equal(found, value)
    assert len(rows) == 5


def test_calls_that_were_taken_back_are_not_listed(calls: Any, tmp_path: Path) -> None:
    image = node(lambda x: np.full(20_000, x), output_name="y", mapspec="x[i] -> y[i]", version="1")
    with Store(tmp_path / "store") as store:
        pipeline = Pipeline([image], store=store)
        pipeline.map({"x": range(3)}, map_executor="sequential")
        lost = sorted(tmp_path.glob("store/chunks/*/*"))[1]
        lost.unlink()
        assert sorted(int(y[0]) for y in pipeline.map({"x": range(3)}, map_executor="sequential")["y"]) == [
            0,
            1,
            2,
        ]
    assert sorted(int(y[0]) for (y,) in calls(tmp_path / "store").values()) == [0, 1, 2]


def test_damaged_rows_are_not_listed(calls: Any, tmp_path: Path) -> None:
    double = node(lambda x: 2 * x, output_name="y", mapspec="x[i] -> y[i]", version="1")
    with Store(tmp_path / "store") as store:
        Pipeline([double], store=store).map({"x": range(3)}, map_executor="sequential")
    assert sorted(y for (y,) in calls(tmp_path / "store").values()) == [0, 2, 4]
    with closing(
        sqlite3.connect(tmp_path / "store" / "ledger" / "cache.db", isolation_level=None)
    ) as connection:
        connection.execute(
            "UPDATE Cache SET value = CAST(value || x'00' AS BLOB) WHERE substr(key, 1, 1) = x'69'"
        )
    assert calls(tmp_path / "store") == {}


def test_it_runs_without_gristmill(tmp_path: Path) -> None:
    double = node(lambda x: 2 * x, output_name="y", mapspec="x[i] -> y[i]", version="1")
    with Store(tmp_path / "store") as store:
        Pipeline([double], store=store).map({"x": [1]}, map_executor="sequential")
    program = f"import sys\nsys.modules['gristmill'] = None\n{reader()}\nprint(calls(Path(sys.argv[1])))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"\{b.*: \(2,\)\}\n", done.stdout)
