"""The console command: its table, its laziness and its errors."""

import importlib.util
import subprocess
import sys

import pytest

from gateway.cli import COMMANDS, main

LIGHT = """
import sys
from gateway.cli import main
main(["--version"])
main([])
sys.exit(len({"rich", "httpx", "betterproto2", "grpc"} & set(sys.modules)))
"""


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stderr for name in COMMANDS)
    assert done.stdout.startswith("fairlead ")


def test_python_m_gateway_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "gateway", "--help"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0
    assert "picker" in done.stdout


@pytest.mark.parametrize(
    ("typed", "hint"), [("pick", "picker"), ("envoi", "envoy"), ("zzz", "commands: picker, config, sim, envoy, plugin, up")]
)
def test_an_unknown_command_is_a_usage_error_with_the_nearest_names(typed: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([typed]) == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("command", ["envoy", "up"])
def test_a_command_gets_its_own_flags(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: fairlead {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_module(command: str) -> None:
    assert importlib.util.find_spec(COMMANDS[command].module) is not None
