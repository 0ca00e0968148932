"""The command as a process: ready line, signals, a port in use."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

LIMIT_S = 30


@contextmanager
def command(*flags: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.sim", *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_ready_serves_and_ends_on_a_signal_even_with_a_stream_open(number: signal.Signals) -> None:
    with command("--port", "0") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ready on http://127.0.0.1:")
        url = line.split()[-1]
        with httpx.stream("POST", f"{url}/v1/completions", json={"prompt": "a", "max_tokens": 8000, "stream": True}) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            process.send_signal(number)
            assert process.wait(LIMIT_S) == 0
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_signal_ends_the_start_up_delay() -> None:
    with command("--port", "0", "--startup-delay-s", "600", "--log-level", "info") as process:
        assert process.stderr is not None
        assert "starting in 600 s" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0


def test_a_port_in_use_is_said_and_ends_with_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with command("--port", port) as process:
            _out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in err
    assert "Traceback" not in err
