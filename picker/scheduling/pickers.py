"""Pickers (contract section 4.2): from totals to an ordered list of endpoints."""

from __future__ import annotations

import random
from collections.abc import Sequence
from heapq import nlargest
from math import log
from typing import Annotated

import msgspec

from picker.plugin import Handle, Parameters
from picker.request import InferenceRequest
from picker.snapshot import Candidates


class PickerParameters(Parameters, frozen=True):
    """`maxNumOfEndpoints` > 1 names fallbacks, in order, after the first choice."""

    max_num_of_endpoints: Annotated[int, msgspec.Meta(ge=1)] = 1


class _BasePicker:
    Parameters = PickerParameters

    def __init__(self, name: str, parameters: PickerParameters, handle: Handle) -> None:
        self.name = name
        self.count = parameters.max_num_of_endpoints
        self._random = random.Random()


class MaxScorePicker(_BasePicker):
    """The highest total; ties are broken at random, so that equals share the work."""

    type = "max-score-picker"

    def pick(self, request: InferenceRequest, candidates: Candidates, totals: Sequence[float]) -> Sequence[int]:
        """Indices of the `maxNumOfEndpoints` highest totals, best first."""
        if self.count == 1:
            best = max(totals)
            ties = totals.count(best)
            first = totals.index(best)
            if ties == 1:
                return (first,)
            nth = int(self._random.random() * ties)
            for _ in range(nth):
                first = totals.index(best, first + 1)
            return (first,)
        order = list(range(len(totals)))
        self._random.shuffle(order)
        order.sort(key=totals.__getitem__, reverse=True)
        return order[: self.count]


class RandomPicker(_BasePicker):
    """Any endpoint, whatever its total."""

    type = "random-picker"

    def pick(self, request: InferenceRequest, candidates: Candidates, totals: Sequence[float]) -> Sequence[int]:
        """`maxNumOfEndpoints` distinct indices in random order."""
        if self.count == 1:
            return (int(self._random.random() * len(totals)),)
        return self._random.sample(range(len(totals)), min(self.count, len(totals)))


class WeightedRandomPicker(_BasePicker):
    """Random, in proportion to the totals.

    A-Res sampling without replacement (Efraimidis and Spirakis 2006): key = U^(1/total), the largest keys win. Here its logarithm,
    because U^(1/total) is 0 for most draws once totals are as small as 0.001, and the first endpoint would win all those ties.
    Endpoints with total 0 come last, in random order.
    """

    type = "weighted-random-picker"

    def pick(self, request: InferenceRequest, candidates: Candidates, totals: Sequence[float]) -> Sequence[int]:
        """`maxNumOfEndpoints` distinct indices, drawn in proportion to their totals."""
        draw = self._random.random
        keys = {i: log(1.0 - draw()) / t for i, t in enumerate(totals) if t > 0}
        picked = nlargest(self.count, keys, key=keys.__getitem__)
        if len(picked) < self.count and len(keys) < len(totals):
            zeros = [i for i in range(len(totals)) if i not in keys]
            picked += self._random.sample(zeros, min(self.count - len(picked), len(zeros)))
        return picked
