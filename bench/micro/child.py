"""A process beside a micro benchmark, so that its CPU time does not count, or counts alone. It ends with its standard input."""

from __future__ import annotations

import subprocess
import sys

_PATIENCE_S = 20.0


class Helper:
    """Runs one of our modules; the two talk by lines."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._module = module
        command = [sys.executable, "-P", "-m", module, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def line(self) -> str:
        """The next line it prints. RuntimeError when it has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._module} has ended")
        return line.rstrip("\n")

    def ask(self) -> str:
        """Send an empty line; the line it answers."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.line()

    def stop(self) -> None:
        """Close its standard input, and wait."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
