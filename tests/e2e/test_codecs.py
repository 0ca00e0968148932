"""Envoy has two HTTP/2 codecs for its connections to the picker, nghttp2 and oghttp2, and the picker two transports: each with each."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import BODY_LIMIT, SIM_ARGS, StartStack
from tests.e2e.requests import CHAT, chat_body, events, open_stream, unique_text
from tests.support.envoy_stack import EnvoyStack, Patch

FLAG = "envoy.reloadable_features.http2_use_oghttp2"
LARGE_BYTES = 5_000_000


def codec(oghttp2: bool) -> Patch:
    """Sets the flag for good, as the operator of an Envoy would."""

    def patch(bootstrap: dict[str, Any]) -> None:
        layers = bootstrap.setdefault("layered_runtime", {}).setdefault("layers", [])
        layers.insert(0, {"name": "codec", "static_layer": {FLAG: oghttp2}})

    return patch


async def runtime_value(stack: EnvoyStack) -> str:
    """What Envoy itself says is in force."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.settings.admin_port}", trust_env=False) as admin:
        entries = (await admin.get("/runtime")).json()["entries"]
    return str(entries[FLAG]["final_value"])


async def connections_to_picker(stack: EnvoyStack) -> dict[str, int]:
    """Envoy's counters."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{stack.settings.admin_port}", trust_env=False) as admin:
        lines = (await admin.get("/stats?filter=^cluster\\.picker\\.")).text.splitlines()
    return {
        name.removeprefix("cluster.picker."): int(value) for name, _, value in (line.partition(": ") for line in lines) if value.isdigit()
    }


async def plain(client: httpx.AsyncClient) -> None:
    answer = await client.post(CHAT, json=chat_body(unique_text(20)))
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["completion_tokens"] > 0


async def streamed(client: httpx.AsyncClient) -> None:
    body = chat_body(unique_text(5), max_tokens=40, stream=True, stream_options={"include_usage": True})
    answer = await client.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    *_, last = events(answer.text)
    assert last["usage"]["completion_tokens"] == 40


async def large(client: httpx.AsyncClient) -> None:
    # Cut short or changed, it would be no JSON.
    body = json.dumps({**chat_body("x"), "user": "y" * LARGE_BYTES})
    answer = await client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 200, answer.text


async def leaving(client: httpx.AsyncClient) -> None:
    async with open_stream(client, max_tokens=50_000):
        pass


@pytest.mark.parametrize("transport", ["h2", "grpcio"])
@pytest.mark.parametrize("oghttp2", [False, True], ids=["nghttp2", "oghttp2"])
async def test_a_burst_of_everything(start_stack: StartStack, oghttp2: bool, transport: str) -> None:
    picker_args = [f"--transport={transport}", f"--max-request-body-size={BODY_LIMIT}"]
    stack = await start_stack(sims=2, sim_args=SIM_ARGS, picker_args=picker_args, patch=codec(oghttp2))
    assert f"({transport}, " in stack.picker.log()
    assert await runtime_value(stack) == str(oghttp2).lower()
    async with stack.client() as client:
        burst = [plain] * 60 + [streamed] * 25 + [large] * 3 + [leaving] * 12
        await asyncio.gather(*[ask(client) for ask in burst])
        await stack.settled()
        await plain(client)
    counted = await connections_to_picker(stack)
    assert counted["http2.streams_active"] == 0
    assert counted["upstream_rq_total"] >= 100
    assert counted["upstream_cx_protocol_error"] == counted["upstream_rq_rx_reset"] == counted["upstream_rq_timeout"] == 0
