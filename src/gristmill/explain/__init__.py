"""Why calls would run: a plan compared with what the store remembers, without running anything."""
