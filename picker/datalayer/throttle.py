"""Keeps an event that can repeat from filling the log."""

from __future__ import annotations

import time
from collections.abc import Callable


class Throttle:
    """Lets one event through per `period_s` seconds and counts those it held back."""

    __slots__ = ("_next_s", "_now", "_period_s", "held")

    def __init__(self, period_s: float = 10.0, *, now: Callable[[], float] = time.monotonic) -> None:
        self._period_s = period_s
        self._now = now
        self._next_s = float("-inf")
        self.held = 0
        """Events held back since the last one that was let through; read it before the next `ready`."""

    def ready(self) -> bool:
        """Whether to log this one."""
        now_s = self._now()
        if now_s < self._next_s:
            self.held += 1
            return False
        self._next_s = now_s + self._period_s
        self.held = 0
        return True
