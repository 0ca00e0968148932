"""Every extension point, on one page.

A plugin is a class with a `type` (the string used in the configuration), a `Parameters` struct that is decoded strictly from the
configuration's `parameters`, and a constructor `(name, parameters, handle)`. It takes part in each stage whose method it has; a
class may take part in several. Implementations that ship with fairlead are listed in `picker.catalogue`.

All methods but `AsyncDataProducer.prepare` are plain functions: scheduling is synchronous, one request at a time. None may block.

A request meets them in this order: RequestHeaderProcessor, admission (SaturationDetector), Screener, DataProducer, Admitter,
ProfileHandler, for each profile Filter, Scorer and Picker, PreRequest; its answer ResponseHeaderProcessor, ResponseStartObserver,
ResponseObserver.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from picker.endpoint import Endpoint
    from picker.request import InferenceRequest, ParsedBody
    from picker.result import ProfileResult, Response
    from picker.snapshot import Candidates, Snapshot


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Base of a plugin's parameters: unknown fields are refused, fields are written in camelCase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What an extractor found out about one endpoint. What is None or missing stays as it was.

    `attributes` (finite numbers) and `names` (sets of words) are read by `Snapshot.attribute` and `Snapshot.names`. `waiting` and
    `running` are requests, `kv_usage` is a fraction 0..1; any of the three makes this an answer, by which the age of the endpoint's
    metrics is told.
    """

    attributes: Mapping[str, float] = field(default_factory=dict)
    names: Mapping[str, frozenset[str]] = field(default_factory=dict)
    waiting: int | None = None
    running: int | None = None
    kv_usage: float | None = None


EndpointEvent = Literal["add", "update", "delete"]


class NoParameters(Parameters, frozen=True):
    """For plugins that take none."""


class Handle(Protocol):
    """What a plugin may ask for while it is built."""

    def plugin(self, name: str, fallback_type: str) -> Any:
        """The plugin called `name`; when the configuration has none and `name` equals `fallback_type`, one with default parameters is
        created. An empty name is the first of that type, or else one with default parameters; with an empty `fallback_type` it may be of
        any type. Raises ConfigError when there is none."""


class Plugin(Protocol):
    """What all plugins share. `experimental` types need `--allow-experimental-plugins`; `close`, where there is one, is called when a
    reload of the configuration has replaced the plugin, and awaited when it is a coroutine.

    Those that ship with fairlead may have `connect(metrics: Metrics, *, as_reference: bool)`: it is called once, when the plugin has been
    built, with where it counts what it alone knows, and with whether `compat: reference` is set. One that a reload takes over stays
    connected.
    """

    type: ClassVar[str]
    Parameters: ClassVar[builtins.type[Parameters]]
    name: str


@runtime_checkable
class RequestHeaderProcessor(Protocol):
    """Sees a request before it is admitted: may set its `attributes`, `fairness_id` (when the client gave none) or `set_header`."""

    def request_header(self, request: InferenceRequest) -> None: ...


@runtime_checkable
class Screener(Protocol):
    """Takes endpoints out for all profiles, before anything is computed for them."""

    def screen(self, request: InferenceRequest, candidates: Candidates) -> Candidates: ...


@runtime_checkable
class DataProducer(Protocol):
    """Computes what several plugins need, once: leaves it in `request.working` (or `attributes`) under the keys in `produces`.

    Runs after those that produce what it `consumes`. One that raises is logged and counted; the request goes on without its data.
    Any plugin may have `consumes`. A key in it that nobody produces is an error of the configuration, unless it is in `optional`, too.
    """

    produces: ClassVar[frozenset[str]]
    consumes: ClassVar[frozenset[str]]

    def produce(self, request: InferenceRequest, candidates: Candidates) -> None: ...


@runtime_checkable
class AsyncDataProducer(Protocol):
    """Asks somebody else about the request, e.g. a tokenizer, before endpoints are looked at.

    The request waits, at most `timeout_s` (0.4 when there is none); one that is late or raises is logged and counted, and the request
    goes on without its data. All run at the same time, but for those that `consume` what another one produces: they run after it, and the
    request waits for both. `request.payload` is the body. With a method `wants(request)` those requests for
    which it is false need not wait, and with `asks = False` none does. A coroutine `close()` is awaited in the end.
    """

    produces: ClassVar[frozenset[str]]

    async def prepare(self, request: InferenceRequest) -> None: ...


@runtime_checkable
class Filter(Protocol):
    """Takes endpoints out."""

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates: ...


@runtime_checkable
class Scorer(Protocol):
    """Says how good each candidate is, from 0 (worst) to 1 (best).

    Returns numbers aligned with `candidates.endpoints`, or a mapping by Endpoint (missing ones count as 0). Values outside 0..1 are
    clamped. The returned object must not be changed afterwards: the decision record keeps it. What may be kept between requests, and
    how to learn what has changed, is in `picker.snapshot`.
    """

    def score(self, request: InferenceRequest, candidates: Candidates) -> Sequence[float] | Mapping[Endpoint, float]: ...


@runtime_checkable
class Picker(Protocol):
    """Chooses from the totals: indices into `candidates.endpoints`, best first, never empty."""

    def pick(self, request: InferenceRequest, candidates: Candidates, totals: Sequence[float]) -> Sequence[int]: ...


@runtime_checkable
class ProfileHandler(Protocol):
    """Decides which scheduling profiles run for a request, and which result is the one to use."""

    name: str

    def profiles(self, request: InferenceRequest, names: Sequence[str]) -> Sequence[str]: ...

    def primary(self, results: Mapping[str, ProfileResult]) -> str: ...


