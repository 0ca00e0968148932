"""What a DataProducer may say of how long a request would take on each endpoint (`picker.keys.LATENCY_PREDICTION`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import isfinite

import msgspec

from picker.keys import LATENCY_PREDICTION
from picker.request import InferenceRequest
from picker.snapshot import Snapshot

log = logging.getLogger(__name__)

Column = Sequence[float | None]
"""Aligned with the snapshot; None is no prediction for that endpoint."""


class LatencyPrediction(msgspec.Struct, frozen=True):
    """To be left in `request.working["latency-prediction"]`. All columns are milliseconds, aligned with `snapshot.endpoints`.

    `ttft_ms` is the predicted time to first token, `tpot_ms` that per further token. A headroom is what the client asks for
    (`x-llm-d-slo-ttft-ms`, `x-llm-d-slo-tpot-ms`) minus the prediction; where it asks for nothing, 0 minus the prediction.
    """

    snapshot: Snapshot
    ttft_ms: Column
    tpot_ms: Column
    ttft_headroom_ms: Column
    tpot_headroom_ms: Column

    def __post_init__(self) -> None:
        """Raises ValueError for a column that is not aligned, or holds what is not a finite number."""
        for name in ("ttft_ms", "tpot_ms", "ttft_headroom_ms", "tpot_headroom_ms"):
            column: Column = getattr(self, name)
            if len(column) != len(self.snapshot):
                raise ValueError(f"{name}: {len(column)} predictions for {len(self.snapshot)} endpoints")
            # A sum is finite only if all of them are, and cheaper than asking each.
            if not isfinite(sum([ms for ms in column if ms is not None])):
                raise ValueError(f"{name}: a prediction is NaN or infinite")

    @property
    def headrooms(self) -> list[tuple[float, float] | None]:
        """Of first token and further tokens, by position; None without a prediction for both."""
        pairs = zip(self.ttft_headroom_ms, self.tpot_headroom_ms, strict=True)
        return [None if ttft is None or tpot is None else (ttft, tpot) for ttft, tpot in pairs]


def prediction(request: InferenceRequest, snapshot: Snapshot) -> LatencyPrediction | None:
    """None when nobody left one for these endpoints: the producer failed, or was late."""
    found = request.working.get(LATENCY_PREDICTION)
    if found is None:
        return None
    if not isinstance(found, LatencyPrediction):
        log.error("request %s goes on without predictions: '%s' holds a %s", request.request_id, LATENCY_PREDICTION, type(found).__name__)
        return None
    return found if found.snapshot is snapshot else None
