"""The lean gRPC server: listens, keeps the time of all its connections, drains and stops.

Why not grpcio: its asyncio server costs 700 to 850 us of CPU per ext_proc stream, most of it in a task and several loop iterations per
message; this one answers all messages of a read in one write.
"""

from __future__ import annotations

import asyncio

from picker.extproc.h2.call import Methods
from picker.extproc.h2.limits import Limits
from picker.extproc.h2.protocol import H2Protocol, Host
from picker.extproc.h2.tls_context import ServerTls
from picker.sockets import BACKLOG, listening

_REFRESH_S = 1.0
_STOP_S = 1.0


class H2Server:
    """One port. The address is taken when it is made (ConfigError), clients are served from `start` on."""

    def __init__(
        self, methods: Methods, host: str, port: int, flag: str, tls: ServerTls | None = None, limits: Limits | None = None
    ) -> None:
        self._limits = limits or Limits()
        self._methods = methods
        self._tls = tls
        self._socket = listening(host, port, flag)
        self._host: Host | None = None
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._refreshed_s = 0.0

    @property
    def port(self) -> int:
        """Listened on."""
        return int(self._socket.getsockname()[1])

    @property
    def open_streams(self) -> int:
        """Streams that have not ended."""
        return 0 if self._host is None else sum([p.connection.open_streams for p in self._host.protocols])

    async def start(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        host = self._host = Host(self._methods, self._limits, loop.time)
        context = None if self._tls is None else self._tls.context
        self._server = await loop.create_server(
            lambda: H2Protocol(host, loop),
            sock=self._socket,
            backlog=BACKLOG,
            ssl=context,
            ssl_handshake_timeout=None if context is None else self._limits.handshake_s,
        )
        self._tick(loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer for all connections: with none open it costs some 10 us a second."""
        self._timer = loop.call_later(self._limits.tick_s, self._tick, loop)
        assert self._host is not None
        now_s = loop.time()
        for protocol in list(self._host.protocols):
            protocol.tick(now_s)
        if self._tls is not None and now_s - self._refreshed_s >= _REFRESH_S:
            self._refreshed_s = now_s
            self._tls.refresh()

    async def drain(self) -> None:
        """No new connections and streams; returns when the open ones have ended."""
        if self._host is None:
            return
        self._host.draining = True
        self.close()
        now_s = self._host.now()
        for protocol in list(self._host.protocols):
            protocol.connection.drain(now_s)
            protocol.flush()
        await self._host.deserted()

    def close(self) -> None:
        """Give the address back."""
        if self._server is not None:
            self._server.close()
        self._socket.close()

    async def stop(self) -> None:
        """End everything; calls still open hear of it."""
        self.close()
        if self._host is None:
            return
        self._host.draining = True
        for protocol in list(self._host.protocols):
            protocol.connection.shut_down()
            protocol.flush()
        try:
            await asyncio.wait_for(self._host.deserted(), _STOP_S)
        except TimeoutError:
            pass
        for protocol in list(self._host.protocols):
            protocol.abort()
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.sleep(0)
