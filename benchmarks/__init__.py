"""What gristmill costs, side by side with its peers and with the raw limits: `python -m benchmarks`."""
