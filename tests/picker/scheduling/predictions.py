"""Predictions in a line each."""

from __future__ import annotations

from collections.abc import Sequence

from picker.keys import LATENCY_PREDICTION
from picker.prediction import LatencyPrediction
from picker.request import InferenceRequest
from picker.snapshot import Snapshot

NONE = (None, None)


def predict(
    asked: InferenceRequest, snapshot: Snapshot, headrooms: Sequence[tuple[float | None, float | None]], ttft_slo_ms: float = 100
) -> InferenceRequest:
    """Leaves a prediction with these headrooms for time to first token and time per token, of a client that asks for `ttft_slo_ms`."""
    ttft, tpot = [h[0] for h in headrooms], [h[1] for h in headrooms]
    asked.working[LATENCY_PREDICTION] = LatencyPrediction(
        snapshot, [None if h is None else ttft_slo_ms - h for h in ttft], [None if h is None else 10 - h for h in tpot], ttft, tpot
    )
    return asked
