"""The picker's HTTP side door: metrics, readiness, and the answer to why a request went where it did."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import msgspec
import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from picker.sockets import listening

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Query = dict[str, str]
View = Callable[[Query], tuple[int, Any]]
"""Query parameters in; HTTP status and something JSON-ready out. Raises ValueError saying what is wrong with the query."""

_encode = msgspec.json.Encoder(enc_hook=str).encode


class AdminApp:
    """A plain ASGI application. GET only."""

    def __init__(self, registry: CollectorRegistry, refresh: Callable[[], None], views: dict[str, View]) -> None:
        self._registry = registry
        self._refresh = refresh
        self._views = views

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        path = scope["path"]
        more: list[tuple[bytes, bytes]] = []
        if scope["method"] not in ("GET", "HEAD"):
            status, kind, body = 405, b"text/plain", b"only GET is served here\n"
            more = [(b"allow", b"GET, HEAD")]
        elif path == "/metrics":
            status, kind, body = 200, CONTENT_TYPE_PLAIN_0_0_4.encode(), await self._metrics()
        elif path in self._views:
            try:
                status, answer = self._views[path](_query(scope["query_string"]))
            except ValueError as error:
                status, answer = 400, {"error": str(error)}
            kind, body = b"application/json", _encode(answer) + b"\n"
        else:
            known = ", ".join(["/metrics", *self._views])
            status, kind, body = 404, b"text/plain", f"not found; here are {known}\n".encode()
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _metrics(self) -> bytes:
        """A page with thousands of series takes milliseconds to write: not on the loop that decides requests."""
        self._refresh()
        return await asyncio.to_thread(generate_latest, self._registry)


def _query(raw: bytes) -> Query:
    """An empty value is kept, so that a view can refuse it; of a repeated parameter the last one counts."""
    return {name: values[-1] for name, values in parse_qs(raw.decode("latin-1"), keep_blank_values=True).items()}


class _Server(uvicorn.Server):
    """Leaves signals to the picker."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class AdminServer:
    """Serves an app on a port of its own. Raises ConfigError when the address is taken."""

    def __init__(self, app: AdminApp, host: str, port: int) -> None:
        self._sock = listening(host, port, "--metrics-port")
        config = uvicorn.Config(
            app, loop="none", lifespan="off", log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=1
        )
        self._server = _Server(config)

    async def run(self) -> None:
        """Until `stop`, or until cancelled."""
        await self._server.serve(sockets=[self._sock])

    def stop(self) -> None:
        """`run` returns soon."""
        self._server.should_exit = True
