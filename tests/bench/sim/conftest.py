"""A simulated server in this process, on a free port, with the clients to talk to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.sim.server import bind, build_server
from bench.sim.settings import LoraModule, Settings

# Fast enough for short tests, slow enough for a stream of thousands of tokens to be still going when looked at.
QUICK = Settings(
    port=0,
    max_num_seqs=2,
    time_to_first_token_ms=1.0,
    inter_token_latency_ms=2.0,
    prefill_us_per_token=0.0,
    enable_prompt_tokens_details=True,
    enable_lora=True,
    max_loras=1,
    lora_modules=(LoraModule("sql", "/adapters/sql"),),
)


class Sim:
    """One running server."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.http = httpx.AsyncClient(base_url=base_url, timeout=20)
        self.openai = openai.AsyncOpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0, timeout=20)

    async def value(self, name: str, **labels: str) -> float:
        """A sample of /metrics; 0 if it is not there."""
        page = (await self.http.get("/metrics")).text
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        return 0.0

    async def until(self, name: str, value: float, **labels: str) -> None:
        """Wait until a sample has the value."""
        for _ in range(2000):
            if await self.value(name, **labels) == value:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"{name} did not become {value}")

    async def close(self) -> None:
        """Close the clients."""
        await self.http.aclose()
        await self.openai.close()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Sim]:
    """Serve on a free port while the block runs; afterwards no task may be left."""
    before = asyncio.all_tasks()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    with bind(settings.host, 0) as sock:
        server = build_server(settings, sock.getsockname()[1], ready.set_result)
        task = asyncio.create_task(server.serve(sockets=[sock]), name="sim-server")
        sim = Sim(f"http://{await asyncio.wait_for(ready, 20)}")
        try:
            yield sim
        finally:
            await sim.close()
            server.should_exit = True
            await asyncio.wait_for(task, 20)
    assert not [left.get_name() for left in asyncio.all_tasks() - before if left.get_name().startswith("sim-")]


Start = Callable[[Settings], Awaitable[Sim]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start servers with settings of one's own; they end with the test."""
    async with AsyncExitStack() as servers:

        async def one(settings: Settings) -> Sim:
            return await servers.enter_async_context(running(settings))

        yield one


@pytest.fixture
async def sim(start: Start) -> Sim:
    """A server with the quick settings."""
    return await start(QUICK)
