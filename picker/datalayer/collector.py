"""Runs the data layer: the scraper for the metrics source, a polling for each other source, and notifications."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from picker.datalayer.datastore import Datastore, EndpointState
from picker.datalayer.extraction import Extraction, Notification
from picker.datalayer.http_reader import CallLater, HttpReader, ReadErrorKind
from picker.datalayer.pace import PACES, Pace, PaceName
from picker.datalayer.parts import AttachedSource
from picker.datalayer.poller import Reader
from picker.datalayer.polling import FetchReader, SourcePolling
from picker.datalayer.scraper import Scraper
from picker.datalayer.source_plugins import EndpointNotificationSource, HttpSource, ModelsDataSource
from picker.endpoint import Endpoint
from picker.plugin import DataSource

log = logging.getLogger(__name__)

TIMEOUT_S = 1.0
"""For one poll of one endpoint, of whatever source."""


class Collector:
    """Starts and stops everything that learns about endpoints. At most one source carries a core-metrics-extractor."""

    def __init__(
        self,
        datastore: Datastore,
        sources: Sequence[AttachedSource],
        *,
        pace: Pace,
        on_read: Callable[[], None],
        on_poll_error: Callable[[str], None],
        on_extract_error: Callable[[str, str], None],
        call_later: CallLater | None = None,
    ) -> None:
        """`pace` is that of the metrics source, whose own `interval` goes first. `on_poll_error` is told the type of the source,
        `on_extract_error` also that of the extractor. Raises ConfigError."""
        self._datastore = datastore
        self._pace = pace
        self._on_read = on_read
        self._on_poll_error = on_poll_error
        self._on_extract_error = on_extract_error
        self._call_later = call_later
        self._scraper: Scraper | None = None
        self._pollings: list[SourcePolling] = []
        self._notifications: list[Notification] = []
        self._closable: list[DataSource] = []
        for attached in sources:
            self._add(attached)
        if self._scraper is None:
            log.warning(
                "no metrics source with a core-metrics-extractor: endpoints are not scraped, scorers see none of their metrics, and "
                "endpoints that do not answer stay candidates"
            )

    def _add(self, attached: AttachedSource) -> None:
        source = attached.source
        type_ = source.type

        def poll_failed() -> None:
            self._on_poll_error(type_)

        def extract_failed(extractor_type: str) -> None:
            self._on_extract_error(type_, extractor_type)

        if isinstance(source, EndpointNotificationSource):
            self._notifications.append(Notification(self._datastore, source.name, attached.event_extractors, extract_failed))
            return
        extraction = Extraction(self._datastore, source.name, attached.extractors, extract_failed)
        if isinstance(source, HttpSource) and attached.core is not None:
            core_type = attached.core.type

            def failed(kind: ReadErrorKind) -> None:
                poll_failed()

            self._scraper = Scraper(
                self._datastore,
                engines=attached.core.engines,
                pace=self._pace if source.interval_s is None else Pace(interval_s=source.interval_s, adaptive=self._pace.adaptive),
                timeout_s=TIMEOUT_S,
                scheme=source.scheme,
                path=source.path,
                port=source.port,
                ssl=source.ssl,
                on_read=self._on_read,
                on_error=failed,
                on_extract_error=lambda: extract_failed(core_type),
                on_page=extraction if attached.extractors else None,
                call_later=self._call_later,
            )
            return
        if isinstance(source, HttpSource):
            default_s = ModelsDataSource.default_interval_s if isinstance(source, ModelsDataSource) else self._pace.interval_s
            interval_s, reader = source.interval_s or default_s, self._http_reader(source)
        else:
            self._closable.append(source)
            interval_s, reader = source.interval_s, self._fetch_reader(source)
        self._pollings.append(
            SourcePolling(
                self._datastore,
                source.name,
                interval_s=interval_s,
                reader=reader,
                on_body=extraction,
                on_error=poll_failed,
                call_later=self._call_later,
            )
        )

    def _http_reader(self, source: HttpSource) -> Callable[[Endpoint], Reader]:
        accept = "application/json" if isinstance(source, ModelsDataSource) else "text/plain; version=0.0.4"

        def reader(endpoint: Endpoint) -> Reader:
            return HttpReader(
                endpoint.address,
                source.port or endpoint.port,
                path=source.path,
                accept=accept,
                ssl=source.ssl,
                timeout_s=TIMEOUT_S,
                call_later=self._call_later,
            )

        return reader

    def _fetch_reader(self, source: DataSource) -> Callable[[Endpoint], Reader]:
        return lambda endpoint: FetchReader(source, endpoint, timeout_s=TIMEOUT_S)

    def start(self) -> None:
        """Begin with the endpoints that are there, on the running loop."""
        for notification in self._notifications:
            notification.start()
        if self._scraper is not None:
            self._scraper.start()
        for polling in self._pollings:
            polling.start()

    async def stop(self) -> None:
        """End it all and close the sources; on return no task, timer or connection of ours is left."""
        for notification in self._notifications:
            notification.stop()
        stops = [polling.stop() for polling in self._pollings]
        if self._scraper is not None:
            stops.append(self._scraper.stop())
        await asyncio.gather(*stops)
        for source in self._closable:
            try:
                await source.close()
            except Exception:
                log.exception("source %s failed to close", source.name)

    def interval_s(self, state: EndpointState) -> float | None:
        """Seconds between scrapes of an endpoint at present; None when it is not scraped."""
        return None if self._scraper is None else self._scraper.interval_s(state)

    def paces(self) -> dict[PaceName, int]:
        """How many endpoints are scraped at the full rate, more rarely because they are idle, or more rarely because reads fail."""
        return dict.fromkeys(PACES, 0) if self._scraper is None else self._scraper.paces()
