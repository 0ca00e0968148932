"""Every transcript of the conversation over both transports: what the conversation says is what a gRPC client hears, and no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from picker.errors import EVICTED, Evicted
from picker.extproc.codec import encode
from picker.extproc.conversation import TRANSITIONS, State
from picker.extproc.events import (
    DEFAULT_MODES,
    Event,
    Modes,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from picker.extproc.health import Readiness
from picker.extproc.pb import ext_proc_pb2 as pb
from picker.extproc.transport import Served, Transport, TransportOptions
from picker.extproc.transport_grpcio import GrpcioTransport
from picker.extproc.transport_h2 import H2Transport
from tests.picker.extproc.test_conversation import EVENTS, TO_STATE, TRANSCRIPTS
from tests.picker.extproc.transcript import PODS, Hears, Transcript, Turn, take_turn
from tests.picker.world import Gate, World
from tests.support.ext_proc import METHOD
from tests.support.ports import free_ports
from tests.support.waiting import PATIENCE_S, until

TRANSPORTS = {"h2": H2Transport, "grpcio": GrpcioTransport}


@asynccontextmanager
async def served(name: str, world: World) -> AsyncIterator[tuple[Transport, grpc.aio.Channel]]:
    """The world behind a transport, and a client."""
    port, health_port = free_ports(2)
    options = TransportOptions("127.0.0.1", port, health_port, health_on_both=False, tls=None)
    transport: Transport = TRANSPORTS[name](options, Served(world.conversation, world.metrics, Readiness()))
    await transport.start()
    try:
        # Not through grpcio's own channel pool: every test has a server of its own, on a port that may come back.
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            yield transport, channel
    finally:
        await transport.stop()


def wire(event: Event) -> bytes:
    """The event as a proxy would send it."""
    made = pb.ProcessingRequest()
    if isinstance(event, RequestHeaders | ResponseHeaders):
        http = made.request_headers if isinstance(event, RequestHeaders) else made.response_headers
        http.SetInParent()
        for name, value in event.headers:
            http.headers.headers.add(key=name, raw_value=value)
        http.end_of_stream = event.end_of_stream
        _modes(made, event.modes)
    elif isinstance(event, RequestBody | ResponseBody):
        body = made.request_body if isinstance(event, RequestBody) else made.response_body
        body.SetInParent()
        body.body, body.end_of_stream = event.body, event.end_of_stream
    elif isinstance(event, RequestTrailers):
        made.request_trailers.SetInParent()
    else:
        assert isinstance(event, ResponseTrailers)
        made.response_trailers.SetInParent()
    if isinstance(event, RequestHeaders | RequestBody | RequestTrailers) and event.subset is not None:
        hint = made.metadata_context.filter_metadata["envoy.lb.subset_hint"].fields["x-gateway-destination-endpoint-subset"].list_value
        hint.SetInParent()
        for part in event.subset:
            hint.values.add(string_value=part)
    if isinstance(event, ResponseHeaders) and event.served is not None:
        fields = made.metadata_context.filter_metadata["envoy.lb"].fields
        fields["x-gateway-destination-endpoint-served"].string_value = event.served
    return made.SerializeToString()


def _modes(made: pb.ProcessingRequest, modes: Modes) -> None:
    made.observability_mode = modes.observability
    if modes != DEFAULT_MODES and modes != Modes(observability=True):
        made.protocol_config.request_body_mode = int(modes.request_body)  # type: ignore[assignment]
        made.protocol_config.response_body_mode = int(modes.response_body)  # type: ignore[assignment]


async def ended(transport: Transport) -> None:
    async def none_open() -> bool:
        return transport.open_streams == 0

    await until(none_open, "the transport has no open stream")


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda t: t.name)
async def test_transcript(transcript: Transcript, name: str) -> None:
    world = transcript.world()
    async with served(name, world) as (transport, channel), asyncio.timeout(PATIENCE_S):
        call: Any = channel.stream_stream(METHOD)()
        for number, step in enumerate(transcript.steps, 1):
            if isinstance(step, Hears):
                await call.write(wire(step.event))
                continue
            if isinstance(step, Turn):
                await _queued(world)
                take_turn(world)
                continue
            for reply in step.replies:
                assert await call.read() == encode(reply), f"{transcript.name}, step {number}"
        if not transcript.finished:
            await call.done_writing()
        assert await call.read() is grpc.aio.EOF, "said without being asked"
        assert await call.code() is grpc.StatusCode.OK
        await ended(transport)
    world.assert_idle()
    assert world.outcomes() == transcript.outcomes
    assert world.page().value("llm_d_epp_extproc_streams_total", code="OK") == 1


async def _queued(world: World) -> None:
    async def waits() -> bool:
        return world.gate is not None and bool(world.gate.queue)

    await until(waits, "the request waits")


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize("answering", [False, True])
async def test_an_eviction_reaches_the_proxy_and_ends_the_stream(answering: bool, name: str) -> None:
    gate = Gate(open=True, evictable=True)
    world = World(*PODS, gate=gate)
    async with served(name, world) as (transport, channel), asyncio.timeout(PATIENCE_S):
        call: Any = channel.stream_stream(METHOD)()
        for event in TO_STATE[State.RESPONDING if answering else State.ROUTED]:
            await call.write(wire(event))
        for _ in range(3 if answering else 2):
            await call.read()
        gate.under_way[0].evict(Evicted("request evicted by flow control", drop_reason=EVICTED))
        reply = pb.ProcessingResponse.FromString(await call.read())
        assert (reply.immediate_response.status.code, reply.immediate_response.body) == (429, b"request evicted by flow control")
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        await ended(transport)
    world.assert_idle()
    assert world.outcomes() == {"Evicted": 1}


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize("half", [False, True])
async def test_a_proxy_may_leave_or_fall_silent_while_a_request_waits(half: bool, name: str) -> None:
    """Silent: it ends its side of the stream and still hears the decision."""
    world = World(*PODS, gate=Gate())
    assert world.gate is not None
    async with served(name, world) as (transport, channel), asyncio.timeout(PATIENCE_S):
        call: Any = channel.stream_stream(METHOD)()
        for event in TO_STATE[State.WAITING]:
            await call.write(wire(event))
        await _queued(world)
        if half:
            await call.done_writing()
            await asyncio.sleep(0.02)
            take_turn(world)
            assert pb.ProcessingResponse.FromString(await call.read()).HasField("request_headers")
            assert pb.ProcessingResponse.FromString(await call.read()).HasField("request_body")
            assert await call.read() is grpc.aio.EOF
        else:
            call.cancel()
        await ended(transport)
    assert world.gate.left == (0 if half else 1)
    world.assert_idle()


def _illegal() -> list[tuple[State, Event]]:
    return [(state, event) for state in State for event in EVENTS if (state, type(event)) not in TRANSITIONS]


@pytest.mark.parametrize("name", TRANSPORTS)
@pytest.mark.parametrize(("state", "event"), _illegal(), ids=lambda value: value.name if isinstance(value, State) else type(value).__name__)
async def test_what_cannot_come_ends_the_stream(state: State, event: Event, name: str) -> None:
    world = World(*PODS, gate=Gate() if state is State.WAITING else None)
    async with served(name, world) as (transport, channel), asyncio.timeout(PATIENCE_S):
        call: Any = channel.stream_stream(METHOD)()
        for before in [*TO_STATE[state], event]:
            await call.write(wire(before))
        with pytest.raises(grpc.aio.AioRpcError) as error:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert f"{type(event).__name__} cannot come while the stream is at: {state.value}" in str(error.value.details())
        await ended(transport)
    world.assert_idle()
