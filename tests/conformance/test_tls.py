"""TLS on the ext_proc port: self-signed by default, or certificates from a directory, reloaded when they change."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from tests.conformance.setting import setting
from tests.support.ext_proc import POST, ExtProcClient, request_headers, set_headers
from tests.support.model_server import Load
from tests.support.picker_process import PickerProcess
from tests.support.tls import any_certificate, certificate_of, issue
from tests.support.waiting import until

DESTINATION = "x-gateway-destination-endpoint"


async def name_at(port: int, oid: object = NameOID.COMMON_NAME) -> str:
    """The subject of the certificate in use."""
    names = (await certificate_of(port)).subject.get_attributes_for_oid(oid)  # type: ignore[arg-type]
    return str(names[0].value) if names else ""


async def test_a_self_signed_certificate_is_made_at_start() -> None:
    async with setting(Load(), flags=["--secure-serving"]) as s:
        certificate = await certificate_of(s.picker.grpc_port)
        assert certificate.issuer == certificate.subject
        assert await name_at(s.picker.grpc_port, NameOID.ORGANIZATION_NAME) == "Inference Ext"
        assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days >= 3650
        async with any_certificate(s.picker.grpc_port) as target, ExtProcClient(target) as client:
            (reply,) = await client.converse(request_headers(POST, end=True))
            assert set_headers(reply)[DESTINATION] == s.at(0)
        # Health and metrics stay plain text.
        assert (await s.picker.get("/readyz"))["ready"]


async def test_certificates_come_from_a_directory_and_are_reloaded(tmp_path: Path) -> None:
    first = issue(tmp_path, "first")
    async with setting(Load(), flags=["--cert-path", str(tmp_path), "--enable-cert-reload"]) as s:
        port = s.picker.grpc_port

        async def converses(pem: bytes) -> bool:
            async with ExtProcClient(s.picker.target, grpc.ssl_channel_credentials(pem)) as client:
                (reply,) = await client.converse(request_headers(POST, end=True))
                return set_headers(reply)[DESTINATION] == s.at(0)

        async def uses(name: str) -> None:
            async def so() -> bool:
                return await name_at(port) == name

            await until(so, f"the certificate in use is {name}")

        async def says(text: str) -> None:
            async def so() -> bool:
                # One transport looks at its files once a second, the other at each handshake.
                return bool(await certificate_of(port)) and text in s.picker.stderr

            await until(so, f"the log has {text!r}")

        assert await name_at(port) == "first" and await converses(first)
        second = issue(tmp_path, "second")
        await uses("second")
        assert await converses(second)
        # What cannot be used is reported, and the last good one stays.
        (tmp_path / "tls.crt").write_text("no certificate")
        await says("expected a PEM certificate")
        assert "the certificate in use stays" in s.picker.stderr
        assert await name_at(port) == "second"
        key_only = (tmp_path / "tls.key").read_bytes()
        issue(tmp_path, "third")
        (tmp_path / "tls.key").write_bytes(key_only)
        await says("does not belong to the key")
        assert await name_at(port) == "second"
        issue(tmp_path, "fourth")
        await uses("fourth")


async def test_without_reload_the_certificate_stays(tmp_path: Path) -> None:
    issue(tmp_path, "first")
    async with setting(Load(), flags=["--cert-path", str(tmp_path)]) as s:
        issue(tmp_path, "second")
        assert await name_at(s.picker.grpc_port) == "first"


async def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    issue(tmp_path, "first")
    key = (tmp_path / "tls.key").read_bytes()
    issue(tmp_path, "second")
    (tmp_path / "tls.key").write_bytes(key)
    picker = PickerProcess("--endpoints", "127.0.1.1:1", "--cert-path", str(tmp_path))
    try:
        status, said = await picker.failure()
    finally:
        await picker.close()
    assert status == 1
    assert f"{tmp_path}/tls.crt: the certificate does not belong to the key in {tmp_path}/tls.key" in said
    assert serialization.load_pem_private_key(key, None)


@pytest.mark.any_transport
async def test_old_versions_and_other_ciphers_are_turned_away() -> None:
    suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    async with setting(Load(), flags=["--secure-serving", "--transport=h2", f"--tls-cipher-suites={suite}"]) as s:
        assert _handshake(s.picker.grpc_port, ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES256-GCM-SHA384") == "TLSv1.2"
        assert _handshake(s.picker.grpc_port, ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256") is None
    async with setting(Load(), flags=["--secure-serving", "--transport=h2", "--tls-min-version=VersionTLS13"]) as s:
        assert _handshake(s.picker.grpc_port, ssl.TLSVersion.TLSv1_2, "DEFAULT") is None
        assert _handshake(s.picker.grpc_port, ssl.TLSVersion.TLSv1_3, "DEFAULT") == "TLSv1.3"


def _handshake(port: int, version: ssl.TLSVersion, ciphers: str) -> str | None:
    """The version agreed on; None when there was no agreement."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as raw, context.wrap_socket(raw) as secure:
            return secure.version()
    except ssl.SSLError:
        return None
