"""The two services over sockets: ext_proc with its metrics, and health."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from picker.extproc.events import HeadersReply, Phase, ProtocolError, StreamedBodyReply
from picker.extproc.h2.health_calls import HealthCalls
from picker.extproc.health import Readiness
from picker.extproc.pb import ext_proc_pb2 as pb
from picker.extproc.transport import Served, TransportOptions
from picker.extproc.transport_h2 import H2Transport
from picker.metrics import Metrics
from tests.support.ports import free_ports

pytestmark = pytest.mark.timeout(60)


class Conversation:
    """Echoes; an empty request body is a protocol error."""

    def __init__(self) -> None:
        self.finished = self.answered = self.waiting = False
        self.ended = 0

    def receive(self, event: Any) -> Any:
        if type(event).__name__ == "RequestHeaders":
            return ()
        if not event.body:
            raise ProtocolError("no body")
        self.finished = event.body == b"last"
        phase = Phase.REQUEST if type(event).__name__ == "RequestBody" else Phase.RESPONSE
        self.answered = phase is Phase.RESPONSE and event.end_of_stream
        return (HeadersReply(phase), StreamedBodyReply(phase, event.body, event.end_of_stream))

    def end(self) -> None:
        self.ended += 1


@contextlib.asynccontextmanager
async def transport(readiness: Readiness) -> AsyncIterator[tuple[H2Transport, Metrics, list[Conversation], str, str]]:
    port, health_port = free_ports(2)
    metrics, made = Metrics(), []

    def converse(deliver: object) -> Any:
        made.append(Conversation())
        return made[-1]

    options = TransportOptions("127.0.0.1", port, health_port, health_on_both=True, tls=None)
    served = H2Transport(options, Served(converse, metrics, readiness))
    await served.start()
    try:
        yield served, metrics, made, f"127.0.0.1:{port}", f"127.0.0.1:{health_port}"
    finally:
        await served.stop()


def _body(data: bytes, *, response: bool = False) -> pb.ProcessingRequest:
    request = pb.ProcessingRequest()
    part = request.response_body if response else request.request_body
    part.body, part.end_of_stream = data, True
    return request


async def _rest(call: Any) -> int:
    count = 0
    while await call.read() is not grpc.aio.EOF:
        count += 1
    return count


async def test_ext_proc_and_its_metrics() -> None:
    async with transport(Readiness()) as (served, metrics, made, target, _), grpc.aio.insecure_channel(target) as channel:
        method = channel.stream_stream(
            "/envoy.service.ext_proc.v3.ExternalProcessor/Process", pb.ProcessingRequest.SerializeToString, pb.ProcessingResponse.FromString
        )
        call = method()
        await call.write(_body(b"hello"))
        assert (await call.read()).HasField("request_headers")
        streamed = await call.read()
        assert streamed.request_body.response.body_mutation.streamed_response.body == b"hello"
        assert (served.open_streams, metrics.streams_inflight.cell().value) == (1, 1)
        await call.write(_body(b"answer", response=True))
        await call.done_writing()
        assert await _rest(call) == 2
        assert await call.code() is grpc.StatusCode.OK
        last = method()
        await last.write(_body(b"last"))
        assert await _rest(last) == 2
        assert await last.code() is grpc.StatusCode.OK
        wrong = method()
        await wrong.write(_body(b""))
        assert (await wrong.code(), await wrong.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "no body")
        assert [c.ended for c in made] == [1, 1, 1]
        assert metrics.streams_inflight.cell().value == 0
        assert {k[0]: c.value for k, c in metrics.streams_total.cells.items()} == {"OK": 2, "InvalidArgument": 1}
        assert sum(metrics.stream_duration.cell().counts) == 3
        assert sum(metrics.response_processing.cell().counts) == 1


async def test_a_reset_after_the_response_is_no_cancel() -> None:
    """Envoy ends all its streams that way."""
    async with transport(Readiness()) as (served, metrics, made, target, _), grpc.aio.insecure_channel(target) as channel:
        method = channel.stream_stream(
            "/envoy.service.ext_proc.v3.ExternalProcessor/Process", pb.ProcessingRequest.SerializeToString, pb.ProcessingResponse.FromString
        )
        for body in (_body(b"answer", response=True), _body(b"request")):
            call = method()
            await call.write(body)
            await call.read()
            await call.read()
            call.cancel()
        for _ in range(100):
            if not served.open_streams:
                break
            await asyncio.sleep(0.02)
        assert [c.ended for c in made] == [1, 1]
        assert {k[0]: c.value for k, c in metrics.streams_total.cells.items()} == {"OK": 1, "Canceled": 1}


async def test_health_on_both_ports() -> None:
    readiness = Readiness()
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    async with transport(readiness) as (served, _, _, *targets):
        for target in targets:
            async with grpc.aio.insecure_channel(target) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                assert (await stub.Check(health_pb2.HealthCheckRequest(service="any"))).status == serving
                assert "readiness" in (await stub.List(health_pb2.HealthListRequest())).statuses
                watch = stub.Watch(health_pb2.HealthCheckRequest())
                assert (await watch.read()).status == serving
                readiness.block("x", "y")
                assert (await asyncio.wait_for(watch.read(), 5)).status == not_serving
                assert (await stub.Check(health_pb2.HealthCheckRequest())).status == not_serving
                readiness.clear("x")
                assert (await asyncio.wait_for(watch.read(), 5)).status == serving
                watch.cancel()
        async with grpc.aio.insecure_channel(targets[0]) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            await watch.read()
            await asyncio.wait_for(served.drain(), 5)
            assert await watch.code() is grpc.StatusCode.UNAVAILABLE


def test_the_health_service_has_the_methods_of_grpc_health_v1() -> None:
    assert set(HealthCalls(Readiness()).methods) == {b"/grpc.health.v1.Health/" + name for name in (b"Check", b"List", b"Watch")}
