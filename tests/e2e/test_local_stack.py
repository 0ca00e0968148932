"""`fairlead up` as a black box."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.envoy_stack import consecutive_ports

WAIT_S = 60.0
Up = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def up(envoy_binary: None, tmp_path: Path) -> Iterator[Up]:
    """Starts `fairlead up` on free ports, in a folder of its own."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        first = consecutive_ports(8)
        flags = ("--port", "--admin-port", "--picker-port", "--picker-health-port", "--metrics-port", "--sim-base-port")
        ports = [text for index, flag in enumerate(flags) for text in (flag, str(first + index))]
        command = [sys.executable, "-m", "gateway", "up", *ports, "--log-dir", str(tmp_path / "logs"), *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=WAIT_S)


def pids(output: str) -> list[int]:
    """The processes that it said it started."""
    return [int(text) for text in re.findall(r"pid (\d+)", output)]


def left(output: str) -> list[str]:
    """Those of them that still run."""
    return [str(process) for process in _processes(output) if process.status() != psutil.STATUS_ZOMBIE]


def _processes(output: str) -> Iterator[psutil.Process]:
    for pid in pids(output):
        try:
            yield psutil.Process(pid)
        except psutil.NoSuchProcess:
            continue


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """Standard output up to the line with `text`."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError("".join(lines) + (process.stderr.read() if process.stderr else ""))


def test_once_shows_the_answer_and_how_it_was_decided_and_ends_with_0(up: Up) -> None:
    process = up("--once", "--first-request", "--sims", "2")
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (0, ""), out
    assert re.search(r"^> .*inference gateway.*\n\S+ \S+", out, re.MULTILINE), out
    assert re.search(r"first text after \d+ ms, all after \d+ ms", out)
    assert re.search(r"ended completed\b.*\n?.*completion tokens 48", out)
    rows = [line for line in out.splitlines() if re.match(r" ?127\.0\.0\.1:\d+ .*×", line)]
    assert len(rows) == 2, out
    assert sum("picked" in row for row in rows) == 1
    assert len(pids(out)) == 4
    assert left(out) == []


def test_a_broken_picker_configuration_is_shown_and_nothing_is_left(up: Up, tmp_path: Path) -> None:
    config = tmp_path / "broken.yaml"
    config.write_text("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- type: quue-scorer\n")
    process = up("--once", "--config-file", str(config))
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 1, out
    assert "picker exited with 1" in err
    assert "broken.yaml:4: plugins[0]" in err
    assert "quue-scorer" in err
    assert "queue-scorer" in err
    assert "Traceback" not in err
    logs = {file.name for file in (tmp_path / "logs").iterdir()}
    assert {"picker.log", "sim-0.log"} <= logs


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_everything(up: Up, number: signal.Signals) -> None:
    process = up("--first-request", "--sims", "2")
    started = read_until(process, "ready;")
    assert len(pids(started)) == 4
    process.send_signal(number)
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (0, "")
    assert "stopped" in out
    assert left(started) == []
