"""The lean servers as a Transport."""

from __future__ import annotations

from dataclasses import replace

from picker.extproc.h2.ext_proc_call import ext_proc
from picker.extproc.h2.health_calls import HealthCalls
from picker.extproc.h2.limits import Limits
from picker.extproc.h2.tls_context import ServerTls
from picker.extproc.server_h2 import H2Server
from picker.extproc.transport import HEALTH_PORT_FLAG, PORT_FLAG, Served, TransportOptions


class H2Transport:
    """Two H2Servers that share the health service. Raises ConfigError."""

    def __init__(self, options: TransportOptions, served: Served, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        if options.max_recv_bytes is not None:
            limits = replace(limits, max_message_bytes=options.max_recv_bytes)
        if options.max_send_bytes is not None:
            limits = replace(limits, max_reply_bytes=options.max_send_bytes)
        self._calls = HealthCalls(served.readiness)
        self._calls_beside = HealthCalls(served.readiness)
        """Those on the ext_proc port: their watchers must leave for the port to drain."""
        methods = ext_proc(served.converse, served.metrics)
        if options.health_on_both:
            methods |= self._calls_beside.methods
        tls = options.tls
        context = (
            None
            if tls is None
            else ServerTls(
                tls.directory, reload=tls.reload, client_ca=tls.client_ca, min_version=tls.min_version, cipher_suites=tls.cipher_suites
            )
        )
        self._server = H2Server(methods, options.host, options.port, PORT_FLAG, context, limits)
        try:
            self._health = H2Server(self._calls.methods, options.host, options.health_port, HEALTH_PORT_FLAG, None, limits)
        except BaseException:
            self._server.close()
            raise

    @property
    def open_streams(self) -> int:
        """Streams that have not ended."""
        return self._server.open_streams

    async def start(self) -> None:
        """Serve."""
        await self._server.start()
        await self._health.start()

    async def drain(self) -> None:
        """Returns when open streams have ended."""
        self._calls_beside.dismiss()
        await self._server.drain()

    async def stop(self) -> None:
        """Cut what is open."""
        await self._server.stop()
        await self._health.stop()
        await self._calls.close()
        await self._calls_beside.close()
