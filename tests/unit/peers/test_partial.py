"""What users of other map libraries expect of maps that are not complete: masked arrays, errors to look at."""

from typing import Any

import numpy as np
import pytest

from gristmill import GristmillError, MapResult, Pipeline, node


def ratio(x: int, y: int) -> float:
    return x / y


def partial(executor: str, **options: Any) -> MapResult:
    nodes = [
        node(ratio, mapspec="x[i], y[j] -> ratio[i, j]"),
        node(lambda ratio: np.full(2, ratio), output_name="pair", mapspec="ratio[i, j] -> pair[i, j]"),
        node(lambda ratio: float(ratio.sum()), output_name="row", mapspec="ratio[i, :] -> row[i]"),
    ]
    return Pipeline(nodes).map(
        {"x": [1, 2], "y": [1, 0, 4]},
        output_name=["ratio", "pair", "row"],
        on_error="continue",
        map_executor=executor,
        **options,
    )


def test_partial_results_are_masked_arrays(executor: str) -> None:
    result = partial(executor)
    masked = result["ratio"].masked()
    assert isinstance(masked, np.ma.MaskedArray)
    assert masked.mask.tolist() == result["ratio"].missing.tolist() == [[False, True, False]] * 2
    assert masked.mean(axis=1).tolist() == [0.625, 1.25]
    pairs = result["pair"].masked()
    assert (pairs.shape, pairs.mask[0].tolist()) == ((2, 3, 2), [[False] * 2, [True] * 2, [False] * 2])
    assert result["row"].masked().mask.tolist() == [True, True]


def test_fixed_indices_are_masked_arrays_too(executor: str) -> None:
    result = partial(executor, fixed_indices={"j": 2})
    assert result["ratio"].masked().compressed().tolist() == [0.25, 0.5]
    assert result["ratio"].missing.tolist() == [[True, True, False]] * 2
    assert (result.errors, result["row"].missing.tolist()) == ([], [True, True])


def test_a_plain_array_of_what_is_partial_is_refused(executor: str) -> None:
    result = partial(executor)
    with pytest.raises(GristmillError, match=r"\.masked\(\)"):
        np.asarray(result["ratio"])
    assert np.asarray(result["ratio"][:, 2]).tolist() == [0.25, 0.5]


def test_only_what_depends_on_a_failure_is_skipped_and_it_can_be_reproduced(executor: str) -> None:
    result = partial(executor)
    assert (result.stats.failed, result.stats.skipped, result.stats.computed) == (2, 2 + 2, 8)
    assert [one.index for one in result["pair"].errors] == [(0, 1), (1, 1)]
    assert dict(result.errors[1].inputs) == {"x": 2, "y": 0}
    with pytest.raises(ZeroDivisionError):
        result.errors[1].reproduce()
