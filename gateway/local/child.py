"""One running part: spawned so that it cannot outlive this process, its output in a log file."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gateway.local.part import Part

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
TAIL_LINES = 20
_TAIL_BYTES = 16384
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> Callable[[], None] | None:
    """What a child runs between fork and exec so that the kernel kills it when this process ends, however it ends.

    Linux only (None elsewhere). The signal follows the thread that forks, so spawn from the main thread.
    """
    if not sys.platform.startswith("linux"):
        return None
    # Loaded before the fork: a child that loads a library can deadlock on a lock another thread held.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def arrange() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)  # The parent ended before the arrangement stood.

    return arrange


def _environment() -> dict[str, str]:
    paths = [str(PACKAGE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


class Child:
    """A part and its process. Its own session keeps a terminal's Ctrl-C from it: the stack decides the order of ending."""

    def __init__(self, part: Part, log: Path) -> None:
        self.part = part
        self.log = log
        self.started = time.monotonic()
        with log.open("wb") as sink:
            self._process = subprocess.Popen(
                part.argv,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    @property
    def pid(self) -> int:
        """Process id, which is its process group as well."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._process.poll()

    def uptime_s(self) -> float:
        """Seconds since it was spawned."""
        return time.monotonic() - self.started

    def signal(self, number: signal.Signals) -> None:
        """Signal the whole group, unless the process has ended already."""
        if self.exit_status is None:
            try:
                os.killpg(self.pid, number)
            except (ProcessLookupError, PermissionError):
                self._process.send_signal(number)

    def tail(self) -> str:
        """The last lines of its log."""
        with self.log.open("rb") as source:
            source.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            lines = source.read().decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])

    def epitaph(self) -> str:
        """How it ended, with the tail of its log."""
        status = self.exit_status
        how = "still runs" if status is None else f"died of {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
        tail = self.tail()
        return f"{self.part.name} {how}; the end of {self.log}:\n{tail}" if tail else f"{self.part.name} {how} and wrote nothing"
