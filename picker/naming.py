"""Plugin types that are called otherwise now, and those of the reference picker that this version does not have."""

from __future__ import annotations

from typing import NamedTuple


class Renamed(NamedTuple):
    """A deprecated type: since and removed-in are versions of the reference picker."""

    replacement: str
    since: str = "v0.9.0"
    removed_in: str = "v0.11.0"


RENAMED: dict[str, Renamed] = {
    "by-label-selector": Renamed("label-selector-filter"),
    "tokenizer": Renamed("token-producer"),
}

_DISAGGREGATION = "disaggregation (prefill and decode apart)"
_PREDICTION = "latency prediction"
_MULTICLUSTER = "pools of several clusters"
_PRECISE = "the precise prefix index (KV events)"
_TOPOLOGY = "topology"

MISSING: dict[str, str] = {
    "precise-prefix-cache-scorer": _PRECISE,
    "precise-prefix-cache-producer": _PRECISE,
    "predicted-latency-producer": _PREDICTION,
    "header-based-testing-filter": "the reference picker's conformance tests",
    "disagg-profile-handler": _DISAGGREGATION,
    "pd-profile-handler": _DISAGGREGATION,
    "prefix-based-pd-decider": _DISAGGREGATION,
    "always-disagg-pd-decider": _DISAGGREGATION,
    "always-disagg-multimodal-decider": _DISAGGREGATION,
    "disagg-headers-handler": _DISAGGREGATION,
    "prefill-header-handler": _DISAGGREGATION,
    "disaggregatedset-rollout-screener": _DISAGGREGATION,
    "p2p-source-producer": _DISAGGREGATION,
    "burst-prefix-cache-producer": "batches of arrivals",
    "topology-affinity-scorer": _TOPOLOGY,
    "topology-affinity-filter": _TOPOLOGY,
    "topology-extractor": _TOPOLOGY,
    "dcgm-data-source": "GPU metrics of DCGM",
    "dcgm-extractor": "GPU metrics of DCGM",
    "k8s-notification-source": "Kubernetes",
}
"""Of the reference picker; the value is the feature they belong to. Multicluster types are told by their prefix."""


def current(type_: str) -> str:
    """What a type is called now."""
    return RENAMED[type_].replacement if type_ in RENAMED else type_


def missing_feature(type_: str) -> str | None:
    """The feature of the reference picker that this type belongs to, when this version does not have it."""
    return _MULTICLUSTER if type_.startswith("multicluster-") else MISSING.get(type_)
