"""The whole bench behind the real Envoy, as short as it can be."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.waiting import until

COMMAND = [sys.executable, "-P", "-m", "bench.extproc"]
PARTS = ("extproc.upstream", "extproc.client", "picker.__main__", "--config-yaml")
DEAD = "dead=false {grpc_port}"
# All parts are processes, and each may take as long as the bench lets it.
pytestmark = pytest.mark.timeout(300)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=280, check=False)


def test_two_arms_and_a_broken_peer_under_two_workloads(tmp_path: Path) -> None:
    numbers, tables = tmp_path / "bench.json", tmp_path / "bench.md"
    done = run(
        "--arms=envoy,h2,dead", "--only=small,sse100", "--rounds=1", "--seconds=1", f"--peer={DEAD}", f"--json={numbers}",
        f"--markdown={tables}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(numbers.read_text())
    cells: dict[tuple[str, str], dict[str, Any]] = {(c["workload"], c["arm"]): c for c in found["cells"]}
    assert set(cells) == {(w, a) for w in ("small", "sse100") for a in ("envoy", "h2", "dead")}
    for workload, unit in (("small", "request"), ("sse100", "event")):
        plain, ours, dead = (cells[workload, arm] for arm in ("envoy", "h2", "dead"))
        assert plain["failed"] is None and ours["failed"] is None, done.stderr
        assert "dead exited with 1" in dead["failed"] and dead["values"] == {}
        assert plain["values"][f"envoy_us_per_{unit}"] > 0
        assert f"picker_us_per_{unit}" not in plain["values"]
        for name in (
            f"picker_us_per_{unit}", f"envoy_us_per_{unit}", f"{unit}s_per_s", "picker_to_envoy", "picker_rss_bytes", "p50_ms",
            "picker_cores", "upstream_cores",
        ):  # fmt: skip
            assert ours["values"][name] > 0, name
        assert ours["values"]["added_p50_ms"] == pytest.approx(ours["values"]["p50_ms"] - plain["values"]["p50_ms"])
        assert {"gc_share_of_cpu", "gc_longest_ms"} <= set(ours["values"])
        assert ours["lags_ms"]
    assert cells["small", "h2"]["values"]["requests"] > 0
    assert cells["sse100", "h2"]["values"]["events"] > 0
    assert tables.read_text() == done.stdout
    for text in ("**small**:", "**sse100**:", "| h2 | picker,", "picker / Envoy", "| dead | failed: 1 of 1 rounds failed: dead exited"):
        assert text in done.stdout


def test_a_failed_cell_is_an_error_only_when_asked_for() -> None:
    arguments = ("--arms=dead", "--only=idle10", "--rounds=1", "--seconds=0.5", f"--peer={DEAD}")
    assert run(*arguments).returncode == 0
    assert run(*arguments, "--assert").returncode == 1


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["--arms=h3"], "'h3': expected one of envoy, echo"),
    (["--only=tiny"], "'tiny': expected one of small"),
    (["--peer=x"], "expected NAME=COMMAND"),
    (["--rounds=0"], "expected a whole number from 1"),
    (["--seconds=x"], "expected seconds from 0.5"),
    (["--arms=envoy", "--only=idle10"], "nothing to run"),
    (["--profile=envoy:small"], "expected one of our own servers"),
    (["--profile=h2:small", "--json=x"], "makes no report"),
    (["--profile-output=x"], "needs --profile"),
])  # fmt: skip
def test_wrong_flags_are_refused(arguments: list[str], complaint: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_no_process_outlives_the_bench(number: signal.Signals, status: int, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as sink:
        command = [*COMMAND, "--arms=h2", "--only=sse100", "--seconds=60", "--rounds=1"]
        # A shell that starts the tests in the background has SIGINT ignored, which every child inherits.
        bench = subprocess.Popen(command, stdout=sink, stderr=sink, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        asyncio.run(end_under_load(bench, number, log))
        assert bench.returncode == status
    finally:
        if bench.poll() is None:
            bench.kill()
            bench.wait()


async def end_under_load(bench: subprocess.Popen[bytes], number: signal.Signals, log: Path) -> None:
    """Once all parts run, send the signal, and wait until none of them runs."""
    born: set[psutil.Process] = set()

    async def under_load() -> bool:
        assert bench.poll() is None, log.read_text()
        born.update(psutil.Process(bench.pid).children(recursive=True))
        words = [" ".join(arguments(process)) for process in born]
        return all(any(part in text for text in words) for part in PARTS)

    await until(under_load, "all parts run", patience_s=120)
    bench.send_signal(number)

    async def over() -> bool:
        return bench.poll() is not None and not any(alive(process) for process in born)

    await until(over, "all parts have ended", patience_s=60)


def arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
