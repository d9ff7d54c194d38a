"""The functions that are mapped: as little work as can be, so that what is around them is measured."""

from functools import cache
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

ELEMENT_VALUES = 1_000_000
"""Float64 values in an array element: 8 MB."""


def double(x: int) -> int:
    """A scalar from a scalar."""
    return 2 * x


def increment(y: int) -> int:
    """The second node of the chain."""
    return y + 1


def square(z: int) -> int:
    """The third node of the chain."""
    return z * z


def multiply(x: int, y: int) -> int:
    """A scalar from two."""
    return x * y


def describe(x: int) -> dict[str, Any]:
    """A small container from a scalar."""
    return {"number": x, "half": x / 2, "name": "item"}


def busy(x: int) -> int:
    """5 ms of computing, whoever else uses the processor."""
    end = process_time() + 0.005
    while process_time() < end:
        pass
    return x


@cache
def noise() -> NDArray[np.float64]:
    """One element's worth of random numbers, made once in each process."""
    return np.random.default_rng(0).random(ELEMENT_VALUES)


def element(x: int) -> NDArray[np.float64]:
    """8 MB of random numbers, different for each `x`, at the price of one copy."""
    values = noise().copy()
    values[0] = x
    return values
