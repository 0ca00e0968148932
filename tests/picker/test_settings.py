"""The flags of `fairlead picker`: forms, defaults, and what is refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from picker.__main__ import main
from picker.errors import ConfigError
from picker.settings import Settings, parse

NEEDED = ["--endpoints", "127.0.0.1:8000"]


def parsed(*argv: str) -> Settings:
    return parse([*NEEDED, *argv])


DEFAULTS = {
    "host": "0.0.0.0",
    "grpc_port": 9002,
    "grpc_health_port": 9003,
    "metrics_port": 9090,
    "drain_timeout_s": 30.0,
    "grpc_max_recv_msg_size_bytes": None,
    "grpc_max_send_msg_size_bytes": None,
    "max_request_body_bytes": 64 << 20,
    "response_metrics": True,
    "emit_endpoint_scores": False,
    "legacy_metrics": True,
    "enable_grpc_stream_metrics": True,
    "pool_name": "default",
    "endpoints": "127.0.0.1:8000",
    "plugin_paths": (),
    "endpoints_file": None,
    "objectives_file": None,
    "disable_endpoint_subset_filter": False,
    "refresh_metrics_interval_s": 0.05,
    "refresh_prometheus_metrics_interval_s": 5.0,
    "metrics_staleness_threshold_s": 2.0,
    "verbosity": 2,
    "log_encoder": "console",
    "log_time": "iso8601",
    "traceback_level": "error",
    "enable_pprof": True,
    "tracing": True,
    "health_checking": False,
    "secure_serving": True,
    "cert_path": None,
    "enable_cert_reload": False,
    "client_ca_file": None,
    "tls_min_version": "VersionTLS12",
    "tls_cipher_suites": "",
    "transport": "h2",
    "config_file": None,
    "config_text": None,
    "allow_experimental_plugins": False,
    "decision_log_size": 512,
    "prefix_index_memory_bytes": 256 << 20,
}


def test_defaults_are_the_contracts() -> None:
    assert asdict(parsed()) == DEFAULTS


# flag, text, field, value
VALUES: list[tuple[str, str, str, Any]] = [
    ("--host", "::1", "host", "::1"),
    ("--grpc-port", "1", "grpc_port", 1),
    ("--grpc-health-port", "65535", "grpc_health_port", 65535),
    ("--metrics-port", "8080", "metrics_port", 8080),
    ("--drain-timeout", "1m30s", "drain_timeout_s", 90.0),
    ("--drain-timeout", "0", "drain_timeout_s", 0.0),
    ("--grpc-max-recv-msg-size", "10MiB", "grpc_max_recv_msg_size_bytes", 10 << 20),
    ("--grpc-max-recv-msg-size", "0", "grpc_max_recv_msg_size_bytes", 0),
    ("--grpc-max-recv-msg-size", "2147483647", "grpc_max_recv_msg_size_bytes", 2**31 - 1),
    ("--grpc-max-send-msg-size", "25MB", "grpc_max_send_msg_size_bytes", 25_000_000),
    ("--max-request-body-size", "1.5Gi", "max_request_body_bytes", 3 << 29),
    ("--max-request-body-size", "0", "max_request_body_bytes", 0),
    ("--max-request-body-size", "512kib", "max_request_body_bytes", 512 << 10),
    ("--max-request-body-size", "7B", "max_request_body_bytes", 7),
    ("--max-request-body-size", "2 TB", "max_request_body_bytes", 2 * 10**12),
    ("--response-metrics", "false", "response_metrics", False),
    ("--emit-endpoint-scores", "true", "emit_endpoint_scores", True),
    ("--legacy-metrics", "false", "legacy_metrics", False),
    ("--enable-grpc-stream-metrics", "false", "enable_grpc_stream_metrics", False),
    ("--zap-log-level", "debug", "verbosity", 4),
    ("--zap-log-level", "info", "verbosity", 2),
    ("--zap-log-level", "error", "verbosity", 0),
    ("--zap-log-level", "5", "verbosity", 5),
    ("--zap-devel", "false", "log_encoder", "json"),
    ("--zap-time-encoding", "rfc3339", "log_time", "rfc3339"),
    ("--zap-stacktrace-level", "panic", "traceback_level", "panic"),
    ("--enable-pprof", "false", "enable_pprof", False),
    ("--tracing", "false", "tracing", False),
    ("--tls-min-version", "VersionTLS13", "tls_min_version", "VersionTLS13"),
    ("--tls-cipher-suites", "TLS_AES_128_GCM_SHA256", "tls_cipher_suites", "TLS_AES_128_GCM_SHA256"),
    ("--pool-name", "mine", "pool_name", "mine"),
    ("--endpoints", "a:1,b:2", "endpoints", "a:1,b:2"),
    ("--endpoints-file", "e.yaml", "endpoints_file", Path("e.yaml")),
    ("--objectives-file", "o.yaml", "objectives_file", Path("o.yaml")),
    ("--disable-endpoint-subset-filter", "true", "disable_endpoint_subset_filter", True),
    ("--refresh-metrics-interval", "10ms", "refresh_metrics_interval_s", 0.01),
    ("--refresh-prometheus-metrics-interval", "1s", "refresh_prometheus_metrics_interval_s", 1.0),
    ("--metrics-staleness-threshold", "500ms", "metrics_staleness_threshold_s", 0.5),
    ("-v", "4", "verbosity", 4),
    ("--v", "0", "verbosity", 0),
    ("--zap-encoder", "json", "log_encoder", "json"),
    ("--health-checking", "true", "health_checking", True),
    ("--secure-serving", "false", "secure_serving", False),
    ("--cert-path", "certs", "cert_path", Path("certs")),
    ("--transport", "grpcio", "transport", "grpcio"),
    ("--config-file", "c.yaml", "config_file", Path("c.yaml")),
    ("--config-text", "kind: x", "config_text", "kind: x"),
    ("--allow-experimental-plugins", "true", "allow_experimental_plugins", True),
    ("--decision-log-size", "0", "decision_log_size", 0),
    ("--prefix-index-memory", "1MiB", "prefix_index_memory_bytes", 1 << 20),
    ("--prefix-index-memory", "0", "prefix_index_memory_bytes", 0),
    ("--plugin-path", "plugins", "plugin_paths", (Path("plugins"),)),
]


@pytest.mark.parametrize(("flag", "text", "field", "value"), VALUES)
def test_a_value_after_a_space_or_an_equals_sign(flag: str, text: str, field: str, value: Any) -> None:
    expected = {**DEFAULTS, field: value}
    assert asdict(parsed(flag, text)) == expected
    assert asdict(parsed(f"{flag}={text}")) == expected


def test_every_field_is_tried() -> None:
    tried = {field for _, _, field, _ in VALUES} | {"enable_cert_reload", "client_ca_file"}
    assert tried == set(DEFAULTS)


BOOLEANS = {
    "--disable-endpoint-subset-filter": "disable_endpoint_subset_filter",
    "--health-checking": "health_checking",
    "--secure-serving": "secure_serving",
    "--enable-cert-reload": "enable_cert_reload",
}


@pytest.mark.parametrize("flag", BOOLEANS)
@pytest.mark.parametrize(
    ("form", "value"),
    [
        ([], True),
        (["=true"], True),
        (["=True"], True),
        (["=1"], True),
        (["=t"], True),
        (["=false"], False),
        (["=F"], False),
        (["=0"], False),
    ],
)
def test_booleans(flag: str, form: list[str], value: bool) -> None:
    more = ["--cert-path", "x"] if flag == "--enable-cert-reload" else []
    assert getattr(parsed(flag + "".join(form), *more), BOOLEANS[flag]) is value


def test_a_bare_boolean_does_not_swallow_the_next_flag() -> None:
    settings = parse(["--health-checking", "--grpc-port", "7", "--endpoints=a:1", "--secure-serving"])
    assert (settings.health_checking, settings.grpc_port, settings.secure_serving) == (True, 7, True)


def test_the_last_of_a_repeated_flag_counts() -> None:
    assert parsed("--grpc-port=1", "--grpc-port", "2").grpc_port == 2


def test_short_forms_of_the_verbosity() -> None:
    assert [parsed(*argv).verbosity for argv in (["-v=3"], ["-v3"], ["-v", "3"], ["--v=3"])] == [3, 3, 3, 3]


def usage_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        parse(argv)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--grpc-prt", "1"], "unrecognized arguments: --grpc-prt 1"),
        (["--grpc-por=1"], "unrecognized arguments: --grpc-por=1"),
        (["--health-check"], "unrecognized arguments: --health-check"),
        (["--ha-enable-leader-election"], "unrecognized arguments: --ha-enable-leader-election"),
        (["stray"], "unrecognized arguments: stray"),
        (["--grpc-port"], "argument --grpc-port: expected one argument"),
        (["--grpc-port", "0"], "argument --grpc-port: '0': expected a port from 1 to 65535"),
        (["--metrics-port", "65536"], "argument --metrics-port: '65536': expected a port from 1 to 65535"),
        (["--grpc-health-port=-1"], "argument --grpc-health-port: '-1': expected a port from 1 to 65535"),
        (["--grpc-port=http"], "argument --grpc-port: 'http': expected a port from 1 to 65535"),
        (["--drain-timeout", "30"], "argument --drain-timeout: '30' is not a duration; expected e.g. 200ms, 5s or 1m30s"),
        (["--drain-timeout=-1s"], "argument --drain-timeout: '-1s' is not a duration; expected e.g. 200ms, 5s or 1m30s"),
        (["--refresh-metrics-interval="], "argument --refresh-metrics-interval: '' is not a duration"),
        (["--max-request-body-size", "big"], "argument --max-request-body-size: 'big': expected a size such as 512KiB, 10MiB or 25MB"),
        (["--max-request-body-size=-1"], "argument --max-request-body-size: '-1': expected a size such as"),
        (["--max-request-body-size=10MiBs"], "argument --max-request-body-size: '10MiBs': expected a size such as"),
        (["--grpc-max-recv-msg-size", "2GiB"], "argument --grpc-max-recv-msg-size: '2GiB': expected less than 2GiB"),
        (["--grpc-max-send-msg-size", "-5"], "argument --grpc-max-send-msg-size: '-5': expected a size"),
        (["--secure-serving=maybe"], "argument --secure-serving: 'maybe': expected true or false"),
        (["--health-checking", "yes"], "argument --health-checking: 'yes': expected true or false"),
        (["-v", "loud"], "argument -v/--v: 'loud': expected a whole number that is not negative"),
        (["--prefix-index-memory=1023KiB"], "argument --prefix-index-memory: '1023KiB': expected at least 1MiB, or 0 for no limit"),
        (["--decision-log-size=1.5"], "argument --decision-log-size: '1.5': expected a whole number that is not negative"),
        (["--zap-encoder=xml"], "argument --zap-encoder: invalid choice: 'xml' (choose from"),
    ],
)
def test_wrong_flags_exit_with_2_and_say_what_was_expected(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in usage_error([*NEEDED, *argv], capsys)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no endpoints: give --endpoints host:port,... or --endpoints-file FILE"),
        ([*NEEDED, "--config-file", "a", "--config-text", "b"], "--config-file and --config-text exclude each other"),
        ([*NEEDED, "--config-file", "a", "--config-text", ""], "--config-file and --config-text exclude each other"),
        ([*NEEDED, "--secure-serving=false", "--cert-path", "d"], "--cert-path needs --secure-serving"),
        ([*NEEDED, "--enable-cert-reload"], "--enable-cert-reload needs --cert-path"),
        ([*NEEDED, "--enable-cert-reload", "--secure-serving=false"], "--enable-cert-reload needs --cert-path"),
    ],
)
def test_contradictions_are_configuration_errors(argv: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(argv)
    assert str(error.value).startswith(message)


def test_both_kinds_of_endpoints_may_be_given() -> None:
    settings = parsed("--endpoints-file=x")
    assert settings.endpoints is not None
    assert settings.endpoints_file == Path("x")


def test_help_names_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for flag in {flag for flag, _, _, _ in VALUES} | set(BOOLEANS):
        assert f"{flag} " in text


def test_the_command_reports_a_contradiction_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 1
    assert (
        capsys.readouterr().err
        == "fairlead picker: no endpoints: give --endpoints host:port,... or --endpoints-file FILE, or dataLayer.discovery in the "
        "configuration\n"
    )


@pytest.mark.parametrize(
    ("flag", "field"),
    [
        ("--total-queued-requests-metric", "queuedRequestsSpec"),
        ("--total-running-requests-metric", "runningRequestsSpec"),
        ("--kv-cache-usage-percentage-metric", "kvUsageSpec"),
        ("--lora-info-metric", "loraSpec"),
        ("--cache-info-metric", "cacheInfoSpec"),
    ],
)
@pytest.mark.parametrize("form", ["=x", ""])
def test_metric_flags_name_what_took_their_place(flag: str, field: str, form: str) -> None:
    with pytest.raises(ConfigError, match=rf"{flag} is no longer taken: .*engineConfigs\[\]\.{field}"):
        parse(["--endpoints", "10.0.0.1:1", flag + form, *([] if form else ["x"])])
