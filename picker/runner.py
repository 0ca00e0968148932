"""The composition root: builds every part from the settings, starts and stops them in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from picker.accounting.decisions import DecisionLog
from picker.admin import AdminApp, AdminServer
from picker.config import default_source
from picker.datalayer.datastore import Datastore, EndpointState
from picker.datalayer.discovery.file import FileDiscovery
from picker.datalayer.discovery.source import DiscoverySource
from picker.datalayer.discovery.static import StaticDiscovery
from picker.datalayer.load_report import LoadReports
from picker.datalayer.pace import Pace
from picker.datalayer.scraper import Scraper
from picker.director import Director, Pool
from picker.errors import ConfigError
from picker.exchange import Ledger, Place
from picker.extproc.conversation import Conversation, Deliver
from picker.extproc.health import Readiness
from picker.extproc.transport import Served, TlsOptions, Transport, TransportOptions
from picker.loader import Pipeline, load
from picker.metrics import Metrics
from picker.pool_gauges import PoolGauges
from picker.settings import MIN_REFRESH_S, Settings
from picker.tasks import TaskOwner
from picker.views import views
from picker.yaml_source import YamlSource

log = logging.getLogger(__name__)


class Core:
    """The decision core, without any server: what both front doors stand on."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError."""
        self.metrics = Metrics()
        self.datastore = Datastore()
        self.decisions = DecisionLog(settings.decision_log_size)
        self.readiness = Readiness()
        self.pipeline: Pipeline = load(
            _config_source(settings),
            self.metrics,
            prefix_index_bytes=settings.prefix_index_memory_bytes,
            plugin_paths=settings.plugin_paths,
        )
        self.sources = _sources(settings, self.metrics)
        pipeline = self.pipeline
        self.scraper = _scraper(settings, self.datastore, self.metrics, adaptive=not pipeline.as_reference)
        self._reports = LoadReports(self.datastore.report_load, time.monotonic)
        self.director = Director(
            pipeline.stages,
            Pool(self.datastore.snapshot, self.datastore.match_subset),
            # The reference picker does not ask model servers to report their load.
            Ledger(
                self.metrics,
                self._place,
                time.monotonic,
                None if pipeline.as_reference else self._reports.take,
                max(settings.refresh_metrics_interval_s, MIN_REFRESH_S),
            ),
            self.decisions,
        )
        self._gauges = PoolGauges(
            self.metrics,
            settings.pool_name,
            interval_s=settings.refresh_prometheus_metrics_interval_s,
            stale_s=settings.metrics_staleness_threshold_s,
        )
        self.datastore.subscribe(self._endpoints_changed)
        self.metrics.info.cell("", _version()).value = 1

    def _place(self, host_port: str) -> Place | None:
        state = self.datastore.find(host_port)
        return None if state is None else (state.endpoint, state.load)

    def _endpoints_changed(self, added: Sequence[EndpointState], removed: Sequence[EndpointState]) -> None:
        for state in removed:
            for watcher in self.pipeline.watchers:
                watcher.endpoint_removed(state.endpoint, state.bit)
            self.metrics.forget_endpoint(state.endpoint.name, state.endpoint.namespace)

    def refresh_gauges(self) -> None:
        """Before a metrics page is written."""
        self._gauges.refresh(self.datastore.snapshot(), time.monotonic())
        for producer in self.pipeline.producers:
            producer.index.sweep(_SWEPT_SEGMENTS)
            labels = (producer.name, producer.type)
            self.metrics.prefix_size.cell(*labels).value = len(producer.index)
            self.metrics.prefix_bytes.cell(*labels).value = producer.index.size_bytes
            self.metrics.prefix_evictions.cell(*labels).value = producer.index.evicted
        for pace, endpoints in self.scraper.paces().items():
            self.metrics.scrape_endpoints.cell(pace).value = endpoints
        self.metrics.load_reports.cell().value = self._reports.taken


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
        core.scraper.start()
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
        """End everything; streams still open are cut, and settled."""
        if self._transport is not None:
            await self._transport.stop()
        if self._admin is not None:
            self._admin.stop()
        await self.core.scraper.stop()
        await self._tasks.close("the picker stops")


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
        tls=TlsOptions(settings.cert_path, settings.enable_cert_reload, settings.client_ca_file) if settings.secure_serving else None,
        max_recv_bytes=settings.grpc_max_recv_msg_size_bytes,
        max_send_bytes=settings.grpc_max_send_msg_size_bytes,
    )
    if settings.transport == "h2":
        from picker.extproc.transport_h2 import H2Transport

        return H2Transport(options, served)
    from picker.extproc.transport_grpcio import GrpcioTransport

    return GrpcioTransport(options, served)


def _config_source(settings: Settings) -> YamlSource:
    if settings.config_file is not None:
        try:
            text = settings.config_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"--config-file {settings.config_file}: cannot be read: {error}") from None
        return YamlSource(text, str(settings.config_file))
    return YamlSource(settings.config_text, "--config-text") if settings.config_text is not None else default_source()


def _sources(settings: Settings, metrics: Metrics) -> list[DiscoverySource]:
    sources: list[DiscoverySource] = []
    if settings.endpoints is not None:
        sources.append(StaticDiscovery(settings.endpoints))
    if settings.endpoints_file is not None:
        errors = metrics.config_reload_errors.cell("endpoints-file")

        def reloaded(good: bool) -> None:
            errors.value += not good

        sources.append(FileDiscovery(settings.endpoints_file, on_reload=reloaded))
    return sources


def _scraper(settings: Settings, datastore: Datastore, metrics: Metrics, *, adaptive: bool) -> Scraper:
    interval_s = settings.refresh_metrics_interval_s
    if interval_s < MIN_REFRESH_S:
        log.warning("--refresh-metrics-interval %g s is below the minimum; using %g s", interval_s, MIN_REFRESH_S)
        interval_s = MIN_REFRESH_S
    scrapes = metrics.scrapes.cell()
    poll_errors = metrics.poll_errors.cell(_SOURCE_TYPE)
    extract_errors = metrics.extract_errors.cell(_SOURCE_TYPE, "core-metrics-extractor")

    def begun() -> None:
        scrapes.value += 1

    def failed(kind: object) -> None:
        poll_errors.value += 1

    def unreadable() -> None:
        extract_errors.value += 1

    pace = Pace(interval_s=interval_s, adaptive=adaptive)
    return Scraper(datastore, pace=pace, on_read=begun, on_error=failed, on_extract_error=unreadable)


_SOURCE_TYPE = "metrics-data-source"
_SWEPT_SEGMENTS = 1000  # of removed endpoints, about 1 ms: without requests nobody else does it


def _version() -> str:
    try:
        return version("fairlead")
    except PackageNotFoundError:
        return "unknown"
