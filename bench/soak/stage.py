"""The processes under the load: simulators, the picker and the real Envoy, on free ports of 127.0.0.1."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.soak.http_client import get
from bench.soak.load import MODEL

SIMS = 2
_READY_S = 60.0
_END_S = 15.0
# As many KV blocks as the picker's prefix index fills within the warm-up: a larger index grows for as long as it is not full.
_SIM_ARGS = (
    "--time-to-first-token-ms=5", "--inter-token-latency-ms=3", "--prefill-us-per-token=0", "--time-factor-under-load=1",
    "--num-gpu-blocks-override=4096",
)  # fmt: skip


class StageError(Exception):
    """A process could not be started, or has ended on its own; the text has its last words."""


def free_ports(count: int) -> list[int]:
    """Different ones that were free a moment ago."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in sockets]


class Stage:
    """`async with Stage(folder, transport, endpoints) as stage`: everything is ready. Logs are in `folder`, one per process."""

    def __init__(self, folder: Path, transport: str, endpoints: Sequence[str], picker_args: Sequence[str] = ()) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._transport = transport
        self._endpoints = endpoints
        self._picker_args = picker_args
        self.port, self.admin_port, self.metrics_port, self._grpc_port, self._health_port, *self._sim_ports = free_ports(5 + SIMS)

    async def __aenter__(self) -> Stage:
        try:
            for number, port in enumerate(self._sim_ports):
                self._start(f"sim-{number}", "bench.sim", f"--port={port}", f"--model={MODEL}", *_SIM_ARGS)
            endpoints = ",".join([*self._endpoints, *[f"127.0.0.1:{port}" for port in self._sim_ports]])
            self._start(
                "picker", "picker", f"--endpoints={endpoints}", f"--grpc-port={self._grpc_port}", f"--metrics-port={self.metrics_port}",
                f"--grpc-health-port={self._health_port}", "--host=127.0.0.1", "--secure-serving=false",
                f"--transport={self._transport}", "--drain-timeout=0", *self._picker_args,
            )  # fmt: skip
            for port in self._sim_ports:
                await self._ready(port, "/health")
            await self._ready(self.metrics_port, "/readyz")
            self._start(
                "envoy", "gateway", "envoy", "run", f"--port={self.port}", f"--admin-port={self.admin_port}", "--concurrency=1",
                f"--picker-address=127.0.0.1:{self._grpc_port}", f"--picker-health-port={self._health_port}",
                "--picker-health-interval=500ms",
            )  # fmt: skip
            await self._ready(self.admin_port, "/ready")
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    @property
    def picker_pid(self) -> int:
        """Of the process."""
        return self._processes["picker"].pid

    def log(self, name: str) -> str:
        """What a process has written."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def alive(self) -> None:
        """Raises StageError when a process has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise StageError(f"{name} has ended with {process.returncode}:\n{self.log(name)[-2_000:]}")

    def close(self) -> None:
        """End all processes, the proxy first."""
        for process in reversed(self._processes.values()):
            process.terminate()
        for process in reversed(self._processes.values()):
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, name: str, module: str, *arguments: str) -> None:
        with (self._folder / f"{name}.log").open("wb") as sink:
            command = [sys.executable, "-P", "-m", module, *arguments]
            self._processes[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)

    async def _ready(self, port: int, path: str) -> None:
        try:
            async with asyncio.timeout(_READY_S):
                while not await self._answers(port, path):
                    self.alive()
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise StageError(f"no 200 from 127.0.0.1:{port}{path} within {_READY_S:g} s") from None

    @staticmethod
    async def _answers(port: int, path: str) -> bool:
        try:
            return (await get(port, path))[0] == 200
        except OSError:
            return False


def samples(page: str, name: str) -> dict[str, float]:
    """The samples of one metric on a metrics page, by labels."""
    found: dict[str, float] = {}
    for line in page.splitlines():
        key, _, value = line.rpartition(" ")
        if key == name or key.startswith(name + "{"):
            found[key] = float(value)
    return found
