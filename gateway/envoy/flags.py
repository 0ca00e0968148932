"""The flags that `fairlead envoy render` and `fairlead envoy run` share, and the settings they make."""

import argparse

from gateway.address import HostPort
from gateway.argtypes import duration_s, host_port, host_ports, listen_port, port
from gateway.envoy.settings import BootstrapSettings


def add_bootstrap_flags(parser: argparse.ArgumentParser) -> None:
    """Add every flag that shapes the bootstrap."""
    default = BootstrapSettings()
    group = parser.add_argument_group("what Envoy is told")
    add = group.add_argument
    add("--listen-address", default=default.listen.host, metavar="IP", help="address clients connect to (%(default)s)")
    add("--port", type=listen_port, default=default.listen.port, metavar="PORT", help="port clients connect to (%(default)s)")
    add("--picker-address", type=host_port, default=default.picker, metavar="HOST:PORT", help="ext_proc server (%(default)s)")
    add(
        "--picker-health-port",
        type=port,
        default=default.picker_health_port,
        metavar="PORT",
        help="gRPC health port of the picker, plain text; 0: no active health checks (%(default)s)",
    )
    add(
        "--picker-health-interval",
        type=duration_s,
        default=default.picker_health_interval_s,
        metavar="TIME",
        help="time between two health checks (10s)",
    )
    add("--picker-tls", action="store_true", help="speak TLS to the picker, without verifying its certificate")
    add(
        "--message-timeout",
        type=duration_s,
        default=default.message_timeout_s,
        metavar="TIME",
        help="longest wait for one answer of the picker, time in its queue included (1000s)",
    )
    add(
        "--failure-mode-allow",
        action="store_true",
        help="fail open: without a picker, balance over --static-endpoints (default: fail closed)",
    )
    add(
        "--keep-response-bodies",
        action="store_true",
        help="do not send response bodies to the picker: cheaper, but no token usage, no times, no model names put back",
    )
    add(
        "--static-endpoints",
        type=host_ports,
        default=(),
        metavar="IP:PORT,...",
        help="reach these model servers only, and try the picker's list of fallbacks in order "
        "(default: reach any one address the picker names)",
    )
    add("--upstream-http2", action="store_true", help="speak HTTP/2 to the model servers (gRPC engines)")
    add(
        "--retries",
        type=int,
        default=default.retries,
        metavar="N",
        help="further tries of a request no server began to work on (%(default)s)",
    )
    add("--admin-address", default="127.0.0.1", metavar="IP", help="address of the admin interface (%(default)s)")
    add("--admin-port", type=port, default=19000, metavar="PORT", help="port of the admin interface; 0: none (%(default)s)")
    add("--access-log", metavar="stdout|FILE", help="write one JSON line per request (default: none)")


def settings_from(options: argparse.Namespace) -> BootstrapSettings:
    """The settings that parsed flags stand for; ValueError on a contradiction between them."""
    return BootstrapSettings(
        listen=HostPort(options.listen_address, options.port),
        picker=options.picker_address,
        picker_health_port=options.picker_health_port or None,
        picker_health_interval_s=options.picker_health_interval,
        picker_tls=options.picker_tls,
        message_timeout_s=options.message_timeout,
        failure_mode_allow=options.failure_mode_allow,
        keep_response_bodies=options.keep_response_bodies,
        static_endpoints=options.static_endpoints,
        upstream_http2=options.upstream_http2,
        retries=options.retries,
        admin=HostPort(options.admin_address, options.admin_port) if options.admin_port else None,
        access_log=options.access_log,
    )
