"""A proxy's side of an ext_proc stream, on the messages of envoy-data-plane: an implementation the picker's codec does not share.

`request_headers`, `request_body`, … build what a proxy sends; `ExtProcClient.stream` sends it; the functions at the end read replies.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from envoy_data_plane.envoy.config.core.v3 import HeaderMap, HeaderValue, Metadata
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import ProcessingModeBodySendMode as BodyMode
from envoy_data_plane.envoy.service.ext_proc.v3 import (
    HeaderMutation,
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
    ProcessingResponse,
    ProtocolConfiguration,
)
from envoy_data_plane.google.protobuf import Struct

METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
PATIENCE_S = 30.0
POST = {":method": "POST", ":path": "/v1/completions", ":scheme": "http", ":authority": "model.example", "content-type": "application/json"}

Pairs = Mapping[str, str] | Iterable[tuple[str, str]]
Subset = Sequence[str] | str | None


def header_map(headers: Pairs) -> HeaderMap:
    """As Envoy sends it: values in `raw_value`."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return HeaderMap(headers=[HeaderValue(key=key, raw_value=value.encode()) for key, value in pairs])


def metadata(namespaces: Mapping[str, Mapping[str, Any]]) -> Metadata:
    """Filter metadata."""
    return Metadata(filter_metadata={name: Struct.from_dict(dict(values)) for name, values in namespaces.items()})


def _subset(subset: Subset) -> Metadata | None:
    if subset is None:
        return None
    value = subset if isinstance(subset, str) else list(subset)
    return metadata({"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": value}})


def protocol(
    request: BodyMode = BodyMode.FULL_DUPLEX_STREAMED, response: BodyMode = BodyMode.FULL_DUPLEX_STREAMED
) -> ProtocolConfiguration:
    """What a proxy says of itself in its first message."""
    return ProtocolConfiguration(request_body_mode=request, response_body_mode=response)


def request_headers(
    headers: Pairs = POST, *, end: bool = False, subset: Subset = None, config: ProtocolConfiguration | None = None, observing: bool = False
) -> ProcessingRequest:
    """The first message of a request; `subset` is the subset hint, as a list or as a comma-separated string."""
    return ProcessingRequest(
        request_headers=HttpHeaders(headers=header_map(headers), end_of_stream=end),
        metadata_context=_subset(subset),
        protocol_config=config,
        observability_mode=observing,
    )


def request_body(body: bytes, *, end: bool = True, subset: Subset = None) -> ProcessingRequest:
    """A piece of the request body."""
    return ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=end), metadata_context=_subset(subset))


def request_trailers() -> ProcessingRequest:
    """The end of a request that has trailers."""
    return ProcessingRequest(request_trailers=HttpTrailers())


def response_headers(
    headers: Pairs = (), *, end: bool = False, served: str | None = None, config: ProtocolConfiguration | None = None
) -> ProcessingRequest:
    """`served` is the endpoint that answered, as the proxy reports it."""
    return ProcessingRequest(
        response_headers=HttpHeaders(headers=header_map(headers), end_of_stream=end),
        metadata_context=None if served is None else metadata({"envoy.lb": {"x-gateway-destination-endpoint-served": served}}),
        protocol_config=config,
    )


def response_body(body: bytes, *, end: bool = True) -> ProcessingRequest:
    """A piece of the response body."""
    return ProcessingRequest(response_body=HttpBody(body=body, end_of_stream=end))


def response_trailers(trailers: Mapping[str, str] | None = None) -> ProcessingRequest:
    """The end of a response that has trailers."""
    return ProcessingRequest(response_trailers=HttpTrailers(trailers=None if trailers is None else header_map(trailers)))


