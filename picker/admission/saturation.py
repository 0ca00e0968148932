"""How full the pool is, and what is turned away when it is full (contract sections 1.8, 4.7 and 5)."""

from __future__ import annotations

from typing import Annotated

import msgspec

from picker.errors import REJECTED_SATURATED, Rejected
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
        self._stale_s = parse_duration_s(parameters.metrics_staleness_threshold)

    def saturation(self, snapshot: Snapshot, now_s: float) -> float:
        """1 is full; more is overload; an empty pool is full."""
        if not len(snapshot):
            return 1.0
        total = 0.0
        for m in snapshot.metrics:
            total += 1.0 if m.is_stale(now_s, self._stale_s) else max(m.waiting / self._queue, m.kv_usage / self._kv)
        return total / len(snapshot)

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """As a filter: endpoints below both thresholds; all of them when none is."""
        queue, kv = self._queue * self._headroom, self._kv * self._headroom
        room = candidates.at([i for i, m in enumerate(candidates.metrics) if m.waiting < queue and m.kv_usage < kv])
        return room if len(room) else candidates


class Shedding:
    """Admission without queues: requests of negative priority are turned away while the pool is full; everything else passes."""

    def __init__(self, detector: SaturationDetector) -> None:
        self._detector = detector

    def shed(self, request: InferenceRequest, snapshot: Snapshot, now_s: float) -> None:
        """Raises Rejected."""
        if request.priority < 0 and self._detector.saturation(snapshot, now_s) >= 1.0:
            raise Rejected("system saturated, sheddable request dropped", drop_reason=REJECTED_SATURATED)
