"""The server on sockets: grpcio as the client, plain and TLS; raw sockets as the rude ones."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame, WindowUpdateFrame

from picker.errors import ConfigError
from picker.extproc.h2.limits import Limits
from picker.extproc.h2.tls_context import ServerTls
from picker.extproc.server_h2 import H2Server
from picker.extproc.tls import self_signed
from tests.picker.extproc.h2.peer import ECHO, PREFACE, Calls, message
from tests.picker.extproc.h2.test_connection import block
from tests.support.ports import free_ports

pytestmark = pytest.mark.timeout(60)


@contextlib.asynccontextmanager
async def echo_server(limits: Limits | None = None, tls: ServerTls | None = None) -> AsyncIterator[tuple[H2Server, Calls]]:
    calls = Calls()
    (port,) = free_ports(1)
    server = H2Server({ECHO.encode(): calls}, "127.0.0.1", port, "--grpc-port", tls, limits)
    await server.start()
    try:
        yield server, calls
    finally:
        await server.stop()


def echo(channel: grpc.aio.Channel) -> Any:
    return channel.stream_stream(ECHO)


async def talk(channel: grpc.aio.Channel, *messages: bytes, **more: Any) -> list[bytes]:
    async def say() -> AsyncIterator[bytes]:
        for one in messages:
            yield one

    return [bytes(answer) async for answer in echo(channel)(say(), **more)]


async def test_grpcio_as_client() -> None:
    async with echo_server() as (server, calls), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        assert await talk(channel, b"one", b"x" * 1_000_000, b"") == [b"one", b"x" * 1_000_000, b""]
        results = await asyncio.gather(*[talk(channel, b"%d" % i, b"y" * i * 100) for i in range(200)])
        assert results == [[b"%d" % i, b"y" * i * 100] for i in range(200)]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await talk(channel, b"fail")
        assert (error.value.code(), error.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "ungültig 100%")
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await talk(channel, b"x" * ((4 << 20) + 1))
        assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await channel.unary_unary("/no.Such/Method")(b"")
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert all(len(ends) == 1 for ends in calls.ends)
        assert server.open_streams == 0


async def test_gzip_from_grpcio() -> None:
    async with echo_server() as (server, _):
        gzip = grpc.Compression.Gzip
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", compression=gzip) as channel:
            assert await talk(channel, b"z" * 100_000, b"short") == [b"z" * 100_000, b"short"]


async def test_cancel_and_deadline_end_the_call_once() -> None:
    async with echo_server() as (server, calls), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = echo(channel)()
        await call.write(b"x")
        assert await call.read() == b"x"
        call.cancel()
        late = echo(channel)(timeout=0.3)
        await late.write(b"x")
        assert await late.read() == b"x"
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await late.read()
        assert error.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        for _ in range(100):
            if not server.open_streams:
                break
            await asyncio.sleep(0.02)
        assert server.open_streams == 0
        assert [len(ends) for ends in calls.ends] == [1, 1]


def _certificate(directory: Path) -> bytes:
    key, certificate = self_signed()
    (directory / "tls.key").write_bytes(key)
    (directory / "tls.crt").write_bytes(certificate)
    assert load_pem_private_key(key, None)
    return certificate


async def _served_certificate(port: int, context: ssl.SSLContext) -> bytes:
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    tls = writer.get_extra_info("ssl_object")
    assert tls.selected_alpn_protocol() == "h2"
    found = x509.load_der_x509_certificate(tls.getpeercert(True))
    writer.close()
    return found.public_bytes(encoding=_PEM)


_PEM = __import__("cryptography.hazmat.primitives.serialization", fromlist=["Encoding"]).Encoding.PEM


def _client_context(alpn: str = "h2") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    return context


async def test_grpcio_over_tls_and_a_renewed_certificate(tmp_path: Path) -> None:
    first = _certificate(tmp_path)
    async with echo_server(tls=ServerTls(tmp_path, reload=True)) as (server, _):
        # The certificate names no host; grpcio insists on a name, so it is told to trust this one only.
        assert await _served_certificate(server.port, _client_context()) == first
        (tmp_path / "tls.key").write_bytes(b"half written")
        await asyncio.sleep(1.3)
        assert await _served_certificate(server.port, _client_context()) == first
        second = _certificate(tmp_path)
        for _ in range(50):
            await asyncio.sleep(0.1)
            if await _served_certificate(server.port, _client_context()) == second:
                break
        assert await _served_certificate(server.port, _client_context()) == second


def _named_certificate(directory: Path) -> bytes:
    """For `localhost`, and good for both sides."""
    import datetime

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (directory / "tls.key").write_bytes(pem)
    (directory / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return pem


async def test_grpcio_with_and_without_a_client_certificate(tmp_path: Path) -> None:
    key = _named_certificate(tmp_path)
    certificate = (tmp_path / "tls.crt").read_bytes()
    options = [("grpc.ssl_target_name_override", "localhost")]
    async with echo_server(tls=ServerTls(tmp_path, reload=False, client_ca=tmp_path / "tls.crt")) as (server, _):
        target = f"127.0.0.1:{server.port}"
        shown = grpc.ssl_channel_credentials(certificate, key, certificate)
        async with grpc.aio.secure_channel(target, shown, options) as channel:
            assert await talk(channel, b"one", b"x" * 500_000) == [b"one", b"x" * 500_000]
            assert len(await asyncio.gather(*[talk(channel, b"x" * 10_000) for _ in range(50)])) == 50
        async with grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(certificate), options) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await talk(channel, b"one")
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_tls_without_h2_is_refused() -> None:
    async with echo_server(tls=ServerTls(None, reload=False)) as (server, _):
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=_client_context("http/1.1"))
            assert await reader.read() == b""
            writer.close()


@pytest.mark.parametrize("what", ["directory", "ca"])
def test_tls_files_that_cannot_be_used(tmp_path: Path, what: str) -> None:
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"tls\.key" if what == "directory" else "--client-ca-file"):
        ServerTls(tmp_path if what == "directory" else None, reload=False, client_ca=tmp_path / "ca")


async def test_a_taken_port_names_its_flag() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--grpc-port {port}: cannot listen on 127.0.0.1:{port}"):
            H2Server({}, "127.0.0.1", port, "--grpc-port")


async def test_a_peer_that_does_not_read_is_not_read_from() -> None:
    """Its answers stay within bounds, whatever windows it gives; then it is dropped."""
    limits = Limits(stall_s=1.0, connection_bytes=64 << 20)
    async with echo_server(limits) as (server, calls):
        sock = socket.socket()
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        start = PREFACE + SettingsFrame(0, settings={4: 2**31 - 1}).serialize() + SettingsFrame(0, flags=["ACK"]).serialize()
        start += WindowUpdateFrame(0, 2**31 - 1 - 65_535).serialize() + HeadersFrame(1, block(), flags=["END_HEADERS"]).serialize()
        await loop.sock_sendall(sock, start)
        data = DataFrame(1, message(b"make 1000000")).serialize()
        # Every message is answered with 1 MB that nobody reads.
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.5):
                for _ in range(3_000):
                    await loop.sock_sendall(sock, data)
                    await asyncio.sleep(0)
        handled = len(calls.made[0].received)
        assert handled < 20
        for _ in range(100):
            if calls.made[0].ends:
                break
            await asyncio.sleep(0.1)
        assert len(calls.made[0].ends) == 1
        sock.close()


async def test_drain_waits_for_open_streams_and_takes_no_new_ones() -> None:
    async with echo_server() as (server, _), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = echo(channel)()
        await call.write(b"x")
        assert await call.read() == b"x"
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0.5)
        assert not draining.done()
        await call.write(b"still served")
        assert await call.read() == b"still served"
        with pytest.raises(grpc.aio.AioRpcError):
            await asyncio.wait_for(talk(channel, b"new"), 5)
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK
        await asyncio.wait_for(draining, 5)


async def test_stop_cuts_what_is_open() -> None:
    async with echo_server() as (server, calls), grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = echo(channel)()
        await call.write(b"x")
        assert await call.read() == b"x"
        await asyncio.wait_for(server.stop(), 5)
        assert await call.code() is not grpc.StatusCode.OK
        assert len(calls.made[0].ends) == 1


async def test_silent_and_half_open_connections_go() -> None:
    async with echo_server(Limits(handshake_s=0.5)) as (server, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.wait_for(reader.read(-1), 5)
        writer.close()


# ---- the services --------------------------------------------------------------------------------------------------------------
