"""The local stack as a process tree, with stand-ins for simulators, picker and Envoy."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.ports import free_ports

WAIT_S = 30.0


class Running:
    """A `fake_stack` process and what it has printed so far."""

    def __init__(self, *arguments: str, temporary: Path) -> None:
        self.ports = free_ports(3)
        command = [sys.executable, "-m", "tests.gateway.local.fake_stack", *map(str, self.ports), *arguments]
        env = {**os.environ, "TMPDIR": str(temporary)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        self.lines: list[str] = []

    def read_until(self, text: str) -> None:
        """Read lines of standard output up to the one that contains `text`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return
        raise AssertionError(f"{text!r} never came: {self.lines}\n{self.process.stderr.read() if self.process.stderr else ''}")

    def child_pids(self) -> list[int]:
        """The pids it printed."""
        return [int(found[1]) for line in self.lines if (found := re.search(r"pid (\d+)", line))]

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end: exit status, the rest of standard output, standard error."""
        out, err = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, "".join(self.lines) + out, err


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Running] = []

    def run(*arguments: str) -> Running:
        started.append(Running(*arguments, temporary=tmp_path))
        return started[-1]

    yield run
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.communicate()


def alive(pid: int) -> bool:
    """Whether `pid` runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def gone(pids: list[int]) -> bool:
    """Whether all of `pids` end within WAIT_S."""
    deadline = time.monotonic() + WAIT_S
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_with_status_0(start: Start, number: signal.Signals) -> None:
    running = start()
    running.read_until("ready;")
    pids = running.child_pids()
    assert len(pids) == 3
    running.process.send_signal(number)
    status, out, err = running.finish()
    assert (status, err) == (0, "")
    assert "stopped" in out
    assert gone(pids)


def test_nobody_survives_a_sigkill_of_the_parent(start: Start) -> None:
    running = start()
    running.read_until("ready;")
    pids = running.child_pids()
    running.process.kill()
    assert len(pids) == 3
    assert gone(pids)


def test_a_child_that_ignores_sigterm_is_killed_after_the_grace(start: Start) -> None:
    running = start("stubborn")
    running.read_until("ready;")
    running.process.send_signal(signal.SIGTERM)
    status, _, _ = running.finish()
    assert status == 0
    assert gone(running.child_pids())


def test_a_second_signal_ends_the_wait_for_a_stubborn_child(start: Start) -> None:
    running = start("stubborn")
    running.read_until("ready;")
    *others, stubborn = running.child_pids()
    running.process.send_signal(signal.SIGINT)
    assert gone(others)
    running.process.send_signal(signal.SIGINT)
    assert running.finish()[0] == 0
    assert gone([stubborn])


def test_a_child_that_dies_early_is_named_with_the_tail_of_its_log(start: Start) -> None:
    status, _, err = start("die").finish()
    assert status == 1
    assert "envoy exited with 7" in err
    assert "cannot find the model" in err


def test_a_child_that_dies_later_takes_all_down(start: Start) -> None:
    running = start("--once", "die-later")
    status, _, err = running.finish()
    assert status == 1
    assert "envoy exited with 7" in err
    assert "about to fall over" in err
    assert gone(running.child_pids())


def test_a_part_that_never_gets_ready_is_named(start: Start) -> None:
    status, _, err = start("deaf").finish()
    assert status == 1
    assert "not ready within 3 s" in err
    assert "envoy is not ready: http://127.0.0.1:" in err


def test_logs_are_kept_after_a_failure_only(start: Start, tmp_path: Path) -> None:
    running = start("--once")
    running.finish()
    assert list(tmp_path.iterdir()) == []
    start("die").finish()
    (logs,) = tmp_path.iterdir()
    assert {file.name for file in logs.iterdir()} == {"sim-0.log", "picker.log", "envoy.log"}


def test_once_prints_the_answer_and_the_decision_and_ends_with_0(start: Start) -> None:
    running = start("--once")
    status, out, err = running.finish()
    assert (status, err) == (0, "")
    assert "It routes requests." in out
    row = next(line for line in out.splitlines() if "10.0.0.2:8001" in line and "×" in line)
    assert "1.00×2" in row
    assert "0.75×1" in row
    assert "2.75" in row
    assert "picked" in row
    assert "filtered by load-filter: too busy" in out
    pids = [int(text) for text in re.findall(r"pid (\d+)", out)]
    assert len(pids) == 3
    assert gone(pids)


def test_a_port_in_use_is_named_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        ports = [*map(str, free_ports(2)), str(busy)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.gateway.local.fake_stack", *ports], capture_output=True, text=True, timeout=WAIT_S, check=False
        )
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"port {busy} (envoy) is in use; choose another with --envoy-port" in done.stderr
