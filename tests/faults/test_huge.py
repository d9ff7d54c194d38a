"""Results of more than two gigabytes: past what 32 bits count, and past what SQLite keeps in a row."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill import Pipeline, Store, node

SIZE = 2**31 + 11


def array(x: int) -> Any:
    made = np.zeros(SIZE, dtype="u1")
    made[-1] = x
    return made


def data(x: int) -> bytes:
    return bytes(SIZE) + bytes([x])


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["sequential", "parallel"])
@pytest.mark.parametrize("function", [array, data])
def test_a_result_of_more_than_two_gigabytes(function: Any, executor: str, tmp_path: Path) -> None:
    with Store(tmp_path / "store") as store:
        pipeline = Pipeline([node(function, output_name="y", mapspec="x[i] -> y[i]")], store=store)
        result = pipeline.map({"x": [7]}, map_executor=executor, max_workers=1)
        found = result["y"][0]
        assert type(found) is (np.ndarray if function is array else bytes)
        assert (len(found), found[-1]) == (SIZE + (function is data), 7)
        del found
        assert store.verify().damaged == []
        assert pipeline.map({"x": [7]}, map_executor=executor, max_workers=1).stats.computed == 0
