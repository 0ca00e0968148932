"""The composition root: the core plus servers and background tasks, started and stopped in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picker.admin import AdminApp, AdminServer
from picker.core import MAX_CONFIG_BYTES, Core, text_source
from picker.extproc.conversation import Conversation
from picker.extproc.events import Deliver
from picker.extproc.transport import Served, TlsOptions, Transport, TransportOptions
from picker.settings import Settings
from picker.tasks import TaskOwner
from picker.views import views
from picker.watching import WatchedFile

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)


class Runner:
    """Core plus servers and background tasks."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError."""
        self.settings = settings
        self.core = Core(settings)
        self._tasks = TaskOwner()
        self._transport: Transport | None = None
        self._admin: AdminServer | None = None

    def _converse(self, deliver: Deliver) -> Conversation:
        return Conversation(
            self.core.director,
            deliver,
            max_body_bytes=self.settings.max_request_body_bytes,
            use_subset=not self.settings.disable_endpoint_subset_filter,
            now_s=time.monotonic(),
            observe_responses=self.settings.response_metrics,
            emit_scores=self.settings.emit_endpoint_scores,
        )

    async def start(self) -> None:
        """Endpoints first, then the doors. Raises ConfigError when a port is taken or a source cannot be used."""
        settings, core = self.settings, self.core
        core.readiness.block("endpoints", "no list of endpoints yet")
        # Ports are taken before anything else happens: a second picker on this machine must fail before it scrapes.
        self._admin = AdminServer(AdminApp(core.metrics.registry, core.refresh_gauges, views(core)), settings.host, settings.metrics_port)
        self._transport = _transport(settings, Served(self._converse, core.metrics, core.readiness))
        for source in core.sources:
            await source.start(core.datastore)
            self._tasks.spawn(source.follow(), f"discovery {source.source}")
        if settings.config_file is not None:
            self._tasks.spawn(self._config_file(settings.config_file).follow(), "configuration")
        if core.objectives_file is not None:
            await core.objectives_file.start()
            self._tasks.spawn(core.objectives_file.follow(), "objectives file")
        core.collector.start()
        await self._transport.start()
        self._tasks.spawn(self._admin.run(), "admin")
        core.readiness.clear("endpoints")
        log.info(
            "serving ext_proc on %s:%d (%s, %s), health on %d, metrics on %d, %d endpoints",
            settings.host,
            settings.grpc_port,
            settings.transport,
            "TLS" if settings.secure_serving else "plain text",
            settings.grpc_health_port,
            settings.metrics_port,
            len(core.datastore),
        )

    def _config_file(self, path: Path) -> WatchedFile:
        core = self.core

        async def take(raw: bytes) -> None:
            core.reload(text_source(raw, path))

        return WatchedFile(
            path,
            take,
            core.config_status,
            max_bytes=MAX_CONFIG_BYTES,
            kept=lambda: "the last good configuration",
            on_reload=core.config_reloaded,
            in_use=core.config_raw,
        )

    async def drain(self, hurry: asyncio.Event) -> None:
        """NOT_SERVING at once; keep serving for the drain timeout, so that proxies notice; then wait for open streams.

        `hurry` cuts both waits short. With a drain timeout of 0 there is no wait at all.
        """
        self.core.readiness.block("draining", "shutting down")
        window_s = self.settings.drain_timeout_s
        if window_s <= 0:
            return
        log.info("draining: NOT_SERVING, still serving for %g s", window_s)
        if await _within(hurry.wait(), window_s):
            return
        if self._transport is not None and self._transport.open_streams:
            log.info("draining: waiting for %d open streams", self._transport.open_streams)
            self._tasks.spawn(self._transport.drain(), "refuse new streams")
            # Not until that drain has ended: it may also wait for health watchers, which never leave by themselves.
            while self._transport.open_streams and not hurry.is_set():
                await _within(hurry.wait(), 0.05)

    async def stop(self) -> None:
        """End everything; what waits is refused, streams still open are cut, and settled."""
        if self.core.flow is not None:
            self.core.flow.close()
        if self._transport is not None:
            await self._transport.stop()
        if self._admin is not None:
            self._admin.stop()
        await self.core.collector.stop()
        await self.core.retirement.close()
        if self.core.pipeline.preparation is not None:
            await self.core.pipeline.preparation.close()
        await self._tasks.close("the picker stops")
        if self.core.tracing is not None:
            await asyncio.to_thread(self.core.tracing.shutdown)


async def _within(wait: Coroutine[Any, Any, Any], seconds: float) -> bool:
    """Whether it came about in time."""
    try:
        await asyncio.wait_for(wait, seconds)
    except TimeoutError:
        return False
    return True


def _transport(settings: Settings, served: Served) -> Transport:
    """Raises ConfigError."""
    options = TransportOptions(
        host=settings.host,
        port=settings.grpc_port,
        health_port=settings.grpc_health_port,
        health_on_both=settings.health_checking,
        tls=TlsOptions(
            settings.cert_path, settings.enable_cert_reload, settings.client_ca_file, settings.tls_min_version, settings.tls_cipher_suites
        )
        if settings.secure_serving
        else None,
        max_recv_bytes=settings.grpc_max_recv_msg_size_bytes,
        max_send_bytes=settings.grpc_max_send_msg_size_bytes,
    )
    if settings.transport == "h2":
        from picker.extproc.transport_h2 import H2Transport

        return H2Transport(options, served)
    from picker.extproc.transport_grpcio import GrpcioTransport

    return GrpcioTransport(options, served)
