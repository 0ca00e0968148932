"""One timer for any number of paced streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TICK_S = 0.001
_SLOTS = 128

Fire = Callable[[], bool]
"""Called at each beat; False when there will be no more."""


class Wheel:
    """Calls each stream once every so many ticks. Streams are spread over the ticks, so that few share one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: list[list[tuple[Fire, int]]] = [[] for _ in range(_SLOTS)]
        self._count = 0
        self._tick = 0
        self._started_s = 0.0
        self.latest_s = 0.0
        """The longest that a tick was late."""

    def add(self, fire: Fire, pace_ticks: int) -> None:
        """First called in half to one and a half times `pace_ticks` (1 to 80), in the emptiest of those ticks."""
        if not 1 <= pace_ticks <= _SLOTS * 5 // 8:
            raise ValueError(f"a pace of {pace_ticks} ticks: expected 1 to {_SLOTS * 5 // 8}")
        if not self._count:
            self._started_s, self._tick = self._loop.time(), 0
            self._loop.call_at(self._started_s + TICK_S, self._turn)
        half = pace_ticks // 2
        soonest = self._tick + max(half, 1)
        chosen = min(range(soonest, self._tick + pace_ticks + half + 1), key=lambda tick: len(self._slots[tick % _SLOTS]))
        self._slots[chosen % _SLOTS].append((fire, pace_ticks))
        self._count += 1

    def _turn(self) -> None:
        """All ticks that are due: a late timer makes streams late, it does not slow them down."""
        late_s = self._loop.time() - self._started_s - (self._tick + 1) * TICK_S
        self.latest_s = max(self.latest_s, late_s)
        for _ in range(1 + max(0, int(late_s / TICK_S))):
            self._tick += 1
            slot = self._tick % _SLOTS
            due, self._slots[slot] = self._slots[slot], []
            for entry in due:
                if entry[0]():
                    self._slots[(self._tick + entry[1]) % _SLOTS].append(entry)
                else:
                    self._count -= 1
        if self._count:
            self._loop.call_at(self._started_s + (self._tick + 1) * TICK_S, self._turn)
