"""What a source trusts, and shows of itself, when it asks model servers over TLS."""

from __future__ import annotations

import ssl


def client_context(
    *, insecure_skip_verify: bool = True, ca_cert_path: str = "", client_cert_path: str = "", client_key_path: str = ""
) -> ssl.SSLContext:
    """Without verification by default: model servers have certificates of their own making, and the reference picker does not check
    them either. A CA file together with `insecure_skip_verify` would check nothing, so that is refused.

    Raises ValueError saying which file cannot be used, or what is missing.
    """
    if insecure_skip_verify and ca_cert_path:
        raise ValueError(f"caCertPath {ca_cert_path!r} is not used while insecureSkipVerify is true; set insecureSkipVerify: false")
    if bool(client_cert_path) != bool(client_key_path):
        raise ValueError("clientCertPath and clientKeyPath belong together; one of them is missing")
    try:
        context = ssl.create_default_context(cafile=ca_cert_path or None)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"caCertPath {ca_cert_path!r}: {error}, expected PEM certificates") from None
    if insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if client_cert_path:
        try:
            context.load_cert_chain(client_cert_path, client_key_path)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(
                f"clientCertPath {client_cert_path!r}, clientKeyPath {client_key_path!r}: {error}, expected a PEM certificate and its key"
            ) from None
    return context
