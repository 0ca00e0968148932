"""Keeps what one endpoint reports up to date, and notices when it stops answering.

A chain of timer callbacks, not a task: read, take the answer in, wait, read again. A read never overlaps the one before it.
A server that does nothing is read ever more rarely (`Pace.slow_s`), because a page costs a vLLM milliseconds of the core that serves
its API; the first request routed to it brings the full rate back. `bench.micro.polling` measures what all this costs the picker.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from picker.datalayer.datastore import Datastore, EndpointState
from picker.datalayer.engines import Engines
from picker.datalayer.http_reader import CallLater, Done, ReadError, ReadErrorKind, Timer
from picker.datalayer.pace import Beat, Pace, PaceName
from picker.datalayer.throttle import Throttle
from picker.endpoint import EndpointMetrics

log = logging.getLogger(__name__)

_NO_PAGE_STATUSES = frozenset({401, 403, 404, 405, 406, 410, 501})
"""Answers that will be the same 50 ms later; others (500, 503) come from servers that are starting or overloaded."""


class Reader(Protocol):
    """What a poller needs of HttpReader."""

    def watch(self, hung_up: Callable[[], None]) -> None: ...
    def read(self, done: Done) -> None: ...
    def close(self) -> None: ...
    async def wait_closed(self) -> None: ...


class Poller:
    """Polls one endpoint from `start` to `stop`. Failures leave the old values as they are: their age tells."""

    __slots__ = (
        "_beat",
        "_call_later",
        "_datastore",
        "_endpoint",
        "_engines",
        "_extractor",
        "_good",
        "_log_liveness",
        "_log_page",
        "_now",
        "_on_error",
        "_on_extract_error",
        "_on_page",
        "_on_read",
        "_opened",
        "_pace",
        "_pause_s",
        "_reader",
        "_started_s",
        "_state",
        "_stopped",
        "_timeouts",
        "_timer",
        "_unreachable",
    )

    def __init__(
        self,
        state: EndpointState,
        datastore: Datastore,
        reader: Reader,
        engines: Engines,
        *,
        pace: Pace,
        phase: float,
        on_read: Callable[[], None],
        on_error: Callable[[ReadErrorKind], None],
        on_extract_error: Callable[[], None],
        on_page: Callable[[EndpointState, bytes], None] | None = None,
        now: Callable[[], float] = time.monotonic,
        call_later: CallLater | None = None,
    ) -> None:
        """`phase` (0 to 1) spreads what many pollers do (`Beat`). `on_page` is handed each page after its numbers have been taken."""
        self._state = state
        self._endpoint = state.endpoint
        self._datastore = datastore
        self._reader = reader
        self._engines = engines
        self._extractor = engines.extractor(state.endpoint.labels)
        self._pace = pace
        self._beat = Beat(pace, phase)
        self._on_read = on_read
        self._on_error = on_error
        self._on_extract_error = on_extract_error
        self._on_page = on_page
        self._now = now
        self._call_later: CallLater = call_later or asyncio.get_running_loop().call_later
        self._timer: Timer | None = None
        self._stopped = False
        self._started_s = 0.0
        self._pause_s = pace.interval_s
        self._good = False  # the last read brought a page
        self._opened = 0  # requests opened on the endpoint by the time of the last page
        self._unreachable = 0  # both since the last answer, so that a mixture of the two counts as well
        self._timeouts = 0
        self._log_liveness = Throttle(now=now)
        self._log_page = True

    def start(self) -> None:
        """Read for the first time within one interval."""
        self._reader.watch(self._hung_up)
        self._timer = self._call_later(self._beat.start(self._now()), self._begin)

    @property
    def interval_s(self) -> float:
        """Seconds between reads, at present."""
        return self._pause_s

    @property
    def pace(self) -> PaceName:
        """Why it is that."""
        if self._pause_s <= self._pace.interval_s:
            return "full"
        return "idle" if self._good else "failing"

    def stop(self) -> None:
        """End at once; a read under way is given up."""
        self._stopped = True
        self._state.load.on_open = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._reader.close()

    async def wait_stopped(self) -> None:
        """After `stop`: wait for what the reader still winds up."""
        await self._reader.wait_closed()

    def _begin(self) -> None:
        self._timer = None
        self._state.load.on_open = None
        if self._state.endpoint is not self._endpoint:  # its labels have changed, and with them perhaps its engine
            self._endpoint = self._state.endpoint
            self._extractor = self._engines.extractor(self._endpoint.labels)
        self._started_s = self._now()
        self._state.load.scrape_started()
        self._on_read()
        self._reader.read(self._ended)

    def _ended(self, result: bytes | ReadError) -> None:
        if self._stopped:
            return
        try:
            if isinstance(result, ReadError):
                self._failed(result)
            else:
                self._page(result)
        except Exception:
            # Whatever is wrong with one page or one listener, this endpoint must go on being read.
            self._pause_s = self._pace.slow_s
            self._good = False
            if self._log_page:
                self._log_page = False
                log.exception("endpoint %s: its metrics page could not be taken in", self._endpoint)
        if self._stopped:
            return
        self._sleep()

    def _sleep(self) -> None:
        idle = self.pace == "idle"
        if idle:
            self._state.load.on_open = self._wake
        self._timer = self._call_later(self._beat.after(self._started_s, self._now(), self._pause_s, idle=idle), self._begin)

    def _wake(self) -> None:
        """A request was routed to an idle endpoint: back to the full rate."""
        self._pause_s = self._pace.interval_s
        self._soon()

    def _hung_up(self) -> None:
        """The server has closed the connection between two reads. If it is gone, that should not take a long pause to be noticed."""
        if self.pace == "idle":
            self._soon()

    def _soon(self) -> None:
        delay_s = self._beat.sooner(self._now())
        if delay_s is not None and self._timer is not None:
            self._timer.cancel()
            self._timer = self._call_later(delay_s, self._begin)
            metrics = self._state.metrics
            if metrics.updated_s is not None:  # the quiet that was promised ends now: from then on silence counts
                quiet_s = max(0.0, self._now() + delay_s - metrics.updated_s)
                if quiet_s < metrics.quiet_s:
                    self._datastore.report(self._endpoint, replace(metrics, quiet_s=quiet_s))

    def _page(self, page: bytes) -> None:
        self._alive()
        metrics = self._extractor.extract(page, self._state.metrics, self._now())
        if metrics is None:
            self._failing()
            self._back_off()
            self._note_no_metrics(f"nothing on its page is of engine {self._extractor.engine}")
            self._on_extract_error()
            if self._on_page is not None:
                self._on_page(self._state, page)
            return
        metrics = self._with_report(metrics)
        if self._is_quiet(metrics):
            self._back_off()
            metrics = replace(metrics, quiet_s=self._pause_s)
        else:
            self._pause_s = self._pace.interval_s
        self._good = True
        self._state.load.scrape_succeeded()
        self._datastore.report(self._endpoint, metrics)
        self._log_page = True
        if self._on_page is not None:
            self._on_page(self._state, page)

    def _with_report(self, metrics: EndpointMetrics) -> EndpointMetrics:
        """What a response header told while this page was under way is newer than the page, or as new: it stays.

        It may have been written a moment before the page was asked for, and miss a request that the page has seen: the next page,
        one interval later, has it.
        """
        report = self._state.report
        if report is None or report.received_s < self._started_s:
            return metrics
        return report.applied_to(metrics)

    def _is_quiet(self, metrics: EndpointMetrics) -> bool:
        """Whether nothing goes on there: nothing of ours now or since the last page, nothing of others, the same numbers as before."""
        load = self._state.load
        opened, self._opened = self._opened, load.opened
        if load.requests or opened != load.opened or metrics.waiting or metrics.running or not self._good:
            return False
        return self._pace.adaptive and not metrics.differs(self._state.metrics)

    def _failing(self) -> None:
        """A read brought no page: what follows is counted at the full rate, whatever the rate was."""
        if self._good:
            self._good = False
            self._pause_s = self._pace.interval_s

    def _failed(self, error: ReadError) -> None:
        self._failing()
        if error.status is not None:
            self._alive()
            if error.status in _NO_PAGE_STATUSES:
                self._pause_s = self._pace.slow_s
                self._note_no_metrics(f"its metrics path answers {error.status}")
            elif error.kind == "bad_answer":
                self._back_off()
        elif error.kind == "bad_answer":
            self._back_off()
            self._note_no_metrics(error.detail)
        else:
            self._unreachable += error.kind == "unreachable"
            self._timeouts += error.kind == "timeout"
            if not self._state.alive:
                self._back_off()
            elif self._unreachable >= self._pace.unreachable_limit or self._timeouts >= self._pace.timeout_limit:
                self._datastore.mark_alive(self._endpoint, False)
                if self._log_liveness.ready():
                    log.warning("endpoint %s at %s does not answer: %s", self._endpoint, self._endpoint.host_port, error.detail)
        self._on_error(error.kind)

    def _alive(self) -> None:
        self._unreachable = self._timeouts = 0
        if not self._state.alive:
            self._pause_s = self._pace.interval_s
            self._datastore.mark_alive(self._endpoint, True)
            log_it = self._log_liveness.ready()
            log.log(logging.INFO if log_it else logging.DEBUG, "endpoint %s answers again", self._endpoint)

    def _back_off(self) -> None:
        self._pause_s = min(self._pause_s * 2, self._pace.slow_s)

    def _note_no_metrics(self, why: str) -> None:
        if self._log_page:
            self._log_page = False
            log.warning("endpoint %s at %s has no metrics for now: %s", self._endpoint, self._endpoint.host_port, why)
