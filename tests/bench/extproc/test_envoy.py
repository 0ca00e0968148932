"""Bootstraps as the gateway renders them, changed for the arms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.extproc import envoy
from bench.extproc.envoy import Ports
from bench.processes import Failed
from gateway.address import HostPort
from gateway.envoy.bootstrap import as_dict
from gateway.envoy.settings import BootstrapSettings

PORTS = Ports(listen=20_001, admin=20_002, grpc=20_003, health=20_004, metrics=20_005)


def rendered(*static: str) -> dict[str, Any]:
    settings = BootstrapSettings(
        listen=HostPort("127.0.0.1", 1),
        admin=HostPort("127.0.0.1", 2),
        picker=HostPort("127.0.0.1", 3),
        picker_health_port=4,
        static_endpoints=tuple(HostPort.parse(text) for text in static),
    )
    return as_dict(settings)


async def test_rendering_is_what_the_gateway_says() -> None:
    assert await envoy.render() == json.loads(json.dumps(rendered()))


def test_ports_are_filled_in_and_nothing_else_is_changed() -> None:
    command = envoy.command("/bin/envoy", rendered(), PORTS)
    text = command[command.index("--config-yaml") + 1]
    found = json.loads(text)
    assert found["admin"]["address"]["socket_address"]["port_value"] == 20_002
    assert found["static_resources"]["listeners"][0]["address"]["socket_address"]["port_value"] == 20_001
    assert all(f'"port_value":{port}' in text for port in (20_003, 20_004))
    for placeholder, port in enumerate((20_001, 20_002, 20_003, 20_004), 1):
        text = text.replace(f'"port_value":{port}', f'"port_value":{placeholder}')
    assert json.loads(text) == json.loads(json.dumps(rendered()))
    assert command[command.index("--concurrency") + 1] == "1"


async def test_bodies_are_kept_by_the_flag() -> None:
    (filter_,) = (await envoy.render(keep_response_bodies=True))["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    # NONE is the default of the mode, and so is not written.
    assert "response_body_mode" not in modes(filter_["typed_config"])


def modes(manager: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manager["http_filters"][0]["typed_config"]["processing_mode"]
    return found


def test_an_override_needs_modes_without_full_duplex_and_leave() -> None:
    before = rendered()
    (filter_,) = envoy.overridable(before)["static_resources"]["listeners"][0]["filter_chains"][0]["filters"]
    assert "FULL_DUPLEX_STREAMED" not in modes(filter_["typed_config"]).values()
    assert filter_["typed_config"]["http_filters"][0]["typed_config"]["allow_mode_override"] is True
    assert before == rendered()


def test_plain_has_no_filter_no_picker_and_turns_round() -> None:
    before = rendered("127.0.0.1:8001", "127.0.0.1:8002")
    found = envoy.plain(before)
    assert "ext_proc" not in json.dumps(found)
    (cluster,) = found["static_resources"]["clusters"]
    assert (cluster["name"], cluster["lb_policy"]) == ("endpoints", "ROUND_ROBIN")
    assert "load_balancing_policy" not in cluster
    assert before == rendered("127.0.0.1:8001", "127.0.0.1:8002")


def test_a_bootstrap_without_the_filter_cannot_be_made_plain() -> None:
    with pytest.raises(Failed, match="no ext_proc filter"):
        envoy.plain(envoy.plain(rendered("127.0.0.1:8001")) | {})


def test_unchecked_asks_nobody_for_health() -> None:
    found = envoy.unchecked(rendered())
    assert "health_check" not in json.dumps(found)
    assert "ext_proc" in json.dumps(found)
