"""The scorer that looks at predicted latencies (contract section 4.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

import msgspec

from picker.keys import APPROX_PREFIX_CACHE_PRODUCER, LATENCY_PREDICTION, PREFIX_MATCH
from picker.plugin import Handle, Parameters
from picker.prediction import prediction
from picker.request import InferenceRequest
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.snapshot import Candidates

_Weight = Annotated[float, msgspec.Meta(ge=0)]
_FLAT_MS = 1e-9
"""Values that are no further apart are the same."""

Headroom = tuple[float, float]


class LatencyParameters(Parameters, frozen=True):
    """`ttftWeight` and `tpotWeight` mix the headrooms; the composite ones count when there are no predictions."""

    ttft_weight: _Weight = 0.8
    tpot_weight: _Weight = 0.2
    headroom_selection_strategy: Literal["least", "most"] = "least"
    composite_kv_weight: _Weight = msgspec.field(default=1.0, name="compositeKVWeight")
    composite_queue_weight: _Weight = 1.0
    composite_prefix_weight: _Weight = 1.0
    prefix_match_info_producer_name: str = APPROX_PREFIX_CACHE_PRODUCER


class LatencyScorer:
    """Prefers endpoints that will keep what the client asks for, by predicted latency: those with the least headroom, or with the most.

    With `least` endpoints are filled up one after the other, which keeps others free for bursts.
    """

    type = "latency-scorer"
    Parameters = LatencyParameters
    bounded = True
    consumes: ClassVar[frozenset[str]] = frozenset({LATENCY_PREDICTION, PREFIX_MATCH})

    def __init__(self, name: str, parameters: LatencyParameters, handle: Handle) -> None:
        self.name = name
        self._weights = _shares(parameters.ttft_weight, parameters.tpot_weight)
        self._most = parameters.headroom_selection_strategy == "most"
        self._composite = _shares(parameters.composite_kv_weight, parameters.composite_queue_weight, parameters.composite_prefix_weight)
        self._producer: ApproxPrefixCacheProducer = handle.plugin(parameters.prefix_match_info_producer_name, APPROX_PREFIX_CACHE_PRODUCER)

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """Only endpoints with headroom for both times are scored, the others are 0; when there are none, only the idle ones, else those
        that fail by time per token alone, else by time to first token alone, else by both, and then always by `least`.

        An endpoint without a prediction is 0 as long as others have one (the reference takes its headroom for 0, the best there is).
        """
        known = prediction(request, candidates.snapshot)
        if known is None:
            return self._without_predictions(request, candidates)
        headrooms = candidates.column(known.headrooms)
        predicted = [(i, h) for i, h in enumerate(headrooms) if h is not None]
        if not predicted:
            return self._without_predictions(request, candidates)
        best = [(i, h) for i, h in predicted if h[0] >= 0 and h[1] >= 0]
        most = self._most and bool(best)
        if not best:
            best = _least_bad(predicted, candidates)
        scores = [0.0] * len(candidates)
        for (i, _), share in zip(best, self._mix([h for _, h in best]), strict=True):
            # In steps of 0.01, and never 0: a picker that draws by score must be able to draw it.
            scores[i] = min(1.0, (int((share if most else 1.0 - share) * 100) + 1) / 100)
        return scores

    def _mix(self, headrooms: Sequence[Headroom]) -> Iterator[float]:
        """wT x nTTFT + wP x nTPOT, n = (|headroom| - min) / range; a time that is the same everywhere does not count."""
        ttft, ttft_differs = _normalised([abs(h[0]) for h in headrooms])
        tpot, tpot_differs = _normalised([abs(h[1]) for h in headrooms])
        ttft_weight, tpot_weight = self._weights if ttft_differs == tpot_differs else (float(ttft_differs), float(tpot_differs))
        return (ttft_weight * t + tpot_weight * p for t, p in zip(ttft, tpot, strict=True))

    def _without_predictions(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """wK x (1 - u) + wQ x (max - q) / max + wP x match / total, in steps of 0.01; a queue of 0 everywhere is 1."""
        kv_weight, queue_weight, prefix_weight = self._composite
        queues = candidates.with_unseen(candidates.snapshot.waiting)
        longest = max(queues)
        match = self._producer.match(request, candidates.snapshot)
        hits: Sequence[int] = [0] * len(candidates) if match.blocks is None else candidates.column(match.blocks)
        total = match.total_blocks or 1
        return [
            int(
                100 * (kv_weight * (1 - u) + queue_weight * ((longest - q) / longest if longest else 1.0) + prefix_weight * hit / total)
                + 0.5
            )
            / 100
            for u, q, hit in zip(candidates.column(candidates.snapshot.kv_usage), queues, hits, strict=True)
        ]


def _least_bad(predicted: Sequence[tuple[int, Headroom]], candidates: Candidates) -> list[tuple[int, Headroom]]:
    loads = candidates.loads
    idle = [(i, h) for i, h in predicted if not loads[i].requests]
    if idle:
        return idle
    late_tokens = [(i, h) for i, h in predicted if h[0] >= 0]
    return late_tokens or [(i, h) for i, h in predicted if h[1] >= 0] or list(predicted)


def _normalised(values: Sequence[float]) -> tuple[list[float], bool]:
    """Within 0..1, and whether they differ; 0.5 for all if not."""
    low = min(values)
    spread = max(values) - low
    if spread <= _FLAT_MS:
        return [0.5] * len(values), False
    return [(value - low) / spread for value in values], True


def _shares(first: float, *others: float) -> tuple[float, ...]:
    """Weights that sum up to 1; all on the first when they are all 0."""
    total = first + sum(others)
    return tuple([w / total for w in (first, *others)]) if total else (1.0, *[0.0] * len(others))
