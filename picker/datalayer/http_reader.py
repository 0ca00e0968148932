"""A light HTTP/1.1 client that reads one page of one server again and again over one kept connection, or sends it other requests.

A read is a request of ready-made bytes and a callback. No task is made for it, only for dialling, and of the response headers only
those that delimit the body are looked at.
"""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol, cast

import httptools

from picker.endpoint import join_host_port
from picker.errors import ConfigError

ReadErrorKind = Literal["unreachable", "timeout", "bad_answer"]
MAX_BODY_BYTES = 16 * 1024 * 1024


class ReadError(Exception):
    """Why a page could not be read: nobody there (`unreachable`), no answer in time, or an answer that is not a page.

    `status` is the HTTP status, None if none was received.
    """

    def __init__(self, kind: ReadErrorKind, detail: str, *, status: int | None = None) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind: ReadErrorKind = kind
        self.detail = detail
        self.status = status


Done = Callable[[bytes | ReadError], None]
"""Told the body of a 200, or why there is none."""


class Timer(Protocol):
    """What `loop.call_later` returns."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]
Connect = Callable[[Callable[[], asyncio.Protocol], str, int], Awaitable[object]]
"""Opens a stream to (host, port) and makes the protocol for it, as `loop.create_connection` does. Raises OSError."""


def checked_path(path: str) -> str:
    """The path itself. Raises ConfigError for one that cannot be sent."""
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise ConfigError(f"metrics path {path!r}: expected printable ASCII without blanks that begins with '/'")
    return path


class HttpReader:
    """Reads `path` of one server; one read at a time. Bound to the running loop."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        path: str = "/metrics",
        accept: str = "text/plain; version=0.0.4",
        ssl: tls.SSLContext | None = None,
        timeout_s: float = 1.0,
        max_body_bytes: int = MAX_BODY_BYTES,
        connect: Connect | None = None,
        call_later: CallLater | None = None,
    ) -> None:
        """`timeout_s` covers a whole read: dialling, a second attempt and the body. Raises ConfigError for a path that cannot be sent."""
        checked_path(path)
        self._loop = asyncio.get_running_loop()
        self._host = host
        self._port = port
        self._where = join_host_port(host, port)
        self._ssl = ssl
        self._timeout_s = timeout_s
        self.max_body_bytes = max_body_bytes
        self._connect = connect or self._create_connection
        self._call_later: CallLater = call_later or self._loop.call_later
        self._request = (f"GET {path} HTTP/1.1\r\nHost: {self._where}\r\nAccept: {accept}\r\nUser-Agent: fairlead\r\n\r\n").encode()
        self._sending = self._request
        self._patience_s = timeout_s
        self._done: Done | None = None
        self._timer: Timer | None = None
        self._connection: _Connection | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._may_redial = False
        self._hung_up: Callable[[], None] | None = None

    @property
    def busy(self) -> bool:
        """Whether a read is under way."""
        return self._done is not None

    def watch(self, hung_up: Callable[[], None]) -> None:
        """`hung_up` is called when the kept connection ends between two reads."""
        self._hung_up = hung_up

    def read(self, done: Done, *, request: bytes | None = None, timeout_s: float | None = None) -> None:
        """Begin a read; `done` is called exactly once, later, unless `close` comes first. Raises RuntimeError if one is under way.

        `request` is sent in place of the GET for the page; as it may be sent twice, it must change nothing.
        """
        if self._done is not None:
            raise RuntimeError(f"a read of {self._where} is under way")
        self._done = done
        self._sending = request or self._request
        self._patience_s = timeout_s or self._timeout_s
        self._timer = self._call_later(self._patience_s, self._timed_out)
        connection = self._connection
        if connection is None:
            self._dial()
        else:
            # The server may have closed an idle connection a moment ago; that is no news about the server, so dial once more.
            self._may_redial = True
            connection.send(self._sending)

    def close(self) -> None:
        """Give up the connection and the read under way, whose callback is not called any more."""
        self._done = None
        self._may_redial = False
        self._cancel_timer()
        self._drop()

    async def wait_closed(self) -> None:
        """After `close`: wait until a dialling task has ended."""
        if self._dialling is not None:
            await asyncio.gather(self._dialling, return_exceptions=True)

    def _dial(self) -> None:
        self._connection = _Connection(self)
        self._dialling = self._loop.create_task(self._open(self._connection), name=f"dial {self._where}")

    async def _open(self, connection: _Connection) -> None:
        try:
            await self._connect(lambda: connection, self._host, self._port)
        except OSError as error:
            self.lost(connection, ReadError("unreachable", str(error) or type(error).__name__))
        except (ValueError, OverflowError) as error:  # an address or port no socket takes
            self.lost(connection, ReadError("unreachable", repr(error)))
        finally:
            if self._dialling is asyncio.current_task(self._loop):
                self._dialling = None

    async def _create_connection(self, factory: Callable[[], asyncio.Protocol], host: str, port: int) -> object:
        return await self._loop.create_connection(factory, host, port, ssl=self._ssl)

    def opened(self, connection: _Connection) -> bool:
        """A connection is there; False if nobody waits for it any more."""
        if connection is not self._connection or self._done is None:
            return False
        connection.send(self._sending)
        return True

    def answered(self, connection: _Connection, status: int, body: bytes, *, keep: bool) -> None:
        """A whole response has arrived."""
        if connection is not self._connection:
            return
        if not keep:
            self._drop()
        self._finish(body if status == 200 else ReadError("bad_answer", f"status {status}", status=status))

    def lost(self, connection: _Connection, error: ReadError, *, untouched: bool = False) -> None:
        """The connection is gone or of no use; `untouched` = no byte of an answer had come."""
        if connection is not self._connection:
            return
        self._drop()
        if self._done is None:
            if self._hung_up is not None:
                self._hung_up()
            return
        if untouched and self._may_redial:
            self._may_redial = False
            self._dial()
            return
        self._finish(error)

    def _timed_out(self) -> None:
        self._timer = None
        status = self._connection.status if self._connection is not None else None
        self._drop()
        self._finish(ReadError("timeout", f"no answer within {self._patience_s:g} s", status=status))

    def _finish(self, result: bytes | ReadError) -> None:
        done, self._done = self._done, None
        self._may_redial = False
        self._sending = self._request  # a body is not to be kept with an idle connection
        self._cancel_timer()
        if done is not None:
            done(result)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if self._dialling is not None and self._dialling is not asyncio.current_task(self._loop):
            self._dialling.cancel()


