"""What processes spend while they are watched."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from bench.extproc.meter import Meter
from bench.processes import Child, Failed, python
from tests.support.waiting import until

# Spends CPU for each line it reads.
WORKER = """
import sys, time
for line in sys.stdin:
    end = time.process_time() + float(line)
    while time.process_time() < end: pass
    print("done", flush=True)
"""
# Has a child that ends when its parent reads a line.
PARENT = """
import subprocess, sys
inner = subprocess.Popen([sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"], stdin=subprocess.PIPE)
sys.stdin.readline()
inner.stdin.close()
inner.wait()
print("gone", flush=True)
sys.stdin.readline()
"""
# What `bench.extproc.watched` runs: makes garbage in cycles, collects it, and waits for its end.
LITTER = """
import gc, time
def main(argv):
    while True:
        cycle = []
        cycle.append(cycle)
        gc.collect()
        time.sleep(0.01)
"""


async def test_cpu_of_each_process_apart(tmp_path: Path) -> None:
    async with (
        Child("busy", [sys.executable, "-c", WORKER], tmp_path, pipes=True) as busy,
        Child("lazy", [sys.executable, "-c", WORKER], tmp_path, pipes=True) as lazy,
    ):
        await busy.ask("0")
        await lazy.ask("0")
        meter = Meter({"picker": busy, "envoy": lazy}, watched=False)
        async with meter.running():
            await busy.ask("0.2")
    assert meter.values["picker_cpu_s"] >= 0.2 > meter.values["envoy_cpu_s"]
    assert meter.values["picker_cores"] > meter.values["envoy_cores"] >= 0
    assert meter.values["picker_rss_bytes"] > 1 << 20
    assert "gc_collections" not in meter.values


async def test_a_process_that_ends_meanwhile_is_a_failure(tmp_path: Path) -> None:
    async with Child("parent", [sys.executable, "-c", PARENT], tmp_path, pipes=True, is_tree=True) as parent:
        assert await parent.line() == "up"
        with pytest.raises(Failed, match="of picker ended while it was measured"):
            async with Meter({"picker": parent}, watched=False).running():
                assert await parent.ask("") == "gone"


async def test_garbage_of_a_watched_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "litter.py").write_text(LITTER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with Child("litter", python("bench.extproc.watched", "litter"), tmp_path, pipes=True) as litter:
        meter = Meter({"picker": litter}, watched=True)

        async def counted() -> bool:
            async with meter.running():
                await asyncio.sleep(0.1)
            return meter.values["gc_collections"] > 0

        await until(counted, "collections were counted")
        assert meter.values["gc_longest_ms"] > 0
        assert meter.values["gc_share_of_cpu"] > 0
        assert "blocks_more" in meter.values
