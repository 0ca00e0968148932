"""The composition root: builds every part from the settings, starts and stops them in order."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from picker.accounting.decisions import DecisionLog
from picker.admin import AdminApp, AdminServer
from picker.admission.flow.controller import FlowController
from picker.admission.flow.observing import Books
from picker.admission.flow.room import Room
from picker.config import default_source
from picker.datalayer.datastore import Datastore, EndpointState
from picker.datalayer.discovery.file import FileDiscovery
from picker.datalayer.discovery.source import DiscoverySource
from picker.datalayer.discovery.static import StaticDiscovery
from picker.datalayer.load_report import LoadReports
from picker.datalayer.objectives.file import ObjectivesFile
from picker.datalayer.objectives.store import ObjectiveStore
from picker.datalayer.pace import Pace
from picker.datalayer.scraper import Scraper
from picker.director import Director, Pool
from picker.errors import ConfigError
from picker.exchange import Ledger, Place
from picker.extproc.conversation import Conversation, Deliver
from picker.extproc.health import Readiness
from picker.extproc.transport import Served, TlsOptions, Transport, TransportOptions
from picker.loader import Options, Pipeline, load
from picker.metrics import Metrics
from picker.pool_gauges import PoolGauges
from picker.settings import MIN_REFRESH_S, Settings
from picker.stages import Stages
from picker.tasks import TaskOwner
from picker.views import views
from picker.watching import FileStatus, WatchedFile
from picker.yaml_source import YamlSource

if TYPE_CHECKING:
    from picker.objectives import Objectives
    from picker.tracing import Tracing

log = logging.getLogger(__name__)


class Core:
    """The decision core, without any server: what both front doors stand on."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError."""
        self.settings = settings
        self.metrics = Metrics(legacy=settings.legacy_metrics, streams=settings.enable_grpc_stream_metrics)
        self.datastore = Datastore()
        self.decisions = DecisionLog(settings.decision_log_size)
        self.readiness = Readiness()
        self._options = Options(
            settings.prefix_index_memory_bytes, settings.refresh_metrics_interval_s, settings.allow_experimental_plugins
        )
        source, self.config_raw = _config_source(settings)
        self.pipeline: Pipeline = load(source, self.metrics, self._options)
        self.config_status = FileStatus(loaded_at_s=time.time())
        self._config_in_use(source)
        self.sources = _sources(settings, self.metrics)
        objectives = ObjectiveStore(on_rewrite=self.metrics.count_rewrite)
        self.objectives_file = _objectives_file(settings, objectives, self.metrics)
        pipeline = self.pipeline
        self.scraper = _scraper(settings, self.datastore, self.metrics, adaptive=not pipeline.as_reference)
        self._reports = LoadReports(self.datastore.report_load, time.monotonic)
        self.tracing = _tracing() if settings.tracing else None
        self.director = _director(
            self.tracing,
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
            objectives,
        )
        self._gauges = PoolGauges(
            self.metrics,
            settings.pool_name,
            interval_s=settings.refresh_prometheus_metrics_interval_s,
            stale_s=settings.metrics_staleness_threshold_s,
        )
        self._books = Books(self.metrics, settings.pool_name)
        self.flow: FlowController | None = None
        if pipeline.flow is not None:
            room = Room(pipeline.flow.detector, self.datastore.snapshot)
            self.flow = FlowController(pipeline.flow, room, self._books, time.monotonic, _call_later)
            pipeline.stages.queue_with(self.flow)
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

    def reload(self, source: YamlSource) -> None:
        """Go on with another configuration; requests under way end as they began. Raises ConfigError, and then nothing has changed."""
        before = self.pipeline
        new = load(source, self.metrics, self._options, before)
        if new.as_reference != before.as_reference:
            raise ConfigError(f"{source.where('compat')}: cannot be changed while the picker runs; restart it")
        if (new.flow is None) != (before.flow is None):
            raise ConfigError(f"{source.where('featureGates')}: flowControl cannot be switched while the picker runs; restart it")
        if self.flow is not None and new.flow is not None:
            new.stages.queue_with(self.flow)
        self.pipeline = new
        self.director.stages = new.stages
        if self.flow is not None and new.flow is not None:
            self.flow.reconfigure(new.flow)
        kept = {id(built.plugin) for built in new.built.values()}
        for built in before.built.values():
            if id(built.plugin) not in kept and (close := getattr(built.plugin, "close", None)) is not None:
                close()
        self._config_in_use(source)
        log.info("%s is in use now; %d of %d plugins go on as they were", source.source, _common(before, new), len(new.built))

    def _config_in_use(self, source: YamlSource) -> None:
        self.metrics.config_info.cells.clear()
        self.metrics.config_info.cell(source.sha256[:16]).value = 1
        self.metrics.config_loaded.cell().value = time.time()

    def config_reloaded(self, good: bool) -> None:
        """What became of a change of the configuration file."""
        self.metrics.config_stale.cell().value = not good
        if not good:
            self.metrics.config_reload_errors.cell("config-file").value += 1

    def refresh_gauges(self) -> None:
        """Before a metrics page is written."""
        if self.flow is not None:
            self._books.refresh(self.flow, time.monotonic())
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

    def _config_file(self, path: Path) -> WatchedFile:
        core = self.core

        async def take(raw: bytes) -> None:
            core.reload(_text_source(raw, path))

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
        await self.core.scraper.stop()
        if self.core.pipeline.preparation is not None:
            await self.core.pipeline.preparation.close()
        await self._tasks.close("the picker stops")
        if self.core.tracing is not None:
            await asyncio.to_thread(self.core.tracing.shutdown)


