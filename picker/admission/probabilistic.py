"""probabilistic-admitter: the fuller the pool, the more of the sheddable requests are refused (contract section 4.5)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Annotated

import msgspec

from picker.endpoint import EndpointMetrics
from picker.errors import REJECTED_SATURATED, Internal, Refusal, Rejected
from picker.metrics import Metrics
from picker.plugin import Handle, Parameters
from picker.request import InferenceRequest
from picker.snapshot import Candidates, ColumnMemo

Positive = Annotated[float, msgspec.Meta(gt=0)]


class ProbabilisticParameters(Parameters, frozen=True):
    """Full is a queue of `queueDepthThreshold` requests or `kvCacheUtilThreshold` of the KV cache; `power` and `k` shape the curve."""

    queue_depth_threshold: Positive = 5.0
    kv_cache_util_threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    power: Positive = 5.0
    k: Positive = 300.0


class ProbabilisticAdmitter:
    """Refuses requests of negative priority with probability min(1, k x saturation^power).

    Saturation is the mean over the candidates of max(q / queueDepthThreshold, u / kvCacheUtilThreshold). An endpoint that has never
    answered reports neither queue nor usage and counts as full: that nobody knows of its load must not let everything in.
    """

    type = "probabilistic-admitter"
    Parameters = ProbabilisticParameters

    def __init__(
        self,
        name: str,
        parameters: ProbabilisticParameters,
        handle: Handle,
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`draw` gives numbers in [0, 1)."""
        self.name = name
        self._power = parameters.power
        self._k = parameters.k
        self._draw = draw
        self._refuse: Callable[[str], Refusal] = _rejected
        queue, usage = parameters.queue_depth_threshold, parameters.kv_cache_util_threshold

        def fill(m: EndpointMetrics) -> float:
            return 1.0 if m.updated_s is None else max(m.waiting / queue, m.kv_usage / usage)

        self._fills = ColumnMemo(fill)

    def connect(self, metrics: Metrics, *, as_reference: bool) -> None:
        """Refuse with a 429, where the reference says 500."""
        self._refuse = Internal if as_reference else _rejected

    def admit(self, request: InferenceRequest, candidates: Candidates, now_s: float) -> None:
        """Raises Rejected; Internal with `compat: reference`."""
        if request.priority >= 0:
            return
        fills = candidates.column(self._fills.of(candidates.snapshot))
        saturation = sum(fills) / len(fills)
        try:
            chance = min(1.0, self._k * saturation**self._power)
        except OverflowError:
            chance = 1.0
        if self._draw() < chance:
            raise self._refuse(f"request cannot be admitted: the pool is {saturation:.0%} full, of such requests {chance:.0%} are refused")


def _rejected(message: str) -> Refusal:
    return Rejected(message, drop_reason=REJECTED_SATURATED)
