"""A picker that names fallbacks, and an Envoy that tries them in order: who answered is who is counted.

The dead servers are dead for requests only. Their metrics page, on a port of its own, goes on, so that the picker names them first.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.address import HostPort
from gateway.local.part import Part, answers_200
from tests.e2e.conftest import SIM_ARGS, StartStack
from tests.e2e.requests import CHAT, MODEL, chat_body, events, open_stream, request_id, rest_of
from tests.support.envoy_stack import EnvoyStack, Node, consecutive_ports
from tests.support.model_server import Load, model_servers
from tests.support.prometheus import metrics

# The queues are what tells the servers apart: the order is that of their addresses.
CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
- type: max-score-picker
  parameters: {{maxNumOfEndpoints: 3}}
- type: metrics-data-source
  parameters: {{port: {port}}}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: queue-scorer
  - pluginRef: max-score-picker
"""


@dataclass(frozen=True, slots=True)
class Pool:
    """`addresses` in the order in which the picker names them."""

    stack: EnvoyStack
    addresses: list[str]

    async def in_flight(self) -> list[int]:
        """Requests, by endpoint, as the scorers see them."""
        return [(await self.stack.endpoint(address))["in_flight_requests"] for address in self.addresses]

    async def gauges(self) -> dict[str, float]:
        """The in-flight gauge by endpoint; those that have nothing are not on the page."""
        page = await metrics(f"{self.stack.settings.picker_url}/metrics")
        names = {(await self.stack.endpoint(address))["name"]: address for address in self.addresses}
        return {names[sample.labels["endpoint_name"]]: sample.value for sample in page.find("llm_d_epp_inflight_requests")}


StartPool = Callable[[int], Awaitable[Pool]]


@pytest.fixture
async def start_pool(start_stack: StartStack, tmp_path: Path) -> AsyncIterator[StartPool]:
    """Starts three servers, of which the first so many refuse connections, and a stack in front of them."""
    async with AsyncExitStack() as started:

        async def start(dead: int) -> Pool:
            pages = await started.enter_async_context(model_servers(*[Load(queue=queue) for queue in range(3)]))
            port = consecutive_ports(1)
            addresses = [f"{page.host}:{port}" for page in pages]
            for address in addresses[dead:]:
                node = _simulator(HostPort.parse(address), tmp_path)
                started.push_async_callback(node.cleanup)
                await node.start()
            stack = await start_stack(
                sims=0,
                endpoints=addresses,
                config=CONFIG.format(port=pages[0].port),
                envoy_args=[f"--static-endpoints={','.join(addresses)}"],
            )
            for address, page in zip(addresses, pages, strict=True):
                await stack.until_endpoint(address, ready=True, waiting=page.load.queue)
            return Pool(stack, addresses)

        yield start


def _simulator(at: HostPort, folder: Path) -> Node:
    argv = (sys.executable, "-P", "-m", "bench.sim", "--host", at.host, "--port", str(at.port), "--model", MODEL, *SIM_ARGS)
    return Node(Part(name=f"sim-{at.host}", role="model server", argv=argv, address=at, ready=answers_200(f"http://{at}/health")), folder)


@pytest.mark.parametrize("dead", [0, 1, 2])
async def test_the_first_that_lives_answers_and_is_counted(start_pool: StartPool, dead: int) -> None:
    pool = await start_pool(dead)
    expected = pool.addresses[dead]
    identity = request_id()
    async with pool.stack.client() as client:
        answer = await client.post(CHAT, json=chat_body(max_tokens=5), headers={"x-request-id": identity})
    assert (answer.status_code, answer.headers["x-sim-endpoint"]) == (200, expected), answer.text
    record = await pool.stack.decision(identity)
    assert record["picked"] == pool.addresses
    assert (record["served"], record["cause"], record["status"]) == (expected, "completed", 200)
    assert (record["prompt_tokens"], record["completion_tokens"]) == (answer.json()["usage"]["prompt_tokens"], 5)
    await pool.stack.settled()
    assert (await pool.in_flight(), await pool.gauges()) == ([0, 0, 0], {})


async def test_a_stream_is_in_flight_where_it_is_answered(start_pool: StartPool) -> None:
    pool = await start_pool(1)
    identity = request_id()
    async with pool.stack.client() as client, open_stream(client, max_tokens=100_000, identity=identity) as response:
        assert response.headers["x-sim-endpoint"] == pool.addresses[1]
        assert await pool.in_flight() == [0, 1, 0]
        assert await pool.gauges() == {pool.addresses[1]: 1}
    await pool.stack.settled()
    assert (await pool.in_flight(), await pool.gauges()) == ([0, 0, 0], {})
    record = await pool.stack.decision(identity)
    assert (record["served"], record["cause"]) == (pool.addresses[1], "disconnected")


async def test_a_whole_stream_of_a_fallback_is_passed(start_pool: StartPool) -> None:
    pool = await start_pool(1)
    async with pool.stack.client() as client, open_stream(client, max_tokens=20) as response:
        assert list(events(await rest_of(response)))[-1]["usage"]["completion_tokens"] == 20


async def test_a_client_cannot_name_who_served(start_pool: StartPool) -> None:
    pool = await start_pool(1)
    identity = request_id()
    forged = {"x-request-id": identity, "x-gateway-destination-endpoint-served": pool.addresses[2]}
    async with pool.stack.client() as client:
        assert (await client.post(CHAT, json=chat_body(), headers=forged)).status_code == 200
    assert (await pool.stack.decision(identity))["served"] == pool.addresses[1]


async def test_with_all_of_them_dead_the_client_is_told_and_nothing_stays_in_flight(start_pool: StartPool) -> None:
    pool = await start_pool(3)
    identity = request_id()
    async with pool.stack.client() as client:
        answer = await client.post(CHAT, json=chat_body(), headers={"x-request-id": identity})
    assert answer.status_code == 503
    record = await pool.stack.decision(identity)
    assert (record["cause"], record["status"]) == ("model_server_error", 503)
    await pool.stack.settled()
    assert (await pool.in_flight(), await pool.gauges()) == ([0, 0, 0], {})