class Stream:
    """One ext_proc stream. Every wait is bounded."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def send(self, *messages: ProcessingRequest | bytes) -> None:
        """In order; bytes are sent as they are."""
        for message in messages:
            async with asyncio.timeout(PATIENCE_S):
                await self._call.write(message)

    async def receive(self) -> ProcessingResponse | None:
        """The next reply; None when the picker has ended the stream. Raises grpc.aio.AioRpcError when it ended badly."""
        async with asyncio.timeout(PATIENCE_S):
            reply = await self._call.read()
        return None if reply is grpc.aio.EOF else reply

    async def expect(self, count: int) -> list[ProcessingResponse]:
        """The next `count` replies; fails when the stream ends before."""
        replies: list[ProcessingResponse] = []
        while len(replies) < count:
            reply = await self.receive()
            assert reply is not None, f"the stream ended after {replies}"
            replies.append(reply)
        return replies

    async def rest(self) -> list[ProcessingResponse]:
        """Everything until the picker ends the stream."""
        replies: list[ProcessingResponse] = []
        while (reply := await self.receive()) is not None:
            replies.append(reply)
        return replies

    async def half_close(self) -> None:
        """Nothing more will be sent."""
        async with asyncio.timeout(PATIENCE_S):
            await self._call.done_writing()

    async def code(self) -> grpc.StatusCode:
        """How the stream ended."""
        async with asyncio.timeout(PATIENCE_S):
            code: grpc.StatusCode = await self._call.code()
            return code

    async def details(self) -> str:
        """The text that goes with the code."""
        async with asyncio.timeout(PATIENCE_S):
            return str(await self._call.details())

    def cancel(self) -> None:
        """As a proxy whose client has left."""
        self._call.cancel()


class ExtProcClient:
    """`async with ExtProcClient("127.0.0.1:9002") as client, client.stream() as stream`. TLS when `credentials` are given."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None, options: Sequence[tuple[str, Any]] = ()) -> None:
        # Several clients in one process must not share a connection, nor its back-off.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), *options]
        self.channel = (
            grpc.aio.insecure_channel(target, options=options)
            if credentials is None
            else grpc.aio.secure_channel(target, credentials, options=options)
        )

    async def __aenter__(self) -> ExtProcClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.channel.close()

    @asynccontextmanager
    async def stream(self) -> AsyncIterator[Stream]:
        """A stream that is cancelled at the end of the block if it still runs."""
        call = self.channel.stream_stream(METHOD, request_serializer=bytes, response_deserializer=ProcessingResponse.parse)()
        try:
            yield Stream(call)
        finally:
            call.cancel()

    async def converse(self, *messages: ProcessingRequest) -> list[ProcessingResponse]:
        """Send everything, half-close, and return all replies."""
        async with self.stream() as stream:
            await stream.send(*messages)
            await stream.half_close()
            return await stream.rest()


# ---- reading replies ---------------------------------------------------------------------------------------------------------


def mutation(reply: ProcessingResponse) -> HeaderMutation:
    """The header mutation of a reply of any kind; an empty one when it has none."""
    for part in (reply.request_headers, reply.response_headers, reply.request_body, reply.response_body):
        if part is not None:
            return (part.response and part.response.header_mutation) or HeaderMutation()
    if reply.immediate_response is not None:
        return reply.immediate_response.headers or HeaderMutation()
    return HeaderMutation()


def set_headers(reply: ProcessingResponse) -> dict[str, str]:
    """What the reply sets, by lower-case name. Fails unless every value is in `raw_value`, where Envoy looks first."""
    pairs: dict[str, str] = {}
    for option in mutation(reply).set_headers:
        assert option.header is not None and not option.header.value, option
        pairs[option.header.key.lower()] = option.header.raw_value.decode()
    return pairs


def removed_headers(reply: ProcessingResponse) -> set[str]:
    """What the reply removes."""
    return set(mutation(reply).remove_headers)


def dynamic_metadata(reply: ProcessingResponse) -> dict[str, Any]:
    """As plain values."""
    return {} if reply.dynamic_metadata is None else dict(reply.dynamic_metadata.to_dict())


def streamed(replies: Iterable[ProcessingResponse]) -> list[tuple[bytes, bool]]:
    """(bytes, end of stream) of the streamed body replies among `replies`, of either direction."""
    found: list[tuple[bytes, bool]] = []
    for reply in replies:
        part = reply.request_body or reply.response_body
        body = part and part.response and part.response.body_mutation
        if body and body.streamed_response is not None:
            found.append((body.streamed_response.body, body.streamed_response.end_of_stream))
    return found
