"""A product of two parameters, reduced along one of them: where the logistic map is chaotic.

Run it twice: the second time every call is found in the store.
"""

import math

import numpy as np

from gristmill import Pipeline, node


@node(mapspec="growth[i], start[j] -> exponent[i, j]")
def exponent(growth: float, start: float, steps: int = 500) -> float:
    """Lyapunov exponent of one orbit: positive where neighbours drift apart."""
    x, total = start, 0.0
    for _ in range(steps):
        x = growth * x * (1 - x)
        total += math.log(max(abs(growth * (1 - 2 * x)), 1e-12))
    return total / steps


@node(mapspec="exponent[i, :] -> mean_exponent[i]")
def mean_exponent(exponent: np.ndarray) -> float:
    """The mean over all starts of one growth rate."""
    return float(exponent.mean())


@node
def chaotic(growth: list[float], mean_exponent: np.ndarray) -> list[float]:
    """The growth rates whose orbits are chaotic."""
    return [rate for rate, mean in zip(growth, mean_exponent, strict=True) if mean > 0]


if __name__ == "__main__":
    pipeline = Pipeline([exponent, mean_exponent, chaotic])
    growth = [round(2.8 + 0.04 * k, 2) for k in range(31)]
    start = [round(0.05 + 0.1 * k, 2) for k in range(10)]
    result = pipeline.map({"growth": growth, "start": start}, output_name=["exponent", "chaotic"])
    print(result["exponent"])
    print(f"{result.stats.computed} calls computed, {result.stats.cached} found in the store")
    print(f"chaotic for {len(result['chaotic'])} of {len(growth)} growth rates: {result['chaotic']}")
