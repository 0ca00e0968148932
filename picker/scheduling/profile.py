"""One scheduling profile: filters in order, weighted scorers, one picker.

total(endpoint) = sum of weight_i x clamp(score_i, 0, 1), not divided by the sum of weights (contract section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from picker.endpoint import Endpoint
from picker.errors import REJECTED_SATURATED, Rejected
from picker.instruments import Distribution
from picker.metrics import Metrics
from picker.plugin import Filter, Picker, Scorer
from picker.request import InferenceRequest
from picker.result import ProfileResult, ScoreColumn
from picker.snapshot import Candidates


@dataclass(frozen=True, slots=True)
class WeightedScorer:
    """A scorer and what its verdict counts for."""

    plugin: Scorer
    weight: float


class _Bound:
    """A weighted scorer with all that a request needs of it looked up once."""

    __slots__ = ("name", "score", "timer", "type", "weight")

    def __init__(self, weighted: WeightedScorer, metrics: Metrics) -> None:
        plugin = weighted.plugin
        self.name = _name(plugin)
        self.type = _type(plugin)
        self.weight = weighted.weight
        self.timer = _timer(metrics, "Scorer", plugin)
        # Our own scorers promise aligned numbers in 0..1 (`bounded`); checking costs as much as most of them.
        self.score: Callable[[InferenceRequest, Candidates], Sequence[float]] = (
            plugin.score if getattr(plugin, "bounded", False) else _checked(plugin)  # type: ignore[assignment]
        )


class Profile:
    """Built once from the configuration, run for every request."""

    def __init__(self, name: str, filters: Sequence[Filter], scorers: Sequence[WeightedScorer], picker: Picker, metrics: Metrics) -> None:
        self.name = name
        self.filters = tuple(filters)
        self.scorers = tuple(scorers)
        self.picker = picker
        self._filters = [(f, _name(f), _timer(metrics, "Filter", f)) for f in filters]
        self._scorers = [_Bound(s, metrics) for s in scorers]
        self._pick = picker.pick
        self._pick_timer = _timer(metrics, "Picker", picker)

    def run(self, request: InferenceRequest, candidates: Candidates) -> ProfileResult:
        """Raises Rejected when the filters leave nothing."""
        filtered: list[tuple[Endpoint, str]] = []
        started = perf_counter()
        for plugin, name, timer in self._filters:
            before = candidates
            candidates = plugin.filter(request, before)
            if len(candidates) != len(before):
                left = set(candidates.positions)
                filtered += [(e, name) for p, e in zip(before.positions, before.endpoints, strict=True) if p not in left]
            ended = perf_counter()
            timer.observe(ended - started)
            started = ended
            if not candidates:
                raise Rejected("no endpoints available for the given request", drop_reason=REJECTED_SATURATED)

        columns: list[ScoreColumn] = []
        totals: Sequence[float] | None = None
        for scorer in self._scorers:
            scores = scorer.score(request, candidates)
            weight = scorer.weight
            totals = [weight * s for s in scores] if totals is None else [t + weight * s for t, s in zip(totals, scores, strict=True)]
            columns.append(ScoreColumn(scorer.name, scorer.type, weight, scores))
            ended = perf_counter()
            scorer.timer.observe(ended - started)
            started = ended
        if totals is None:
            totals = [0.0] * len(candidates)
        picked = self._pick(request, candidates, totals)
        self._pick_timer.observe(perf_counter() - started)
        return ProfileResult(self.name, candidates.endpoints, candidates.positions, filtered, columns, totals, picked)


def _checked(plugin: Scorer) -> Callable[[InferenceRequest, Candidates], Sequence[float]]:
    """A foreign scorer, made to return aligned numbers in 0..1; what is missing or not a number counts as 0."""

    def score(request: InferenceRequest, candidates: Candidates) -> Sequence[float]:
        raw = plugin.score(request, candidates)
        scores = [raw.get(e, 0.0) for e in candidates.endpoints] if isinstance(raw, Mapping) else raw
        if len(scores) != len(candidates):
            raise ValueError(f"{_name(plugin)} returned {len(scores)} scores for {len(candidates)} endpoints")
        return [min(1.0, max(0.0, s)) if s == s else 0.0 for s in scores]

    return score


def _type(plugin: Any) -> str:
    return str(plugin.type)


def _name(plugin: Any) -> str:
    return str(plugin.name)


def _timer(metrics: Metrics, extension_point: str, plugin: Any) -> Distribution:
    return metrics.plugin_duration.cell(extension_point, _type(plugin), _name(plugin))
