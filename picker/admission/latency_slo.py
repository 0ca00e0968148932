"""latency-slo-admitter: refuses what would come too late wherever it goes (contract section 4.5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import ClassVar

from picker.errors import REJECTED_SATURATED, Internal, Refusal, Rejected
from picker.keys import LATENCY_PREDICTION, SLO_TPOT, SLO_TTFT
from picker.metrics import Metrics
from picker.plugin import Handle, NoParameters
from picker.prediction import prediction
from picker.request import InferenceRequest
from picker.snapshot import Candidates

_COLD_KV_USAGE = 0.02
"""Below it a server has hardly worked yet, and predictions for it are worth little."""


class LatencySloAdmitter:
    """Refuses requests of negative priority that ask for a latency (`x-llm-d-slo-ttft-ms`, `-tpot-ms`) which no endpoint will keep, by
    prediction.

    Not while an endpoint is idle or its KV cache nearly empty: what was predicted for it may be wrong. One that has never answered is
    neither. Without any prediction requests are let in.
    """

    type = "latency-slo-admitter"
    Parameters = NoParameters
    consumes: ClassVar[frozenset[str]] = frozenset({LATENCY_PREDICTION})

    def __init__(self, name: str, parameters: NoParameters, handle: Handle, *, refuse: Callable[[str], Refusal] | None = None) -> None:
        self.name = name
        self.refuse: Callable[[str], Refusal] = refuse or _rejected
        """Makes what is raised: a 429, where the reference says 500."""

    def connect(self, metrics: Metrics, *, as_reference: bool) -> None:
        """Refuse with a 429, where the reference says 500."""
        if as_reference:
            self.refuse = Internal

    def admit(self, request: InferenceRequest, candidates: Candidates, now_s: float) -> None:
        """Raises `Rejected`, or what `refuse` makes."""
        if request.priority >= 0:
            return
        asks_ttft, asks_tpot = _asked(request.headers, SLO_TTFT), _asked(request.headers, SLO_TPOT)
        if not asks_ttft and not asks_tpot:
            return
        known = prediction(request, candidates.snapshot)
        if known is None:
            return
        predicted = [h for h in candidates.column(known.headrooms) if h is not None]
        # Without an SLO a headroom is 0 minus the prediction: it says nothing about what the client asks for.
        if not predicted or any((ttft >= 0 or not asks_ttft) and (tpot >= 0 or not asks_tpot) for ttft, tpot in predicted):
            return
        for m, load in zip(candidates.metrics, candidates.loads, strict=True):
            if m.updated_s is not None and ((m.running == 0 and load.unseen == 0) or m.kv_usage < _COLD_KV_USAGE):
                return
        raise self.refuse("request cannot be admitted: no valid endpoint available to serve the request")


def _asked(headers: Mapping[str, str], names: tuple[str, ...]) -> bool:
    """The first of these headers that is there is a time above 0."""
    for name in names:
        text = headers.get(name)
        if text:
            try:
                ms = float(text)
            except ValueError:
                return False
            return isfinite(ms) and ms > 0
    return False


def _rejected(message: str) -> Refusal:
    return Rejected(message, drop_reason=REJECTED_SATURATED)
