"""Certificates of the ext_proc port: real handshakes, files that cannot be used, and renewal."""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from picker.errors import ConfigError
from picker.extproc.tls import KeyAndCert, load, self_signed, server_credentials


def write(directory: Path, pair: KeyAndCert) -> bytes:
    """The files as a secret volume has them; returns the certificate as it goes over the wire."""
    (directory / "tls.key").write_bytes(pair[0])
    (directory / "tls.crt").write_bytes(pair[1])
    return der(pair)


def der(pair: KeyAndCert) -> bytes:
    return x509.load_pem_x509_certificate(pair[1]).public_bytes(serialization.Encoding.DER)


@asynccontextmanager
async def serving(directory: Path | None, *, reload: bool = False) -> AsyncIterator[int]:
    server = grpc.aio.server()
    port = server.add_secure_port("127.0.0.1:0", server_credentials(directory, reload=reload))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(grace=None)


async def handshake(port: int) -> tuple[bytes, str | None, str | None]:
    """Certificate, ALPN protocol and TLS version that a client of Python's own sees."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    async with asyncio.timeout(30):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            tls = writer.get_extra_info("ssl_object")
            return tls.getpeercert(binary_form=True), tls.selected_alpn_protocol(), tls.version()
        finally:
            writer.transport.abort()


async def test_without_files_there_is_a_self_signed_certificate() -> None:
    async with serving(None) as port:
        certificate, alpn, version = await handshake(port)
    assert alpn == "h2"
    assert version in ("TLSv1.2", "TLSv1.3")
    assert x509.load_der_x509_certificate(certificate).subject.rfc4514_string() == "O=Inference Ext"


def test_the_self_signed_certificate() -> None:
    key, pem = self_signed()
    certificate = x509.load_pem_x509_certificate(pem)
    assert [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)] == ["Inference Ext"]
    assert certificate.issuer == certificate.subject
    certificate.verify_directly_issued_by(certificate)
    assert serialization.load_pem_private_key(key, None).public_key() == certificate.public_key()
    now = datetime.datetime.now(datetime.UTC)
    assert certificate.not_valid_before_utc < now
    left = certificate.not_valid_after_utc - now
    assert datetime.timedelta(days=3640) < left < datetime.timedelta(days=3660)
    assert self_signed()[1] != pem


async def test_a_client_that_trusts_the_certificate_connects(tmp_path: Path) -> None:
    pair = self_signed()
    write(tmp_path, pair)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=pair[1].decode())
    async with serving(tmp_path) as port, asyncio.timeout(30):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.transport.abort()


async def test_the_files_of_a_directory_are_served(tmp_path: Path) -> None:
    wanted = write(tmp_path, self_signed())
    async with serving(tmp_path) as port:
        assert (await handshake(port))[:2] == (wanted, "h2")
        write(tmp_path, self_signed())
        assert (await handshake(port))[0] == wanted, "reload was not asked for"


@pytest.mark.parametrize("missing", ["tls.key", "tls.crt"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    write(tmp_path, self_signed())
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigError) as error:
        server_credentials(tmp_path, reload=True)
    assert str(error.value) == f"{tmp_path / missing}: cannot be read: No such file or directory"


def locked_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("tls.key", b"", "expected a PEM private key without a password: "),
        ("tls.key", b"not a key", "expected a PEM private key without a password: "),
        ("tls.key", locked_key(), "expected a PEM private key without a password: "),
        ("tls.crt", b"", "expected a PEM certificate: "),
        ("tls.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "expected a PEM certificate: "),
        ("tls.crt", self_signed()[0], "expected a PEM certificate: "),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    write(tmp_path, self_signed())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / name}: {expected}")


def test_a_key_that_belongs_to_another_certificate_is_refused(tmp_path: Path) -> None:
    write(tmp_path, (self_signed()[0], self_signed()[1]))
    with pytest.raises(ConfigError) as error:
        server_credentials(tmp_path, reload=False)
    assert str(error.value) == f"{tmp_path / 'tls.crt'}: the certificate does not belong to the key in {tmp_path / 'tls.key'}"


async def test_a_chain_is_served_as_it_is(tmp_path: Path) -> None:
    pair = self_signed()
    write(tmp_path, (pair[0], pair[1] + self_signed()[1]))
    async with serving(tmp_path) as port:
        assert (await handshake(port))[0] == der(pair)


async def test_renewed_files_are_used_and_broken_ones_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = write(tmp_path, self_signed())
    async with serving(tmp_path, reload=True) as port:
        assert (await handshake(port))[0] == first
        with caplog.at_level(logging.INFO, "picker.extproc.tls"):
            second = write(tmp_path, self_signed())
            assert (await handshake(port))[:2] == (second, "h2")
            assert [r.getMessage() for r in caplog.records] == [f"certificate reloaded from {tmp_path}"]
            caplog.clear()

            (tmp_path / "tls.crt").write_bytes(b"half a certific")
            assert (await handshake(port))[0] == second
            assert (await handshake(port))[0] == second
            (record,) = caplog.records
            assert record.levelno == logging.ERROR
            assert record.getMessage().endswith("; the certificate in use stays")

            (tmp_path / "tls.key").unlink()
            assert (await handshake(port))[0] == second

            third = write(tmp_path, self_signed())
            assert (await handshake(port))[0] == third


async def test_files_behind_links_that_are_swapped_are_seen(tmp_path: Path) -> None:
    """A mounted secret: the files are links through a directory link, and that one is replaced."""
    certificates = []
    for version in ("one", "two"):
        (tmp_path / version).mkdir()
        certificates.append(write(tmp_path / version, self_signed()))
    served = tmp_path / "served"
    served.mkdir()
    (served / "data").symlink_to(tmp_path / "one")
    for name in ("tls.key", "tls.crt"):
        (served / name).symlink_to(Path("data") / name)
    async with serving(served, reload=True) as port:
        assert (await handshake(port))[0] == certificates[0]
        (served / "next").symlink_to(tmp_path / "two")
        (served / "next").rename(served / "data")
        assert (await handshake(port))[0] == certificates[1]
