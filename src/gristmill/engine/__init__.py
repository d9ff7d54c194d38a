"""How a plan runs: one loop, batches, workers, and executors one file each."""
