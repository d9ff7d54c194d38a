"""Random walks, kept on disk: run it twice."""

import numpy as np

from gristmill import Pipeline


def walk(seed: int, steps: int) -> np.ndarray:
    """One random walk in the plane: 1.6 MB, so it becomes a chunk of a zarr array."""
    return np.random.default_rng(seed).normal(size=(steps, 2)).cumsum(axis=0)


def spread(walk: np.ndarray) -> float:
    """How far apart the walks end; no mapspec, so it gets all of them, stacked."""
    return float(walk[:, -1].std())


if __name__ == "__main__":
    pipeline = Pipeline([(walk, "seed[i] -> walk[i]"), spread])
    for seeds in (10, 30):
        inputs = {"seed": range(seeds), "steps": 100_000}
        result = pipeline.map(inputs, output_name=["walk", "spread"])
        stats = result.stats
        print(f"{seeds} walks: {stats.computed} calls computed, {stats.cached} found in the store")
    print(f"shape {result['walk'].shape}, spread {result['spread']:.1f}")
