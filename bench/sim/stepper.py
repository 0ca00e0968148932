"""The engine against the wall clock: one task that sleeps through each step and then applies it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench.sim.engine import Engine
from bench.sim.sequence import Sequence

# A process that falls further behind than this (seconds) starts afresh from now: no burst of steps to catch up.
GREATEST_LAG_S = 0.25


class Stepper:
    """Feeds requests to an engine and runs its steps. `run` is the one task; everything else is a plain call."""

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        """`clock` is the event loop's: monotonic seconds."""
        self.engine = engine
        self._clock = clock
        self._news = asyncio.Event()

    def submit(self, sequence: Sequence) -> None:
        """Queue a sequence now."""
        self.engine.add(sequence, self._clock())
        self._news.set()

    def abort(self, sequence: Sequence) -> None:
        """End a sequence now; others may take its place at once."""
        self.engine.abort(sequence, self._clock())
        self._news.set()

    async def run(self) -> None:
        """Step until cancelled."""
        start = self._clock()
        while True:
            step = self.engine.begin_step(start)
            if step is None:
                await self._wait_for_news(None)
                start = self._clock()
            elif not step.work:
                # Nothing computes yet, so a newcomer may be admitted before the first sequence becomes ready.
                await self._wait_for_news(step.ends_at)
                start = min(step.ends_at, max(start, self._clock()))
            else:
                await asyncio.sleep(max(step.ends_at - self._clock(), 0.0))
                self.engine.end_step(step)
                # The next step starts where this one ended, not when the timer fired: lateness does not add up.
                start = step.ends_at if self._clock() - step.ends_at < GREATEST_LAG_S else self._clock()

    async def _wait_for_news(self, until: float | None) -> None:
        if until is not None:
            delay = until - self._clock()
            if delay <= 0:
                await asyncio.sleep(0)
                return
            timer = asyncio.get_running_loop().call_later(delay, self._news.set)
            try:
                await self._news.wait()
            finally:
                timer.cancel()
        else:
            await self._news.wait()
        self._news.clear()
