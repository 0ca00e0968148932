"""How full the pool is, and what is turned away when it is full (contract sections 1.8, 4.7 and 5)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from picker.errors import REJECTED_SATURATED, Rejected
from picker.keys import INFLIGHT_LOAD
from picker.metrics import Metrics
from picker.plugin import Handle, Parameters, SaturationDetector
from picker.request import InferenceRequest
from picker.snapshot import Candidates, Snapshot
from picker.units import parse_duration_s


class UtilizationParameters(Parameters, frozen=True):
    """Thresholds at which an endpoint counts as full, and the age at which its metrics no longer count."""

    queue_depth_threshold: Annotated[int, msgspec.Meta(ge=1)] = 5
    kv_cache_util_threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    metrics_staleness_threshold: str = "200ms"
    headroom: Annotated[float, msgspec.Meta(ge=0)] = 0.0

    def __post_init__(self) -> None:
        try:
            parse_duration_s(self.metrics_staleness_threshold)
        except ValueError as error:
            raise ValueError(f"metricsStalenessThreshold: {error}") from None


class UtilizationDetector:
    """Mean over the endpoints of max(q / queueDepthThreshold, u / kvCacheUtilThreshold); stale metrics count as full."""

    type = "utilization-detector"
    Parameters = UtilizationParameters

    def __init__(self, name: str, parameters: UtilizationParameters, handle: Handle) -> None:
        self.name = name
        self._queue = parameters.queue_depth_threshold
        self._kv = parameters.kv_cache_util_threshold
        self._headroom = 1 + parameters.headroom
        self.stale_s = parse_duration_s(parameters.metrics_staleness_threshold)
        self.reported_only = False
        """As in the reference picker: nothing counts but what servers report. Set by the loader, with `compat: reference`."""

    def connect(self, metrics: Metrics, *, as_reference: bool) -> None:
        """Whether only what servers report counts."""
        self.reported_only = as_reference

    def saturation(self, candidates: Candidates, now_s: float) -> float:
        """1 is full; more is overload; an empty pool is full. What was sent since a server reported counts as queued there."""
        if not len(candidates):
            return 1.0
        total = 0.0
        queue, kv, stale_s = self._queue, self._kv, self.stale_s
        reported = candidates.snapshot.waiting
        queues = candidates.column(reported) if self.reported_only else candidates.with_unseen(reported)
        for m, waiting in zip(candidates.metrics, queues, strict=True):
            total += 1.0 if m.is_stale(now_s, stale_s) else max(waiting / queue, m.kv_usage / kv)
        return total / len(candidates)

    def stale(self, candidates: Candidates, now_s: float) -> int:
        """How many endpoints count as full because nothing is known of them."""
        return sum(m.is_stale(now_s, self.stale_s) for m in candidates.metrics)

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """As a filter: endpoints below both thresholds; all of them when none is."""
        queue, kv = self._queue * self._headroom, self._kv * self._headroom
        room = candidates.at([i for i, m in enumerate(candidates.metrics) if m.waiting < queue and m.kv_usage < kv])
        return room if len(room) else candidates


class ConcurrencyParameters(Parameters, frozen=True):
    """How many requests, or prompt tokens, of ours an endpoint takes. `hybrid` looks at both, endpoint by endpoint."""

    max_concurrency: Annotated[int, msgspec.Meta(ge=0)] = 100
    headroom: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    concurrency_mode: Literal["requests", "tokens", "hybrid"] = "requests"
    max_token_concurrency: Annotated[int, msgspec.Meta(ge=0)] = 1_000_000


class ConcurrencyDetector:
    """By what we have in flight ourselves: the sum over the endpoints against the sum of what they take (contract section 4.7).

    `hybrid`: the mean over the endpoints of the greater of both ratios. Nothing to take, or no endpoint, is full.
    """

    type = "concurrency-detector"
    Parameters = ConcurrencyParameters
    consumes: ClassVar[frozenset[str]] = frozenset({INFLIGHT_LOAD})
    """Tokens count as the configured producer counts them."""

    def __init__(self, name: str, parameters: ConcurrencyParameters, handle: Handle) -> None:
        self.name = name
        self._requests = parameters.max_concurrency
        self._tokens = parameters.max_token_concurrency
        self._mode = parameters.concurrency_mode
        self._headroom = 1 + parameters.headroom

    def saturation(self, candidates: Candidates, now_s: float) -> float:
        """1 is full; more is overload."""
        loads = candidates.loads
        if not len(loads):
            return 1.0
        if self._mode == "requests":
            return sum([load.requests for load in loads]) / (self._requests * len(loads)) if self._requests else 1.0
        if self._mode == "tokens":
            return sum([load.tokens for load in loads]) / (self._tokens * len(loads)) if self._tokens else 1.0
        if not (self._requests and self._tokens):
            return 1.0
        return sum([max(load.requests / self._requests, load.tokens / self._tokens) for load in loads]) / len(loads)

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """As a filter: endpoints below their limits with headroom; all of them when none is."""
        requests, tokens = self._requests * self._headroom, self._tokens * self._headroom
        by_requests, by_tokens = self._mode != "tokens", self._mode != "requests"
        room = candidates.at(
            [
                i
                for i, load in enumerate(candidates.loads)
                if not (by_requests and load.requests >= requests) and not (by_tokens and load.tokens >= tokens)
            ]
        )
        return room if len(room) else candidates


class Shedding:
    """Admission without queues: requests of negative priority are turned away while the pool is full; everything else passes."""

    def __init__(self, detector: SaturationDetector) -> None:
        self._detector = detector

    def shed(self, request: InferenceRequest, snapshot: Snapshot, now_s: float) -> None:
        """Raises Rejected."""
        if request.priority < 0 and self._detector.saturation(snapshot.candidates(), now_s) >= 1.0:
            raise Rejected("system saturated, sheddable request dropped", drop_reason=REJECTED_SATURATED)
