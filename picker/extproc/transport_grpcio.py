"""The grpcio servers as a Transport."""

from __future__ import annotations

import grpc

from picker.errors import ConfigError
from picker.extproc.health import HealthService
from picker.extproc.server_grpcio import ExternalProcessor, bind
from picker.extproc.tls import server_credentials
from picker.extproc.transport import HEALTH_PORT_FLAG, PORT_FLAG, Served, TransportOptions

_FOREVER_S = 86_400.0


class GrpcioTransport:
    """Two grpc.aio servers. To be made on the event loop that runs them. Raises ConfigError."""

    def __init__(self, options: TransportOptions, served: Served) -> None:
        self._processor = ExternalProcessor(served.converse, served.metrics)
        settings: list[tuple[str, int]] = [("grpc.so_reuseport", 0)]
        if options.max_recv_bytes is not None:
            settings.append(("grpc.max_receive_message_length", options.max_recv_bytes))
        if options.max_send_bytes is not None:
            settings.append(("grpc.max_send_message_length", options.max_send_bytes))
        self._server = grpc.aio.server(options=settings)
        self._server.add_generic_rpc_handlers((self._processor,))
        health = HealthService(served.readiness)
        if options.health_on_both:
            self._server.add_generic_rpc_handlers((health,))
        credentials = None
        if (tls := options.tls) is not None:
            if tls.client_ca is not None:
                raise ConfigError("--client-ca-file needs --transport h2")
            credentials = server_credentials(tls.directory, reload=tls.reload)
        bind(self._server, options.host, options.port, PORT_FLAG, credentials)
        self._health = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._health.add_generic_rpc_handlers((health,))
        bind(self._health, options.host, options.health_port, HEALTH_PORT_FLAG, None)

    @property
    def open_streams(self) -> int:
        """ext_proc streams that have not ended."""
        return self._processor.open_streams

    async def start(self) -> None:
        """Serve."""
        await self._server.start()
        await self._health.start()

    async def drain(self) -> None:
        """Returns when open streams have ended."""
        await self._server.stop(grace=_FOREVER_S)

    async def stop(self) -> None:
        """Cut what is open."""
        await self._server.stop(grace=None)
        await self._health.stop(grace=None)
