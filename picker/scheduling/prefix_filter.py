"""The filter that keeps a prompt where its beginning is cached (contract section 4.3)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from picker.keys import APPROX_PREFIX_CACHE_PRODUCER, LATENCY_PREDICTION
from picker.plugin import Handle, Parameters
from picker.prediction import prediction
from picker.request import InferenceRequest
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.snapshot import Candidates, Snapshot

_Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


class PrefixCacheAffinityParameters(Parameters, frozen=True):
    """`affinityThreshold` is a fraction of the prompt; `peakPrefillThroughput` is tokens per second of one endpoint.

    `ttftSource` says how the time to first token is told: from the tokens in flight, or by a `LatencyPrediction`.
    """

    affinity_threshold: _Fraction = 0.8
    exploration_probability: _Fraction = 0.0
    max_ttft_penalty_ms: Annotated[float, msgspec.Meta(ge=0)] = msgspec.field(default=18_000, name="maxTTFTPenaltyMs")
    ttft_source: Literal["prefillThroughput", "latencyPredictor"] = "prefillThroughput"
    peak_prefill_throughput: Annotated[float, msgspec.Meta(gt=0)] = 15_928
    prefix_match_info_producer_name: str = APPROX_PREFIX_CACHE_PRODUCER


class PrefixCacheAffinityFilter:
    """Keeps the endpoints that have cached most of the prompt, unless the wait there is too long."""

    type = "prefix-cache-affinity-filter"
    Parameters = PrefixCacheAffinityParameters

    def __init__(self, name: str, parameters: PrefixCacheAffinityParameters, handle: Handle) -> None:
        self.name = name
        self._threshold = parameters.affinity_threshold
        self._explore = parameters.exploration_probability
        self._penalty_ms = parameters.max_ttft_penalty_ms
        self._predicted = parameters.ttft_source == "latencyPredictor"
        self.consumes = frozenset({LATENCY_PREDICTION} if self._predicted else ())
        self._ms_per_token = 1000 / parameters.peak_prefill_throughput
        self._producer: ApproxPrefixCacheProducer = handle.plugin(parameters.prefix_match_info_producer_name, APPROX_PREFIX_CACHE_PRODUCER)

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """Those with match / total >= threshold; all when there are none, by chance (`explorationProbability`), or when the least time
        to first token among them, as predicted or tokens in flight / throughput, exceeds that of the others by more than the penalty."""
        match = self._producer.match(request, candidates.snapshot)
        if match.blocks is None or not match.total_blocks or (self._explore and random.random() < self._explore):
            return candidates
        needed = self._threshold * match.total_blocks
        sticky = candidates.at([i for i, hit in enumerate(candidates.column(match.blocks)) if hit >= needed])
        if not sticky or len(sticky) == len(candidates):
            return candidates
        kept = set(sticky.positions)
        others = [p for p in candidates.positions if p not in kept]
        return candidates if self._wait_ms(request, candidates.snapshot, sticky.positions, others) > self._penalty_ms else sticky

    def _wait_ms(self, request: InferenceRequest, snapshot: Snapshot, here: Sequence[int], there: Sequence[int]) -> float:
        """How much longer the first token takes at the best of the positions `here` than at the best of those `there`.

        As long as one side has no prediction, by tokens in flight: a predictor that is down must not pile prompts up.
        """
        known = prediction(request, snapshot) if self._predicted else None
        if known is not None:
            ttft_ms = known.ttft_ms
            ours = [ms for p in here if (ms := ttft_ms[p]) is not None]
            theirs = [ms for p in there if (ms := ttft_ms[p]) is not None]
            if ours and theirs:
                return min(ours) - min(theirs)
        loads = snapshot.loads
        return (min([loads[p].tokens for p in here]) - min([loads[p].tokens for p in there])) * self._ms_per_token
