"""HTTP over ASGI: a route table, and one object per request to read its body from and answer through."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec

from bench.sim.errors import ApiError, ClientGoneError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handler = Callable[["Call"], Awaitable[None]]
Routes = dict[str, dict[str, Handler]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
EVENT_STREAM = b"text/event-stream; charset=utf-8"
GREATEST_BODY = 64 * 1024 * 1024

log = logging.getLogger(__name__)


class Call:
    """One request and its one answer: `respond`, or `start_stream` with `write` and `end_stream` after it."""

    __slots__ = ("_headers", "_receive", "_send", "_stamp", "answered", "path")

    def __init__(self, scope: Scope, receive: Receive, send: Send, stamp: Headers) -> None:
        """`stamp` are the headers that every answer carries."""
        self.path: str = scope["path"]
        self.answered = False
        self._headers: Headers = scope["headers"]
        self._receive = receive
        self._send = send
        self._stamp = stamp

    def header(self, name: bytes) -> str | None:
        """The first header of that lower-case name."""
        return next((value.decode("latin-1") for key, value in self._headers if key == name), None)

    async def body(self) -> bytes:
        """The whole request body; ApiError 413 when it is beyond what the server takes."""
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > GREATEST_BODY:
                raise ApiError(413, f"The request body exceeds {GREATEST_BODY} bytes.")
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    @asynccontextmanager
    async def watched(self, gone: Callable[[], None]) -> AsyncIterator[None]:
        """Call `gone` as soon as the client closes the connection while the block runs; the body must have been read."""
        watcher = asyncio.create_task(self._watch(gone), name="sim-disconnect-watch")
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def respond(self, status: int, body: bytes = b"", *, content_type: bytes | None = None, extra: Headers | None = None) -> None:
        """A whole answer."""
        headers = [*self._stamp, (b"content-length", str(len(body)).encode())]
        if content_type is not None:
            headers.append((b"content-type", content_type))
        await self._start(status, headers + (extra or []))
        await self._send({"type": "http.response.body", "body": body})

    async def respond_json(self, status: int, value: Any, *, extra: Headers | None = None) -> None:
        """A whole answer in JSON."""
        await self.respond(status, msgspec.json.encode(value), content_type=JSON, extra=extra)

    async def start_stream(self) -> None:
        """Send status and headers of a server-sent event stream."""
        await self._start(200, [*self._stamp, (b"content-type", EVENT_STREAM)])

    async def write(self, chunk: bytes) -> None:
        """Send a part of the stream; waits while the client's window is full."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end_stream(self) -> None:
        """End the stream."""
        await self._send({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, headers: Headers) -> None:
        self.answered = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _watch(self, gone: Callable[[], None]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        gone()


class App:
    """The ASGI application: routes by path and method, and a context that is open from start-up to shutdown."""

    def __init__(self, routes: Routes, lifespan: Callable[[], AbstractAsyncContextManager[None]], stamp: Headers) -> None:
        self._routes = routes
        self._lifespan = lifespan
        self._stamp = stamp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        call = Call(scope, receive, send, self._stamp)
        try:
            await self._dispatch(call, scope["method"])
        except ClientGoneError:
            pass
        except ApiError as refusal:
            # Anthropic's clients look for the error at another place than OpenAI's.
            body = refusal.anthropic_body() if call.path.startswith("/v1/messages") else refusal.openai_body()
            await call.respond(refusal.status, body, content_type=JSON)
        except Exception:
            log.exception("unexpected error on %s", call.path)
            if not call.answered:
                broken = ApiError(500, "Internal server error", kind="InternalServerError")
                await call.respond(500, broken.openai_body(), content_type=JSON)

    async def _dispatch(self, call: Call, method: str) -> None:
        methods = self._routes.get(call.path)
        if methods is None:
            await call.respond_json(404, {"detail": "Not Found"})
        elif method not in methods:
            allowed = ", ".join(methods).encode()
            await call.respond_json(405, {"detail": "Method Not Allowed"}, extra=[(b"allow", allowed)])
        else:
            await methods[method](call)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
