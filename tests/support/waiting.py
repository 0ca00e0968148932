"""Waiting for something to become true, for a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

PATIENCE_S = 30.0
"""Longer than anything that works takes, even on a busy machine: running into it is a failure."""


async def until(wanted: Callable[[], Awaitable[bool]], what: str, *, patience_s: float = PATIENCE_S) -> None:
    """Ask again and again until `wanted` says yes. Fails saying `what` did not come about."""
    try:
        async with asyncio.timeout(patience_s):
            while not await wanted():  # noqa: ASYNC110 - conditions outside this process have no event
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"after {patience_s:g} s still not so: {what}") from None
