"""What all cells of a run share: the model servers, Envoy's binary and bootstraps, a folder, free ports."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.extproc import envoy
from bench.extproc.arms import Arm, Kind
from bench.extproc.envoy import HOST
from bench.extproc.processes import Child, Failed, python
from bench.extproc.upstream import PAGES
from bench.extproc.workloads import Workload

PROXIED_ENDPOINTS = 10
# Below the ports that outgoing connections get, so that none of those can be in the way.
_FIRST_PORT, _LAST_PORT = 12_000, 20_000


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on. RuntimeError when there are none."""
    found: list[int] = []
    for port in random.sample(range(_FIRST_PORT, _LAST_PORT), 1000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"no {count} free ports from {_FIRST_PORT} to {_LAST_PORT}")


class Lab:
    """`async with Lab(folder, endpoints) as lab`. Raises Failed when Envoy or the model servers cannot be had."""

    def __init__(self, folder: Path, endpoints: int) -> None:
        self.folder = folder
        self.envoy_path = self.envoy_version = ""
        self._upstream = Child("model-servers", python("bench.extproc.upstream", f"--servers={endpoints}"), folder, pipes=True)
        self._servers: list[str] = []
        self._plain: dict[str, Any] = {}
        self._proxied: dict[str, Any] = {}
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Lab:
        if missing := [str(path) for path in PAGES.values() if not path.exists()]:
            raise Failed(f"the bench runs from a checkout, which has {', '.join(missing)}")
        self.envoy_path = await envoy.binary()
        self.envoy_version = await envoy.version(self.envoy_path)
        try:
            await self._exit.enter_async_context(self._upstream)
            self._servers = [f"{HOST}:{port}" for port in json.loads(await self._upstream.line())]
            self._plain = envoy.plain(await envoy.render(self.endpoints(PROXIED_ENDPOINTS)))
            self._proxied = await envoy.render()
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    @property
    def upstream(self) -> Child:
        """The process of the model servers."""
        return self._upstream

    def endpoints(self, count: int) -> Sequence[str]:
        """`host:port` of the first `count` model servers."""
        return self._servers[:count]

    def bootstrap(self, arm: Arm) -> Mapping[str, Any]:
        """For the Envoy of an arm."""
        if arm.kind is Kind.PLAIN:
            return self._plain
        if arm.kind is Kind.PEER and "{health_port}" not in arm.command:
            return envoy.unchecked(self._proxied)
        return self._proxied

    async def prepare(self, workload: Workload) -> float:
        """Tell the model servers what to answer; how late their streams were since the last time, in ms."""
        order = {"events": workload.answer.events, "pace_ms": workload.answer.pace_ms, "page": "idle" if workload.idle else "busy"}
        late_ms: float = json.loads(await self._upstream.ask(json.dumps(order)))["late_ms"]
        return late_ms
