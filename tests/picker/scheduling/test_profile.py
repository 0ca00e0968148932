"""A profile's arithmetic, what it does with plugins that misbehave, and the record it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.endpoint import Endpoint, EndpointMetrics
from picker.errors import REJECTED_SATURATED, Rejected
from picker.metrics import Metrics
from picker.plugin import Filter
from picker.request import InferenceRequest
from picker.result import Decision, Outcome
from picker.scheduling.filters import DecodeFilter, LabelSelectorFilter
from picker.scheduling.handlers import SingleProfileHandler
from picker.scheduling.pickers import MaxScorePicker
from picker.scheduling.profile import Profile, WeightedScorer
from picker.scheduling.scheduler import Scheduler
from picker.scheduling.scorers.load import KvCacheUtilizationScorer, QueueScorer
from picker.snapshot import Candidates
from tests.picker.scheduling.pool import build, idle, pool, request


class Foreign:
    """A scorer that promises nothing."""

    type = "foreign-scorer"

    def __init__(self, scores: Sequence[float] | Mapping[Endpoint, float]) -> None:
        self.name = "foreign"
        self._scores = scores

    def score(self, request: InferenceRequest, candidates: Candidates) -> Sequence[float] | Mapping[Endpoint, float]:
        return self._scores


def profile(*scorers: tuple[Any, float], filters: Sequence[Filter] = (), count: int = 1, metrics: Metrics | None = None) -> Profile:
    picker = build(MaxScorePicker, {"maxNumOfEndpoints": count})
    return Profile("default", filters, [WeightedScorer(s, w) for s, w in scorers], picker, metrics or Metrics())


def test_total_is_the_weighted_sum_and_is_not_divided() -> None:
    snapshot = pool([EndpointMetrics(waiting=0, kv_usage=0.5), EndpointMetrics(waiting=4, kv_usage=0.0), EndpointMetrics(waiting=2)])
    result = profile((build(QueueScorer), 2.0), (build(KvCacheUtilizationScorer), 3.0)).run(request(), snapshot.candidates())
    assert list(result.totals) == pytest.approx([2 * 1 + 3 * 0.5, 2 * 0 + 3 * 1, 2 * 0.5 + 3 * 1])
    assert list(result.picked) == [2]
    assert [e.name for e in result.endpoints] == ["e3"]
    assert [(c.name, c.weight) for c in result.columns] == [("queue-scorer", 2.0), ("kv-cache-utilization-scorer", 3.0)]


@pytest.mark.parametrize("count", range(1, 8))
def test_any_number_of_scorers_is_added_up(count: int) -> None:
    scorers = [(Foreign([n / 10, 1 - n / 10]), n + 0.5) for n in range(count)]
    result = profile(*scorers).run(request(), idle(2).candidates())
    expected = [sum(w * s._scores[i] for s, w in scorers) for i in range(2)]  # type: ignore[call-overload]
    assert list(result.totals) == pytest.approx(expected)
    assert [(c.weight, list(c.scores)) for c in result.columns] == [(w, s._scores) for s, w in scorers]


def test_a_scorer_that_promises_aligned_scores_and_breaks_its_word_is_an_error() -> None:
    liar = Foreign([1.0])
    liar.bounded = True  # type: ignore[attr-defined]
    for others in ([], [(Foreign([0.0, 0.0]), 1.0)], [(Foreign([0.0, 0.0]), 1.0)] * 2, [(Foreign([0.0, 0.0]), 1.0)] * 3):
        if others:
            with pytest.raises(ValueError, match="zip"):
                profile(*others, (liar, 1.0)).run(request(), idle(2).candidates())


def test_without_scorers_all_totals_are_zero() -> None:
    result = profile(count=5).run(request(), idle(3).candidates())
    assert list(result.totals) == [0.0, 0.0, 0.0]
    assert sorted(result.picked) == [0, 1, 2]


def test_a_scorer_of_weight_zero_is_shown_and_does_not_count() -> None:
    result = profile((Foreign([0.1, 0.9]), 0.0)).run(request(), idle(2).candidates())
    assert list(result.totals) == [0.0, 0.0]
    assert list(result.columns[0].scores) == [0.1, 0.9]


@given(st.lists(st.tuples(st.floats(), st.floats(), st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=5))
def test_foreign_scores_are_clamped(rows: list[tuple[float, float, float, float]]) -> None:
    weights = rows[0][2:]
    result = profile((Foreign([r[0] for r in rows]), weights[0]), (Foreign([r[1] for r in rows]), weights[1])).run(
        request(), idle(len(rows)).candidates()
    )

    def clamp(score: float) -> float:
        return 0.0 if score != score else min(1.0, max(0.0, score))

    assert list(result.totals) == pytest.approx([weights[0] * clamp(a) + weights[1] * clamp(b) for a, b, *_ in rows])


def test_a_mapping_is_aligned_and_what_it_leaves_out_is_zero() -> None:
    snapshot = idle(3)
    scores = {snapshot.endpoints[2]: 7.0, snapshot.endpoints[0]: 0.25}
    result = profile((Foreign(scores), 2.0)).run(request(), snapshot.candidates())
    assert list(result.totals) == [0.5, 0.0, 2.0]
    assert list(result.columns[0].scores) == [0.25, 0.0, 1.0]


@pytest.mark.parametrize("scores", [[], [0.5], [0.5] * 3])
def test_a_wrong_number_of_scores_is_an_error_that_names_the_scorer(scores: list[float]) -> None:
    with pytest.raises(ValueError, match=f"foreign returned {len(scores)} scores for 2 endpoints"):
        profile((Foreign(scores), 1.0)).run(request(), idle(2).candidates())


def test_filters_run_in_order_and_say_whom_they_took_out() -> None:
    snapshot = pool(
        [EndpointMetrics()] * 4,
        labels=[{"llm-d.ai/role": "prefill"}, {"zone": "a"}, {"zone": "b"}, {"zone": "a"}],
    )
    zone = build(LabelSelectorFilter, {"matchLabels": {"zone": "a"}}, name="zone-a")
    result = profile((build(QueueScorer), 1.0), filters=[build(DecodeFilter), zone], count=9).run(request(), snapshot.candidates())
    assert [(e.name, by) for e, by in result.filtered] == [("e1", "decode-filter"), ("e3", "zone-a")]
    assert [e.name for e in result.candidates] == ["e2", "e4"]
    assert list(result.positions) == [1, 3]
    assert sorted(result.picked) == [0, 1]


def test_nothing_left_is_rejected_with_the_contracts_words() -> None:
    nobody = build(LabelSelectorFilter, {"matchLabels": {"zone": "nowhere"}})
    with pytest.raises(Rejected) as refused:
        profile(filters=[nobody, build(DecodeFilter)]).run(request(), idle(2).candidates())
    assert refused.value.message == "no endpoints available for the given request"
    assert refused.value.drop_reason == REJECTED_SATURATED == "rejected-saturated"
    assert refused.value.code == "ResourceExhausted"


def test_every_plugin_is_timed_under_its_stage() -> None:
    metrics = Metrics()
    made = profile((build(QueueScorer, name="q"), 1.0), filters=[build(DecodeFilter)], metrics=metrics)
    Scheduler(build(SingleProfileHandler), {"default": made}, metrics).schedule(request(), idle(2).candidates())
    timed = {labels: sum(cell.counts) for labels, cell in metrics.plugin_duration.cells.items()}
    assert timed == {
        ("Filter", "decode-filter", "decode-filter"): 1,
        ("Scorer", "queue-scorer", "q"): 1,
        ("Picker", "max-score-picker", "max-score-picker"): 1,
        ("ProfilePicker", "single-profile-handler", "single-profile-handler"): 1,
        ("ProcessProfilesResults", "single-profile-handler", "single-profile-handler"): 1,
    }
    assert sum(metrics.scheduler_duration.cell().counts) == 1


def test_a_refused_request_is_timed_too() -> None:
    metrics = Metrics()
    nobody = build(LabelSelectorFilter, {"matchLabels": {"zone": "nowhere"}})
    scheduler = Scheduler(build(SingleProfileHandler), {"default": profile(filters=[nobody], metrics=metrics)}, metrics)
    with pytest.raises(Rejected):
        scheduler.schedule(request(), idle(1).candidates())
    assert sum(metrics.scheduler_duration.cell().counts) == 1


def decision() -> Decision:
    snapshot = pool(
        [EndpointMetrics(waiting=1), EndpointMetrics(waiting=3), EndpointMetrics()], labels=[{}, {}, {"llm-d.ai/role": "encode"}]
    )
    result = profile((build(QueueScorer), 2.0), filters=[build(DecodeFilter)], count=2).run(request(), snapshot.candidates())
    return Decision("r-1", "/v1/completions", "m", "n", 1234.5, 0.0000125, result)


def test_a_decision_in_words() -> None:
    record = decision().as_dict()
    assert record == {
        "request_id": "r-1",
        "path": "/v1/completions",
        "model": "m",
        "target_model": "n",
        "time_unix_s": 1234.5,
        "duration_us": 12.5,
        "profile": "default",
        "candidates": ["default/e1", "default/e2"],
        "addresses": ["10.0.0.1:8000", "10.0.0.2:8000"],
        "filtered": [{"endpoint": "10.0.0.3:8000", "by": "decode-filter", "reason": "taken out by decode-filter"}],
        "scorers": [{"name": "queue-scorer", "type": "queue-scorer", "weight": 2.0, "scores": [1.0, 0.0]}],
        "totals": [2.0, 0.0],
        "picked": ["10.0.0.1:8000", "10.0.0.2:8000"],
        "served": None,
        "cause": None,
        "status": None,
        "prompt_tokens": None,
        "completion_tokens": None,
        "cached_tokens": None,
        "ttft_s": None,
        "total_s": None,
    }
    assert json.loads(json.dumps(record)) == record


def test_a_settled_decision_says_what_became_of_it() -> None:
    made = decision()
    made.outcome = Outcome("10.0.0.1:8000", "completed", 200, 10, 20, 5, 0.25, 1.5)
    record = made.as_dict()
    assert (record["served"], record["cause"], record["status"]) == ("10.0.0.1:8000", "completed", 200)
    assert [record[k] for k in ("prompt_tokens", "completion_tokens", "cached_tokens", "ttft_s", "total_s")] == [10, 20, 5, 0.25, 1.5]
