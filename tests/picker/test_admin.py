"""The side door over a real socket: every path, and what is refused."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from picker.admin import AdminApp, AdminServer
from picker.core import Core
from picker.endpoint import Endpoint, EndpointMetrics
from picker.errors import ConfigError
from picker.settings import parse
from picker.views import MAX_DECISIONS, views
from tests.support.ports import free_port


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Door:
    core: Core
    port: int

    async def ask(self, target: str, method: str = "GET") -> Answer:
        """One request on a connection of its own; everything the server sends until it closes."""
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(f"{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(status.split()[1]), headers, body)

    async def json(self, target: str, status: int = 200) -> dict:
        answer = await self.ask(target)
        assert answer.status == status, answer.body
        assert answer.headers["content-type"] == "application/json"
        found: dict = json.loads(answer.body)
        return found


@asynccontextmanager
async def opened(config: str = "") -> AsyncIterator[Door]:
    head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
    core = Core(parse(["--endpoints", "10.0.0.1:8000", *(["--config-text", head + config] if config else [])]))
    core.datastore.set_endpoints("test", [Endpoint("e1", "10.0.0.1", 8000, labels={"zone": "a"}), Endpoint("e2", "fd00::2", 8001)])
    port = free_port()
    server = AdminServer(AdminApp(core.metrics.registry, core.refresh_gauges, views(core)), "127.0.0.1", port)
    running = asyncio.create_task(server.run())
    try:
        yield Door(core, port)
    finally:
        server.stop()
        await asyncio.wait_for(running, 30)


def decide(core: Core, request_id: str) -> None:
    body = b'{"model": "m", "prompt": "hello"}'
    core.director.handle({":path": "/v1/completions"}, body, None, request_id=request_id, received_s=time.monotonic())


async def test_liveness_and_readiness() -> None:
    async with opened() as door:
        assert await door.json("/healthz") == {"status": "alive"}
        ready = await door.json("/readyz")
        assert (ready["ready"], ready["reasons"]) == (True, {})
        door.core.readiness.block("endpoints", "no list yet")
        blocked = await door.json("/readyz", 503)
        assert (blocked["ready"], blocked["reasons"]) == (False, {"endpoints": "no list yet"})
        assert (await door.ask("/healthz")).status == 200


async def test_endpoints() -> None:
    async with opened() as door:
        (first, _) = door.core.datastore.states()
        first.load.open_request(12)
        reported = EndpointMetrics(3, 4, 0.5, 16, 100, frozenset({"b", "a"}), frozenset({"c"}), 2, time.monotonic())
        door.core.datastore.report(first.endpoint, reported)
        one, two = (await door.json("/debug/endpoints"))["endpoints"]
        assert one.pop("metrics_age_s") >= 0
        assert one == {
            "name": "e1",
            "namespace": "default",
            "address": "10.0.0.1:8000",
            "labels": {"zone": "a"},
            "ready": one["ready"],
            "scrape_interval_s": None,
            "waiting": 3,
            "running": 4,
            "kv_usage": 0.5,
            "block_size": 16,
            "num_blocks": 100,
            "active_adapters": ["a", "b"],
            "waiting_adapters": ["c"],
            "max_adapters": 2,
            "attributes": {},
            "names": {},
            "in_flight_requests": 1,
            "in_flight_tokens": 12,
        }
        assert (two["address"], two["metrics_age_s"], two["labels"]) == ("[fd00::2]:8001", None, {})


async def test_decisions_newest_first_or_by_request() -> None:
    async with opened() as door:
        assert await door.json("/debug/decisions") == {"decisions": []}
        for n in range(25):
            decide(door.core, f"r{n}")
        assert [d["request_id"] for d in (await door.json("/debug/decisions"))["decisions"]] == [f"r{n}" for n in range(24, 4, -1)]
        assert [d["request_id"] for d in (await door.json("/debug/decisions?limit=2"))["decisions"]] == ["r24", "r23"]
        assert len((await door.json(f"/debug/decisions?limit={MAX_DECISIONS}"))["decisions"]) == 25
        (one,) = (await door.json("/debug/decisions?request_id=r7"))["decisions"]
        assert one["request_id"] == "r7"
        assert one["picked"][0] in one["addresses"]
        assert await door.json("/debug/decisions?request_id=nobody") == {"decisions": []}


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "many", "1.5", "", "%20"])
async def test_a_wrong_query_is_400_and_says_what_was_expected(limit: str) -> None:
    async with opened() as door:
        answer = await door.json(f"/debug/decisions?limit={limit}", 400)
        assert answer["error"].startswith("limit=")
        assert answer["error"].endswith(": expected a number from 1 to 1000")


async def test_the_metrics_page_can_be_parsed_and_is_brought_up_to_date() -> None:
    async with opened() as door:
        decide(door.core, "r")
        answer = await door.ask("/metrics")
        assert answer.status == 200
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        samples = [s for family in text_string_to_metric_families(answer.body.decode()) for s in family.samples]
        values = {(s.name, s.labels.get("name", "")): s.value for s in samples}
        assert values["llm_d_epp_ready_endpoints", "default"] == values["inference_pool_ready_pods", "default"] == 2
        assert values["llm_d_epp_prefix_indexer_size", ""] == values["inference_extension_prefix_indexer_size", ""] == 1
        assert 200 < values["fairlead_prefix_indexer_bytes", ""] < 1000
        assert values["fairlead_prefix_indexer_evictions_total", ""] == 0
        assert values["llm_d_epp_info", ""] == 1
        assert {s.labels["model_name"]: s.value for s in samples if s.name == "llm_d_epp_request_total"} == {"m": 1}


async def test_the_metrics_page_shows_a_full_prefix_index_and_sweeps_it() -> None:
    async with opened() as door:
        (producer,) = door.core.pipeline.producers
        assert producer.index.limit_bytes == 256 << 20, "the flag's default"
        for bit in (0, 1):
            for n in range(300):
                producer.index.add(bit, [2 * n], 10**6)
        producer.index.limit_bytes = producer.index.size_bytes
        producer.index.add(0, [1], 10**6)
        door.core.datastore.set_endpoints("test", [])
        samples = text_string_to_metric_families((await door.ask("/metrics")).body.decode())
        values = {s.name: s.value for family in samples for s in family.samples}
        assert values["fairlead_prefix_indexer_evictions_total"] == producer.index.evicted > 0
        assert values["llm_d_epp_prefix_indexer_size"] == values["fairlead_prefix_indexer_bytes"] == 0


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/", "/debug", "/debug/decisions/", "/readyz%2f"])
async def test_other_paths_are_404_and_name_those_that_exist(path: str) -> None:
    async with opened() as door:
        answer = await door.ask(path)
        assert answer.status == 404
        known = b"/metrics, /healthz, /readyz, /debug/endpoints, /debug/decisions, /debug/plugins/state, /debug/flow, /debug/tasks"
        assert answer.body == b"not found; here are " + known + b"\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_are_405(method: str) -> None:
    async with opened() as door:
        answer = await door.ask("/metrics", method)
        assert answer.status == 405
        assert answer.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/nowhere"])
async def test_head_is_get_without_the_body(path: str) -> None:
    async with opened() as door:
        get, head = await door.ask(path), await door.ask(path, "HEAD")
        assert (head.status, head.body) == (get.status, b"")
        assert head.headers["content-type"] == get.headers["content-type"]
        assert int(head.headers["content-length"]) > 0


async def test_a_port_in_use_is_a_configuration_error() -> None:
    async with opened() as door:
        with pytest.raises(ConfigError) as error:
            AdminServer(AdminApp(door.core.metrics.registry, door.core.refresh_gauges, {}), "127.0.0.1", door.port)
        assert str(error.value).startswith(f"--metrics-port {door.port}: cannot listen on 127.0.0.1:{door.port}: ")


def test_an_address_that_is_not_ours_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1"):
        AdminServer(AdminApp(Core(parse(["--endpoints", "10.0.0.1:1"])).metrics.registry, lambda: None, {}), "192.0.2.1", free_port())


async def test_after_stop_the_port_is_free_again() -> None:
    async with opened() as door:
        port = door.port
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))


async def test_what_every_task_is_doing_can_be_looked_at_unless_it_is_switched_off() -> None:
    async with opened() as door:
        shown = await door.json("/debug/tasks")
        assert any("test_what_every_task" in at for task in shown["tasks"] for at in task["at"])
        assert {thread["name"] for thread in shown["threads"]} >= {"MainThread"}


async def test_the_queues_can_be_looked_at() -> None:
    async with opened() as door:
        assert await door.json("/debug/flow") == {"enabled": False}
    async with opened("featureGates: [flowControl]\nflowControl: {priorityBands: [{priority: 3}]}") as door:
        shown = await door.json("/debug/flow")
        assert shown["enabled"] and shown["requests"] == 0
        assert [(b["priority"], b["ceiling"], b["longest_flows"]) for b in shown["bands"]] == [(3, 1.0, [])]
        page = (await door.ask("/metrics")).body.decode()
        assert 'llm_d_epp_flow_control_capacity_utilization_requests{inference_pool="default",priority="3"} 0.0' in page
