"""Spreads prompts that no server has cached."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated

import msgspec

from picker.endpoint import Endpoint
from picker.keys import APPROX_PREFIX_CACHE_PRODUCER
from picker.plugin import Handle, Parameters
from picker.request import InferenceRequest
from picker.scheduling.endpoint_index import EndpointIndex
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
        self._by_name = EndpointIndex(str)
        self._snapshot_endpoints: tuple[Endpoint, ...] | None = None
        self._turns: list[int] = []  # by position; before the first turn position - n, so that all differ and the first is next
        self._order: list[int] = []  # positions, as sorted last
        self._scores: list[float] | None = None

    def score(self, request: InferenceRequest, candidates: Candidates) -> Sequence[float]:
        """1 - rank / (n - 1), never used first, then the least recently used; 0.5 for all when any of them has a part of the prompt."""
        match = self._producer.match(request, candidates.snapshot)
        if match.blocks is not None and any(candidates.column(match.blocks)):
            request.working[self.name] = False
            return [0.5] * len(candidates)
        request.working[self.name] = True
        self._follow(candidates.snapshot)
        if not candidates.whole:
            turns = [self._turns[p] for p in candidates.positions]
            return _by_rank(sorted(range(len(turns)), key=turns.__getitem__))
        if self._scores is None:
            self._order.sort(key=self._turns.__getitem__)  # nearly in order: linear
            self._scores = _by_rank(self._order)
        return self._scores

    def pre_request(self, request: InferenceRequest, snapshot: Snapshot, position: int) -> None:
        """The endpoint has had its turn, if the prompt was new to all."""
        if not request.working.get(self.name):
            return
        self._turn += 1
        key = str(snapshot.endpoints[position])
        self._used[key] = self._turn
        self._used.move_to_end(key)
        self._follow(snapshot)
        self._set(snapshot, key, self._turn)
        if len(self._used) > self._size:
            forgotten, _ = self._used.popitem(last=False)
            self._set(snapshot, forgotten, 0)

    def endpoint_removed(self, endpoint: Endpoint, bit: int) -> None:
        """One that comes back is new."""
        self._used.pop(str(endpoint), None)
        self._snapshot_endpoints = None

    def _follow(self, snapshot: Snapshot) -> None:
        endpoints = snapshot.endpoints
        if endpoints is not self._snapshot_endpoints:
            count = len(endpoints)
            self._turns = [self._used.get(str(e), i - count) for i, e in enumerate(endpoints)]
            self._order = list(range(count))
            self._scores = None
            self._snapshot_endpoints = endpoints

    def _set(self, snapshot: Snapshot, name: str, turn: int) -> None:
        """`turn` 0: none."""
        for position in self._by_name.positions(snapshot, name):
            self._turns[position] = turn or position - len(snapshot)
        self._scores = None  # and not changed: a decision record keeps the last one


def _by_rank(order: Sequence[int]) -> list[float]:
    """Scores of those that are in this order, the best first; 1 for one alone."""
    count = len(order)
    scores = [1.0] * count
    last = max(count - 1, 1)
    for rank, i in enumerate(order):
        scores[i] = 1.0 - rank / last
    return scores
