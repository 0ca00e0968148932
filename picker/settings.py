"""Flags of `fairlead picker`: names and defaults of the reference picker (contract section 8) where it has them.

GNU style: `--flag=value` or `--flag value`; a boolean flag alone means true. Unknown flags are refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from picker.errors import ConfigError
from picker.units import parse_duration_s, parse_quantity

MIN_REFRESH_S = 0.05
NO_ENDPOINTS = "no endpoints: give --endpoints host:port,... or --endpoints-file FILE, or dataLayer.discovery in the configuration"

_REMOVED = {
    "--total-queued-requests-metric": "queuedRequestsSpec",
    "--total-running-requests-metric": "runningRequestsSpec",
    "--kv-cache-usage-percentage-metric": "kvUsageSpec",
    "--lora-info-metric": "loraSpec",
    "--cache-info-metric": "cacheInfoSpec",
}
"""Flags that the reference picker refuses since metrics are named in the configuration, and the fields that took their places."""

DEFAULT_INDEX_BYTES = 256 << 20
TLS_VERSIONS = ("VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13")
DEFAULT_TLS_VERSION = "VersionTLS12"
TIME_ENCODINGS = ("epoch", "millis", "nano", "iso8601", "rfc3339", "rfc3339nano")

_MIN_INDEX_BYTES = 1 << 20
_MAX_MESSAGE_SIZE = 2**31 - 1


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
    emit_endpoint_scores: bool
    legacy_metrics: bool
    enable_grpc_stream_metrics: bool
    pool_name: str
    endpoints: str | None
    endpoints_file: Path | None
    objectives_file: Path | None
    disable_endpoint_subset_filter: bool
    refresh_metrics_interval_s: float
    refresh_prometheus_metrics_interval_s: float
    metrics_staleness_threshold_s: float
    verbosity: int
    log_encoder: str
    log_time: str
    traceback_level: str
    enable_pprof: bool
    tracing: bool
    health_checking: bool
    secure_serving: bool
    cert_path: Path | None
    enable_cert_reload: bool
    client_ca_file: Path | None
    tls_min_version: str
    tls_cipher_suites: str
    transport: str
    config_file: Path | None
    config_text: str | None
    allow_experimental_plugins: bool
    plugin_paths: tuple[Path, ...]
    decision_log_size: int
    prefix_index_memory_bytes: int


def parse(argv: Sequence[str] | None = None) -> Settings:
    """Exits with status 2 and a text when a flag is wrong. Raises ConfigError when flags contradict each other."""
    given = list(sys.argv[1:] if argv is None else argv)
    _refuse_removed(given)
    flags = _parser().parse_args(given)
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
        emit_endpoint_scores=flags.emit_endpoint_scores,
        legacy_metrics=flags.legacy_metrics,
        enable_grpc_stream_metrics=flags.enable_grpc_stream_metrics,
        pool_name=flags.pool_name,
        endpoints=flags.endpoints,
        endpoints_file=flags.endpoints_file,
        objectives_file=flags.objectives_file,
        disable_endpoint_subset_filter=flags.disable_endpoint_subset_filter,
        refresh_metrics_interval_s=flags.refresh_metrics_interval,
        refresh_prometheus_metrics_interval_s=flags.refresh_prometheus_metrics_interval,
        metrics_staleness_threshold_s=flags.metrics_staleness_threshold,
        verbosity=flags.v if flags.zap_log_level is None else flags.zap_log_level,
        log_encoder=flags.zap_encoder or ("console" if flags.zap_devel else "json"),
        log_time=flags.zap_time_encoding,
        traceback_level=flags.zap_stacktrace_level,
        enable_pprof=flags.enable_pprof,
        tracing=flags.tracing,
        health_checking=flags.health_checking,
        secure_serving=flags.secure_serving,
        cert_path=flags.cert_path,
        enable_cert_reload=flags.enable_cert_reload,
        client_ca_file=flags.client_ca_file,
        tls_min_version=flags.tls_min_version,
        tls_cipher_suites=flags.tls_cipher_suites or "",
        transport=flags.transport,
        config_file=flags.config_file,
        config_text=flags.config_text,
        allow_experimental_plugins=flags.allow_experimental_plugins,
        plugin_paths=tuple(flags.plugin_path or ()),
        decision_log_size=flags.decision_log_size,
        prefix_index_memory_bytes=flags.prefix_index_memory,
    )
    if settings.config_file is not None and settings.config_text is not None:
        raise ConfigError("--config-file and --config-text exclude each other")
    if settings.endpoints is None and settings.endpoints_file is None and settings.config_file is None and settings.config_text is None:
        raise ConfigError(NO_ENDPOINTS)
    if settings.cert_path is not None and not settings.secure_serving:
        raise ConfigError("--cert-path needs --secure-serving")
    if settings.client_ca_file is not None and not (settings.secure_serving and settings.transport == "h2"):
        raise ConfigError("--client-ca-file needs --secure-serving and --transport h2")
    if (settings.tls_cipher_suites or settings.tls_min_version != DEFAULT_TLS_VERSION) and settings.transport != "h2":
        raise ConfigError("--tls-min-version and --tls-cipher-suites need --transport h2")
    if settings.enable_cert_reload and settings.cert_path is None:
        raise ConfigError("--enable-cert-reload needs --cert-path: a self-signed certificate has no files to look at")
    return settings


def _refuse_removed(argv: Sequence[str]) -> None:
    for argument in argv:
        flag = argument.partition("=")[0]
        if flag in _REMOVED:
            raise ConfigError(f"{flag} is no longer taken: name the series as engineConfigs[].{_REMOVED[flag]} of a core-metrics-extractor")


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
        "--tls-min-version", choices=TLS_VERSIONS, default=DEFAULT_TLS_VERSION, metavar="VERSION",
        help=f"one of {', '.join(TLS_VERSIONS)} (h2 only; default: %(default)s)",
    )  # fmt: skip
    serving.add_argument(
        "--tls-cipher-suites", metavar="NAME,...",
        help="cipher suites of TLS 1.2 by their IANA names (h2 only; default: those of the TLS library)",
    )  # fmt: skip
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
    _bool(serving, "--emit-endpoint-scores", False, "tell the proxy how every endpoint was scored, as dynamic metadata")
    _bool(serving, "--legacy-metrics", True, "serve metrics under their deprecated names, too")
    _bool(serving, "--enable-grpc-stream-metrics", True, "serve the metrics of ext_proc streams")

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
    config.add_argument(
        "--objectives-file", type=Path, metavar="FILE", help="YAML with InferenceObjectives and InferenceModelRewrites, watched for changes"
    )
    config.add_argument("--config-text", metavar="YAML", help="the same as text")
    _bool(config, "--allow-experimental-plugins", False, "allow plugin types marked α in docs/plugins.md")
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
    _bool(config, "--zap-devel", True, "false: --zap-encoder is json unless it is given")
    config.add_argument("--zap-encoder", choices=("console", "json"), help="log format (default: console)")
    config.add_argument(
        "--zap-log-level", type=_zap_level, metavar="LEVEL", help="debug, info, error, or a number as for -v; goes before -v"
    )
    config.add_argument(
        "--zap-stacktrace-level", choices=("info", "error", "panic"), default="error",
        help="records from this level on show the traceback they have; panic: none does (default: %(default)s)",
    )  # fmt: skip
    config.add_argument(
        "--zap-time-encoding", choices=TIME_ENCODINGS, default="iso8601", help="of log records, see docs/flags.md (default: %(default)s)"
    )
    _bool(config, "--enable-pprof", True, "serve /debug/tasks: what every task and thread is doing")
    _bool(config, "--tracing", True, "OpenTelemetry spans, where the environment names an exporter")
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


def _zap_level(text: str) -> int:
    """As a verbosity."""
    named = {"debug": 4, "info": 2, "error": 0, "panic": 0}
    if text in named:
        return named[text]
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}': expected debug, info, error or a whole number")


def _duration(text: str) -> float:
    try:
        return parse_duration_s(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _quantity(text: str) -> int:
    try:
        return parse_quantity(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


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
