"""`fixed_indices`: a part of the space is computed, the rest is missing."""

from typing import Any

import numpy as np
import pytest

from gristmill import Pipeline, node
from gristmill.errors import GristmillError, InputError

CELLS = node(lambda a, b: 10 * a + b, output_name="cell", mapspec="a[i], b[j] -> cell[i, j]")
ROWS = node(lambda cell: int(cell.sum()), output_name="row", mapspec="cell[i, :] -> row[i]")
TOTAL = node(lambda row: int(row.sum()), output_name="total")
INPUTS = {"a": [1, 2, 3], "b": [4, 5]}


@pytest.mark.parametrize(
    ("fixed", "wanted"),
    [
        ({"i": 1}, [[False, False], [True, True], [False, False]]),
        ({"i": -1, "j": 0}, [[False, False], [False, False], [True, False]]),
        ({"i": slice(0, 2)}, [[True, True], [True, True], [False, False]]),
        ({"j": slice(None, None, 2)}, [[True, False]] * 3),
        ({}, [[True, True]] * 3),
    ],
)
def test_only_what_is_wanted_is_computed(fixed: Any, wanted: list[list[bool]], executor: str) -> None:
    result = Pipeline([CELLS]).map(INPUTS, fixed_indices=fixed, map_executor=executor)
    assert result["cell"].missing.tolist() == [[not one for one in row] for row in wanted]
    assert (result.stats.computed, result.stats.skipped) == (np.sum(wanted), 0)
    expected = [
        [cell if one else None for cell, one in zip(row, keep, strict=True)]
        for row, keep in zip([[14, 15], [24, 25], [34, 35]], wanted, strict=True)
    ]
    assert result["cell"].tolist() == expected


def test_what_reduces_another_axis_is_computed_there(executor: str) -> None:
    names = ["cell", "row", "total"]
    pipeline = Pipeline([CELLS, ROWS, TOTAL])
    result = pipeline.map(INPUTS, fixed_indices={"i": 1}, map_executor=executor, output_name=names)
    assert result["row"].tolist() == [None, 49, None]
    with pytest.raises(GristmillError, match="no value"):
        result["total"]
    whole = pipeline.map(INPUTS, map_executor=executor, output_name=names)
    assert (whole["total"], whole.stats.computed) == (29 + 49 + 69, 9 - 3 + 1)


@pytest.mark.parametrize(
    ("errors", "expected"), [("skip", [None, None]), ("drop", [24, 25]), ("pass", [None, None])]
)
def test_what_was_not_asked_for_counts_as_missing(errors: Any, expected: list[Any], executor: str) -> None:
    total = node(
        lambda cell: int(cell.sum()), output_name="column", mapspec="cell[:, j] -> column[j]", errors=errors
    )
    result = Pipeline([CELLS, total]).map(INPUTS, fixed_indices={"i": 1}, map_executor=executor)
    assert result["column"].tolist() == expected


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"k": 1}, "'k', which is no axis"),
        ({"i": 3}, "'i' has length 3, so there is no index 3"),
        ({"i": "1"}, "use an index or a slice"),
        ({"i": True}, "use an index or a slice"),
    ],
)
def test_mistakes_are_told(fixed: Any, message: str, executor: str) -> None:
    with pytest.raises(InputError, match=message):
        Pipeline([CELLS]).map(INPUTS, fixed_indices=fixed, map_executor=executor)
