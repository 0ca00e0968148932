"""TLS of the ext_proc port: a certificate from a directory, or a self-signed one made at start.

Proxies do not verify the picker's certificate in the field's set-ups; the reference makes a self-signed RSA-4096 one. Ours is ECDSA
P-256 with the same subject and life: made in a millisecond, and a handshake costs a fraction.
"""

from __future__ import annotations

import datetime
import logging
import threading
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from picker.errors import ConfigError

log = logging.getLogger(__name__)

KeyAndCert = tuple[bytes, bytes]


def self_signed(years: int = 10) -> KeyAndCert:
    """PEM key and certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Inference Ext")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=365 * years))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem, certificate.public_bytes(serialization.Encoding.PEM)


def load(directory: Path) -> KeyAndCert:
    """`tls.key` and `tls.crt`. Raises ConfigError naming the file, also when they do not belong together."""
    files = directory / "tls.key", directory / "tls.crt"
    pems: list[bytes] = []
    for file in files:
        try:
            pems.append(file.read_bytes())
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    try:
        key = serialization.load_pem_private_key(pems[0], None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{files[0]}: expected a PEM private key without a password: {error}") from None
    try:
        certificate = x509.load_pem_x509_certificate(pems[1])
        certified = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{files[1]}: expected a PEM certificate: {error}") from None
    if key.public_key() != certified:
        raise ConfigError(f"{files[1]}: the certificate does not belong to the key in {files[0]}")
    return pems[0], pems[1]


def stamp_of(directory: Path) -> tuple[int, ...]:
    """Changes when a file of the pair does (two stats); a missing file counts as zeros."""
    stamps: list[int] = []
    for name in ("tls.key", "tls.crt"):
        try:
            stat = (directory / name).stat()
            stamps += (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        except OSError:
            stamps += (0, 0, 0)
    return tuple(stamps)


def server_credentials(directory: Path | None, *, reload: bool) -> grpc.ServerCredentials:
    """Raises ConfigError when the files cannot be used.

    With `reload`, the files are looked at again at each handshake (a stat), so that a renewed certificate is used from the next
    connection on; files that cannot be used are reported and the last good pair stays.
    """
    if directory is None:
        return grpc.ssl_server_credentials([self_signed()])
    reloader = _Reloader(directory)  # first, so that a change while the files are read is not missed
    pair = load(directory)
    if not reload:
        return grpc.ssl_server_credentials([pair])
    return grpc.dynamic_ssl_server_credentials(grpc.ssl_server_certificate_configuration([pair]), reloader.fetch)  # type: ignore[arg-type]  # None keeps what is in use


class _Reloader:
    """grpcio asks for the configuration on its own threads, hence the lock."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._seen = stamp_of(self._directory)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """A new configuration, or None to keep the one in use."""
        with self._lock:
            stamp = stamp_of(self._directory)
            if stamp == self._seen:
                return None
            self._seen = stamp
            try:
                pair = load(self._directory)
            except ConfigError as error:
                log.error("%s; the certificate in use stays", error)
                return None
            log.info("certificate reloaded from %s", self._directory)
            return grpc.ssl_server_certificate_configuration([pair])
