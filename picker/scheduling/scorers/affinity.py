"""Scorers that look for what a server already holds: a LoRA adapter, or the beginning of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from picker.endpoint import EndpointMetrics
from picker.keys import APPROX_PREFIX_CACHE_PRODUCER, PREFIX_MATCH
from picker.plugin import Handle, NoParameters, Parameters
from picker.request import InferenceRequest
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.snapshot import Candidates, Changes, Snapshot

_MANY = 64  # endpoints
_ACTIVE, _ROOM, _QUEUED, _FULL = 1.0, 0.8, 0.6, 0.0


class LoraAffinityScorer:
    """Prefers servers on which the requested adapter is loaded, then those with a free slot.

    1.0 active; 0.8 a slot is free (active + waiting < max); 0.6 already waiting for a slot; 0.0 otherwise. Kept from request to request
    are what a server scores for an adapter it does not have, and where each adapter is; an endpoint is looked at again only when its
    adapters have changed. A request then costs in proportion to the servers that have its adapter.
    """

    type = "lora-affinity-scorer"
    Parameters = NoParameters
    bounded = True

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name
        self._changes: Changes | None = None
        self._unknown: list[float] = []
        self._places: dict[str, dict[int, float]] = {}
        self._known: list[dict[str, float]] = []

    def score(self, request: InferenceRequest, candidates: Candidates) -> Sequence[float]:
        """By where `target_model` is among the adapters."""
        snapshot = candidates.snapshot
        if snapshot.adapter_changes is not self._changes:
            self._follow(snapshot)
        places = self._places.get(request.target_model)
        if places is None:
            return candidates.column(self._unknown)
        scores = self._unknown.copy()
        for position, score in places.items():
            scores[position] = score
        return candidates.column(scores)

    def _follow(self, snapshot: Snapshot) -> None:
        moved = snapshot.adapter_changes.since(self._changes)
        if moved is None:
            moved = range(len(snapshot))
            self._unknown = [_FULL] * len(snapshot)
            self._places = {}
            self._known = [{}] * len(snapshot)
        else:
            self._unknown = self._unknown.copy()  # decision records keep the one that was handed out
        for position in moved:
            self._look_at(position, snapshot.metrics[position])
        self._changes = snapshot.adapter_changes

    def _look_at(self, position: int, m: EndpointMetrics) -> None:
        room = len(m.active_adapters) + len(m.waiting_adapters) < m.max_adapters
        self._unknown[position] = _ROOM if room else _FULL
        before = self._known[position]
        now = {} if room else dict.fromkeys(m.waiting_adapters, _QUEUED)
        now.update(dict.fromkeys(m.active_adapters, _ACTIVE))
        for adapter in before.keys() - now.keys():
            places = self._places[adapter]
            del places[position]
            if not places:
                del self._places[adapter]
        for adapter, score in now.items():
            if before.get(adapter) != score:
                self._places.setdefault(adapter, {})[position] = score
        self._known[position] = now


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
    consumes: ClassVar[frozenset[str]] = frozenset({PREFIX_MATCH})

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
            if len(hits) < _MANY:
                return [hit / total for hit in hits]
            # A thousand endpoints have a handful of different matches: a look-up is cheaper than a division.
            parts = {hit: hit / total for hit in set(hits)}
            return [parts[hit] for hit in hits]
        per_block = match.block_tokens / self._scale
        return [(1 - weight) * hit / total + weight * min(1.0, hit * per_block) ** 2 for hit in hits]
