"""The picker as a process: health, drain, what it says when it cannot start, and streams that break the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.conformance.setting import Setting, config_text, setting
from tests.support.ext_proc import POST, ExtProcClient, Stream, request_body, request_headers, response_headers, streamed
from tests.support.model_server import Load
from tests.support.picker_process import PickerProcess
from tests.support.waiting import PATIENCE_S, until

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("", "inference-extension", "envoy.service.ext_proc.v3.ExternalProcessor", "liveness", "readiness", "anything")
BODY = b'{"model":"m","prompt":"x"}'
POD = "127.0.1.1:1"  # nobody is there


class Health:
    """A client of grpc.health.v1."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)])
        self._stub: Any = health_pb2_grpc.HealthStub(self._channel)  # type: ignore[no-untyped-call, unused-ignore]

    async def __aenter__(self) -> Health:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._channel.close()

    async def check(self, service: str = "") -> int:
        answer = await self._stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S)
        return int(answer.status)

    async def list(self) -> dict[str, int]:
        answer = await self._stub.List(health_pb2.HealthListRequest(), timeout=PATIENCE_S)
        return {name: status.status for name, status in answer.statuses.items()}

    def watch(self, service: str = "") -> AsyncIterator[Any]:
        watch: AsyncIterator[Any] = aiter(self._stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE_S))
        return watch


async def open_request(stream: Stream) -> None:
    """A request that is decided and waits for its response."""
    await stream.send(request_headers(POST), request_body(BODY))
    assert streamed(await stream.expect(2)) == [(BODY, True)]


async def finish(stream: Stream) -> None:
    """Its response, and the end of the stream."""
    await stream.send(response_headers({":status": "200"}, end=True))
    await stream.expect(1)
    await stream.half_close()
    assert await stream.rest() == []
    assert await stream.code() is grpc.StatusCode.OK


async def says(picker: PickerProcess, text: str) -> None:
    """Returns when the log has `text`."""

    async def said() -> bool:
        return text in picker.stderr

    await until(said, f"the log says {text!r}")


# ---- health --------------------------------------------------------------------------------------------------------------------


async def test_health_is_served_on_its_own_port_whatever_service_is_asked_for() -> None:
    async with setting(Load()) as s, Health(s.picker.health_port) as health:
        assert [await health.check(service) for service in SERVICES] == [SERVING] * len(SERVICES)
        assert set((await health.list()).values()) == {SERVING}
        assert (await anext(health.watch("anything"))).status == SERVING


@pytest.mark.parametrize("enabled", [True, False])
async def test_health_on_the_ext_proc_port_is_a_matter_of_a_flag(enabled: bool) -> None:
    async with setting(Load(), flags=["--health-checking"] if enabled else []) as s, Health(s.picker.grpc_port) as health:
        if enabled:
            assert await health.check("anything") == SERVING
        else:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await health.check()
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


# ---- the end -------------------------------------------------------------------------------------------------------------------


async def test_sigterm_says_not_serving_at_once_and_serves_on() -> None:
    async with setting(Load(), flags=["--drain-timeout=60s"]) as s, Health(s.picker.health_port) as health, s.client.stream() as stream:
        await open_request(stream)
        watch = health.watch()
        assert (await anext(watch)).status == SERVING
        s.picker.terminate()
        assert (await anext(watch)).status == NOT_SERVING
        assert [await health.check(service) for service in SERVICES] == [NOT_SERVING] * len(SERVICES)
        assert not (await s.picker.get("/readyz"))["ready"]
        async with s.client.stream() as late:
            await open_request(late)
            await finish(late)
        await finish(stream)
        # Nobody waits for the rest of the minute after a second signal.
        s.picker.terminate()
        assert await s.picker.wait() == 0


async def test_after_the_drain_timeout_open_streams_may_finish() -> None:
    async with setting(Load(), flags=["--drain-timeout=50ms"]) as s, s.client.stream() as stream:
        await open_request(stream)
        s.picker.terminate()
        await says(s.picker, "waiting for 1 open streams")
        await finish(stream)
        assert await s.picker.wait() == 0


async def test_a_second_sigterm_cuts_open_streams() -> None:
    async with setting(Load(), flags=["--drain-timeout=50ms"]) as s, s.client.stream() as stream:
        await open_request(stream)
        s.picker.terminate()
        await says(s.picker, "waiting for 1 open streams")
        s.picker.terminate()
        assert await s.picker.wait() == 0
        with contextlib.suppress(grpc.aio.AioRpcError):
            assert await stream.rest() == []
        assert await stream.code() is not grpc.StatusCode.OK


async def test_without_a_drain_timeout_it_stops_at_once() -> None:
    async with setting(Load(), flags=["--drain-timeout=0"]) as s, s.client.stream() as stream:
        await open_request(stream)
        s.picker.terminate()
        assert await s.picker.wait() == 0


# ---- what it cannot start with -----------------------------------------------------------------------------------------------


async def failure(*flags: str) -> tuple[int, str]:
    """Exit status and what was said."""
    picker = PickerProcess(*flags)
    try:
        return await picker.failure()
    finally:
        await picker.close()


