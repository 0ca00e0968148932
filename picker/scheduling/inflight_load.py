"""inflight-load-producer: how many tokens a request counts for on the endpoint it goes to (contract section 4.6)."""

from __future__ import annotations

import logging
from typing import Annotated, ClassVar

import msgspec

from picker.keys import APPROX_PREFIX_CACHE_PRODUCER, INFLIGHT_LOAD, INFLIGHT_LOAD_PRODUCER, PREFIX_MATCH, TOKENIZED_PROMPT
from picker.plugin import Handle, Parameters
from picker.request import Charge, InferenceRequest
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.snapshot import Snapshot

log = logging.getLogger(__name__)


class InflightLoadParameters(Parameters, frozen=True):
    """`maxEstimatedOutputTokens` 0 is no limit. Without `prefixMatchInfoProducerName` it is the first prefix cache producer there is."""

    add_estimated_output_tokens: bool = False
    output_ratio: Annotated[float, msgspec.Meta(ge=0)] = 1.5
    max_estimated_output_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    prefix_match_info_producer_name: str = ""
    sync_cross_replica_state: bool | None = None


class InflightLoadProducer:
    """Charges a request with the prompt tokens that its endpoint has not cached, and perhaps with an estimate of its output.

    What is charged is given back by the exchange: the tokens with the first bytes of the answer, the request at its end, whatever that is.
    """

    type = INFLIGHT_LOAD_PRODUCER
    Parameters = InflightLoadParameters
    produces: ClassVar[frozenset[str]] = frozenset({INFLIGHT_LOAD})
    consumes: ClassVar[frozenset[str]] = frozenset({PREFIX_MATCH, TOKENIZED_PROMPT})

    def __init__(self, name: str, parameters: InflightLoadParameters, handle: Handle) -> None:
        self.name = name
        self._ratio = parameters.output_ratio if parameters.add_estimated_output_tokens else 0.0
        self._most = parameters.max_estimated_output_tokens
        named = parameters.prefix_match_info_producer_name
        self.prefix: ApproxPrefixCacheProducer = handle.plugin(named, APPROX_PREFIX_CACHE_PRODUCER)
        if parameters.sync_cross_replica_state:
            log.warning("%s: syncCrossReplicaState has no effect: this picker is the only replica, and counts what it sends itself", name)

    def pre_request(self, request: InferenceRequest, snapshot: Snapshot, position: int) -> None:
        """The request is about to leave for this endpoint."""
        prompt = request.body.prompt.tokens
        match = self.prefix.match(request, snapshot)
        cached = 0 if match.blocks is None else min(match.blocks[position] * match.block_tokens, prompt)
        charge = Charge(self.name, prompt - cached + (self._output(request, prompt) if self._ratio else 0), cached)
        if request.charges is None:
            request.charges = [charge]
        else:
            request.charges.append(charge)

    def _output(self, request: InferenceRequest, prompt_tokens: int) -> int:
        """outputRatio x prompt tokens, no more than maxEstimatedOutputTokens or the client allow."""
        tokens = int(self._ratio * prompt_tokens)
        if self._most:
            tokens = min(tokens, self._most)
        limit = request.body.max_output_tokens
        return tokens if limit is None else min(tokens, limit)
