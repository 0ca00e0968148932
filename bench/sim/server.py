"""One simulated server as a process: socket, uvicorn, signals, the ready line."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType

import uvicorn
import uvloop

from bench.sim.api import Api
from bench.sim.asgi import App
from bench.sim.engine import Engine
from bench.sim.metrics import Metrics
from bench.sim.settings import Settings
from bench.sim.stepper import Stepper

# Streams still open when the process is told to end are given this long, then cut.
GRACE_S = 1

log = logging.getLogger(__name__)


def build_app(settings: Settings, endpoint: str) -> App:
    """The ASGI app of one server; `endpoint` (host:port) is what every answer says in `x-sim-endpoint`.

    To be called where the event loop runs.
    """
    metrics = Metrics(settings)
    stepper = Stepper(Engine(settings, metrics), asyncio.get_running_loop().time)

    @asynccontextmanager
    async def stepping() -> AsyncIterator[None]:
        task = asyncio.create_task(stepper.run(), name="sim-engine-steps")
        task.add_done_callback(_stopped)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return App(Api(settings, stepper, metrics).routes(), stepping, [(b"x-sim-endpoint", endpoint.encode())])


def bind(host: str, port: int) -> socket.socket:
    """A listening-to-be TCP socket; OSError if the address cannot be had."""
    family, kind, protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


class Server(uvicorn.Server):
    """uvicorn that says when it listens, and cuts open streams without a word."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then say so."""
        await super().startup(sockets=sockets)
        if self.started:
            self._listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop; streams still open after the grace time are cut."""
        # uvicorn logs a traceback for every stream it cuts, though that is what the signal asked for.
        errors = logging.getLogger("uvicorn.error")
        errors.addFilter(_not_an_error)
        try:
            await super().shutdown(sockets=sockets)
        finally:
            errors.removeFilter(_not_an_error)


def build_server(settings: Settings, port: int, listening: Callable[[str], None]) -> Server:
    """A server to `serve(sockets=[...])` on a socket bound to `port`; `listening` is told host:port once connections are taken.

    It ends on SIGTERM and SIGINT, or when `should_exit` is set. To be called where the event loop runs.
    """
    endpoint = f"{f'[{settings.host}]' if ':' in settings.host else settings.host}:{port}"
    config = uvicorn.Config(
        build_app(settings, endpoint),
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        backlog=2048,
        timeout_graceful_shutdown=GRACE_S,
    )
    return Server(config, lambda: listening(endpoint))


async def run_process(settings: Settings, sock: socket.socket) -> None:
    """Start-up delay, then serve; SIGTERM and SIGINT end either."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        # A second signal may come in the moment between the end of the loop and that of the process.
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    # uvicorn puts its own handlers in place while it serves, and hands the signal on to these when it is done.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    if settings.startup_delay_s:
        log.info("starting in %g s", settings.startup_delay_s)
        try:
            await asyncio.wait_for(stop.wait(), settings.startup_delay_s)
        except TimeoutError:
            pass
        else:
            return
    port: int = sock.getsockname()[1]
    await build_server(settings, port, _say_ready).serve(sockets=[sock])


def run(settings: Settings) -> int:
    """Serve until a signal; 0 then, 1 when the address cannot be bound."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        sock = bind(settings.host, settings.port)
    except OSError as refused:
        sys.stderr.write(f"fairlead sim: cannot listen on {settings.host}:{settings.port}: {refused.strerror or refused}\n")
        return 1
    with sock, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_process(settings, sock))
    return 0


def _say_ready(endpoint: str) -> None:
    sys.stdout.write(f"ready on http://{endpoint}\n")
    sys.stdout.flush()


def _not_an_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR


def _stopped(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (broken := task.exception()) is not None:
        log.critical("the engine's step loop ended", exc_info=broken)
