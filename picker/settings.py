"""Flags of `fairlead picker`: names and defaults of the reference picker (contract section 8) where it has them.

GNU style: `--flag=value` or `--flag value`; a boolean flag alone means true. Unknown flags are refused.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from picker.errors import ConfigError
from picker.units import parse_duration_s

MIN_REFRESH_S = 0.05

DEFAULT_INDEX_BYTES = 256 << 20

_MIN_INDEX_BYTES = 1 << 20
_MAX_MESSAGE_SIZE = 2**31 - 1
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


@dataclass(frozen=True, slots=True)
class Settings:
    """All flags, decoded. Times in seconds, sizes in bytes; None: not given."""

    host: str
    grpc_port: int
    grpc_health_port: int
    metrics_port: int
    drain_timeout_s: float
    grpc_max_recv_msg_size_bytes: int | None
    grpc_max_send_msg_size_bytes: int | None
    max_request_body_bytes: int
    response_metrics: bool
    pool_name: str
    endpoints: str | None
    endpoints_file: Path | None
    disable_endpoint_subset_filter: bool
    refresh_metrics_interval_s: float
    refresh_prometheus_metrics_interval_s: float
    metrics_staleness_threshold_s: float
    verbosity: int
    log_encoder: str
    health_checking: bool
    secure_serving: bool
    cert_path: Path | None
    enable_cert_reload: bool
    client_ca_file: Path | None
    transport: str
    config_file: Path | None
    config_text: str | None
    plugin_paths: tuple[Path, ...]
    decision_log_size: int
    prefix_index_memory_bytes: int


def parse(argv: Sequence[str] | None = None) -> Settings:
    """Exits with status 2 and a text when a flag is wrong. Raises ConfigError when flags contradict each other."""
    flags = _parser().parse_args(argv)
    settings = Settings(
        host=flags.host,
        grpc_port=flags.grpc_port,
        grpc_health_port=flags.grpc_health_port,
        metrics_port=flags.metrics_port,
        drain_timeout_s=flags.drain_timeout,
        grpc_max_recv_msg_size_bytes=flags.grpc_max_recv_msg_size,
        grpc_max_send_msg_size_bytes=flags.grpc_max_send_msg_size,
        max_request_body_bytes=flags.max_request_body_size,
        response_metrics=flags.response_metrics,
        pool_name=flags.pool_name,
        endpoints=flags.endpoints,
        endpoints_file=flags.endpoints_file,
        disable_endpoint_subset_filter=flags.disable_endpoint_subset_filter,
        refresh_metrics_interval_s=flags.refresh_metrics_interval,
        refresh_prometheus_metrics_interval_s=flags.refresh_prometheus_metrics_interval,
        metrics_staleness_threshold_s=flags.metrics_staleness_threshold,
        verbosity=flags.v,
        log_encoder=flags.zap_encoder,
        health_checking=flags.health_checking,
        secure_serving=flags.secure_serving,
        cert_path=flags.cert_path,
        enable_cert_reload=flags.enable_cert_reload,
        client_ca_file=flags.client_ca_file,
        transport=flags.transport,
        config_file=flags.config_file,
        config_text=flags.config_text,
        plugin_paths=tuple(flags.plugin_path or ()),
        decision_log_size=flags.decision_log_size,
        prefix_index_memory_bytes=flags.prefix_index_memory,
    )
    if settings.config_file is not None and settings.config_text is not None:
        raise ConfigError("--config-file and --config-text exclude each other")
    if settings.endpoints is None and settings.endpoints_file is None:
        raise ConfigError("no endpoints: give --endpoints host:port,... or --endpoints-file FILE")
    if settings.cert_path is not None and not settings.secure_serving:
        raise ConfigError("--cert-path needs --secure-serving")
    if settings.client_ca_file is not None and not (settings.secure_serving and settings.transport == "h2"):
        raise ConfigError("--client-ca-file needs --secure-serving and --transport h2")
    if settings.enable_cert_reload and settings.cert_path is None:
        raise ConfigError("--enable-cert-reload needs --cert-path: a self-signed certificate has no files to look at")
    return settings


def _parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="fairlead picker", description="The ext_proc endpoint picker.", allow_abbrev=False)
    serving = p.add_argument_group("serving")
    serving.add_argument("--host", default="0.0.0.0", help="address to listen on, for all ports (default: %(default)s)")
    serving.add_argument("--grpc-port", type=_port, default=9002, metavar="PORT", help="ext_proc gRPC (default: %(default)s)")
    serving.add_argument("--grpc-health-port", type=_port, default=9003, metavar="PORT", help="gRPC health (default: %(default)s)")
    serving.add_argument(
        "--metrics-port", type=_port, default=9090, metavar="PORT", help="/metrics, /readyz, /debug/decisions, ... (default: %(default)s)"
    )
    _bool(serving, "--health-checking", False, "serve gRPC health on the ext_proc port, too")
    _bool(serving, "--secure-serving", True, "TLS on the ext_proc port, self-signed without --cert-path")
    serving.add_argument("--cert-path", type=Path, metavar="DIR", help="directory with tls.crt and tls.key")
    _bool(serving, "--enable-cert-reload", False, "use changed certificate files without a restart")
    serving.add_argument("--client-ca-file", type=Path, metavar="FILE", help="PEM; proxies must show a certificate signed by it (h2 only)")
    serving.add_argument(
        "--transport", choices=("h2", "grpcio"), default="h2",
        help="gRPC server: the lean one made for ext_proc, or grpcio (default: %(default)s)",
    )  # fmt: skip
    serving.add_argument(
        "--drain-timeout", type=_duration, default=30.0, metavar="DURATION",
        help="on SIGTERM keep serving that long while reporting NOT_SERVING, then wait for open streams; 0 stops at once (default: 30s)",
    )  # fmt: skip
    serving.add_argument("--grpc-max-recv-msg-size", type=_message_size, metavar="SIZE", help="e.g. 10MiB (default: gRPC's 4 MB)")
    serving.add_argument("--grpc-max-send-msg-size", type=_message_size, metavar="SIZE", help="e.g. 10MiB (default: unlimited)")
    serving.add_argument(
        "--max-request-body-size", type=_quantity, default=64 << 20, metavar="SIZE",
        help="larger request bodies are refused with 413; 0 = no limit (default: 64MiB)",
    )  # fmt: skip
    _bool(serving, "--response-metrics", True, "read token usage and times from response bodies; false: look at none that need not change")

    pool = p.add_argument_group("endpoints")
    pool.add_argument("--endpoints", metavar="HOST:PORT,...", help="model servers; a DNS name stands for all its addresses")
    pool.add_argument("--endpoints-file", type=Path, metavar="FILE", help="YAML list of model servers, watched for changes")
    pool.add_argument("--pool-name", default="default", help="the pool's name in metrics (default: %(default)s)")
    _bool(pool, "--disable-endpoint-subset-filter", False, "ignore the proxy's subset hint")
    pool.add_argument(
        "--refresh-metrics-interval", type=_duration, default=MIN_REFRESH_S, metavar="DURATION",
        help="how often model servers with traffic are scraped, at least 50ms (default: 50ms)",
    )  # fmt: skip
    pool.add_argument(
        "--refresh-prometheus-metrics-interval", type=_duration, default=5.0, metavar="DURATION",
        help="how often the pool's gauges are brought up to date (default: 5s)",
    )  # fmt: skip
    pool.add_argument(
        "--metrics-staleness-threshold", type=_duration, default=2.0, metavar="DURATION",
        help="older metrics do not count in the pool's gauges (default: 2s)",
    )  # fmt: skip

    config = p.add_argument_group("configuration")
    config.add_argument("--config-file", type=Path, metavar="FILE", help="an EndpointPickerConfig")
    config.add_argument("--config-text", metavar="YAML", help="the same as text")
    config.add_argument(
        "--plugin-path", type=Path, action="append", metavar="DIR",
        help="directory with plugin modules, used as `type: module.ClassName`; may be given several times",
    )  # fmt: skip
    config.add_argument(
        "--decision-log-size", type=_count, default=512, metavar="N", help="decisions kept for /debug/decisions (default: %(default)s)"
    )
    config.add_argument(
        "--prefix-index-memory", type=_index_memory, default=DEFAULT_INDEX_BYTES, metavar="SIZE",
        help="memory for what is known of the servers' prefix caches, at least 1MiB; 0 = no limit (default: 256MiB)",
    )  # fmt: skip
    config.add_argument(
        "-v", "--v", type=_count, default=2, metavar="LEVEL", help="2 default, 3 verbose, 4 debug, 5 trace (default: %(default)s)"
    )
    config.add_argument("--zap-encoder", choices=("console", "json"), default="console", help="log format (default: %(default)s)")
    return p


def _bool(group: argparse._ArgumentGroup, name: str, default: bool, text: str) -> None:
    group.add_argument(
        name, nargs="?", const=True, default=default, type=_truth, metavar="true|false", help=f"{text} (default: {str(default).lower()})"
    )


def _truth(text: str) -> bool:
    if text.lower() in ("true", "1", "t"):
        return True
    if text.lower() in ("false", "0", "f"):
        return False
    raise argparse.ArgumentTypeError(f"'{text}': expected true or false")


def _port(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}': expected a port from 1 to 65535")


def _count(text: str) -> int:
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}': expected a whole number that is not negative")


def _duration(text: str) -> float:
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _quantity(text: str) -> int:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"'{text}': expected a size such as 512KiB, 10MiB or 25MB")
    return int(float(match[1]) * _FACTORS[(match[2] or "").lower()])


def _index_memory(text: str) -> int:
    size = _quantity(text)
    if size == 0 or size >= _MIN_INDEX_BYTES:
        return size
    raise argparse.ArgumentTypeError(f"'{text}': expected at least 1MiB, or 0 for no limit")


def _message_size(text: str) -> int:
    size = _quantity(text)
    if size <= _MAX_MESSAGE_SIZE:
        return size
    raise argparse.ArgumentTypeError(f"'{text}': expected less than 2GiB, the most that gRPC can be told")
