"""What is hashed: makers of values, each given how many items to make."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIB = 2**20
FLOAT = 8
COLUMNS = 4096
FRAME_COLUMNS = 10


@dataclass
class Measurement:
    """An instance of somebody's own class."""

    name: str
    x: float
    y: float
    count: int
    labels: tuple[str, ...]


def numbers(n: int) -> NDArray[np.float64]:
    """Random numbers."""
    return np.random.default_rng(0).random(n)


def array(mib: int) -> NDArray[np.float64]:
    """Contiguous random numbers."""
    return numbers(mib * MIB // FLOAT)


def fortran(mib: int) -> NDArray[np.float64]:
    """A matrix laid out by columns; not made by copying, which would leave room that hides later copies."""
    return array(mib).reshape(COLUMNS, -1).T


def frame(mib: int) -> Any:
    """A frame of numeric columns, again made without a copy."""
    import pandas as pd

    rows = mib * MIB // FLOAT // FRAME_COLUMNS
    columns = numbers(FRAME_COLUMNS * rows).reshape(FRAME_COLUMNS, rows)
    return pd.DataFrame(columns.T, columns=[f"c{k}" for k in range(FRAME_COLUMNS)], copy=False)


def ints(n: int) -> list[int]:
    """Different ints."""
    return list(range(n))


def floats(n: int) -> list[float]:
    """Different floats."""
    values: list[float] = numbers(n).tolist()
    return values


def texts(n: int) -> list[str]:
    """Short strings, all different."""
    return [f"item-{i}" for i in range(n)]


def dicts(n: int) -> list[dict[str, Any]]:
    """Dicts of twenty scalars."""
    return [{f"key{k}": (i, i / 2, "text", None, True)[k % 5] for k in range(20)} for i in range(n)]


def nested(n: int) -> list[dict[str, Any]]:
    """Dicts of small containers."""
    return [{"run": {"x": i, "steps": [1, 2, 3]}, "on": {"size": (1, 2.0), "by": {"me"}}} for i in range(n)]


def measurements(n: int) -> list[Measurement]:
    """Instances of a dataclass with five fields."""
    return [Measurement("a", i / 2, 1.0, i, ("b", "c")) for i in range(n)]
