"""What the operator decides about the Envoy in front of the picker."""

from dataclasses import dataclass

from gateway.address import HostPort

DESTINATION_HEADER = "x-gateway-destination-endpoint"
SERVED_KEY = "x-gateway-destination-endpoint-served"
LB_NAMESPACE = "envoy.lb"
FIRST_NAMESPACE = "fairlead.lb"
SUBSET_NAMESPACE = "envoy.lb.subset_hint"
HEALTH_SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
STDOUT = "stdout"
_LISTEN = HostPort("127.0.0.1", 8080)
_PICKER = HostPort("127.0.0.1", 9002)
_ADMIN = HostPort("127.0.0.1", 19000)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapSettings:
    """Everything the bootstrap depends on; times in seconds, sizes in bytes. ValueError on a contradiction.

    `picker_health_port` None leaves out active health checks. `static_endpoints` empty means ORIGINAL_DST: any address the
    picker names is reached, the first one where it names several. With endpoints listed, only those are, and the picker's list
    is tried in order. `admin` None leaves the admin interface out. `access_log` is None, "stdout" or a file path.
    """

    listen: HostPort = _LISTEN
    picker: HostPort = _PICKER
    picker_health_port: int | None = 9003
    picker_health_interval_s: float = 10.0
    picker_tls: bool = False
    message_timeout_s: float = 1000.0
    failure_mode_allow: bool = False
    keep_response_bodies: bool = False
    static_endpoints: tuple[HostPort, ...] = ()
    upstream_http2: bool = False
    retries: int = 2
    retry_body_bytes: int = 1 << 20
    route_timeout_s: float = 86400.0
    stream_idle_timeout_s: float = 3600.0
    connect_timeout_s: float = 2.0
    max_client_connections: int = 20000
    admin: HostPort | None = _ADMIN
    access_log: str | None = None

    def __post_init__(self) -> None:
        for name in ("picker_health_interval_s", "message_timeout_s", "connect_timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.retries < 0:
            raise ValueError(f"retries must not be negative, not {self.retries}")
        if self.failure_mode_allow and not self.static_endpoints:
            raise ValueError(
                "failing open needs endpoints to fall back on: without the picker's header an ORIGINAL_DST cluster has no destination; "
                "list them with --static-endpoints"
            )
        names = [str(endpoint) for endpoint in self.static_endpoints if not endpoint.is_ip]
        if names:
            # The picker names endpoints as ip:port, and Envoy compares that text with the addresses of the cluster.
            raise ValueError(f"static endpoints must be IP addresses, not {', '.join(names)}")
        if not self.listen.is_ip or (self.admin is not None and not self.admin.is_ip):
            raise ValueError("Envoy listens on IP addresses only, not on names")
