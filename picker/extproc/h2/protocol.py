"""One connection on the event loop: what is read goes to the sans-IO connection, what it has to say is written once per read.

Back-pressure: while the socket does not take our bytes nothing is read either, so a peer can make us keep no more than one read's answers
beyond what its windows allow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from picker.extproc.h2.call import Methods
from picker.extproc.h2.connection import Connection
from picker.extproc.h2.limits import Limits

log = logging.getLogger(__name__)

_LINGER_S = 1.0
_LAST_BYTES_S = 30.0
"""For a peer that reads slowly to take what was written before the end."""


class Host:
    """What all connections of one server share."""

    __slots__ = ("_deserted", "draining", "limits", "methods", "now", "protocols")

    def __init__(self, methods: Methods, limits: Limits, now: Callable[[], float]) -> None:
        self.methods = methods
        self.limits = limits
        self.now = now
        self.protocols: set[H2Protocol] = set()
        self.draining = False
        self._deserted = asyncio.Event()

    def left(self, protocol: H2Protocol) -> None:
        """Its connection is gone."""
        self.protocols.discard(protocol)
        if not self.protocols:
            self._deserted.set()

    async def deserted(self) -> None:
        """Returns when there is no connection."""
        while self.protocols:
            self._deserted.clear()
            await self._deserted.wait()


class H2Protocol(asyncio.Protocol):
    """Made by the server for each socket."""

    __slots__ = ("_closing_s", "_flushing", "_host", "_loop", "_stuck_bytes", "_stuck_s", "_transport", "_writable", "connection")

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._flushing = False
        self._closing_s: float | None = None
        self._stuck_s: float | None = None
        self._stuck_bytes = 0
        self.connection = Connection(host.methods, host.limits, host.now(), self._wake)

    @property
    def closing(self) -> bool:
        """Everything has been said."""
        return self._closing_s is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """For asyncio."""
        transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        host = self._host
        tls = transport.get_extra_info("ssl_object")
        if (
            len(host.protocols) >= host.limits.max_connections
            or host.draining
            or (tls is not None and tls.selected_alpn_protocol() != "h2")
        ):
            log.info("connection refused: too many, or h2 was not negotiated")
            transport.abort()
            return
        transport.set_write_buffer_limits(high=host.limits.stream_outbound_bytes)
        self._transport = transport
        host.protocols.add(self)
        self.flush()

    def data_received(self, data: bytes) -> None:
        """For asyncio."""
        self.connection.receive(data, self._host.now())
        self.flush()

    def eof_received(self) -> bool:
        """A client that has closed its side of the socket is gone: HTTP/2 needs both."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """For asyncio."""
        self._transport = None
        self._host.left(self)
        self.connection.lost()

    def pause_writing(self) -> None:
        """The socket does not keep up."""
        self._writable = False
        self._stuck_s = None
        if self._transport is not None and not self.closing:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The socket has caught up."""
        self._writable = True
        if self._transport is not None and not self.closing:
            self._transport.resume_reading()
            self._wake()

    def _wake(self) -> None:
        if not self._flushing and self._transport is not None:
            self._flushing = True
            self._loop.call_soon(self._woken)

    def _woken(self) -> None:
        self._flushing = False
        self.flush()

    def flush(self) -> None:
        """Write what the connection has to say."""
        transport, connection = self._transport, self.connection
        if transport is None or self.closing:
            return
        while self._writable or connection.closing:
            if data := connection.take():
                transport.write(data)
            if not connection.backlogged:
                break
        if connection.closing:
            self._close(transport)

    def _close(self, transport: asyncio.Transport) -> None:
        """A socket closed with unread input resets, and the peer might never see why: so close our side, and wait a moment."""
        self._closing_s = self._host.now()
        if transport.can_write_eof():
            try:
                transport.write_eof()
                return
            except OSError:
                pass  # the peer was faster
        transport.close()

    def tick(self, now_s: float) -> None:
        """Deadlines, and sockets that are stuck or should be gone."""
        transport = self._transport
        if transport is None:
            return
        if self._closing_s is not None:
            waited_s = now_s - self._closing_s
            if waited_s >= _LAST_BYTES_S or (waited_s >= _LINGER_S and not transport.get_write_buffer_size()):
                transport.abort()
            return
        if not self._writable:
            waiting = transport.get_write_buffer_size()
            if self._stuck_s is None or waiting != self._stuck_bytes:
                self._stuck_s, self._stuck_bytes = now_s, waiting
            elif now_s - self._stuck_s >= self._host.limits.stall_s:
                log.info("connection dropped: its peer has not read for %g s", self._host.limits.stall_s)
                transport.abort()
                return
        self.connection.tick(now_s)
        if self.connection.backlogged or self.connection.closing:
            self.flush()

    def abort(self) -> None:
        """Close at once, whatever is still to be written."""
        if self._transport is not None:
            self._transport.abort()
