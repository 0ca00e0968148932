"""What a request goes through, as configured: built once, replaced as a whole on reload."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from picker.errors import Refusal
from picker.exchange import NO_RESPONSE_PLUGINS, Exchange, ResponsePlugins
from picker.metrics import Metrics
from picker.parsing.paths import ParserSet
from picker.plugin import Admitter, DataProducer, Parser, PreRequest, RequestHeaderProcessor, Screener
from picker.request import InferenceRequest
from picker.scheduling.scheduler import Scheduler
from picker.snapshot import Snapshot
from picker.timing import ADMISSION, DATA_PRODUCER, PRE_REQUEST, REQUEST_HEADER, SCREENER, Timed, timed


class Shedder(Protocol):
    """Admission without queues."""

    def shed(self, request: InferenceRequest, snapshot: Snapshot, now_s: float) -> None:
        """Raises Rejected."""


class Condition(Protocol):
    """Whether the chosen endpoint will do."""

    def check(self, request: InferenceRequest, snapshot: Snapshot, position: int) -> None:
        """Raises PreconditionFailed."""


class Place(Protocol):
    """In a queue."""

    def leave(self) -> None:
        """The request is not wanted any more. Does nothing when it has left already."""


class FlowController(Protocol):
    """Admission with queues."""

    def enqueue(self, request: InferenceRequest, decided: Callable[[Refusal | None], None]) -> Place:
        """`decided` is called once, perhaps before this returns: with None when it is the request's turn, else with why it never will be.
        Not after `Place.leave`. Raises a Refusal when there is no place for it."""

    def opened(self, exchange: Exchange) -> None:
        """A request that had its turn is on its way; `Exchange.on_close` tells when it has ended."""

    def abandoned(self, request: InferenceRequest) -> None:
        """A request that had its turn was refused by what comes after, or its client has left: it will never be on its way."""


Prepare = Callable[[InferenceRequest, Callable[[], None]], Callable[[], None]]
"""Asks what is to be asked about a request, then calls back, whatever came of it. The result ends the asking."""


class Stages:
    """The configured stages; replaced as a whole on reload."""

    __slots__ = (
        "admitters", "at_once", "conditional", "flow", "parsers", "pre_request", "prepare", "producers", "request_header", "response",
        "scheduler", "screeners", "shedder",
    )  # fmt: skip

    def __init__(
        self,
        parsers: Sequence[Parser],
        shedder: Shedder,
        scheduler: Scheduler,
        metrics: Metrics,
        *,
        request_header: Sequence[RequestHeaderProcessor] = (),
        flow: FlowController | None = None,
        prepare: Prepare | None = None,
        screeners: Sequence[Screener] = (),
        producers: Sequence[DataProducer] = (),
        admitters: Sequence[Admitter] = (),
        conditional: Condition | None = None,
        pre_request: Sequence[PreRequest] = (),
        response: ResponsePlugins = NO_RESPONSE_PLUGINS,
    ) -> None:
        """With `flow` there is no shedding: the queues decide. `producers` in the order in which they are to run."""
        self.parsers = ParserSet(parsers)
        self.shedder = shedder
        self.scheduler = scheduler
        self.request_header: Timed[RequestHeaderProcessor] = timed(metrics, REQUEST_HEADER, request_header)
        self.flow = flow
        self.prepare = prepare
        self.screeners: Timed[Screener] = timed(metrics, SCREENER, screeners)
        self.producers: Timed[DataProducer] = timed(metrics, DATA_PRODUCER, producers)
        self.admitters: Timed[Admitter] = timed(metrics, ADMISSION, admitters)
        self.pre_request: Timed[PreRequest] = timed(metrics, PRE_REQUEST, pre_request)
        self.conditional = conditional
        self.response = response
        self.at_once = flow is None and prepare is None
        """No request ever waits."""

    def queue_with(self, flow: FlowController) -> None:
        """Let requests queue."""
        self.flow = flow
        self.at_once = False
