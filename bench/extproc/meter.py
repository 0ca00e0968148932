"""CPU, memory and garbage collection of the processes of a cell, over a stretch of time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

from bench import procfs
from bench.processes import Child, Failed

SERVER = "picker"
_RSS_INTERVAL_S = 0.2


class Meter:
    """`async with meter.running(): ...` fills `values`. `children` by the name they have in `values`; the server's is `picker`.

    `watched`: the server runs under `bench.extproc.watched`. Raises Failed when a process ends meanwhile.
    """

    def __init__(self, children: Mapping[str, Child], *, watched: bool) -> None:
        self.values: dict[str, float] = {}
        self._children = children
        self._server = children.get(SERVER)
        self._watched = self._server if watched else None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """From here to the end of the block."""
        blocks = (await self._garbage())["blocks"] if self._watched is not None else 0
        peak = _Peak(self._server) if self._server is not None else None
        try:
            before = self._cpu_by_pid()
            began_s = perf_counter()
            yield
            seconds = perf_counter() - began_s
            self._spent(before, self._cpu_by_pid(), seconds)
            if peak is not None:
                self.values["picker_rss_bytes"] = float(peak.now())
        finally:
            if peak is not None:
                peak.stop()
        if self._watched is not None:
            garbage = await self._garbage()
            self.values["gc_collections"] = float(sum(garbage["collections"]))
            self.values["gc_share_of_cpu"] = garbage["cpu_s"] / max(self.values["picker_cpu_s"], 1e-9)
            self.values["gc_longest_ms"] = garbage["longest_s"] * 1e3
            self.values["blocks_more"] = float(garbage["blocks"] - blocks)

    def _cpu_by_pid(self) -> dict[str, dict[int, float]]:
        for child in self._children.values():
            child.check()
        return {name: procfs.cpu_by_pid(child.pids) for name, child in self._children.items()}

    def _spent(self, before: Mapping[str, Mapping[int, float]], after: Mapping[str, Mapping[int, float]], seconds: float) -> None:
        for name, cpu_s in after.items():
            if gone := before[name].keys() - cpu_s.keys():
                raise Failed(f"process {min(gone)} of {name} ended while it was measured, and nobody knows what CPU time it took")
            spent_s = sum(cpu_s.values()) - sum(before[name].values())
            self.values[f"{name}_cpu_s"] = spent_s
            self.values[f"{name}_cores"] = spent_s / seconds

    async def _garbage(self) -> dict[str, Any]:
        """Since it was last asked for."""
        assert self._watched is not None
        found: dict[str, Any] = json.loads(await self._watched.ask(""))
        return found


class _Peak:
    """The most memory that a server had: as the kernel remembers it for one process, sampled for a tree of them."""

    def __init__(self, server: Child) -> None:
        self._server = server
        self._peak_bytes = 0
        self._sample()

    def _sample(self) -> None:
        self._peak_bytes = max(self._peak_bytes, procfs.resident_bytes(self._server.pids))
        self._handle = asyncio.get_running_loop().call_later(_RSS_INTERVAL_S, self._sample)

    def stop(self) -> None:
        """Sample no more."""
        self._handle.cancel()

    def now(self) -> int:
        """Bytes."""
        pids = self._server.pids
        return procfs.memory_bytes(self._server.pid)[1] if pids == {self._server.pid} else self._peak_bytes
