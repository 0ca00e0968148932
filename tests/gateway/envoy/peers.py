"""What stands on both sides of the Envoy under test: an ext_proc server that sends requests where it is told, and HTTP servers."""

import asyncio
import datetime
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from envoy_data_plane.envoy.config.core.v3 import HeaderValue, HeaderValueOption, HeaderValueOptionHeaderAppendAction
from envoy_data_plane.envoy.service.ext_proc.v3 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    HttpBody,
    ProcessingRequest,
    ProcessingResponse,
    StreamedBodyResponse,
    TrailersResponse,
)
from envoy_data_plane.google.protobuf import Struct
from grpc_health.v1 import health_pb2, health_pb2_grpc

DESTINATION = "x-gateway-destination-endpoint"
SERVED = "x-gateway-destination-endpoint-served"
SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"


@dataclass
class FakePicker:
    """Answers every ext_proc phase with what came, and sends each request to `destination`."""

    destination: str = ""
    served: list[str | None] = field(default_factory=list)
    request_headers: list[dict[str, str]] = field(default_factory=list)
    port: int = 0
    health_port: int = 0

    def _reply(self, request: ProcessingRequest) -> ProcessingResponse:
        if request.request_headers is not None:
            headers = request.request_headers.headers
            self.request_headers.append({h.key: h.raw_value.decode() for h in headers.headers} if headers else {})
            option = HeaderValueOption(
                header=HeaderValue(key=DESTINATION, raw_value=self.destination.encode()),
                append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
            )
            common = CommonResponse(header_mutation=HeaderMutation(set_headers=[option]), clear_route_cache=True)
            return ProcessingResponse(
                request_headers=HeadersResponse(response=common),
                dynamic_metadata=Struct.from_dict({"envoy.lb": {DESTINATION: self.destination}}),
            )
        if request.request_body is not None:
            return ProcessingResponse(request_body=_echo(request.request_body))
        if request.request_trailers is not None:
            return ProcessingResponse(request_trailers=TrailersResponse())
        if request.response_headers is not None:
            metadata = request.metadata_context.filter_metadata if request.metadata_context else {}
            self.served.append(metadata["envoy.lb"].to_dict().get(SERVED) if "envoy.lb" in metadata else None)
            return ProcessingResponse(response_headers=HeadersResponse(response=CommonResponse()))
        if request.response_body is not None:
            return ProcessingResponse(response_body=_echo(request.response_body))
        return ProcessingResponse(response_trailers=TrailersResponse())

    async def process(self, requests: AsyncIterator[ProcessingRequest], _context: Any) -> AsyncIterator[ProcessingResponse]:
        async for request in requests:
            yield self._reply(request)


def _echo(body: HttpBody) -> BodyResponse:
    streamed = StreamedBodyResponse(body=body.body, end_of_stream=body.end_of_stream)
    return BodyResponse(response=CommonResponse(body_mutation=BodyMutation(streamed_response=streamed)))


def _self_signed() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "picker under test")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + datetime.timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()), certificate.public_bytes(pem)


class _Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        known = request.service == SERVICE
        return health_pb2.HealthCheckResponse(status=1 if known else 3)


@asynccontextmanager
async def running_picker(*, tls: bool = False) -> AsyncIterator[FakePicker]:
    """A fake picker on free ports, its health service on a plain-text port of its own."""
    picker = FakePicker()
    server, health = grpc.aio.server(), grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(picker.process, request_deserializer=ProcessingRequest.parse, response_serializer=bytes)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Process": handler}),))
    health_pb2_grpc.add_HealthServicer_to_server(_Health(), health)
    at = "127.0.0.1:0"
    picker.port = server.add_secure_port(at, grpc.ssl_server_credentials([_self_signed()])) if tls else server.add_insecure_port(at)
    picker.health_port = health.add_insecure_port(at)
    await server.start()
    await health.start()
    try:
        yield picker
    finally:
        await server.stop(0)
        await health.stop(0)


@asynccontextmanager
async def model_server(name: str) -> AsyncIterator[int]:
    """An HTTP/1.1 server that answers `name` and the length of what it received; yields its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                length = 0
                if "transfer-encoding: chunked" in head:
                    while size := int((await reader.readline()).strip(), 16):
                        length += size
                        await reader.readexactly(size + 2)
                    await reader.readline()
                elif "content-length:" in head:
                    length = int(head.split("content-length:")[1].split("\r\n")[0])
                    await reader.readexactly(length)
                body = f"{name} {length}".encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
