"""Model servers that die, come back, or are all gone."""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest

from tests.e2e.conftest import StartStack
from tests.e2e.requests import CHAT, chat_body, events, open_stream, request_id, rest_of, unique_text
from tests.support.envoy_stack import EnvoyStack, Node, wait_for

SLOW = ("--inter-token-latency-ms=5", "--max-model-len=200000", "--num-gpu-blocks-override=40000")


def _node(stack: EnvoyStack, address: str) -> Node:
    return next(node for node in stack.sims if node.address == address)


async def _answered_by(client: httpx.AsyncClient, count: int) -> set[str]:
    answers = await asyncio.gather(*[client.post(CHAT, json=chat_body(unique_text(3))) for _ in range(count)])
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers if answer.status_code != 200][:3]
    return {answer.headers["x-sim-endpoint"] for answer in answers}


async def test_a_server_killed_in_mid_stream_is_left_out_until_it_is_back(start_stack: StartStack) -> None:
    stack = await start_stack(sims=2, sim_args=SLOW)
    identity = request_id()
    async with stack.client() as client:
        async with open_stream(client, max_tokens=100_000, identity=identity) as response:
            dead = response.headers["x-sim-endpoint"]
            assert await _node(stack, dead).end(signal.SIGKILL) == -signal.SIGKILL
            with pytest.raises(httpx.RemoteProtocolError):
                await rest_of(response)
        record = await stack.decision(identity)
        assert (record["cause"], record["served"]) == ("disconnected", dead)

        await stack.until_endpoint(dead, ready=False, in_flight_requests=0)
        (alive,) = set(stack.servers) - {dead}
        assert await _answered_by(client, 20) == {alive}

        await _node(stack, dead).start()
        await stack.until_endpoint(dead, ready=True)
        assert await _answered_by(client, 20) == {alive, dead}


async def test_a_server_that_dies_while_it_computes_gives_an_error_not_a_hang(start_stack: StartStack) -> None:
    stack = await start_stack(sims=1, sim_args=SLOW)
    identity = request_id()
    async with stack.client() as client:
        asking = asyncio.create_task(client.post(CHAT, json=chat_body(max_tokens=100_000), headers={"x-request-id": identity}))
        await stack.until_endpoint(stack.servers[0], running=1)
        await stack.sims[0].end(signal.SIGKILL)
        answer = await asking
        assert answer.status_code in (502, 503)
        # What Envoy answers in the server's place passes the picker like an answer.
        record = await stack.decision(identity)
        assert record["cause"] in ("model_server_error", "disconnected")
        assert record["completion_tokens"] is None


async def test_without_any_server_the_answer_is_503_with_the_reason_until_one_is_back(start_stack: StartStack) -> None:
    stack = await start_stack(sims=2, sim_args=SLOW)
    async with stack.client() as client:
        for node in stack.sims:
            await node.end(signal.SIGKILL)
        for address in stack.servers:
            await stack.until_endpoint(address, ready=False)
        identity = request_id()
        answer = await client.post(CHAT, json=chat_body(), headers={"x-request-id": identity})
        assert answer.status_code == 503
        assert answer.text == ("inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request")
        assert answer.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints"
        assert await stack.decisions_of(identity) == 0

        headers_only = await client.get("/v1/models")
        assert (headers_only.status_code, headers_only.text) == (500, "inference error: Internal - no pods available in datastore")

        await stack.sims[1].start()
        await stack.until_endpoint(stack.servers[1], ready=True)
        assert await _answered_by(client, 5) == {stack.servers[1]}


async def test_a_server_that_stops_in_good_order_ends_its_streams_first(start_stack: StartStack) -> None:
    """SIGTERM gives a simulator one second: a stream that takes less is whole."""
    stack = await start_stack(sims=2, sim_args=SLOW)
    async with stack.client() as client:
        async with open_stream(client, max_tokens=60) as response:
            leaving = _node(stack, response.headers["x-sim-endpoint"])
            leaving.child.signal(signal.SIGTERM)
            tail = list(events(await rest_of(response)))
            assert tail[-1]["usage"]["completion_tokens"] == 60
        assert await leaving.ended() == 0
        await stack.until_endpoint(leaving.address, ready=False)
        assert leaving.address not in await _answered_by(client, 10)


async def test_requests_go_on_while_servers_die_and_come_back(start_stack: StartStack) -> None:
    """Under load a client may get an error of the moment in which a server dies, but an answer always, and all is well later."""
    stack = await start_stack(sims=2, sim_args=SLOW)
    statuses: list[int | str] = []
    stop = asyncio.Event()

    async def ask(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            try:
                answer = await client.post(CHAT, json=chat_body(unique_text(3), stream=True))
                statuses.append(answer.status_code)
            except httpx.RemoteProtocolError as error:
                statuses.append(type(error).__name__)

    async with stack.client() as client:
        asking = [asyncio.create_task(ask(client)) for _ in range(8)]
        try:
            for node in stack.sims:
                await node.end(signal.SIGKILL)
                await stack.until_endpoint(node.address, ready=False)
                await node.start()
                await stack.until_endpoint(node.address, ready=True)

            answered = len(statuses)

            async def more() -> str | None:
                return None if len(statuses) > answered + 20 else f"only {len(statuses) - answered} answers since"

            await wait_for(more)
        finally:
            stop.set()
            await asyncio.gather(*asking)
        assert set(statuses) <= {200, 502, 503, "RemoteProtocolError"}
        assert statuses.count(200) > len(statuses) / 2
        assert await _answered_by(client, 10) == set(stack.servers)
