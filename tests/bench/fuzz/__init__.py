"""Short runs of what `python -m bench.fuzz` does for minutes."""
