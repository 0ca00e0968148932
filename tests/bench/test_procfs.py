"""Processes: their CPU, memory and descendants, and that none is left behind."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from bench import procfs
from bench.processes import Child, Failed, output
from tests.support.waiting import until

BUSY = "import time\nwhile time.process_time() < 0.2: pass\nprint('done', flush=True)\ntime.sleep(60)"
# A shell that waits for a child of its own, which in turn tells its id and stays.
TREE = ["/bin/sh", "-c", f'"{sys.executable}" -c "import os, time; print(os.getpid(), flush=True); time.sleep(60)" & wait']


async def test_cpu_and_memory_of_another_process(tmp_path: Path) -> None:
    async with Child("busy", [sys.executable, "-c", BUSY], tmp_path, pipes=True) as child:
        assert await child.line() == "done"
        assert procfs.cpu_s(child.pid) >= 0.2
        now, peak = procfs.memory_bytes(child.pid)
        assert 1 << 20 < now <= peak
        pid = child.pid
    with pytest.raises(ProcessLookupError):
        procfs.cpu_s(pid)
    with pytest.raises(ProcessLookupError):
        procfs.memory_bytes(pid)
    assert procfs.cpu_by_pid([pid, os.getpid()]).keys() == {os.getpid()}


async def test_a_tree_counts_as_one_and_ends_as_one(tmp_path: Path) -> None:
    async with Child("tree", TREE, tmp_path, pipes=True, is_tree=True) as child:
        inner = int(await child.line())
        assert {child.pid, inner} <= child.pids
        assert procfs.resident_bytes(child.pids) > procfs.memory_bytes(inner)[0]

    async def gone() -> bool:
        return inner not in procfs.tree(inner)

    await until(gone, "the inner process has ended")


async def test_a_process_that_does_not_heed_sigterm_ends_all_the_same(tmp_path: Path) -> None:
    stubborn = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(60)"
    async with Child("stubborn", [sys.executable, "-c", stubborn], tmp_path, pipes=True) as child:
        assert await child.line() == "deaf"
        pid = child.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_how_a_child_ended_is_told_with_its_last_words(tmp_path: Path) -> None:
    async with Child("brief", [sys.executable, "-c", "import sys; sys.exit('no such thing')"], tmp_path) as child:
        assert await child.wait(30) == 1
        with pytest.raises(Failed, match="brief exited with 1: no such thing"):
            child.check()
        assert child.tail() == "no such thing"


async def test_a_program_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="absent cannot be started"):
        async with Child("absent", ["/nowhere/at-all"], tmp_path):
            pass


async def test_a_command_that_fails_says_why() -> None:
    assert await output(sys.executable, "-c", "print('fine')") == "fine\n"
    with pytest.raises(Failed, match="bad luck"):
        await output(sys.executable, "-c", "raise SystemExit('bad luck')")


async def test_silence_is_bounded(tmp_path: Path) -> None:
    async with Child("silent", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, pipes=True) as child:
        with pytest.raises(Failed, match="said nothing"):
            await child.line(0.1)


async def test_ending_is_not_cut_short_by_a_cancel(tmp_path: Path) -> None:
    started = asyncio.Event()
    pids: list[int] = []

    async def hold() -> None:
        async with Child("sleeper", [sys.executable, "-c", "import time; time.sleep(60)"], tmp_path) as child:
            pids.append(child.pid)
            started.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    await started.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
