"""The sources that ship with fairlead, as plugins. They hold what the configuration says; `picker.datalayer.collection` runs them.

The HTTP sources are no tasks with a client of their own: each endpoint is read by one light reader (`HttpReader`) per source.
"""

from __future__ import annotations

import ssl
from typing import ClassVar, Literal

from picker.datalayer.http_reader import checked_path
from picker.datalayer.tls import client_context
from picker.errors import ConfigError
from picker.plugin import Handle, NoParameters, Parameters
from picker.units import parse_duration_s

MIN_INTERVAL_S = 0.05
"""A page costs a model server milliseconds; the reference picker clamps to the same."""


class HttpSourceParameters(Parameters, frozen=True, kw_only=True):
    """How endpoints are asked over HTTP. `port` 0 = each endpoint's own; `interval` is a duration, empty = the source's default."""

    scheme: Literal["http", "https"] = "http"
    path: str = ""
    port: int = 0
    insecure_skip_verify: bool = True
    ca_cert_path: str = ""
    client_cert_path: str = ""
    client_key_path: str = ""
    interval: str = ""


class HttpSource:
    """Base of the sources that read one path of every endpoint with GET."""

    type: ClassVar[str]
    Parameters = HttpSourceParameters
    default_path: ClassVar[str]

    def __init__(self, name: str, parameters: HttpSourceParameters, handle: Handle) -> None:
        """Raises ValueError."""
        self.name = name
        self.scheme = parameters.scheme
        try:
            self.path = checked_path(parameters.path or self.default_path)
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if parameters.port and not 1 <= parameters.port <= 65535:
            raise ValueError(f"port {parameters.port}: expected 1 to 65535, or 0 for each endpoint's own")
        self.port = parameters.port or None
        self.ssl: ssl.SSLContext | None = None
        files = (parameters.ca_cert_path, parameters.client_cert_path, parameters.client_key_path)
        if self.scheme == "https":
            self.ssl = client_context(
                insecure_skip_verify=parameters.insecure_skip_verify,
                ca_cert_path=parameters.ca_cert_path,
                client_cert_path=parameters.client_cert_path,
                client_key_path=parameters.client_key_path,
            )
        elif any(files):
            raise ValueError("certificates are only used with scheme: https")
        self.interval_s: float | None = None
        """Seconds between reads of an endpoint; None = not said."""
        if parameters.interval:
            self.interval_s = parse_duration_s(parameters.interval)
            if self.interval_s < MIN_INTERVAL_S:
                raise ValueError(f"interval '{parameters.interval}': expected at least {MIN_INTERVAL_S * 1000:g}ms")


class MetricsDataSource(HttpSource):
    """Reads each endpoint's Prometheus page, at the adaptive pace (`picker.datalayer.poller`); it also notices who does not answer."""

    type = "metrics-data-source"
    default_path = "/metrics"


class ModelsDataSource(HttpSource):
    """Reads each endpoint's list of models, every 10 s unless `interval` says otherwise: models come and go by an operator's hand."""

    type = "models-data-source"
    default_path = "/v1/models"
    default_interval_s: ClassVar[float] = 10.0


class EndpointNotificationSource:
    """Tells its extractors of endpoints that come, change and go; asks the endpoints nothing."""

    type = "endpoint-notification-source"
    Parameters = NoParameters

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name
