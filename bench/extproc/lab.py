"""What all cells of a run share: the model servers, Envoy's binary and bootstraps, a folder, free ports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.extproc import envoy
from bench.extproc.arms import Arm, Kind
from bench.extproc.upstream import PAGES
from bench.extproc.workloads import Workload
from bench.ports import HOST
from bench.processes import Child, Failed, python

PROXIED_ENDPOINTS = 10


class Lab:
    """`async with Lab(folder, endpoints) as lab`. Raises Failed when Envoy or the model servers cannot be had."""

    def __init__(self, folder: Path, endpoints: int) -> None:
        self.folder = folder
        self.envoy_path = self.envoy_version = ""
        self._upstream = Child("model-servers", python("bench.extproc.upstream", f"--servers={endpoints}"), folder, pipes=True)
        self._servers: list[str] = []
        self._plain: dict[str, Any] = {}
        self._proxied: dict[str, dict[str, Any]] = {}
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
            duplex = await envoy.render()
            kept = await envoy.render(keep_response_bodies=True)
            self._proxied = {"duplex": duplex, "kept": kept, "override": envoy.overridable(duplex)}
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
            return envoy.unchecked(self._proxied[arm.bodies])
        return self._proxied[arm.bodies]

    async def prepare(self, workload: Workload) -> float:
        """Tell the model servers what to answer; how late their streams were since the last time, in ms."""
        order = {"events": workload.answer.events, "pace_ms": workload.answer.pace_ms, "page": "idle" if workload.idle else "busy"}
        late_ms: float = json.loads(await self._upstream.ask(json.dumps(order)))["late_ms"]
        return late_ms
