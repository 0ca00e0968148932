"""A model server of which only the metrics page exists; what the page says can be set at any time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.ports import free_port


@dataclass
class Load:
    """What a server reports of itself, as vLLM does. No `lora_requests_info` without adapters, as on a server without LoRA."""

    queue: int = 0
    kv: float = 0.0
    adapters: Sequence[str] = ()
    running: int = 0
    waiting_adapters: Sequence[str] = ()
    max_adapters: int = 4

    def page(self) -> str:
        """The metrics page."""
        series = {"num_requests_waiting": self.queue, "num_requests_running": self.running, "kv_cache_usage_perc": self.kv}
        lines: list[str] = []
        for name, value in series.items():
            lines += [f"# TYPE vllm:{name} gauge", f'vllm:{name}{{engine="0",model_name="base"}} {float(value)}']
        lines += ["# TYPE vllm:cache_config_info gauge", 'vllm:cache_config_info{block_size="16",num_gpu_blocks="2048"} 1.0']
        if self.adapters or self.waiting_adapters:
            labels = f'max_lora="{self.max_adapters}",running_lora_adapters="{",".join(self.adapters)}"'
            labels += f',waiting_lora_adapters="{",".join(self.waiting_adapters)}"'
            lines += ["# TYPE vllm:lora_requests_info gauge", f"vllm:lora_requests_info{{{labels}}} 1.0"]
        return "\n".join(lines) + "\n"


class FakeModelServer:
    """`async with FakeModelServer("127.0.1.1", port)`: answers GET /metrics with `load.page()`, everything else with 404.

    `scrapes` counts answered pages. While `broken` is true the page is answered with 500.
    """

    def __init__(self, host: str, port: int, load: Load | None = None) -> None:
        self.host = host
        self.port = port
        self.load = load or Load()
        self.scrapes = 0
        self.broken = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    async def __aenter__(self) -> FakeModelServer:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, self.host, self.port)

    async def stop(self) -> None:
        """As if the process were killed: connections are cut, new ones refused."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                path = head.split(b" ", 2)[1]
                status, body = (b"200 OK", self.load.page().encode()) if path == b"/metrics" else (b"404 Not Found", b"")
                if self.broken:
                    status, body = b"500 Internal Server Error", b""
                self.scrapes += status.startswith(b"200")
                writer.write(b"HTTP/1.1 %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, IndexError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


@asynccontextmanager
async def model_servers(*loads: Load, network: str = "127.0.1") -> AsyncIterator[list[FakeModelServer]]:
    """One server for each load, at `network`.1, `network`.2, … and one port for all of them."""
    port = free_port()
    servers = [FakeModelServer(f"{network}.{i + 1}", port, load) for i, load in enumerate(loads)]
    try:
        for server in servers:
            await server.start()
        yield servers
    finally:
        for server in servers:
            await server.stop()
