"""The running parts together: started in waves, watched, and stopped as one."""

import asyncio
import signal
import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import httpx

from gateway.local.child import Child
from gateway.local.part import Part

POLL_S = 0.05
PROBE_TIMEOUT_S = 2.0
STOP_GRACE_S = 5.0


class StackFailed(Exception):  # noqa: N818 (a domain word, not a defect)
    """A part died or did not get ready; the text says which, and why."""


class Stack:
    """Owns every child from spawn to reaping. An async context manager: leaving it stops them all."""

    def __init__(self, parts: Sequence[Part], log_dir: Path) -> None:
        self._parts = sorted(parts, key=lambda part: part.wave)
        self._log_dir = log_dir
        self.children: list[Child] = []

    async def __aenter__(self) -> "Stack":
        return self

    async def __aexit__(self, *_: object) -> None:
        # Shielded: a second interruption must not leave children behind.
        stopping = asyncio.ensure_future(self.stop())
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            self.kill()
            await stopping
            raise

    async def start(self, timeout_s: float) -> None:
        """Spawn every part and return when all are ready; StackFailed when one dies or `timeout_s` passes."""
        deadline = time.monotonic() + timeout_s
        async with httpx.AsyncClient(timeout=PROBE_TIMEOUT_S, trust_env=False) as client:
            for _, wave in groupby(self._parts, key=lambda part: part.wave):
                first = len(self.children)
                for part in wave:
                    self.children.append(Child(part, self._log_dir / f"{part.name}.log"))
                await self._wait_ready(client, self.children[first:], deadline, timeout_s)

    async def _wait_ready(self, client: httpx.AsyncClient, waiting: list[Child], deadline: float, timeout_s: float) -> None:
        while waiting:
            self.check()
            answers = await asyncio.gather(*(child.part.ready(client) for child in waiting))
            reasons = {child: reason for child, reason in zip(waiting, answers, strict=True) if reason is not None}
            if reasons and time.monotonic() > deadline:
                self.check()
                late = "\n".join(f"{child.part.name} is not ready: {reason}\n{child.epitaph()}" for child, reason in reasons.items())
                raise StackFailed(f"not ready within {timeout_s:g} s\n{late}")
            waiting = list(reasons)
            if waiting:
                await asyncio.sleep(POLL_S)
        self.check()

    def check(self) -> None:
        """StackFailed when a child has ended."""
        if dead := [child for child in self.children if child.exit_status is not None]:
            raise StackFailed("\n".join(child.epitaph() for child in dead))

    async def watch(self) -> None:
        """Return never; StackFailed as soon as a child ends."""
        while True:
            self.check()
            await asyncio.sleep(POLL_S)

    async def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """SIGTERM to every child, SIGKILL to those still there after `grace_s`, and reap them all."""
        for child in reversed(self.children):
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while any(child.exit_status is None for child in self.children):
            if time.monotonic() > deadline:
                self.kill()
            await asyncio.sleep(POLL_S)

    def kill(self) -> None:
        """SIGKILL to every child that still runs."""
        for child in self.children:
            child.signal(signal.SIGKILL)
