"""The filter that keeps endpoints with headroom (contract section 4.3)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Annotated, ClassVar

import msgspec

from picker.keys import LATENCY_PREDICTION
from picker.plugin import Handle, Parameters
from picker.prediction import prediction
from picker.request import InferenceRequest
from picker.snapshot import Candidates


class SloHeadroomTierParameters(Parameters, frozen=True):
    """`epsilonExploreNeg`: how often the others are kept instead, a fraction of requests."""

    epsilon_explore_neg: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.01


class SloHeadroomTierFilter:
    """Keeps endpoints that will keep what the client asks for, by predicted latency; now and then the others, so that those get requests
    from which a predictor can learn."""

    type = "slo-headroom-tier-filter"
    Parameters = SloHeadroomTierParameters
    consumes: ClassVar[frozenset[str]] = frozenset({LATENCY_PREDICTION})

    def __init__(
        self, name: str, parameters: SloHeadroomTierParameters, handle: Handle, *, draw: Callable[[], float] = random.random
    ) -> None:
        """`draw` gives numbers in [0, 1)."""
        self.name = name
        self._epsilon = parameters.epsilon_explore_neg
        self._draw = draw

    def filter(self, request: InferenceRequest, candidates: Candidates) -> Candidates:
        """Those whose headrooms are 0 or more, or with probability `epsilonExploreNeg` the others, to which those without a prediction
        belong; all when there are only such or only such."""
        known = prediction(request, candidates.snapshot)
        if known is None:
            return candidates
        good = [h is not None and h[0] >= 0 and h[1] >= 0 for h in candidates.column(known.headrooms)]
        if all(good) or not any(good):
            return candidates
        wanted = self._draw() >= self._epsilon
        return candidates.at([i for i, is_good in enumerate(good) if is_good == wanted])
