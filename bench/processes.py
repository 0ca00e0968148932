"""Child processes that cannot outlive their benchmark: ended by id when it ends, by the kernel when it is killed."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from bench import procfs

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_S = 20.0
GRACE_S = 3.0
_POLL_S = 0.02
_TAIL_LINES = 12
_LINE_LIMIT = 1 << 20


class Failed(Exception):  # noqa: N818 (a domain word, not a defect)
    """There is no result; the text says why."""


def python(module: str, *arguments: str) -> list[str]:
    """The command of one of our modules. -P: the folder the user stands in is not searched."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, with the checkout importable."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(more or {})}


def _bound_to_us() -> Callable[[], None]:
    """Run in the child before its program: the kernel kills it when we end, however that comes about."""
    libc, us = ctypes.CDLL(None), os.getpid()

    def bind() -> None:
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != us:
            os._exit(1)

    return bind


class Child:
    """One process in a session of its own, with its standard error in a file. `pipes`: we talk to it over stdin and stdout.

    `is_tree`: its children count as part of it.
    """

    def __init__(self, name: str, command: Sequence[str], folder: Path, *, pipes: bool = False, is_tree: bool = False) -> None:
        self.name = name
        self.command = list(command)
        self._log = folder / f"{name}.log"
        self._pipes = pipes
        self._is_tree = is_tree
        self._process: Process | None = None

    async def __aenter__(self) -> Child:
        with self._log.open("wb") as sink:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *self.command,
                    stdin=PIPE if self._pipes else DEVNULL,
                    stdout=PIPE if self._pipes else sink,
                    stderr=sink,
                    env=environment(),
                    start_new_session=True,
                    preexec_fn=_bound_to_us(),
                    limit=_LINE_LIMIT,
                )
            except OSError as error:
                raise Failed(f"{self.name} cannot be started: {error}") from None
        return self

    async def __aexit__(self, *_: object) -> None:
        ending = asyncio.ensure_future(self._end())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await ending
            raise

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        asked = procfs.tree(process.pid)
        for pid in asked:
            _kill(pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), GRACE_S)
        except TimeoutError:
            pass
        # A second look, for those born meanwhile; and those of the first that have left the tree.
        for pid in procfs.tree(process.pid) | (asked - {process.pid}):
            _kill(pid, signal.SIGKILL)
        await process.wait()

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def pids(self) -> set[int]:
        """Of all processes that count."""
        return procfs.tree(self.pid) if self._is_tree else {self.pid}

    def check(self) -> None:
        """Raises Failed when the process has ended."""
        assert self._process is not None
        status = self._process.returncode
        if status is not None:
            how = f"died of {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
            raise Failed(f"{self.name} {how}: {self.tail() or 'it wrote nothing'}")

    async def wait(self, patience_s: float) -> int:
        """The exit status. Raises Failed when it takes longer."""
        assert self._process is not None
        try:
            return await asyncio.wait_for(self._process.wait(), patience_s)
        except TimeoutError:
            raise Failed(f"{self.name} still runs after {patience_s:g} s") from None

    async def until(self, attempt: Callable[[], Awaitable[str | None]], what: str, patience_s: float = PATIENCE_S) -> None:
        """Try again and again until `attempt` answers None, and not why not yet. Raises Failed when the process has ended or time is up."""
        reason: str | None = "not tried yet"
        try:
            async with asyncio.timeout(patience_s):
                while reason is not None:
                    self.check()
                    try:
                        reason = await attempt()
                    except OSError as error:
                        reason = str(error) or type(error).__name__
                    if reason is not None:
                        await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise Failed(f"{self.name}: not so after {patience_s:g} s that {what}: {reason}; {self.tail()}") from None

    async def line(self, patience_s: float = PATIENCE_S) -> str:
        """The next line it prints. Raises Failed when none comes."""
        assert self._process is not None and self._process.stdout is not None
        try:
            data = await asyncio.wait_for(self._process.stdout.readline(), patience_s)
        except TimeoutError:
            raise Failed(f"{self.name} said nothing for {patience_s:g} s") from None
        if not data:
            await self.wait(GRACE_S)
            self.check()
            raise Failed(f"{self.name} ended: {self.tail()}")
        return data.decode().rstrip("\n")

    async def ask(self, line: str) -> str:
        """Send a line and return the line that it answers."""
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            await self._process.stdin.drain()
        except OSError as error:
            raise Failed(f"{self.name} does not listen: {error}; {self.tail()}") from None
        return await self.line()

    def log(self) -> str:
        """All that it has written."""
        return self._log.read_text(errors="replace")

    def tail(self) -> str:
        """The end of that, on one line."""
        return " / ".join(self.log().splitlines()[-_TAIL_LINES:])


async def output(*command: str, patience_s: float = 60.0) -> str:
    """What a command prints. Raises Failed when it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environment(), preexec_fn=_bound_to_us()
    )
    try:
        async with asyncio.timeout(patience_s):
            out, err = await process.communicate()
    except TimeoutError:
        raise Failed(f"{command[0]} takes longer than {patience_s:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise Failed(f"{' '.join(command[:6])}: {err.decode(errors='replace').strip()[-500:]}")
    return out.decode()


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