def _call_later(delay_s: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(delay_s, callback)


def _tracing() -> Tracing | None:
    """Raises ConfigError."""
    if not any(name.startswith("OTEL_") for name in os.environ):
        return None
    from picker.tracing import Tracing  # 150 ms and 15 MiB, for those who want it

    return Tracing.from_environment(os.environ)


def _director(
    tracing: Tracing | None, stages: Stages, pool: Pool, ledger: Ledger, decisions: DecisionLog, objectives: Objectives
) -> Director:
    if tracing is None:
        return Director(stages, pool, ledger, decisions, objectives)
    from picker.tracing import TracedDirector

    return TracedDirector(tracing, stages, pool, ledger, decisions, objectives)


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


MAX_CONFIG_BYTES = 1 << 20


def _config_source(settings: Settings) -> tuple[YamlSource, bytes]:
    """And the bytes of the file."""
    if settings.config_file is not None:
        try:
            raw = settings.config_file.read_bytes()
        except OSError as error:
            raise ConfigError(f"--config-file {settings.config_file}: cannot be read: {error}") from None
        return _text_source(raw, settings.config_file), raw
    return (YamlSource(settings.config_text, "--config-text") if settings.config_text is not None else default_source()), b""


def _text_source(raw: bytes, path: Path) -> YamlSource:
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes")
    try:
        return YamlSource(raw.decode(), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config-file {path}: cannot be read: {error}") from None


def _common(before: Pipeline, new: Pipeline) -> int:
    return sum(name in before.built and before.built[name].plugin is built.plugin for name, built in new.built.items())


def _sources(settings: Settings, metrics: Metrics) -> list[DiscoverySource]:
    sources: list[DiscoverySource] = []
    if settings.endpoints is not None:
        sources.append(StaticDiscovery(settings.endpoints))
    if settings.endpoints_file is not None:
        sources.append(FileDiscovery(settings.endpoints_file, on_reload=_count_reloads(metrics, "endpoints-file")))
    return sources


def _objectives_file(settings: Settings, store: ObjectiveStore, metrics: Metrics) -> ObjectivesFile | None:
    if settings.objectives_file is None:
        return None
    counted = _count_reloads(metrics, "objectives-file")
    return ObjectivesFile(settings.objectives_file, store, pool_name=settings.pool_name, on_reload=counted)


def _count_reloads(metrics: Metrics, source: str) -> Callable[[bool], None]:
    errors = metrics.config_reload_errors.cell(source)

    def reloaded(good: bool) -> None:
        errors.value += not good

    return reloaded


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