class _Connection(asyncio.Protocol):
    """One connection and the response that is arriving on it. The `on_…` methods are called by the parser."""

    def __init__(self, reader: HttpReader) -> None:
        self._reader = reader
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiting = False
        self._reset()

    def _reset(self) -> None:
        self.status: int | None = None
        self._touched = False
        self._delimited = False
        self._complete = False
        self._keep = False
        self._size = 0
        self._body: list[bytes] = []

    def send(self, request: bytes) -> None:
        self._reset()
        self._waiting = True
        if self._transport is not None:
            self._transport.write(request)

    def abort(self) -> None:
        self._waiting = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # by its methods; uvloop's is no subclass
        if not self._reader.opened(self):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if exc is None and self.status is not None and not self._delimited and not self._complete:
            self._reader.answered(self, self.status, b"".join(self._body), keep=False)
        elif exc is None and self._touched:
            self._reader.lost(self, ReadError("bad_answer", "closed in the middle of an answer", status=self.status))
        else:
            detail = str(exc) if exc is not None else "closed without an answer"
            self._reader.lost(self, ReadError("unreachable", detail, status=self.status), untouched=not self._touched)

    def data_received(self, data: bytes) -> None:
        if not self._waiting:
            # Nothing was asked: whatever this is, the next answer could not be told from it.
            self._reader.lost(self, ReadError("bad_answer", "data without a request"))
            return
        self._touched = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete:
                detail = "body is too large" if self._size > self._reader.max_body_bytes else f"not HTTP/1.1: {error}"
                self._reader.lost(self, ReadError("bad_answer", detail, status=self.status))
                return
            self._keep = False
        if self._complete and self.status is not None:
            self._waiting = False
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body = []
            self._reader.answered(self, self.status, body, keep=self._keep)

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False  # more than was asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) in (14, 17) and name.lower() in (b"content-length", b"transfer-encoding"):
            self._delimited = True

    def on_headers_complete(self) -> None:
        if not self._complete:
            self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self._complete or self.status != 200:
            return
        self._size += len(body)
        if self._size > self._reader.max_body_bytes:
            raise ValueError("body is too large")
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._complete:
            return
        if self.status is not None and 100 <= self.status < 200 and self.status != 101:
            self.status = None  # an interim response; the final one follows
            self._delimited = False
            return
        self._complete = True
        self._keep = self._parser.should_keep_alive()
