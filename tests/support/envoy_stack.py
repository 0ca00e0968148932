"""The whole gateway for end-to-end tests: simulators, picker and the real Envoy as processes on free ports of loopback."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from gateway.address import HostPort, PortClaim, conflicts
from gateway.envoy.bootstrap import as_dict
from gateway.envoy.process import envoy_binary
from gateway.envoy.settings import BootstrapSettings
from gateway.local.child import Child
from gateway.local.part import Part, envoy_ready
from gateway.local.plan import LOOPBACK, PICKER_CLUSTER, LocalSettings, parts
from tests.support.prometheus import metrics
from tests.support.waiting import PATIENCE_S

POLL_S = 0.05
PICKER_ARGS = ("--refresh-prometheus-metrics-interval=1s",)
ENVOY_ARGS = ("--picker-health-interval=300ms",)

# What must be back at zero, or gone, once nothing is under way.
IN_FLIGHT = frozenset({
    "llm_d_epp_request_running", "llm_d_epp_inflight_requests", "llm_d_epp_inflight_tokens", "llm_d_epp_extproc_streams_inflight",
})  # fmt: skip
SIM_LOAD = frozenset({"vllm:num_requests_running", "vllm:num_requests_waiting"})

Patch = Callable[[dict[str, Any]], None]
_taken: set[int] = set()


def consecutive_ports(count: int) -> int:
    """The first of `count` ports in a row that were free a moment ago.

    Below the range that outgoing connections take theirs from: a server of the stack must get its port again after a restart, and
    a poller that keeps knocking on a dead server's port must not be given that very port as its own.
    """
    for _ in range(200):
        first = random.randrange(20_000, 32_000 - count)
        wanted = range(first, first + count)
        if _taken.isdisjoint(wanted) and _all_free(wanted):
            _taken.update(wanted)
            return first
    raise AssertionError(f"found no {count} free ports in a row")


def _all_free(ports: Iterable[int]) -> bool:
    return not conflicts([PortClaim(HostPort(LOOPBACK, port), "a test", "") for port in ports])


async def wait_for(condition: Callable[[], Awaitable[str | None]], timeout_s: float = PATIENCE_S) -> None:
    """Wait until `condition` answers None; AssertionError with its last answer when `timeout_s` passes."""
    deadline = time.monotonic() + timeout_s
    while (reason := await condition()) is not None:
        assert time.monotonic() < deadline, f"still not so after {timeout_s:g} s: {reason}"
        await asyncio.sleep(POLL_S)


async def nonzero(url: str, names: frozenset[str]) -> list[str]:
    """The samples of a metrics page that are of one of `names` and not zero."""
    return [f"{s.name}{s.labels} {s.value:g}" for s in (await metrics(url)).samples if s.name in names and s.value]


class Node:
    """One process, which can be ended in every way and started again on the same ports. Start it from the main thread."""

    def __init__(self, part: Part, folder: Path) -> None:
        self.part = part
        self._folder = folder
        self._children: list[Child] = []

    @property
    def address(self) -> str:
        """`host:port`."""
        return str(self.part.address)

    @property
    def child(self) -> Child:
        """The process started last."""
        return self._children[-1]

    def spawn(self) -> None:
        """Start the process."""
        self._children.append(Child(self.part, self._folder / f"{self.part.name}-{len(self._children)}.log"))

    async def ready(self) -> None:
        """Wait until the process serves."""
        async with httpx.AsyncClient(timeout=5, trust_env=False) as client:

            async def reason() -> str | None:
                assert self.child.exit_status is None, self.child.epitaph()
                return await self.part.ready(client)

            await wait_for(reason)

    async def start(self) -> None:
        """Start the process and wait until it serves."""
        self.spawn()
        await self.ready()

    async def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; the exit status, negative for a signal."""
        self.child.signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for the end; the exit status, negative for a signal."""

        async def reason() -> str | None:
            return f"{self.part.name} runs" if self.child.exit_status is None else None

        await wait_for(reason)
        return self.child.exit_status or 0

    async def cleanup(self) -> None:
        """Leave no process behind."""
        if self._children and self.child.exit_status is None:
            await self.end(signal.SIGKILL)

    def log(self) -> str:
        """All that its processes have written."""
        return "".join(child.log.read_text(errors="replace") for child in self._children)


class EnvoyStack:
    """Simulators (or `endpoints`, which somebody else runs), picker and Envoy."""

    def __init__(
        self,
        folder: Path,
        *,
        sims: int = 3,
        sim_args: Sequence[str] = (),
        endpoints: Sequence[str] = (),
        picker_args: Sequence[str] = (),
        config: str | None = None,
        envoy_args: Sequence[str] = (),
        patch: Patch | None = None,
    ) -> None:
        """`config` is an EndpointPickerConfig as text; `patch` changes the bootstrap that the flags of Envoy make."""
        base = consecutive_ports(5 + sims)
        self._folder = folder
        self.settings = LocalSettings(
            sims=sims,
            sim_base_port=base + 5,
            sim_args=tuple(sim_args),
            endpoints=tuple(HostPort.parse(text) for text in endpoints),
            port=base,
            admin_port=base + 1,
            envoy_args=(*ENVOY_ARGS, *envoy_args),
            picker_port=base + 2,
            picker_health_port=base + 3,
            metrics_port=base + 4,
            picker_args=(*PICKER_ARGS, *picker_args, *([] if config is None else ["--config-text", config])),
        )
        made = parts(self.settings)
        self.sims = [Node(part, folder) for part in made if part.role == "model server"]
        self.picker = next(Node(part, folder) for part in made if part.name == "picker")
        plain = next(part for part in made if part.name == "envoy")
        self.envoy = Node(plain, folder) if patch is None else self.patched_envoy(patch, self.settings.port, self.settings.admin_port)
        self._extra: list[Node] = []

    @property
    def url(self) -> str:
        """Where clients connect."""
        return self.settings.gateway_url

    @property
    def servers(self) -> list[str]:
        """`host:port` of every model server."""
        return [str(at) for at in self.settings.model_servers]

    async def __aenter__(self) -> EnvoyStack:
        try:
            for node in (*self.sims, self.picker):
                node.spawn()
            await asyncio.gather(*[node.ready() for node in (*self.sims, self.picker)])
            await self.envoy.start()
        except BaseException:
            await self._cleanup()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._cleanup()

    async def _cleanup(self) -> None:
        for node in (*self._extra, self.envoy, self.picker, *self.sims):
            await node.cleanup()

    def patched_envoy(self, patch: Patch, port: int | None = None, admin_port: int | None = None) -> Node:
        """One more Envoy in front of the same picker, with a bootstrap changed by `patch`; not started yet."""
        first = consecutive_ports(2) if port is None else port
        settings = BootstrapSettings(
            listen=HostPort(LOOPBACK, first),
            admin=HostPort(LOOPBACK, first + 1 if admin_port is None else admin_port),
            picker=HostPort(LOOPBACK, self.settings.picker_port),
            picker_health_port=self.settings.picker_health_port,
            picker_health_interval_s=0.3,
        )
        bootstrap = as_dict(settings)
        patch(bootstrap)
        argv = (
            envoy_binary(),
            "--config-yaml",
            json.dumps(bootstrap),
            "--use-dynamic-base-id",
            "--concurrency",
            "1",
            "--log-level",
            "warning",
        )
        assert settings.admin is not None
        part = Part(
            name=f"envoy-{first}", role="proxy", argv=argv, address=settings.listen, ready=envoy_ready(settings.admin, PICKER_CLUSTER)
        )
        return Node(replace(part, wave=1), self._folder)

    def another_picker(self) -> Node:
        """A second picker with the flags of the first, ports included; not started yet."""
        return Node(replace(self.picker.part, name="picker-twin"), self._folder)

    async def sim_load(self, node: Node) -> list[str]:
        """What a simulator has running or waiting; empty when it is idle."""
        return await nonzero(f"http://{node.address}/metrics", SIM_LOAD)

    async def start_extra(self, node: Node) -> None:
        """Start a node that ends with the stack at the latest."""
        self._extra.append(node)
        await node.start()

    def client(self, **arguments: Any) -> httpx.AsyncClient:
        """An HTTP client of the gateway."""
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(**{"base_url": self.url, "timeout": PATIENCE_S, "trust_env": False, "limits": limits, **arguments})

    async def debug(self, path: str, **query: str) -> Any:
        """A JSON page of the picker."""
        async with httpx.AsyncClient(base_url=self.settings.picker_url, timeout=10, trust_env=False) as client:
            return (await client.get(path, params=query)).json()

    async def endpoint(self, address: str) -> dict[str, Any]:
        """The picker's view of one model server."""
        found: dict[str, Any] = next(e for e in (await self.debug("/debug/endpoints"))["endpoints"] if e["address"] == address)
        return found

    async def until_endpoint(self, address: str, **wanted: Any) -> None:
        """Wait until the picker's view of a model server has these values."""

        async def reason() -> str | None:
            seen = await self.endpoint(address)
            return None if wanted.items() <= seen.items() else f"{wanted} is not in {seen}"

        await wait_for(reason)

    async def decision(self, request_id: str) -> dict[str, Any]:
        """The one decision record of a request, once it has settled."""
        found: list[dict[str, Any]] = []

        async def reason() -> str | None:
            found[:] = (await self.debug("/debug/decisions", request_id=request_id))["decisions"]
            return None if found and all(record["cause"] for record in found) else f"{request_id} is not settled: {found}"

        await wait_for(reason)
        assert len(found) == 1, found
        return found[0]

    async def decisions_of(self, request_id: str) -> int:
        """How many decision records a request has."""
        return len((await self.debug("/debug/decisions", request_id=request_id))["decisions"])

    async def settled(self) -> None:
        """Wait until nothing is in flight, by the picker's gauges and by those of every simulator that runs."""
        pages = {f"{self.settings.picker_url}/metrics": IN_FLIGHT}
        pages |= {f"http://{node.address}/metrics": SIM_LOAD for node in self.sims if node.child.exit_status is None}

        async def reason() -> str | None:
            left = [await nonzero(url, names) for url, names in pages.items()]
            return f"still in flight: {left}" if any(left) else None

        await wait_for(reason)

    def complaints(self) -> list[str]:
        """Lines of the picker's log that tell of an error of our own."""
        return [line for line in self.picker.log().splitlines() if "Traceback" in line or " ERROR" in line]
