"""TLS for this server: an `ssl.SSLContext` with ALPN h2, whose certificate can change while it serves."""

from __future__ import annotations

import logging
import ssl
import tempfile
from pathlib import Path

from picker.errors import ConfigError
from picker.extproc.tls import KeyAndCert, load, self_signed, stamp_of

log = logging.getLogger(__name__)


class ServerTls:
    """`context` is for the listening socket. Raises ConfigError when the files cannot be used.

    `directory` holds tls.key and tls.crt; None: a self-signed pair. With `client_ca`, clients must show a certificate it has signed.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        reload: bool,
        client_ca: Path | None = None,
        min_version: str = "VersionTLS12",
        cipher_suites: str = "",
    ) -> None:
        """`min_version` is Go's name of it, `cipher_suites` are IANA names as Go takes them, comma-separated."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = _VERSIONS[min_version]
        if cipher_suites:
            _restrict(self.context, cipher_suites)
        self.context.set_alpn_protocols(["h2"])
        self._directory = directory if reload else None
        self._seen = () if self._directory is None else stamp_of(self._directory)
        _use(self.context, self_signed() if directory is None else load(directory))
        if client_ca is not None:
            try:
                self.context.load_verify_locations(client_ca)
            except OSError as error:
                raise ConfigError(f"--client-ca-file {client_ca}: cannot be used: {error}") from None
            self.context.verify_mode = ssl.CERT_REQUIRED

    def refresh(self) -> None:
        """Look at the files again (two stats). Changed ones are used from the next handshake on; when they cannot be used, that is
        reported, and the last good pair stays."""
        if self._directory is None or (stamp := stamp_of(self._directory)) == self._seen:
            return
        self._seen = stamp
        try:
            _use(self.context, load(self._directory))
        except ConfigError as error:
            log.error("%s; the certificate in use stays", error)
        else:
            log.info("certificate reloaded from %s", self._directory)


_VERSIONS = {
    "VersionTLS10": ssl.TLSVersion.TLSv1,
    "VersionTLS11": ssl.TLSVersion.TLSv1_1,
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}
_TLS13_SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_SUITES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}
"""To OpenSSL's names. HTTP/2 forbids all others of TLS 1.2 (RFC 9113, appendix A)."""


def _restrict(context: ssl.SSLContext, names: str) -> None:
    """Raises ConfigError for unknown names. Those of TLS 1.3 are always there, as with Go."""
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in _SUITES and name not in _TLS13_SUITES:
            raise ConfigError(
                f"--tls-cipher-suites: '{name}' is not known or not fit for HTTP/2; known: {', '.join((*_SUITES, *_TLS13_SUITES))}"
            )
    older = [_SUITES[name] for name in chosen if name in _SUITES]
    if older:
        context.set_ciphers(":".join(older))
    else:
        context.minimum_version = ssl.TLSVersion.TLSv1_3


def _use(context: ssl.SSLContext, pair: KeyAndCert) -> None:
    """Through one file that nobody else can read: ssl takes files only, and the originals might change between key and certificate."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(pair[0] + b"\n" + pair[1])
        file.flush()
        try:
            context.load_cert_chain(file.name)
        except ssl.SSLError as error:
            raise ConfigError(f"the certificate cannot be used: {error}") from None
