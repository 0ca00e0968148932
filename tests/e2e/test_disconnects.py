"""Clients that leave early. Every scenario ends with the check that nothing is left in flight, see conftest."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.e2e.requests import CHAT, MODEL, chat_body, events, open_stream, request_id, rest_of, unique_text
from tests.support.envoy_stack import EnvoyStack, wait_for
from tests.support.prometheus import metrics

LONG = 100_000


async def _aborted(stack: EnvoyStack) -> float:
    """Requests that simulators ended because their client left."""
    pages = [await metrics(f"http://{node.address}/metrics") for node in stack.sims]
    return sum(page.value("vllm:request_success_total", finished_reason="abort") for page in pages)


async def test_a_client_that_leaves_in_mid_stream_frees_the_server_and_the_books(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    identity, before = request_id(), await _aborted(stack)
    async with open_stream(http, max_tokens=LONG, identity=identity) as response:
        await stack.until_endpoint(response.headers["x-sim-endpoint"], running=1, in_flight_requests=1)
    await stack.settled()
    assert await _aborted(stack) == before + 1
    record = await stack.decision(identity)
    assert (record["cause"], record["status"], record["completion_tokens"]) == ("disconnected", 200, None)
    assert record["served"] == response.headers["x-sim-endpoint"]


async def test_many_clients_that_leave_at_once(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    before = await _aborted(stack)
    left = asyncio.Event()

    async def visit() -> None:
        async with open_stream(http, max_tokens=LONG):
            await left.wait()

    visits = [asyncio.create_task(visit()) for _ in range(20)]

    async def all_open() -> str | None:
        opened = sum([(await stack.endpoint(address))["running"] for address in stack.servers])
        return None if opened == 20 else f"{opened} streams"

    try:
        await wait_for(all_open)
    finally:
        left.set()
        await asyncio.gather(*visits)
    await stack.settled()
    assert await _aborted(stack) == before + 20


async def test_a_stream_that_is_left_does_not_harm_the_others_on_its_connection(stack: EnvoyStack) -> None:
    """HTTP/2, where leaving is one frame on a connection that goes on."""
    async with stack.client(http1=False, http2=True) as client, open_stream(client, max_tokens=300) as stays:
        async with open_stream(client, max_tokens=LONG) as leaves:
            assert leaves.http_version == "HTTP/2"
        answers = await asyncio.gather(*[client.post(CHAT, json=chat_body(unique_text(3))) for _ in range(20)])
        assert {answer.status_code for answer in answers} == {200}
        assert list(events(await rest_of(stays)))[-1]["usage"]["completion_tokens"] == 300


async def test_a_client_that_leaves_before_the_answer_begins(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    """Nothing of the answer has been sent, as it is not a stream."""
    identity, before = request_id(), await _aborted(stack)
    body = chat_body(unique_text(4), max_tokens=LONG)
    asking = asyncio.create_task(http.post(CHAT, json=body, headers={"x-request-id": identity}))

    async def running() -> str | None:
        return None if any([(await stack.endpoint(address))["running"] for address in stack.servers]) else "nothing runs"

    await wait_for(running)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await stack.settled()
    assert await _aborted(stack) == before + 1
    record = await stack.decision(identity)
    assert (record["cause"], record["ttft_s"]) == ("disconnected", None)


async def test_a_client_that_leaves_in_the_middle_of_its_own_request(stack: EnvoyStack) -> None:
    """No decision can have been made: the body never came to its end."""
    identity = request_id()
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.settings.port)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nx-request-id: {identity}\r\ncontent-length: 100000\r\n\r\n"
    writer.write(head.encode() + b'{"model": "' + MODEL.encode())
    await writer.drain()

    async def open_streams() -> str | None:
        page = await metrics(f"{stack.settings.picker_url}/metrics")
        return None if page.value("llm_d_epp_extproc_streams_inflight") == 1 else "the picker has not heard of it"

    await wait_for(open_streams)
    writer.close()
    await stack.settled()
    assert await stack.decisions_of(identity) == 0
    assert await reader.read() == b""
