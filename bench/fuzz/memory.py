"""Whether a process grows."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from statistics import median

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20
WARM_UP = 0.2
"""Of the run: caches fill, the allocator finds its size."""
FEWEST_SAMPLES = 40
ALLOWED_BYTES = 4 * MIB


def rss_bytes() -> int:
    """Resident memory of this process, after a collection."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


class Growth:
    """Samples of one run, evenly spaced."""

    def __init__(self) -> None:
        self.samples: list[int] = []

    def growth_bytes(self) -> float | None:
        """Median of the last quarter less that of the first, warm-up left out; None when the run was too short to tell."""
        if len(self.samples) < FEWEST_SAMPLES:
            return None
        warm = self.samples[int(len(self.samples) * WARM_UP) :]
        quarter = len(warm) // 4
        return median(warm[-quarter:]) - median(warm[:quarter])
