"""The filter that keeps a prompt where its beginning is cached (contract section 4.3)."""

from __future__ import annotations

import random
from typing import Annotated, Literal

import msgspec

from picker.keys import APPROX_PREFIX_CACHE_PRODUCER
from picker.plugin import Handle, Parameters
from picker.request import InferenceRequest
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.snapshot import Candidates

_Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]


class PrefixCacheAffinityParameters(Parameters, frozen=True):
    """`affinityThreshold` is a fraction of the prompt; `peakPrefillThroughput` is tokens per second of one endpoint.

    No plugin of this version predicts latencies, so `ttftSource` can only be `prefillThroughput`.
    """

    affinity_threshold: _Fraction = 0.8
    exploration_probability: _Fraction = 0.0
    max_ttft_penalty_ms: Annotated[float, msgspec.Meta(ge=0)] = msgspec.field(default=18_000, name="maxTTFTPenaltyMs")
    ttft_source: Literal["prefillThroughput"] = "prefillThroughput"
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
        self._ms_per_token = 1000 / parameters.peak_prefill_throughput
        self._producer: ApproxPrefixCacheProducer = handle.plugin(parameters.prefix_match_info_producer_name, APPROX_PREFIX_CACHE_PRODUCER)

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """Those with match / total >= threshold; all when there are none, by chance (`explorationProbability`), or when the least time
        to first token among them, tokens in flight / throughput, exceeds that of the others by more than the penalty."""
        match = self._producer.match(request, candidates.snapshot)
        if match.blocks is None or not match.total_blocks or (self._explore and random.random() < self._explore):
            return candidates
        needed = self._threshold * match.total_blocks
        sticky = candidates.at([i for i, hit in enumerate(candidates.column(match.blocks)) if hit >= needed])
        if not sticky or len(sticky) == len(candidates):
            return candidates
        kept = set(sticky.positions)
        loads = candidates.snapshot.loads
        here = min(load.tokens for load in sticky.loads)
        there = min(loads[p].tokens for p in candidates.positions if p not in kept)
        return candidates if (here - there) * self._ms_per_token > self._penalty_ms else sticky
