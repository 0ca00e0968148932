"""One request's life after it was let in: it always settles, once, whatever ends it.

Settling gives back the in-flight load, and feeds usage and times to the metrics and to the decision record.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from picker.accounting.inflight import InFlight, Ticket
from picker.endpoint import Endpoint, EndpointLoad
from picker.errors import Evicted
from picker.metrics import Metrics, RequestSeries
from picker.plugin import ResponseHeaderProcessor, ResponseObserver, ResponseStartObserver
from picker.request import InferenceRequest
from picker.result import Decision, Outcome, Response, Usage
from picker.timing import RESPONSE_COMPLETE, RESPONSE_HEADER, RESPONSE_STARTED, Timed, timed

log = logging.getLogger(__name__)


class Cause(enum.Enum):
    """What ended an exchange; the value is the error code in metrics, None when the request succeeded."""

    COMPLETED = None
    MODEL_SERVER_ERROR = "ModelServerError"
    DISCONNECTED = "Disconnected"
    """The stream ended before the response did: the client left, or the model server broke off."""
    EVICTED = "Evicted"
    """Sent away by flow control to make room."""
    BAD_REQUEST = "BadRequest"
    """Found out only after the decision."""
    FAILED = "Internal"
    """An error of our own."""


class UsageReader(Protocol):
    """Reads usage from a response as it passes."""

    def feed(self, chunk: bytes) -> None: ...

    def finish(self) -> Usage | None: ...


@dataclass(frozen=True, slots=True)
class ResponsePlugins:
    """Those that want to see answers."""

    headers: Timed[ResponseHeaderProcessor] = ()
    started: Timed[ResponseStartObserver] = ()
    complete: Timed[ResponseObserver] = ()
    need_usage: bool = False
    """One of them works with token usage: bodies are read whatever the settings say."""

    @classmethod
    def among(cls, plugins: Sequence[object], metrics: Metrics) -> ResponsePlugins:
        """`NO_RESPONSE_PLUGINS` when there are none: that costs an answer nothing."""
        found = cls(
            timed(metrics, RESPONSE_HEADER, [p for p in plugins if isinstance(p, ResponseHeaderProcessor)]),
            timed(metrics, RESPONSE_STARTED, [p for p in plugins if isinstance(p, ResponseStartObserver)]),
            timed(metrics, RESPONSE_COMPLETE, [p for p in plugins if isinstance(p, ResponseObserver)]),
            any(getattr(p, "needs_usage", False) for p in plugins),
        )
        return found if found.headers or found.started or found.complete else NO_RESPONSE_PLUGINS


NO_RESPONSE_PLUGINS = ResponsePlugins()
_GRPC_STATUS = "grpc-status"
NO_HEADERS: Mapping[str, bytes] = {}
NO_MORE: Mapping[str, str] = {}

Metadata = dict[str, dict[str, object]]
Place = tuple[Endpoint, EndpointLoad]
LoadOf = Callable[[str], Place | None]
TakeReport = Callable[[str, str], None]
"""Told `host:port` and the load report that an answer of it carried."""


class Ledger:
    """What exchanges are settled into. `now` is monotonic seconds; `load_of` finds an endpoint by `host:port`.

    Without `take_report` no model server is asked to report its load with its answers, otherwise each at most once in
    `report_interval_s`.
    """

    def __init__(
        self,
        metrics: Metrics,
        load_of: LoadOf,
        now: Callable[[], float],
        take_report: TakeReport | None = None,
        report_interval_s: float = 0.05,
    ) -> None:
        self.take_report = take_report
        self.report_interval_s = report_interval_s
        self.metrics = metrics
        self.inflight = InFlight(metrics)
        self.load_of = load_of
        self.now = now


class Exchange:
    """Made by the director. `request` and `decision` are None on a stream that carries only a response."""

    __slots__ = (
        "_closers", "_endpoint", "_failed", "_first_s", "_last_s", "_ledger", "_picked", "_plugins", "_reader", "_received_s", "_reporting",
        "_response", "_response_bytes", "_series", "_settled", "_status", "_streaming", "_ticket", "decision", "evictable", "metadata",
        "on_evicted", "request",
    )  # fmt: skip

    def __init__(
        self,
        ledger: Ledger,
        series: RequestSeries,
        request: InferenceRequest | None,
        decision: Decision | None,
        place: Place | None,
        *,
        reports_load: bool = False,
        plugins: ResponsePlugins = NO_RESPONSE_PLUGINS,
    ) -> None:
        """`reports_load`: the endpoint can report its load with an answer."""
        able = reports_load and ledger.take_report is not None and request is not None and not request.body.stream
        self._reporting: EndpointLoad | None = place[1] if able and place is not None else None
        """Of the endpoint that can report its load with this answer; streamed answers cannot."""
        self.request = request
        self.decision = decision
        self.metadata: Metadata | None = None
        """For the proxy, once the answer has ended: what response plugins say of it."""
        self.evictable = False
        """Flow control may take the request away again."""
        self.on_evicted: Callable[[Evicted], None] | None = None
        """Whoever carries the answer, told when there will be none."""
        self._closers: list[Callable[[Exchange], None]] | None = None
        self._plugins = plugins if request is not None else NO_RESPONSE_PLUGINS
        self._response: Response | None = None
        self._endpoint: Endpoint | None = None
        self._ledger = ledger
        self._series = series
        self._picked = ""
        self._ticket: Ticket | None = None
        self._received_s = request.received_s if request is not None else ledger.now()
        self._first_s: float | None = None
        self._last_s = 0.0
        self._response_bytes = 0
        self._status = 200
        self._failed = False
        self._streaming = False
        self._reader: UsageReader | None = None
        self._settled = False
        if request is not None:
            series.total.value += 1
            series.running.value += 1
            series.request_size.observe(request.size_bytes)
            if place is not None:
                self._endpoint = place[0]
                self._picked = place[0].host_port
                self._ticket = ledger.inflight.open(*place, request)

    def begin_response(
        self,
        status: int,
        reader: UsageReader | None,
        *,
        streaming: bool,
        served: str | None,
        report: str | None = None,
        headers: Mapping[str, bytes] = NO_HEADERS,
    ) -> Sequence[tuple[str, bytes]]:
        """Response headers came; returns those to set for the client.

        `served` is the endpoint that really answers, when the proxy says so (a fallback may have), `report` what they tell of its load.
        """
        if served and self.request is not None and served == self.request.destination:
            served = self._picked  # the server before it: what it was given is answered by the picked endpoint
        self._status = status
        self.call_ended(headers)
        self._streaming = streaming
        self._reader = reader
        if served and served != self._picked and self.request is not None:
            self._move_to(served)
        if report is not None and self._reporting is not None:
            self._report(report, served)
        if self._plugins is NO_RESPONSE_PLUGINS or self.request is None:
            return ()
        self._response = response = Response(self._endpoint, status, headers, streaming)
        more: list[tuple[str, bytes]] = []
        for plugin, timer in self._plugins.headers:
            began = perf_counter()
            try:
                for name, value in (plugin.response_header(self.request, response) or NO_MORE).items():
                    more.append((name, value.encode()))
            except Exception:
                log.exception("a plugin failed to see response headers")
            timer.observe(perf_counter() - began)
        return more

    def ask_for_report(self) -> bool:
        """Whether the model server is to be asked to report its load with the answer. Each time it says yes counts as an ask.

        Not with every answer: for each report vLLM goes through all its metrics (1.3 ms) and logs a line, and a load that is as fresh as
        a scrape under way is no news.
        """
        load = self._reporting
        if load is None:
            return False
        now_s = self._ledger.now()
        if now_s - load.asked_s < self._ledger.report_interval_s:
            return False
        load.asked_s = now_s
        return True

    def _report(self, report: str, served: str | None) -> None:
        # Numbers of one server must not pass for those of another: with several destinations the proxy has to say who answered.
        known = served == self._picked if served else self.decision is not None and len(self.decision.result.picked) == 1
        if known and self._ledger.take_report is not None:
            self._ledger.take_report(self._picked, report)

    def _move_to(self, served: str) -> None:
        found = self._ledger.load_of(served)
        if found is None or self.request is None or self._settled:
            return
        if self._ticket is not None:
            self._ticket.close()
        self._ticket = self._ledger.inflight.open(*found, self.request, elsewhere=True)
        self._endpoint = found[0]
        self._picked = served

    def response_chunk(self, chunk: bytes) -> None:
        """Response bytes passed."""
        if not chunk or self._settled:
            return
        now = self._ledger.now()
        if self._first_s is None:
            self._first_s = now
            self._first_token()
        elif self._streaming:
            self._series.itl.observe(now - self._last_s)
        self._last_s = now
        self._response_bytes += len(chunk)
        if self._reader is not None:
            try:
                self._reader.feed(chunk)
            except Exception:
                # Usage is worth less than the response it is read from.
                log.exception("usage is not counted: a response could not be read")
                self._reader = None

    def response_started(self) -> None:
        """The first bytes of a response passed that is not looked at: the prompt has been processed."""
        if not self._settled:
            self._first_token()

    def _first_token(self) -> None:
        if self._ticket is not None:
            self._ticket.first_token()
        if self._plugins.started and self.request is not None:
            response = self._answer()
            for plugin, timer in self._plugins.started:
                began = perf_counter()
                try:
                    plugin.response_started(self.request, response)
                except Exception:
                    log.exception("a plugin failed to see a response start")
                timer.observe(perf_counter() - began)

    def _answer(self) -> Response:
        """For plugins; a proxy may show the body of an answer and not its head."""
        if self._response is None:
            self._response = Response(self._endpoint)
        return self._response

    def call_ended(self, trailers: Mapping[str, bytes]) -> None:
        """Trailers came, or a head that is also the end: a gRPC call that failed says so there, and has 200 as its HTTP status."""
        if trailers.get(_GRPC_STATUS, b"0").strip() != b"0":
            self._failed = True

    def response_unread(self, how: str) -> None:
        """Nobody looks at the body; `how` says what becomes of it (see `Metrics.unread_bodies`)."""
        self._ledger.metrics.unread_bodies.cell(how).value += 1

    @property
    def needs_usage(self) -> bool:
        """A plugin works with the usage that this answer tells."""
        return self._plugins.need_usage

    @property
    def settled(self) -> bool:
        """True once `close` has been called."""
        return self._settled

    def on_close(self, closer: Callable[[Exchange], None]) -> None:
        """`closer` is called once, when the exchange has settled; at once if it has."""
        if self._settled:
            closer(self)
        elif self._closers is None:
            self._closers = [closer]
        else:
            self._closers.append(closer)

    def evict(self, refusal: Evicted) -> None:
        """Take the request away from its model server. Settles, and tells whoever carries the answer."""
        if not self._settled:
            self.close(Cause.EVICTED)
            if self.on_evicted is not None:
                self.on_evicted(refusal)

    def close(self, cause: Cause) -> None:
        """Settle. Only the first call counts."""
        if self._settled:
            return
        self._settled = True
        if self._ticket is not None:
            self._ticket.close()
        if cause is Cause.COMPLETED and (self._failed or self._status != 200):
            cause = Cause.MODEL_SERVER_ERROR
        usage: Usage | None = None
        if self._reader is not None:
            try:
                usage = self._reader.finish()
            except Exception:
                log.exception("usage is not counted: a response could not be read")
            self._reader = None
        now = self._ledger.now()
        self._observe(cause, usage, now)
        if self._plugins.complete and self.request is not None:
            self._show(self.request, cause, usage, now)
        if self._closers is not None:
            for closer in self._closers:
                closer(self)

    def _show(self, request: InferenceRequest, cause: Cause, usage: Usage | None, now: float) -> None:
        response = self._answer()
        response.endpoint = self._endpoint
        response.cause = cause.name.lower()
        response.usage = usage
        response.ttft_s = None if self._first_s is None else self._first_s - self._received_s
        response.total_s = now - self._received_s
        for plugin, timer in self._plugins.complete:
            began = perf_counter()
            try:
                said = plugin.response_complete(request, response)
            except Exception:
                log.exception("a plugin failed to see the end of a response")
                continue
            finally:
                timer.observe(perf_counter() - began)
            for namespace, values in (said or {}).items():
                if self.metadata is None:
                    self.metadata = {}
                self.metadata.setdefault(namespace, {}).update(values)

    def _observe(self, cause: Cause, usage: Usage | None, now: float) -> None:
        series = self._series
        output: int | None = None
        if usage is not None:
            output = usage.completion_tokens
            if usage.prompt_tokens is not None:
                series.input_tokens.observe(usage.prompt_tokens)
            if usage.cached_tokens is not None:
                series.cached_tokens.observe(usage.cached_tokens)
            if output is not None:
                series.output_tokens.observe(output)
        ttft = None if self._first_s is None else self._first_s - self._received_s
        if self.request is not None:
            if cause.value is not None:
                series.error(cause.value)
            series.running.value -= 1
            series.duration.observe(now - self._received_s)
            if self._first_s is not None:
                series.response_size.observe(self._response_bytes)
            if cause is Cause.COMPLETED:
                if ttft is not None:
                    series.ttft(ttft, streaming=self._streaming)
                if output:
                    series.ntpot.observe((now - self._received_s) / output)
                    if self._streaming and output > 1 and self._first_s is not None:
                        series.tpot.observe((self._last_s - self._first_s) / (output - 1))
        if self.decision is not None:
            self.decision.outcome = Outcome(
                served=self._picked or None,
                cause=cause.name.lower(),
                status=self._status,
                prompt_tokens=usage.prompt_tokens if usage else None,
                completion_tokens=output,
                cached_tokens=usage.cached_tokens if usage else None,
                ttft_s=ttft,
                total_s=now - self._received_s,
            )
