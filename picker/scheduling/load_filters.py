"""Filters by load (contract section 4.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import msgspec

from picker.plugin import Handle, Parameters
from picker.request import InferenceRequest
from picker.snapshot import Candidates


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """An endpoint's value may be at most `maxValue`: requests, or a fraction 0..1 of the KV cache."""

    metric: Literal["active-requests", "running-requests", "waiting-queue", "kv-cache-utilization"]
    max_value: Annotated[float, msgspec.Meta(ge=0)]


class UtilizationParameters(Parameters, frozen=True):
    """All `conditions` must hold; `fallbackOnEmpty` keeps everybody when nobody is left."""

    conditions: Annotated[tuple[Condition, ...], msgspec.Meta(min_length=1)]
    fallback_on_empty: bool = False


_Column = Callable[[Candidates], Sequence[float]]

_COLUMNS: dict[str, _Column] = {
    "active-requests": lambda c: [load.requests for load in c.loads],
    "running-requests": lambda c: c.column(c.snapshot.running),
    "waiting-queue": lambda c: c.with_unseen(c.snapshot.waiting),
    "kv-cache-utilization": lambda c: c.column(c.snapshot.kv_usage),
}


class UtilizationFilter:
    """Takes out endpoints that are too busy. The waiting queue includes what we sent since it was reported."""

    type = "utilization-filter"
    Parameters = UtilizationParameters
    experimental = True

    def __init__(self, name: str, parameters: UtilizationParameters, handle: Handle) -> None:
        self.name = name
        self._limits = [(_COLUMNS[c.metric], c.max_value) for c in parameters.conditions]
        self._fallback = parameters.fallback_on_empty

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """Those within all limits."""
        left = candidates
        for column, limit in self._limits:
            left = left.at([i for i, value in enumerate(column(left)) if value <= limit])
        return left if left or not self._fallback else candidates
