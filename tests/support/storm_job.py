"""What the processes of a storm run: overlapping maps on one store, one after the other, each checked.

The functions log every start and end with the process they run in and that of the engine, so that a repeated call
can be laid to what happened to just these two.
"""

import os
import random
import time
from typing import Any

import numpy as np
from tests.support.calls import record

from gristmill import MapResult, Pipeline, node
from gristmill.storage import patience

_PER_SECOND = 40
"""How many indices more the maps run over with every second, so that there is always something new."""

_STEP = 20
_LENGTHS = (40, 60, 100)
_SECONDS = 0.004
_FAN_IN = 3
_ENGINE = "GRISTMILL_TEST_ENGINE"
"""Environment variable with the engine's process, for its workers: an orphan has another parent."""

# Here, so that the workers do it too.
patience.STALL_SECONDS = float(os.environ.get("GRISTMILL_TEST_STALL", patience.STALL_SECONDS))


def _log(log: str, what: str, call: str) -> None:
    record(log, what, os.getpid(), os.environ[_ENGINE], call)


def number(x: int, log: str) -> int:
    _log(log, "start", f"number:{x}")
    time.sleep(_SECONDS * (x % 5) / 4)
    _log(log, "end", f"number:{x}")
    return x * x


def image(number: int, log: str) -> Any:
    _log(log, "start", f"image:{number}")
    made = np.full(10_000, number + 0.5)
    _log(log, "end", f"image:{number}")
    return made


def part(x: int, log: str) -> list[int]:
    _log(log, "start", f"part:{x}")
    made = [10 * x + k for k in range(x % 4)]
    _log(log, "end", f"part:{x}")
    return made


def double(part: int, log: str) -> int:
    _log(log, "start", f"double:{part}")
    _log(log, "end", f"double:{part}")
    return 2 * part


def row(double: Any, log: str) -> int:
    call = f"row:{','.join(map(str, double))}"
    _log(log, "start", call)
    _log(log, "end", call)
    return int(sum(double))


def largest(items: list[int], log: str) -> int:
    call = f"largest:{','.join(map(str, items))}"
    _log(log, "start", call)
    time.sleep(_SECONDS / 4)
    _log(log, "end", call)
    return max(items)


def mean(image: Any, log: str) -> float:
    call = f"mean:{','.join(str(int(one)) for one in image[:, 0])}"
    _log(log, "start", call)
    found = float(image.mean())
    _log(log, "end", call)
    return found


NODES = [
    node(number, mapspec="x[i] -> number[i]"),
    node(image, mapspec="number[i] -> image[i]"),
    node(part, mapspec="x[i] -> part[i, *j]"),
    node(double, mapspec="part[i, j] -> double[i, j]"),
    node(row, mapspec="double[i, :] -> row[i]"),
    node(largest, reduce="row", fan_in=_FAN_IN),
    node(mean),
]
OUTPUTS = ("number", "image", "part", "double", "row", "largest", "mean")


def run_map(xs: range, log: str, executor: str) -> MapResult:
    """Run the whole map over `xs`, and see that everything in it is right."""
    result = Pipeline(NODES).map(
        {"x": list(xs), "log": log}, output_name=list(OUTPUTS), map_executor=executor, max_workers=2
    )
    squares = [x * x for x in xs]
    parts = [[10 * x + k for k in range(x % 4)] for x in xs]
    rows = [2 * sum(one) for one in parts]
    assert result["number"].tolist() == squares
    assert [(one.min(), one.max()) for one in result["image"]] == [(n + 0.5, n + 0.5) for n in squares]
    assert result["part"].tolist() == parts
    assert result["double"].tolist() == [[2 * k for k in one] for one in parts]
    assert result["row"].tolist() == rows
    assert result["largest"] == max(rows)
    assert result["mean"] == sum(n + 0.5 for n in squares) / len(squares)
    return result


def everything(seconds: float) -> range:
    """Return all that maps may have run over after so many seconds."""
    return range(int(_PER_SECOND * seconds) + _LENGTHS[-1])


def something(seconds: float, chance: random.Random) -> range:
    """Return what a map runs over that starts after so many seconds."""
    start = max(int(_PER_SECOND * seconds / _STEP - chance.randrange(4)) * _STEP, 0)
    return range(start, start + chance.choice(_LENGTHS))