@runtime_checkable
class PreRequest(Protocol):
    """Told of the decision just before the request leaves, e.g. to learn which prompt went where."""

    def pre_request(self, request: InferenceRequest, snapshot: Snapshot, position: int) -> None: ...


@runtime_checkable
class ResponseHeaderProcessor(Protocol):
    """Sees the head of the answer; returns headers to set on it for the client (lower-case names), or None."""

    def response_header(self, request: InferenceRequest, response: Response) -> Mapping[str, str] | None: ...


@runtime_checkable
class ResponseStartObserver(Protocol):
    """Told when the first bytes of the answer's body pass: the prompt has been processed. Called at most once for each request."""

    def response_started(self, request: InferenceRequest, response: Response) -> None: ...


@runtime_checkable
class ResponseObserver(Protocol):
    """Told once for each request that left for a model server, whatever ended it.

    Returns dynamic metadata for the proxy by namespace and key, or None; it goes out with the last message of an answer that ends well.
    One that works with `Response.usage` says `needs_usage = True`: then bodies are read even with `--response-metrics=false`.
    """

    def response_complete(self, request: InferenceRequest, response: Response) -> Mapping[str, Mapping[str, object]] | None: ...


@runtime_checkable
class DataSource(Protocol):
    """Fetches something about each endpoint, every `interval_s` seconds, for its extractors; listed in `dataLayer.sources`.

    One fetch per endpoint at a time, and at most one second for it. Whatever it raises counts as a failed poll, and what is known of the
    endpoint stays. The loop also serves requests: `fetch` must not block it. `close` is called once, when the source is no longer used.
    """

    type: ClassVar[str]
    name: str
    interval_s: float

    async def fetch(self, endpoint: Endpoint) -> bytes: ...

    async def close(self) -> None: ...


@runtime_checkable
class Extractor(Protocol):
    """Reads what a source fetched from an endpoint. `body` is as the endpoint sent it, e.g. a Prometheus page or JSON.

    One that raises is logged and counted in `datalayer_extract_errors_total`; what it found before stays, the others go on.
    """

    type: ClassVar[str]
    name: str

    def extract(self, endpoint: Endpoint, body: bytes) -> Extracted | None: ...


@runtime_checkable
class EndpointEventExtractor(Protocol):
    """Told by an endpoint-notification-source of endpoints that come, change (their labels) and go; runs on the event loop.

    What it returns becomes known of the endpoint; for one that is gone it is dropped. One that raises is logged and counted.
    """

    type: ClassVar[str]
    name: str

    def endpoint_event(self, event: EndpointEvent, endpoint: Endpoint) -> Extracted | None: ...


@runtime_checkable
class EndpointWatcher(Protocol):
    """Told when an endpoint is gone for good. `bit` is its number in `Snapshot.bits`, free for reuse afterwards."""

    def endpoint_removed(self, endpoint: Endpoint, bit: int) -> None: ...


@runtime_checkable
class SaturationDetector(Protocol):
    """How full these endpoints are: 0 idle, 1 full, more is overload; none at all are full."""

    def saturation(self, candidates: Candidates, now_s: float) -> float: ...


class QueuedItem(Protocol):
    """A request that waits, as policies see it. `key` is the ordering policy's, `seq` numbers arrivals; times are monotonic seconds."""

    request: InferenceRequest
    key: Any
    seq: int
    enqueued_s: float
    ttl_s: float


class QueuedFlow(Protocol):
    """The waiting requests of one fairness id in one band."""

    fairness_id: str
    requests: int

    def head(self) -> QueuedItem | None:
        """The one whose turn it is within the flow."""


class FairQueue(Protocol):
    """The flows of one band that have requests. `next` leaves the flow where it is; `served` tells that it has had its turn."""

    def add(self, flow: QueuedFlow) -> None: ...

    def moved(self, flow: QueuedFlow) -> None:
        """Another request is its head now."""

    def remove(self, flow: QueuedFlow) -> None: ...

    def next(self, now_s: float) -> QueuedFlow | None:
        """None when no flow has requests."""

    def served(self, flow: QueuedFlow) -> None: ...


@runtime_checkable
class FairnessPolicy(Protocol):
    """Says which flow of a band has its turn: makes the queue of flows for each band.

    One that has `dispatched(fairness_id, waited_s, now_s)` is told of each request that was let in.
    """

    def queue(self) -> FairQueue: ...


@runtime_checkable
class OrderingPolicy(Protocol):
    """Says which request of a flow has its turn: the one with the smallest key. Asked once for each request. Keys are
    numbers or tuples of numbers."""

    def key(self, item: QueuedItem) -> Any: ...


@runtime_checkable
class UsageLimitPolicy(Protocol):
    """Up to which saturation requests of each priority are let in. `priorities` descend; the result is aligned with them."""

    def ceilings(self, priorities: Sequence[int], saturation: float) -> Sequence[float]: ...


@runtime_checkable
class EvictionFilter(Protocol):
    """Whether a request may be taken away from its model server once it is on its way."""

    def evictable(self, request: InferenceRequest) -> bool: ...


@runtime_checkable
class EvictionOrdering(Protocol):
    """Who goes first: the smallest key, a number or a tuple of numbers."""

    def eviction_key(self, request: InferenceRequest, opened_s: float) -> Any: ...


@runtime_checkable
class Admitter(Protocol):
    """Lets a request in, or raises a `picker.errors.Refusal`. Runs behind the queues, when candidates and their data are known."""

    def admit(self, request: InferenceRequest, candidates: Candidates, now_s: float) -> None: ...


@runtime_checkable
class Parser(Protocol):
    """Reads a request body. `paths` are path suffixes; a parser without any serves all paths that no other one serves."""

    paths: Sequence[str]

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> ParsedBody:
        """Raises BadRequest when the body is not what the API at `path` takes."""
