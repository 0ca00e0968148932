"""`python -m bench.micro`: times every micro benchmark and prints medians.

Each callable is run in batches of at least `--batch-ms`; a batch's CPU time divided by its calls is one measurement: CPU time, because
on a shared machine the clock on the wall also counts the neighbours. The garbage collector runs as in production.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from statistics import median
from time import process_time
from typing import NamedTuple

MODULES = ("schedule", "scorers", "prefix", "parse", "sse", "conversation", "scrape", "metrics", "flow", "foreign")


class Timing(NamedTuple):
    """Microseconds per call over the batches."""

    name: str
    median_us: float
    min_us: float
    max_us: float
    calls: int


def measure(name: str, call: Callable[[], object], *, repeat: int, batch_s: float) -> Timing:
    """`repeat` batches of equal size, after a warm-up that finds the size."""
    calls = 1
    while (spent := _batch(call, calls)) < batch_s:
        calls = max(calls * 2, int(calls * batch_s / max(spent, 1e-9)))
    batches = [_batch(call, calls) / calls * 1e6 for _ in range(repeat)]
    return Timing(name, median(batches), min(batches), max(batches), calls * repeat)


def _batch(call: Callable[[], object], calls: int) -> float:
    started = process_time()
    for _ in range(calls):
        call()
    return process_time() - started


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 when no benchmark is called `--only`."""
    parser = argparse.ArgumentParser(prog="python -m bench.micro", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", default="", metavar="TEXT", help="only benchmarks whose name contains TEXT")
    parser.add_argument("--repeat", type=int, default=11, metavar="N", help="batches per benchmark (default: %(default)s)")
    parser.add_argument("--batch-ms", type=float, default=20.0, metavar="MS", help="length of a batch (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")
    flags = parser.parse_args(argv)
    wanted = [b for module in MODULES for b in import_module(f"bench.micro.{module}").benches() if flags.only in b[0]]
    if not wanted:
        parser.error(f"no benchmark has '{flags.only}' in its name")
    timings = []
    for name, call in wanted:
        timing = measure(name, call, repeat=flags.repeat, batch_s=flags.batch_ms / 1e3)
        timings.append(timing)
        if not flags.json:
            sys.stdout.write(f"{timing.name:58} {timing.median_us:10.2f} µs   (min {timing.min_us:.2f}, max {timing.max_us:.2f})\n")
            sys.stdout.flush()
    if flags.json:
        sys.stdout.write(json.dumps([t._asdict() for t in timings], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
