"""What `fairlead up` would run, from its flags."""

import sys
from pathlib import Path

import pytest

from gateway.address import HostPort
from gateway.local.__main__ import main
from gateway.local.plan import LocalSettings, claims, parts


def test_the_default_stack() -> None:
    planned = parts(LocalSettings())
    assert [part.name for part in planned] == ["sim-0", "sim-1", "sim-2", "picker", "envoy"]
    assert [str(part.address) for part in planned] == [
        "127.0.0.1:8001",
        "127.0.0.1:8002",
        "127.0.0.1:8003",
        "127.0.0.1:9002",
        "127.0.0.1:8080",
    ]
    picker = planned[3].argv
    assert picker[:4] == (sys.executable, "-P", "-m", "picker")
    assert picker[picker.index("--endpoints") + 1] == "127.0.0.1:8001,127.0.0.1:8002,127.0.0.1:8003"
    assert "--secure-serving=false" in picker


def test_real_servers_replace_the_simulators() -> None:
    settings = LocalSettings(endpoints=(HostPort("10.0.0.1", 8000),), config_file=Path("picker.yaml"), picker_args=("-v", "4"))
    planned = parts(settings)
    assert [part.name for part in planned] == ["picker", "envoy"]
    assert planned[0].argv[-4:] == ("--config-file", "picker.yaml", "-v", "4")
    assert not any(claim.flag == "--sim-base-port" for claim in claims(settings))


def test_every_port_is_claimed_under_the_flag_that_moves_it() -> None:
    assert [(claim.address.port, claim.flag) for claim in claims(LocalSettings(sims=2))] == [
        (8080, "--port"),
        (19000, "--admin-port"),
        (9002, "--picker-port"),
        (9003, "--picker-health-port"),
        (9090, "--metrics-port"),
        (8001, "--sim-base-port"),
        (8002, "--sim-base-port"),
    ]


@pytest.mark.parametrize(
    "flags",
    [["--sims", "0"], ["--port", "0"], ["--endpoints", "server:8000"], ["--sims", "3", "--sim-base-port", "65534"], ["--por", "8080"]],
)
def test_wrong_flags_are_usage_errors(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(flags)
    assert ended.value.code == 2