@pytest.mark.parametrize("flag", ["--grpc-port", "--grpc-health-port", "--metrics-port"])
async def test_a_port_that_is_taken_is_named(flag: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, said = await failure("--endpoints", POD, flag, str(port))
    assert status == 1
    assert f"fairlead picker: {flag} {port}: cannot listen on 127.0.0.1" in said
    assert "Traceback" not in said


BAD_CONFIGS = {
    "not YAML": ("a: [", "--config-text:1: not valid YAML"),
    "an unknown field": (config_text() + "colour: blue\n", "unknown field `colour`"),
    "an unknown plugin": (config_text("no-such-parser"), "--config-text:8: plugins[4]"),
    "a wrong type": (
        config_text().replace("pluginRef: queue-scorer", "pluginRef: [7]"),
        "--config-text:12: schedulingProfiles[0].plugins[0]",
    ),
    "an undefined plugin": (config_text().replace("pluginRef: queue-scorer", "pluginRef: quiet"), "undefined plugin 'quiet'"),
}


@pytest.mark.any_transport
@pytest.mark.parametrize("name", BAD_CONFIGS)
async def test_a_configuration_that_cannot_be_used_names_the_place(name: str, tmp_path: Path) -> None:
    text, expected = BAD_CONFIGS[name]
    status, said = await failure("--endpoints", POD, "--config-text", text)
    assert (status, expected in said, "Traceback" in said) == (1, True, False), said
    file = tmp_path / "config.yaml"
    file.write_text(text)
    status, said = await failure("--endpoints", POD, "--config-file", str(file))
    assert (status, expected.replace("--config-text", str(file)) in said) == (1, True), said


@pytest.mark.any_transport
@pytest.mark.parametrize(
    ("flags", "status", "text"),
    [
        (["--endpoints", POD, "--no-such-flag"], 2, "--no-such-flag"),
        (["--endpoints", POD, "--drain-timeout=soon"], 2, "--drain-timeout"),
        (["--endpoints", POD, "--grpc-max-recv-msg-size=big"], 2, "--grpc-max-recv-msg-size"),
        ([], 1, "no endpoints"),
        (["--endpoints", "not an address"], 1, "not an address"),
        (["--endpoints", POD, "--config-file", "/does/not/exist"], 1, "--config-file /does/not/exist: cannot be read"),
        (["--endpoints", POD, "--config-file", "x", "--config-text", "y"], 1, "--config-file and --config-text exclude each other"),
        (["--endpoints", POD, "--cert-path", "/does/not/exist"], 1, "/does/not/exist/tls.key: cannot be read"),
    ],
)
async def test_flags_that_cannot_be_used_are_named(flags: Sequence[str], status: int, text: str) -> None:
    exited, said = await failure(*flags)
    assert (exited, text in said, "Traceback" in said) == (status, True, False), said


# ---- streams that break the protocol -------------------------------------------------------------------------------------------


async def _ends_with(s: Setting, messages: Sequence[Any], code: grpc.StatusCode, text: str) -> None:
    async with s.client.stream() as stream:
        with contextlib.suppress(asyncio.InvalidStateError):  # the picker may have hung up before all was sent
            await stream.send(*messages)
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.rest()
        assert (await stream.code(), text in await stream.details()) == (code, True), await stream.details()


async def test_what_is_not_the_protocol_is_an_invalid_argument() -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    async with setting(Load()) as s:
        await _ends_with(s, [b"no protobuf at all"], invalid, "not a ProcessingRequest")
        await _ends_with(s, [b""], invalid, "without a known request")
        await _ends_with(s, [request_body(BODY)], invalid, "RequestBody cannot come while the stream is at: start")
        await _ends_with(s, [request_headers(POST), request_headers(POST)], invalid, "RequestHeaders cannot come")
        async with s.client.stream() as stream:
            await open_request(stream)
            await finish(stream)
        page = await s.picker.metrics()
        assert page.value("llm_d_epp_extproc_streams_total", code="InvalidArgument") == 4
        assert page.value("llm_d_epp_extproc_streams_inflight") == 0


@pytest.mark.parametrize(("flags", "size", "fits"), [([], 3, True), ([], 5, False), (["--grpc-max-recv-msg-size=10MiB"], 9, True), (["--grpc-max-recv-msg-size", "1KiB"], 1, False)])  # fmt: skip # noqa: E501
async def test_the_size_of_messages_is_limited_as_set(flags: list[str], size: int, fits: bool) -> None:
    body = b'{"model":"m","prompt":"' + b"x" * (size << 20) + b'"}'
    async with setting(Load(), flags=flags) as s:
        if fits:
            replies = await s.client.converse(request_headers(POST), request_body(body))
            pieces = streamed(replies)
            assert b"".join([piece for piece, _ in pieces]) == body
            assert all(len(piece) <= 62_000 for piece, _ in pieces)
            assert [end for _, end in pieces] == [False] * (len(pieces) - 1) + [True]
        else:
            await _ends_with(s, [request_headers(POST), request_body(body)], grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than")


async def test_a_body_beyond_the_limit_is_refused() -> None:
    async with setting(Load(), flags=["--max-request-body-size=1KiB"]) as s:
        messages = [request_headers(POST), request_body(b"x" * 600, end=False), request_body(b"x" * 600)]
        (reply,) = await s.client.converse(*messages)
        assert reply.immediate_response and reply.immediate_response.status and int(reply.immediate_response.status.code) == 413


async def test_other_methods_do_not_exist() -> None:
    async with setting(Load()) as s, ExtProcClient(s.picker.target) as client:
        call: Any = client.channel.unary_unary("/envoy.service.ext_proc.v3.ExternalProcessor/Other")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", timeout=PATIENCE_S)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
