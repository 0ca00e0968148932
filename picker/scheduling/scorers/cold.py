"""Spreads prompts that no server has cached."""

from __future__ import annotations

from collections import OrderedDict
from typing import Annotated

import msgspec

from picker.endpoint import Endpoint
from picker.keys import APPROX_PREFIX_CACHE_PRODUCER
from picker.plugin import Handle, Parameters
from picker.request import InferenceRequest
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.snapshot import Candidates, Snapshot


class NoHitLruParameters(Parameters, frozen=True):
    """`lruSize`: so many endpoints are remembered."""

    lru_size: Annotated[int, msgspec.Meta(ge=1)] = 1024
    prefix_match_info_producer_name: str = APPROX_PREFIX_CACHE_PRODUCER


class NoHitLruScorer:
    """Sends a prompt that nobody has cached to the endpoint that got such a prompt longest ago, so that new prefixes spread evenly."""

    type = "no-hit-lru-scorer"
    Parameters = NoHitLruParameters
    bounded = True

    def __init__(self, name: str, parameters: NoHitLruParameters, handle: Handle) -> None:
        self.name = name
        self._size = parameters.lru_size
        self._producer: ApproxPrefixCacheProducer = handle.plugin(parameters.prefix_match_info_producer_name, APPROX_PREFIX_CACHE_PRODUCER)
        self._used: OrderedDict[str, int] = OrderedDict()  # endpoint -> its turn, the oldest first
        self._turn = 0

    def score(self, request: InferenceRequest, candidates: Candidates) -> list[float]:
        """1 - rank / (n - 1), never used first, then the least recently used; 0.5 for all when any of them has a part of the prompt."""
        match = self._producer.match(request, candidates.snapshot)
        if match.blocks is not None and any(candidates.column(match.blocks)):
            request.working[self.name] = False
            return [0.5] * len(candidates)
        request.working[self.name] = True
        count = len(candidates)
        if count == 1:
            return [1.0]
        turns = [self._used.get(str(e), 0) for e in candidates.endpoints]
        scores = [0.0] * count
        for rank, i in enumerate(sorted(range(count), key=turns.__getitem__)):
            scores[i] = 1.0 - rank / (count - 1)
        return scores

    def pre_request(self, request: InferenceRequest, snapshot: Snapshot, position: int) -> None:
        """The endpoint has had its turn, if the prompt was new to all."""
        if not request.working.get(self.name):
            return
        self._turn += 1
        key = str(snapshot.endpoints[position])
        self._used[key] = self._turn
        self._used.move_to_end(key)
        if len(self._used) > self._size:
            self._used.popitem(last=False)

    def endpoint_removed(self, endpoint: Endpoint, bit: int) -> None:
        """One that comes back is new."""
        self._used.pop(str(endpoint), None)
