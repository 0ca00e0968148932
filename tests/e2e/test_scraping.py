"""How model servers are watched while requests pass: rarely when idle, often when busy, and by what their answers tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from tests.e2e.conftest import StartStack
from tests.e2e.counting import REPORT, CountingServer
from tests.e2e.requests import CHAT, chat_body, unique_text
from tests.support.envoy_stack import EnvoyStack, wait_for
from tests.support.prometheus import metrics

HEADER, FORMAT = "endpoint-load-metrics", "endpoint-load-metrics-format"
REFERENCE = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\ncompat: reference\nplugins:\n- type: queue-scorer\n"
FULL_S, SLOW_S = 0.05, 1.0
MANY = 100
"""Reads that take 5 s at the full rate, and longer than any test has patience for at the slow one."""


@pytest.fixture
async def servers() -> AsyncIterator[list[CountingServer]]:
    async with CountingServer() as one, CountingServer() as two:
        yield [one, two]


async def until_read(server: CountingServer, times: int) -> None:
    """Until the server's page has been read so many times more."""
    wanted = server.reads + times

    async def reason() -> str | None:
        return None if server.reads >= wanted else f"{server.reads} reads of {wanted}"

    await wait_for(reason)


async def until_paces(stack: EnvoyStack, **wanted: int) -> None:
    async def reason() -> str | None:
        page = await metrics(f"{stack.settings.picker_url}/metrics")
        paces = {name: page.value("fairlead_scrape_endpoints", pace=name) for name in wanted}
        return None if paces == wanted else f"{paces}, not {wanted}"

    await wait_for(reason)


@asynccontextmanager
async def held(client: httpx.AsyncClient, servers: list[CountingServer]) -> AsyncIterator[tuple[CountingServer, CountingServer]]:
    """While a request waits for its answer: the server that has it, and the other one."""
    for server in servers:
        server.may_answer.clear()
        server.asked.clear()
    asking = asyncio.create_task(client.post(CHAT, json=chat_body(unique_text(3))))

    async def reason() -> str | None:
        return None if any(server.asked for server in servers) else "no server has the request"

    await wait_for(reason)
    busy, quiet = servers if servers[0].asked else reversed(servers)
    yield busy, quiet
    for server in servers:
        server.may_answer.set()
    assert (await asking).status_code == 200


async def test_an_idle_server_is_read_rarely_and_woken_by_the_first_request(start_stack: StartStack, servers: list[CountingServer]) -> None:
    stack = await start_stack(sims=0, endpoints=[server.address for server in servers])
    await until_paces(stack, idle=2, full=0, failing=0)
    for server in servers:
        await stack.until_endpoint(server.address, scrape_interval_s=SLOW_S)
    async with stack.client() as client, held(client, servers) as (busy, quiet):
        before = quiet.reads
        await until_read(busy, MANY)
        # The one that works is read twenty times as often. A third is asked for: on a busy machine the full rate is not reached.
        assert quiet.reads - before <= MANY // 3
        await stack.until_endpoint(busy.address, scrape_interval_s=FULL_S, in_flight_requests=1)
        await stack.until_endpoint(quiet.address, scrape_interval_s=SLOW_S, in_flight_requests=0)
    await until_paces(stack, idle=2, full=0, failing=0)


async def test_load_of_others_is_noticed_without_a_request_of_ours(start_stack: StartStack, servers: list[CountingServer]) -> None:
    stack = await start_stack(sims=0, endpoints=[server.address for server in servers])
    await until_paces(stack, idle=2, full=0)
    servers[0].load.running = 3
    await until_read(servers[0], MANY)
    await until_paces(stack, idle=1, full=1)
    servers[0].load.running = 0
    await until_paces(stack, idle=2, full=0)


async def test_as_the_reference_all_are_read_at_the_fixed_rate_and_nobody_is_asked(
    start_stack: StartStack, servers: list[CountingServer]
) -> None:
    stack = await start_stack(sims=0, endpoints=[server.address for server in servers], config=REFERENCE)
    await asyncio.gather(*[until_read(server, MANY) for server in servers])
    await until_paces(stack, idle=0, full=2, failing=0)
    async with stack.client() as client:
        assert HEADER not in (await client.post(CHAT, json=chat_body())).headers
    assert [server.asked for server in servers if server.asked] == [[""]]


async def test_an_answer_tells_the_load_of_its_server(start_stack: StartStack, servers: list[CountingServer]) -> None:
    stack = await start_stack(sims=0, endpoints=[server.address for server in servers])
    await until_paces(stack, idle=2)
    for server in servers:
        server.broken = True  # so that what the answer tells is not soon replaced by a page
    await until_paces(stack, failing=2)
    async with stack.client() as client:
        plain = await client.post(CHAT, json=chat_body())
        assert HEADER not in plain.headers
        address = plain.headers["x-served-by"]
        assert next(server for server in servers if server.address == address).asked == ["JSON"]
        await stack.until_endpoint(address, waiting=7, kv_usage=0.5, running=0)
        (other,) = {server.address for server in servers} - {address}
        await stack.until_endpoint(other, waiting=0, kv_usage=0.0)
        asked = await client.post(CHAT, json=chat_body(), headers={FORMAT: "JSON"})
        assert asked.headers[HEADER] == REPORT
        streamed = await client.post(CHAT, json=chat_body(stream=True))
        assert next(server for server in servers if server.address == streamed.headers["x-served-by"]).asked[-1] == ""


async def test_simulated_servers_report_as_vllm_does(stack: EnvoyStack, http: httpx.AsyncClient) -> None:
    async def reports() -> float:
        return (await metrics(f"{stack.settings.picker_url}/metrics")).value("fairlead_load_reports_total")

    before = await reports()
    for body in (chat_body(unique_text(3)), chat_body(unique_text(3), stream=True)):
        answer = await http.post(CHAT, json=body)
        assert answer.status_code == 200
        assert HEADER not in answer.headers
    assert await reports() == before + 1
    asked = await http.post(CHAT, json=chat_body(unique_text(3)), headers={FORMAT: "TEXT"})
    assert asked.headers[HEADER].startswith("TEXT named_metrics.num_requests_waiting=")
    assert await reports() == before + 1, "only JSON is read"
