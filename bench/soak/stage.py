"""The processes under the load: simulators, the picker and the real Envoy, on free ports of 127.0.0.1."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.http import get, request
from bench.ports import HOST, free_ports
from bench.processes import Child, python
from bench.soak.load import MODEL

SIMS = 2
_READY_S = 60.0
# As many KV blocks as the picker's prefix index fills within the warm-up: a larger index grows for as long as it is not full.
_SIM_ARGS = (
    "--time-to-first-token-ms=5", "--inter-token-latency-ms=3", "--prefill-us-per-token=0", "--time-factor-under-load=1",
    "--num-gpu-blocks-override=4096",
)  # fmt: skip


class Stage:
    """`async with Stage(folder, transport, endpoints) as stage`: everything is ready. Logs are in `folder`, one per process.

    Raises Failed when a process cannot be started or does not answer.
    """

    def __init__(self, folder: Path, transport: str, endpoints: Sequence[str], picker_args: Sequence[str] = ()) -> None:
        self.port, self.admin_port, self.metrics_port, grpc_port, health_port, *self._sim_ports = free_ports(5 + SIMS)
        everywhere = ",".join([*endpoints, *[f"{HOST}:{port}" for port in self._sim_ports]])
        self._sims = [
            Child(f"sim-{port}", python("bench.sim", f"--port={port}", f"--model={MODEL}", *_SIM_ARGS), folder) for port in self._sim_ports
        ]
        self.picker = Child(
            "picker",
            python(
                "picker", f"--endpoints={everywhere}", f"--grpc-port={grpc_port}", f"--metrics-port={self.metrics_port}",
                f"--grpc-health-port={health_port}", f"--host={HOST}", "--secure-serving=false", f"--transport={transport}",
                "--drain-timeout=0", *picker_args,
            ),
            folder,
        )  # fmt: skip
        self._envoy = Child(
            "envoy",
            python(
                "gateway", "envoy", "run", f"--port={self.port}", f"--admin-port={self.admin_port}", "--concurrency=1",
                f"--picker-address={HOST}:{grpc_port}", f"--picker-health-port={health_port}", "--picker-health-interval=500ms",
            ),
            folder,
        )  # fmt: skip
        self._exit = AsyncExitStack()

    async def __aenter__(self) -> Stage:
        try:
            for child in (*self._sims, self.picker):
                await self._exit.enter_async_context(child)
            for sim, port in zip(self._sims, self._sim_ports, strict=True):
                await self._ready(sim, port, "/health")
            await self._ready(self.picker, self.metrics_port, "/readyz")
            await self._exit.enter_async_context(self._envoy)
            await self._ready(self._envoy, self.admin_port, "/ready")
        except BaseException:
            await self._exit.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    def check(self) -> None:
        """Raises Failed when a process has ended."""
        for child in (*self._sims, self.picker, self._envoy):
            child.check()

    @staticmethod
    async def _ready(child: Child, port: int, path: str) -> None:
        async def answers() -> str | None:
            status, _ = await request(port, get(path))
            return None if status == 200 else f"status {status}"

        await child.until(answers, f"port {port} answers {path}", _READY_S)


def samples(page: str, name: str) -> dict[str, float]:
    """The samples of one metric on a metrics page, by labels."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        key, _, value = line.rpartition(" ")
        if key == name or key.startswith(name + "{"):
            found[key] = float(value)
    return found
