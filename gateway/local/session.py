"""One run of the local stack, from the port check to the last child's end."""

import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from rich.console import Console

from gateway.address import PortClaim, conflicts
from gateway.local.decision import decision_view
from gateway.local.first_request import PROMPT, ask, decisions, first_model
from gateway.local.part import Part
from gateway.local.plan import DEFAULT_MODEL, LocalSettings
from gateway.local.stack import Stack, StackFailed
from gateway.local.view import examples, live, stack_lines

PLAIN_WIDTH = 160
REQUEST_TIMEOUT_S = 60.0
INTERRUPTED = 130
SETTLE_S = 0.5

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """How the run goes: times in seconds, `log_dir` None for a temporary one that is kept only after a failure."""

    first_request: bool = False
    once: bool = False
    live: bool = True
    log_dir: Path | None = None
    wait_timeout_s: float = 60.0


def make_console() -> Console:
    """The console of standard output; wide where no terminal says how wide it is."""
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


class Session:
    """Runs `parts` and does with them what the settings ask for."""

    def __init__(self, local: LocalSettings, session: SessionSettings, parts: Sequence[Part], claims: Sequence[PortClaim]) -> None:
        self._local = local
        self._settings = session
        self._parts = parts
        self._claims = list(claims)
        self._console = make_console()
        self._ready = False

    def run(self) -> int:
        """The exit status: 0 for a normal stop, or a first request that succeeded with --once; 1 for any failure."""
        if problems := conflicts(self._claims):
            sys.stderr.write("".join(f"fairlead up: {problem}\n" for problem in problems))
            return 1
        given = self._settings.log_dir
        if given is not None:
            given.mkdir(parents=True, exist_ok=True)
        logs = Path(tempfile.mkdtemp(prefix="fairlead-")) if given is None else given
        try:
            status = asyncio.run(self._guarded(logs))
        except StackFailed as failure:
            sys.stderr.write(f"fairlead up: {failure}\nall logs: {logs}\n")
            return 1
        if given is None:
            if status == 1:
                sys.stderr.write(f"all logs: {logs}\n")
            else:
                shutil.rmtree(logs, ignore_errors=True)
        return status

    async def _guarded(self, logs: Path) -> int:
        main = asyncio.current_task()
        assert main is not None
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, main.cancel)
        try:
            async with Stack(self._parts, logs) as stack:
                return await self._serve(stack)
        except asyncio.CancelledError:
            self._say("stopped")
            return 0 if self._ready and not self._settings.once else INTERRUPTED

    async def _serve(self, stack: Stack) -> int:
        self._say("starting " + ", ".join(part.name for part in self._parts) + " …")
        await stack.start(self._settings.wait_timeout_s)
        self._ready = True
        async with httpx.AsyncClient(timeout=REQUEST_TIMEOUT_S, trust_env=False) as client:
            model = await self._model(client)
            for line in stack_lines(stack.children):
                self._say(line)
            if self._settings.first_request or self._settings.once:
                succeeded = await self._first_request(client, stack, model)
                if self._settings.once:
                    return 0 if succeeded else 1
        self._say("\n" + examples(self._local, model))
        if self._settings.live and self._console.is_terminal:
            await self._while_running(stack, live(self._console, stack.children, self._local))
        self._say("ready; Ctrl-C stops everything")
        await stack.watch()
        return 0

    async def _model(self, client: httpx.AsyncClient) -> str:
        """The model to ask for: the one given, else the first that a real server lists, else the simulators'."""
        if self._local.model is None and self._local.endpoints:
            return await first_model(client, str(self._local.endpoints[0])) or DEFAULT_MODEL
        return self._local.model or DEFAULT_MODEL

    async def _first_request(self, client: httpx.AsyncClient, stack: Stack, model: str) -> bool:
        self._say(f"\n{self._local.gateway_url}/v1/chat/completions  model {model}\n> {PROMPT}")
        answer = await self._while_running(stack, ask(client, self._local.gateway_url, model, self._stream))
        if answer.error is not None:
            self._say(f"\nthe request failed: {answer.error}")
            # Where a process fell over, its log says more than the broken connection does.
            await asyncio.sleep(SETTLE_S)
            stack.check()
        else:
            self._say(f"\n\nfirst text after {(answer.first_text_s or 0) * 1000:.0f} ms, all after {answer.duration_s * 1000:.0f} ms\n")
        found = await decisions(client, self._local.picker_url, answer.request_id)
        for decision in found:
            self._console.print(decision_view(decision))
        if not found:
            self._say("the picker has no record of this request")
        return answer.error is None

    async def _while_running(self, stack: Stack, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; StackFailed when a child ends first."""
        doing, watching = asyncio.ensure_future(work), asyncio.ensure_future(stack.watch())
        try:
            await asyncio.wait((doing, watching), return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                watching.result()
            return await doing
        finally:
            for task in (doing, watching):
                task.cancel()
            await asyncio.gather(doing, watching, return_exceptions=True)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def _stream(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True, end="")
        self._console.file.flush()
