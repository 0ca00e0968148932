"""The picker as users run it: a process with flags, signals, and three ports.

async with PickerProcess("--endpoints", "127.0.1.1:8000") as picker, ExtProcClient(picker.target) as client: ...
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.support.ports import free_ports
from tests.support.prometheus import Page, metrics
from tests.support.waiting import PATIENCE_S, until

COMMON_FLAGS: tuple[str, ...] = ()
"""Of every picker; a test's own flags overrule them."""

_ATTEMPTS = 3  # a port that was free a moment ago may be taken by the time the picker asks for it


class PickerProcess:
    """`async with PickerProcess("--endpoints", "127.0.1.1:8000") as picker`: `python -m picker`, ready, on free ports of 127.0.0.1.

    The ext_proc port is plain text unless `--secure-serving` or `--cert-path` is among the flags, and the drain ends at once unless
    `--drain-timeout` is. `command` replaces `python -m picker` (the flags are appended).
    """

    def __init__(
        self, *flags: str, command: Sequence[str] = (sys.executable, "-m", "picker"), environ: Mapping[str, str] | None = None
    ) -> None:
        """`environ` is added to the environment of this process."""
        self.flags = [*flags]
        self.environ = environ or {}
        self.command = [*command]
        self.grpc_port = self.health_port = self.metrics_port = 0
        self._process: asyncio.subprocess.Process | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="picker-")
        self._log = Path(self._folder.name, "stderr")

    @property
    def url(self) -> str:
        """The admin side door."""
        return f"http://127.0.0.1:{self.metrics_port}"

    @property
    def target(self) -> str:
        """The ext_proc port, as gRPC writes targets."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def stderr(self) -> str:
        """What the picker has logged so far, and written to its standard output."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Exit status; None while it runs."""
        return None if self._process is None else self._process.returncode

    async def __aenter__(self) -> PickerProcess:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Returns when the picker is ready; fails when it exits."""
        for attempt in range(_ATTEMPTS):
            await self.spawn()
            await until(self._settled, "the picker is ready or has exited")
            if self.status is None:
                return
            if "cannot listen" not in self.stderr or attempt == _ATTEMPTS - 1:
                raise AssertionError(f"the picker exited with {self.status}:\n{self.stderr}")

    async def spawn(self) -> None:
        """Start without waiting for anything."""
        self.grpc_port, self.health_port, self.metrics_port = free_ports(3)
        given = {flag.partition("=")[0] for flag in self.flags}
        flags = [f"--grpc-port={self.grpc_port}", f"--grpc-health-port={self.health_port}", f"--metrics-port={self.metrics_port}"]
        flags += [] if "--host" in given else ["--host=127.0.0.1"]
        flags += [] if given & {"--secure-serving", "--cert-path"} else ["--secure-serving=false"]
        flags += [] if "--drain-timeout" in given else ["--drain-timeout=0"]
        flags += COMMON_FLAGS
        # The test's own flags come last: of a flag given twice the last one counts.
        with self._log.open("wb") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                *flags,
                *self.flags,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={**os.environ, **self.environ},
            )

    async def _settled(self) -> bool:
        if self.status is not None:
            return True
        try:
            async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
                return (await client.get(f"{self.url}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def get(self, path: str) -> Any:
        """A JSON view of the side door, e.g. `/debug/endpoints`."""
        async with httpx.AsyncClient(timeout=20, trust_env=False) as client:
            return (await client.get(self.url + path)).json()

    async def metrics(self) -> Page:
        """The metrics page."""
        return await metrics(f"{self.url}/metrics")

    async def endpoints(self) -> dict[str, dict[str, Any]]:
        """What the picker knows of each endpoint, by `ip:port`."""
        return {entry["address"]: entry for entry in (await self.get("/debug/endpoints"))["endpoints"]}

    async def failure(self) -> tuple[int, str]:
        """For flags it cannot start with: exit status and what it said."""
        await self.spawn()
        return await self.wait(), self.stderr

    def terminate(self) -> None:
        """SIGTERM."""
        os.kill(self.pid, signal.SIGTERM)

    async def wait(self, patience_s: float = PATIENCE_S) -> int:
        """The exit status."""
        assert self._process is not None
        async with asyncio.timeout(patience_s):
            return await self._process.wait()

    async def close(self) -> None:
        """SIGTERM, and SIGKILL when that does not help."""
        process = self._process
        if process is not None and process.returncode is None:
            self.terminate()
            try:
                await self.wait(10)
            except TimeoutError:
                process.kill()
                await process.wait()
        self._folder.cleanup()
