"""Runs one poller for every endpoint of the datastore."""

from __future__ import annotations

import asyncio
import ssl as tls
import time
from collections.abc import Callable, Sequence

from picker.datalayer.datastore import Datastore, EndpointState
from picker.datalayer.engines import Engines
from picker.datalayer.http_reader import CallLater, Connect, HttpReader, ReadErrorKind
from picker.datalayer.pace import PACES, Pace, PaceName
from picker.datalayer.poller import Poller, Reader
from picker.endpoint import Endpoint
from picker.errors import ConfigError

_GOLDEN = 0.618033988749895
"""Successive multiples, modulo 1, never bunch: any number of pollers, started at any time, is spread over the interval."""


class Scraper:
    """Follows the datastore: endpoints that come are polled, those that go are not any more."""

    def __init__(
        self,
        datastore: Datastore,
        *,
        engines: Engines | None = None,
        pace: Pace | None = None,
        timeout_s: float = 1.0,
        scheme: str = "http",
        path: str = "/metrics",
        port: int | None = None,
        ssl: tls.SSLContext | None = None,
        on_read: Callable[[], None] = lambda: None,
        on_error: Callable[[ReadErrorKind], None] = lambda kind: None,
        on_extract_error: Callable[[], None] = lambda: None,
        on_page: Callable[[EndpointState, bytes], None] | None = None,
        now: Callable[[], float] = time.monotonic,
        connect: Connect | None = None,
        call_later: CallLater | None = None,
        reader: Callable[[Endpoint], Reader] | None = None,
    ) -> None:
        """`port` None = each endpoint's own; `ssl` None with scheme https = encrypted without checking the certificate.

        `on_read` hears of each read that begins, `on_error` of each that failed, `on_extract_error` of each page without a needed
        series, `on_page` of each page. Raises ConfigError.
        """
        pace = pace or Pace()
        if scheme not in ("http", "https"):
            raise ConfigError(f"metrics scheme {scheme!r}: expected http or https")
        for what, value in (("interval", pace.interval_s), ("slow interval", pace.slow_s), ("timeout", timeout_s)):
            if not value > 0:
                raise ConfigError(f"metrics {what} {value!r}: expected more than 0 seconds")
        if port is not None and not 1 <= port <= 65535:
            raise ConfigError(f"metrics port {port!r}: expected 1 to 65535")
        self._datastore = datastore
        self._engines = engines or Engines()
        self._pace = pace
        self._timeout_s = timeout_s
        self._path = path
        self._port = port
        self._ssl = (ssl or _unverified()) if scheme == "https" else None
        self._on_read = on_read
        self._on_error = on_error
        self._on_extract_error = on_extract_error
        self._on_page = on_page
        self._now = now
        self._connect = connect
        self._call_later = call_later
        self._reader = reader or self._http_reader
        self._pollers: dict[EndpointState, Poller] = {}
        self._unsubscribe: Callable[[], None] | None = None
        self._started = 0

    def start(self) -> None:
        """Begin with the endpoints that are there, on the running loop."""
        if self._unsubscribe is None:
            self._unsubscribe = self._datastore.subscribe(self._follow)

    async def stop(self) -> None:
        """End all polling; on return no task, timer or connection is left."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        pollers = list(self._pollers.values())
        self._pollers.clear()
        for poller in pollers:
            poller.stop()
        await asyncio.gather(*[poller.wait_stopped() for poller in pollers])

    def interval_s(self, state: EndpointState) -> float | None:
        """Seconds between reads of an endpoint at present; None when it is not polled."""
        poller = self._pollers.get(state)
        return None if poller is None else poller.interval_s

    def paces(self) -> dict[PaceName, int]:
        """How many endpoints are read at the full rate, more rarely because they are idle, or more rarely because reads fail."""
        counts = dict.fromkeys(PACES, 0)
        for poller in self._pollers.values():
            counts[poller.pace] += 1
        return counts

    def _follow(self, added: Sequence[EndpointState], removed: Sequence[EndpointState]) -> None:
        for state in removed:
            poller = self._pollers.pop(state, None)
            if poller is not None:
                poller.stop()
        for state in added:
            poller = self._pollers[state] = Poller(
                state,
                self._datastore,
                self._reader(state.endpoint),
                self._engines,
                pace=self._pace,
                phase=self._started * _GOLDEN % 1.0,
                on_read=self._on_read,
                on_error=self._on_error,
                on_extract_error=self._on_extract_error,
                on_page=self._on_page,
                now=self._now,
                call_later=self._call_later,
            )
            poller.start()
            self._started += 1

    def _http_reader(self, endpoint: Endpoint) -> Reader:
        return HttpReader(
            endpoint.address,
            self._port or endpoint.port,
            path=self._path,
            ssl=self._ssl,
            timeout_s=self._timeout_s,
            connect=self._connect,
            call_later=self._call_later,
        )


def _unverified() -> tls.SSLContext:
    """Model servers have certificates of their own making; the reference picker does not check them either unless told to."""
    context = tls.create_default_context()
    context.check_hostname = False
    context.verify_mode = tls.CERT_NONE
    return context
