"""Names that plugins share: keys of the data they leave for each other, default producers, and headers that more than one reads.

`produces` and `consumes` of plugins are sets of these keys. A key that is stored is found in `request.attributes` or
`request.working` under the same text.
"""

from __future__ import annotations

PREFIX_MATCH = "prefix-cache-match-info"
"""How much of the prompt each endpoint holds."""
INFLIGHT_LOAD = "inflight-load"
"""Requests and tokens in flight: `EndpointLoad`, and what `InferenceRequest.charges` adds to it."""
ENCODER_CACHE_MATCH = "encoder-cache-match-info"
"""How many of the prompt's media each endpoint has encoded before."""
TOKENIZED_PROMPT = "tokenized-prompt"
"""Token ids, or bytes that count as such: `request.body.prompt`."""
LATENCY_PREDICTION = "latency-prediction"
"""How long the request would take on each endpoint: a `picker.prediction.LatencyPrediction` in `request.working`."""
SESSION_ID = "session-id"
"""Text: the client's session."""
AGENT_IDENTITY = "agent-identity"
"""Text: the agent's session, by the headers that coding agents send."""

APPROX_PREFIX_CACHE_PRODUCER = "approx-prefix-cache-producer"
INFLIGHT_LOAD_PRODUCER = "inflight-load-producer"
TOKEN_PRODUCER = "token-producer"
MM_EMBEDDINGS_CACHE_PRODUCER = "mm-embeddings-cache-producer"

DEFAULT_PRODUCERS = {
    PREFIX_MATCH: APPROX_PREFIX_CACHE_PRODUCER,
    INFLIGHT_LOAD: INFLIGHT_LOAD_PRODUCER,
    TOKENIZED_PROMPT: TOKEN_PRODUCER,
    ENCODER_CACHE_MATCH: MM_EMBEDDINGS_CACHE_PRODUCER,
}
"""Plugin types that are made with default parameters when somebody consumes the key and nobody configured produces it."""

ABSENT_PRODUCERS = {
    SESSION_ID: "configure a session-id-producer or an agent-identity",
    LATENCY_PREDICTION: "predicted-latency-producer comes with a later version; a DataProducer of your own that leaves one will do",
}
"""What to do about data that somebody consumes and nobody produces."""

FAIRNESS_ID = ("x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id")
"""New name, then its deprecated alias; the new one wins (contract section 1.6)."""
SLO_TTFT = ("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
SLO_TPOT = ("x-llm-d-slo-tpot-ms", "x-slo-tpot-ms")
"""Milliseconds to the first token, and per further token, that the client asks for."""
DEFAULT_FAIRNESS_ID = "default-flow"

DESTINATION = "x-gateway-destination-endpoint"
SERVED = "x-gateway-destination-endpoint-served"
SUBSET = "x-gateway-destination-endpoint-subset"
DROP_REASON = "x-llm-d-request-dropped-reason"

CONTROL = frozenset({
    *FAIRNESS_ID,
    "x-llm-d-inference-objective", "x-gateway-inference-objective",
    "x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite",
    "x-llm-d-slo-ttft-ms", "x-slo-ttft-ms", "x-llm-d-slo-tpot-ms", "x-slo-tpot-ms",
    "x-llm-d-video-fps", "x-llm-d-video-duration-seconds", "x-llm-d-video-resolution",
    DESTINATION, SERVED, SUBSET, DROP_REASON,
})  # fmt: skip
"""Headers that are input to the picker or output of it: neither a model server nor a client gets to see these from the other side."""
