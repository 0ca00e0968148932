"""How often endpoints are read, and when exactly: each poller keeps a beat of its own, so that many do not read at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PaceName = Literal["full", "idle", "failing"]
PACES: tuple[PaceName, ...] = ("full", "idle", "failing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often to read and when to give up, in seconds and counts."""

    interval_s: float = 0.05
    slow_s: float = 1.0
    """Between reads of a server that is idle or dead (reached by doubling) or has no metrics; never less than `interval_s`."""
    adaptive: bool = True
    """False: idle servers are read at the full rate, too."""
    unreachable_limit: int = 3
    timeout_limit: int = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "slow_s", max(self.slow_s, self.interval_s))


class Beat:
    """When the reads of one poller are due. Times are monotonic seconds; the methods return the delay until the next read."""

    __slots__ = ("_due_s", "_pace", "_phase", "_slept_s")

    def __init__(self, pace: Pace, phase: float) -> None:
        """`phase` (0 to 1) is this poller's place among all: what they do at the same moment is spread by it."""
        self._pace = pace
        self._phase = phase
        self._due_s = 0.0  # when the current or next read should begin; it may begin later, on a busy loop
        self._slept_s = 0.0  # the last pause

    def start(self, now_s: float) -> float:
        """Before the first read."""
        delay_s = self._phase * self._pace.interval_s
        self._due_s = now_s + delay_s
        return delay_s

    def after(self, started_s: float, now_s: float, pause_s: float, *, idle: bool) -> float:
        """After a read that began at `started_s` and has ended; the next one is due one pause after it was.

        By when reads were due and not by when they began: a loop that stands still makes many reads late at once, and they would
        stay in step for good.
        """
        late_s = max(0.0, started_s - self._due_s)
        due_s = self._due_s + late_s // pause_s * pause_s + pause_s
        if idle and self._slept_s < pause_s == self._pace.slow_s:
            # Servers fall idle together, when traffic ends: the first of the longest pauses has a length of this poller's own.
            due_s -= (1 - self._phase) * (pause_s - self._pace.interval_s)
        self._slept_s = pause_s
        # A loaded vLLM needs 17 to 58 ms of its API server's time for a page: rest at least as long as it took, at most one pause.
        self._due_s = max(due_s, now_s + min(now_s - started_s, pause_s))
        return self._due_s - now_s

    def sooner(self, now_s: float) -> float | None:
        """When a long pause is broken off: a delay of at most one interval; None if the next read is due by then anyway.

        Others may be woken at the same moment, so the delay is of this poller's own. It is never zero: a scrape is taken to have seen
        every request that was opened before it began, and the one that woke us must first reach the server.
        """
        delay_s = self._pace.interval_s * (0.2 + 0.8 * self._phase)
        if now_s + delay_s >= self._due_s:
            return None
        self._due_s = now_s + delay_s
        return delay_s
