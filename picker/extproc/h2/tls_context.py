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

    def __init__(self, directory: Path | None, *, reload: bool, client_ca: Path | None = None) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
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


def _use(context: ssl.SSLContext, pair: KeyAndCert) -> None:
    """Through one file that nobody else can read: ssl takes files only, and the originals might change between key and certificate."""
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:
        file.write(pair[0] + b"\n" + pair[1])
        file.flush()
        try:
            context.load_cert_chain(file.name)
        except ssl.SSLError as error:
            raise ConfigError(f"the certificate cannot be used: {error}") from None
