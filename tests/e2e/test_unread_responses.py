"""Response bodies that nobody needs, behind the real Envoy: not sent, dropped on request, or passed unread; in flight to the end."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import SIM_ARGS, StartStack
from tests.e2e.requests import CHAT, chat_body, events, open_stream, request_id
from tests.e2e.test_extproc_modes import FULL, ext_proc, gateway, modes
from tests.support.envoy_stack import EnvoyStack, Patch

_UNREAD = re.compile(r'^fairlead_response_bodies_unread_total\{how="(\w+)"\} (\d+)', re.MULTILINE)


async def unread(stack: EnvoyStack) -> dict[str, int]:
    """What became of bodies nobody looked at, so far."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        page = (await client.get(f"{stack.settings.picker_url}/metrics")).text
    return {how: int(count) for how, count in _UNREAD.findall(page)}


def without_override(config: dict[str, Any]) -> None:
    """Envoy listens to no override."""
    modes_of = config["processing_mode"]
    modes_of.update(request_body_mode="BUFFERED", response_body_mode="STREAMED", request_trailer_mode="SKIP", response_trailer_mode="SKIP")
    del config["allow_mode_override"]


def keeping(config: dict[str, Any]) -> None:
    """What `--keep-response-bodies` renders."""
    config["processing_mode"]["response_body_mode"] = "NONE"


CASES: list[tuple[str, Patch, str]] = [
    ("dropped, streamed", modes("BUFFERED", "STREAMED"), "dropped"),
    ("dropped, buffered", modes("BUFFERED", "BUFFERED"), "dropped"),
    ("override not allowed", ext_proc(without_override), "passed"),
    ("full duplex", ext_proc(lambda config: None), "passed"),
    ("full duplex on one side", modes(FULL, "STREAMED"), "passed"),
    ("kept by the proxy", ext_proc(keeping), "not_sent"),
]


@pytest.mark.timeout(180)
async def test_each_way_delivers_whole_answers_and_counts_them(start_stack: StartStack) -> None:
    stack = await start_stack(sims=1, sim_args=SIM_ARGS, picker_args=("--response-metrics=false",))
    for name, patch, how in CASES:
        async with gateway(stack, patch) as client:
            before = await unread(stack)
            answers = await asyncio.gather(*[client.post(CHAT, json=chat_body(f"{name} {i}", max_tokens=3)) for i in range(40)])
            assert [a.status_code for a in answers] == [200] * 40, name
            assert all(a.json()["usage"]["completion_tokens"] == 3 for a in answers), name
            streamed = await client.post(CHAT, json=chat_body(max_tokens=30, stream=True))
            assert streamed.text.rstrip().endswith("data: [DONE]"), name
            assert sum(bool(e["choices"]) for e in events(streamed.text)) >= 30, name
            await stack.settled()
            after = await unread(stack)
            assert {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)} == {how: 41}, name

            identity = request_id()
            async with open_stream(client, max_tokens=100_000, identity=identity) as response:
                served = response.headers["x-sim-endpoint"]
                await stack.until_endpoint(served, running=1, in_flight_requests=1)
                # Still so when the response has been passing for a while.
                for _ in range(20):
                    await anext(response.extensions["lines"])
                assert (await stack.endpoint(served))["in_flight_requests"] == 1, name
            record = await stack.decision(identity)
            # Where no body is shown, a client that leaves cannot be told from a response that ends.
            assert record["cause"] == ("disconnected" if how == "passed" else "completed"), name
            assert (record["completion_tokens"], record["ttft_s"]) == (None, None), name
