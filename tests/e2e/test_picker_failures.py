"""A picker that dies, comes back, or is told to stop."""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest

from tests.e2e.conftest import StartStack
from tests.e2e.requests import CHAT, chat_body, events, open_stream, request_id, rest_of
from tests.support.envoy_stack import EnvoyStack, wait_for

SLOW = ("--inter-token-latency-ms=5", "--max-model-len=200000", "--num-gpu-blocks-override=40000")


async def _served_again(client: httpx.AsyncClient) -> None:
    """Envoy's health checks have to find the new picker first."""

    async def answer() -> str | None:
        status = (await client.post(CHAT, json=chat_body())).status_code
        return None if status == 200 else f"status {status}"

    await wait_for(answer)


async def _idle(stack: EnvoyStack) -> None:
    """The simulators have noticed that nobody listens any more; there may be no picker to ask."""

    async def reason() -> str | None:
        loads = [await stack.sim_load(node) for node in stack.sims]
        return f"still running: {loads}" if any(loads) else None

    await wait_for(reason)


async def test_without_a_picker_requests_fail_closed_and_a_new_one_serves_again(start_stack: StartStack) -> None:
    stack = await start_stack(sims=2, sim_args=SLOW)
    async with stack.client() as client:
        await stack.picker.end(signal.SIGKILL)
        for _ in range(3):
            answer = await client.post(CHAT, json=chat_body())
            assert answer.status_code in (500, 503)
            assert "x-sim-endpoint" not in answer.headers
        assert (await client.get("/v1/models")).status_code in (500, 503)
        await stack.picker.start()
        await _served_again(client)


async def test_a_picker_that_dies_in_mid_stream_ends_the_stream_with_an_error(start_stack: StartStack) -> None:
    stack = await start_stack(sims=1, sim_args=SLOW)
    async with stack.client() as client:
        async with open_stream(client, max_tokens=100_000) as response:
            await stack.picker.end(signal.SIGKILL)
            with pytest.raises(httpx.RemoteProtocolError):
                await rest_of(response)
        await _idle(stack)
        await stack.picker.start()
        await _served_again(client)


async def test_a_picker_that_dies_before_the_answer_begins_ends_the_request_with_an_error(start_stack: StartStack) -> None:
    stack = await start_stack(sims=1, sim_args=SLOW)
    async with stack.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json=chat_body(max_tokens=100_000)))
        await stack.until_endpoint(stack.servers[0], running=1)
        await stack.picker.end(signal.SIGKILL)
        assert (await asking).status_code in (500, 502, 503)
        await _idle(stack)
        await stack.picker.start()
        await _served_again(client)


async def test_a_picker_told_to_stop_serves_on_while_it_drains_and_lets_open_streams_finish(start_stack: StartStack) -> None:
    stack = await start_stack(sims=2, sim_args=SLOW, picker_args=["--drain-timeout=1s"])
    identity = request_id()
    async with stack.client() as client:
        async with open_stream(client, max_tokens=500, identity=identity) as response:
            stack.picker.child.signal(signal.SIGTERM)

            async def draining() -> str | None:
                return None if "draining" in stack.picker.log() else "no word of draining"

            await wait_for(draining)
            assert (await client.post(CHAT, json=chat_body())).status_code == 200
            tail = list(events(await rest_of(response)))
        assert tail[-1]["usage"]["completion_tokens"] == 500
        assert await stack.picker.ended() == 0
        assert "waiting for 1 open streams" in stack.picker.log()
        await stack.picker.start()
        await _served_again(client)


async def test_a_second_signal_ends_the_drain_at_once(start_stack: StartStack) -> None:
    stack = await start_stack(sims=1, sim_args=SLOW, picker_args=["--drain-timeout=1h"])
    async with stack.client() as client:
        async with open_stream(client, max_tokens=100_000) as response:
            stack.picker.child.signal(signal.SIGTERM)

            async def draining() -> str | None:
                return None if "draining" in stack.picker.log() else "no word of draining"

            await wait_for(draining)
            assert await stack.picker.end(signal.SIGTERM) == 0
            with pytest.raises(httpx.RemoteProtocolError):
                await rest_of(response)
        await stack.picker.start()
        await _served_again(client)


async def test_a_second_picker_on_the_same_ports_refuses_to_start(stack: EnvoyStack) -> None:
    twin = stack.another_picker()
    twin.spawn()
    try:
        assert await twin.ended() == 1
        assert "cannot listen" in twin.log()
        assert "Traceback" not in twin.log()
    finally:
        await twin.cleanup()
