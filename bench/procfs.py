"""CPU time and memory of other processes, as Linux accounts for them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")
_PAGE_FIELDS = {"VmHWM", "VmRSS"}


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process, those that have ended included. ProcessLookupError when it is gone.

    The kernel's CPU clock of the process (what `clock_getcpuclockid` names): nanoseconds, where /proc/PID/stat counts in hundredths.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        raise ProcessLookupError(f"process {pid} is gone") from None


def memory_bytes(pid: int) -> tuple[int, int]:
    """Resident memory now, and the most there was so far. ProcessLookupError when the process is gone."""
    found: dict[str, int] = {}
    try:
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in _PAGE_FIELDS:
                found[name] = int(rest.split()[0]) << 10
        return found["VmRSS"], found["VmHWM"]
    except (OSError, KeyError):
        raise ProcessLookupError(f"process {pid} is gone") from None


def tree(root: int) -> set[int]:
    """The process, all that descend from it, and all of its session, to which orphans still belong."""
    parents: dict[int, tuple[int, int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            try:
                # The name of the program stands in parentheses and may hold anything.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] not in "ZX":
                parents[int(entry.name)] = (int(fields[1]), int(fields[3]))
    found = {root}
    while more := {pid for pid, (parent, session) in parents.items() if pid not in found and (parent in found or session == root)}:
        found |= more
    return found & parents.keys()


def cpu_by_pid(pids: Iterable[int]) -> dict[int, float]:
    """CPU seconds of each process that is still there."""
    found: dict[int, float] = {}
    for pid in pids:
        try:
            found[pid] = cpu_s(pid)
        except ProcessLookupError:
            continue
    return found


def resident_bytes(pids: Iterable[int]) -> int:
    """Resident memory of all processes that are still there, shared pages counted once for each."""
    total = 0
    for pid in pids:
        try:
            total += memory_bytes(pid)[0]
        except ProcessLookupError:
            continue
    return total
