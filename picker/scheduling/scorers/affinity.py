"""Scorers that look for what a server already holds: a LoRA adapter, or the beginning of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from picker.plugin import Handle, NoParameters, Parameters
from picker.request import InferenceRequest
from picker.scheduling.producers import APPROX_PREFIX_CACHE_PRODUCER, ApproxPrefixCacheProducer
from picker.snapshot import Candidates, Snapshot

_ACTIVE, _ROOM, _QUEUED, _FULL = 1.0, 0.8, 0.6, 0.0


class LoraAffinityScorer:
    """Prefers servers on which the requested adapter is loaded, then those with a free slot.

    1.0 active; 0.8 a slot is free (active + waiting < max); 0.6 already waiting for a slot; 0.0 otherwise. What does not depend on
    the adapter, and which adapters exist anywhere, is computed once per snapshot: most requests name none of them.
    """

    type = "lora-affinity-scorer"
    Parameters = NoParameters
    bounded = True

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name
        self._snapshot: Snapshot | None = None
        self._unknown: tuple[float, ...] = ()
        self._places: dict[str, list[tuple[int, float]]] = {}

    def score(self, request: InferenceRequest, candidates: Candidates) -> Sequence[float]:
        """By where `target_model` is among the adapters."""
        snapshot = candidates.snapshot
        if snapshot is not self._snapshot:
            self._index(snapshot)
        places = self._places.get(request.target_model)
        if places is None:
            return candidates.column(self._unknown)
        scores = list(self._unknown)
        for position, score in places:
            scores[position] = score
        return candidates.column(scores)

    def _index(self, snapshot: Snapshot) -> None:
        unknown: list[float] = []
        places: dict[str, list[tuple[int, float]]] = {}
        for position, m in enumerate(snapshot.metrics):
            room = len(m.active_adapters) + len(m.waiting_adapters) < m.max_adapters
            unknown.append(_ROOM if room else _FULL)
            for adapter in m.active_adapters:
                places.setdefault(adapter, []).append((position, _ACTIVE))
            if not room:
                for adapter in m.waiting_adapters - m.active_adapters:
                    places.setdefault(adapter, []).append((position, _QUEUED))
        self._unknown = tuple(unknown)
        self._places = places
        self._snapshot = snapshot


class PrefixCacheParameters(Parameters, frozen=True):
    """`matchLengthWeight` w mixes in the absolute length of the match, full at `matchLengthScaleTokens`."""

    prefix_match_info_producer_name: str = APPROX_PREFIX_CACHE_PRODUCER
    match_length_weight: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    match_length_scale_tokens: Annotated[int, msgspec.Meta(ge=1)] = 8192


class PrefixCacheScorer:
    """Prefers servers that have probably cached the beginning of this prompt."""

    type = "prefix-cache-scorer"
    Parameters = PrefixCacheParameters
    bounded = True

    def __init__(self, name: str, parameters: PrefixCacheParameters, handle: Handle) -> None:
        self.name = name
        self._weight = parameters.match_length_weight
        self._scale = parameters.match_length_scale_tokens
        self._producer: ApproxPrefixCacheProducer = handle.plugin(parameters.prefix_match_info_producer_name, APPROX_PREFIX_CACHE_PRODUCER)

    def score(self, request: InferenceRequest, candidates: Candidates) -> Sequence[float]:
        """(1 - w) x match / total + w x min(1, match x block size / scale)^2; 0 for an empty prompt."""
        match = self._producer.match(request, candidates.snapshot)
        if match.blocks is None:
            return [0.0] * len(candidates)
        hits = candidates.column(match.blocks)
        total, weight = match.total_blocks, self._weight
        if weight == 0:
            return [hit / total for hit in hits]
        per_block = match.block_tokens / self._scale
        return [(1 - weight) * hit / total + weight * min(1.0, hit * per_block) ** 2 for hit in hits]
