"""The decision core, put together from the settings: what both front doors stand on. No server, no task."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from picker.accounting.decisions import DecisionLog
from picker.admission.flow.controller import FlowController
from picker.admission.flow.observing import Books
from picker.admission.flow.room import Room
from picker.config import default_source
from picker.datalayer.collector import Collector
from picker.datalayer.datastore import Datastore, EndpointState
from picker.datalayer.discovery.file import FileDiscovery
from picker.datalayer.discovery.source import DiscoverySource
from picker.datalayer.discovery.static import StaticDiscovery
from picker.datalayer.load_report import LoadReports
from picker.datalayer.objectives.file import ObjectivesFile
from picker.datalayer.objectives.store import ObjectiveStore
from picker.datalayer.pace import Pace
from picker.datalayer.parts import DataLayerParts
from picker.director import Director, Pool
from picker.errors import ConfigError
from picker.exchange import Ledger, Place
from picker.extproc.health import Readiness
from picker.loader import Options, Pipeline, load
from picker.metrics import Metrics
from picker.pool_gauges import PoolGauges
from picker.retirement import Retirement
from picker.settings import MIN_REFRESH_S, NO_ENDPOINTS, Settings
from picker.stages import Stages
from picker.watching import FileStatus
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
        self.retirement = Retirement()
        self.readiness = Readiness()
        self._options = Options(
            settings.prefix_index_memory_bytes,
            settings.refresh_metrics_interval_s,
            settings.allow_experimental_plugins,
            settings.plugin_paths,
        )
        source, self.config_raw = _config_source(settings)
        self.pipeline: Pipeline = load(source, self.metrics, self._options)
        self.config_status = FileStatus(loaded_at_s=time.time())
        self._config_in_use(source)
        self.sources = _sources(settings, self.pipeline.data, self.metrics)
        objectives = ObjectiveStore(on_rewrite=self.metrics.count_rewrite)
        self.objectives_file = _objectives_file(settings, objectives, self.metrics)
        pipeline = self.pipeline
        self.collector = _collector(settings, self.datastore, pipeline, self.metrics)
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
        if not new.data.same_as(before.data):
            raise ConfigError(f"{source.where('dataLayer')}: cannot be changed while the picker runs; restart it")
        if (new.flow is None) != (before.flow is None):
            raise ConfigError(f"{source.where('featureGates')}: flowControl cannot be switched while the picker runs; restart it")
        if self.flow is not None and new.flow is not None:
            new.stages.queue_with(self.flow)
        self.pipeline = new
        self.director.stages = new.stages
        if self.flow is not None and new.flow is not None:
            self.flow.reconfigure(new.flow)
        kept = {id(built.plugin) for built in new.built.values()}
        gone = [built.plugin for built in before.built.values() if id(built.plugin) not in kept]
        self.retirement.retire(before.preparation, gone)
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
        indexes = {(producer.name, producer.type) for producer in self.pipeline.producers}
        for family in (self.metrics.prefix_size, self.metrics.prefix_bytes, self.metrics.prefix_evictions):
            family.keep_only(indexes)
        breakers = {breaker.labels: breaker for guard in self.pipeline.guards for breaker in guard.breakers}
        self.metrics.plugin_taken_out.keep_only(breakers)
        for called, breaker in breakers.items():
            self.metrics.plugin_taken_out.cell(*called).value = breaker.open
        for pace, endpoints in self.collector.paces().items():
            self.metrics.scrape_endpoints.cell(pace).value = endpoints
        self.metrics.load_reports.cell().value = self._reports.taken


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


MAX_CONFIG_BYTES = 1 << 20


def _config_source(settings: Settings) -> tuple[YamlSource, bytes]:
    """And the bytes of the file."""
    if settings.config_file is not None:
        try:
            raw = settings.config_file.read_bytes()
        except OSError as error:
            raise ConfigError(f"--config-file {settings.config_file}: cannot be read: {error}") from None
        return text_source(raw, settings.config_file), raw
    return (YamlSource(settings.config_text, "--config-text") if settings.config_text is not None else default_source()), b""


def text_source(raw: bytes, path: Path) -> YamlSource:
    if len(raw) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes")
    try:
        return YamlSource(raw.decode(), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(f"--config-file {path}: cannot be read: {error}") from None


def _common(before: Pipeline, new: Pipeline) -> int:
    return sum(name in before.built and before.built[name].plugin is built.plugin for name, built in new.built.items())


def _sources(settings: Settings, data: DataLayerParts, metrics: Metrics) -> list[DiscoverySource]:
    sources: list[DiscoverySource] = []
    if data.discovery is not None:
        if settings.endpoints is not None or settings.endpoints_file is not None:
            raise ConfigError("dataLayer.discovery and --endpoints or --endpoints-file exclude each other: give one of them")
        return [data.discovery.discovery(_count_reloads(metrics, data.discovery.type))]
    if settings.endpoints is not None:
        sources.append(StaticDiscovery(settings.endpoints))
    if settings.endpoints_file is not None:
        sources.append(FileDiscovery(settings.endpoints_file, on_reload=_count_reloads(metrics, "endpoints-file")))
    if not sources:
        raise ConfigError(NO_ENDPOINTS)
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


def _collector(settings: Settings, datastore: Datastore, pipeline: Pipeline, metrics: Metrics) -> Collector:
    """Raises ConfigError."""
    interval_s = settings.refresh_metrics_interval_s
    if interval_s < MIN_REFRESH_S:
        log.warning("--refresh-metrics-interval %g s is below the minimum; using %g s", interval_s, MIN_REFRESH_S)
        interval_s = MIN_REFRESH_S
    scrapes = metrics.scrapes.cell()
    for attached in pipeline.data.sources:
        metrics.poll_errors.cell(attached.source.type)
        for type_ in attached.extractor_types:
            metrics.extract_errors.cell(attached.source.type, type_)

    def begun() -> None:
        scrapes.value += 1

    def poll_failed(source_type: str) -> None:
        metrics.poll_errors.cell(source_type).value += 1

    def extract_failed(source_type: str, extractor_type: str) -> None:
        metrics.extract_errors.cell(source_type, extractor_type).value += 1

    return Collector(
        datastore,
        pipeline.data.sources,
        pace=Pace(interval_s=interval_s, adaptive=not pipeline.as_reference),
        on_read=begun,
        on_poll_error=poll_failed,
        on_extract_error=extract_failed,
    )


_SWEPT_SEGMENTS = 1000  # of removed endpoints, about 1 ms: without requests nobody else does it


def _version() -> str:
    try:
        return version("fairlead")
    except PackageNotFoundError:
        return "unknown"
