"""Whether a process grows: samples of its resident memory, and what they say."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import linear_regression, median
from typing import NamedTuple

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20
WARM_UP = 0.25
"""Of the run: caches fill, the allocator finds its size."""
FEWEST_SAMPLES = 40


def rss_bytes(pid: int | None = None) -> int:
    """Resident memory of a process; None: of this one. Linux only."""
    return int(Path(f"/proc/{'self' if pid is None else pid}/statm").read_text().split()[1]) * _PAGE_BYTES


class Trend(NamedTuple):
    """Of the time after warm-up: medians of the first and the last quarter, and the slope of a line through all samples."""

    first_mib: float
    last_mib: float
    mib_per_hour: float

    @property
    def grown_mib(self) -> float:
        """From the first quarter to the last."""
        return self.last_mib - self.first_mib


class Samples:
    """Times in seconds, sizes in bytes, of one run."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.sizes: list[int] = []

    def add(self, now_s: float, size_bytes: int) -> None:
        """One more."""
        self.times_s.append(now_s)
        self.sizes.append(size_bytes)

    def trend(self) -> Trend | None:
        """None when there are too few samples to tell."""
        if len(self.sizes) < FEWEST_SAMPLES:
            return None
        warm = int(len(self.sizes) * WARM_UP)
        times, sizes = self.times_s[warm:], [size / MIB for size in self.sizes[warm:]]
        quarter = len(sizes) // 4
        return Trend(median(sizes[:quarter]), median(sizes[-quarter:]), linear_regression(times, sizes).slope * 3_600)
