"""Scorers that look at load, against tables computed by hand."""

from __future__ import annotations

import pytest

from picker.endpoint import NEVER_SCRAPED, EndpointLoad, EndpointMetrics
from picker.plugin import Scorer
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.scheduling.scorers import load as load_module
from picker.scheduling.scorers.load import (
    ActiveRequestScorer,
    KvCacheUtilizationScorer,
    QueueScorer,
    RunningRequestsSizeScorer,
    TokenLoadScorer,
)
from tests.picker.scheduling.pool import FakeHandle, build, load, only, pool, request


@pytest.fixture(autouse=True, params=[load_module._MANY, 0], ids=["few endpoints", "many endpoints"])
def as_many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds for small pools, and the way large ones are scored."""
    monkeypatch.setattr(load_module, "_MANY", request.param)


# values -> scores: (max - v) / (max - min), all equal -> 1
LESS_IS_BETTER = [
    ([0, 5, 10], [1.0, 0.5, 0.0]),
    ([3, 3, 3], [1.0, 1.0, 1.0]),
    ([0, 0], [1.0, 1.0]),
    ([7], [1.0]),
    ([4, 8, 4, 6], [1.0, 0.0, 1.0, 0.5]),
    ([0, 10**15], [1.0, 0.0]),
    ([-4, 4, 0], [1.0, 0.0, 0.5]),
]


@pytest.mark.parametrize(("values", "scores"), LESS_IS_BETTER)
def test_queue_scorer(values: list[int], scores: list[float]) -> None:
    snapshot = pool([EndpointMetrics(waiting=v, running=99 - v) for v in values])
    assert build(QueueScorer).score(request(), snapshot.candidates()) == scores


@pytest.mark.parametrize(("values", "scores"), LESS_IS_BETTER)
def test_running_requests_size_scorer(values: list[int], scores: list[float]) -> None:
    snapshot = pool([EndpointMetrics(running=v, waiting=99 - v) for v in values])
    assert build(RunningRequestsSizeScorer).score(request(), snapshot.candidates()) == scores


@pytest.mark.parametrize("cls", [QueueScorer, RunningRequestsSizeScorer])
def test_requests_that_the_last_scrape_cannot_know_are_added(cls: type) -> None:
    metrics = [EndpointMetrics(waiting=2, running=2), EndpointMetrics(), EndpointMetrics(waiting=4, running=4)]
    # e2 reports 0, but 3 of its 5 open requests are newer than its report: 2, 3, 4.
    loads = [load(requests=9), load(requests=5, unseen=3), EndpointLoad()]
    assert build(cls).score(request(), pool(metrics, loads=loads).candidates()) == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("cls", [QueueScorer, RunningRequestsSizeScorer, ActiveRequestScorer])
def test_only_the_candidates_count_for_the_extremes(cls: type) -> None:
    metrics = [EndpointMetrics(waiting=n, running=n) for n in (0, 2, 6, 100)]
    loads = [load(requests=n) for n in (0, 2, 6, 100)]
    scores = build(cls).score(request(), only(pool(metrics, loads=loads), 1, 2))
    assert scores == pytest.approx([1 - 2 / 6, 0.0] if cls is ActiveRequestScorer else [1.0, 0.0])


def test_an_endpoint_that_never_answered_counts_as_idle() -> None:
    snapshot = pool([NEVER_SCRAPED, EndpointMetrics(waiting=4, running=4, kv_usage=0.5, updated_s=1.0)])
    for cls, scores in ((QueueScorer, [1.0, 0.0]), (RunningRequestsSizeScorer, [1.0, 0.0]), (KvCacheUtilizationScorer, [1.0, 0.5])):
        assert list(build(cls).score(request(), snapshot.candidates())) == scores


def test_kv_cache_utilization_scorer() -> None:
    usages = [0.0, 0.25, 1.0, 1.5, -0.5, float("nan")]
    snapshot = pool([EndpointMetrics(kv_usage=u) for u in usages])
    scorer = build(KvCacheUtilizationScorer)
    assert list(scorer.score(request(), snapshot.candidates())) == [1.0, 0.75, 0.0, 0.0, 1.0, 0.0]
    assert list(scorer.score(request(), only(snapshot, 1, 3))) == [0.75, 0.0]


def test_kv_scores_are_kept_for_a_snapshot_and_not_beyond() -> None:
    scorer = build(KvCacheUtilizationScorer)
    first, second = pool([EndpointMetrics(kv_usage=0.5)]), pool([EndpointMetrics(kv_usage=0.75)], version=2)
    assert scorer.score(request(), first.candidates()) is scorer.score(request(), first.candidates())
    assert list(scorer.score(request(), second.candidates())) == [0.25]
    assert list(scorer.score(request(), first.candidates())) == [0.5]


@pytest.mark.parametrize(
    ("parameters", "counts", "scores"),
    [
        ({}, [0, 0, 0], [1.0, 1.0, 1.0]),
        ({}, [4], [0.0]),
        ({}, [0, 1, 4], [1.0, 0.75, 0.0]),
        ({}, [3, 3], [0.0, 0.0]),
        ({"idleThreshold": 2}, [0, 2, 4, 3], [1.0, 1.0, 0.0, 0.25]),
        ({"idleThreshold": 9}, [0, 5, 9], [1.0, 1.0, 1.0]),
        ({"maxBusyScore": 0.5}, [0, 1, 4], [1.0, 0.375, 0.0]),
        ({"maxBusyScore": 0}, [0, 1, 4], [1.0, 0.0, 0.0]),
        ({"idleThreshold": 1, "maxBusyScore": 0.5}, [1, 2, 8], [1.0, 0.375, 0.0]),
    ],
)
def test_active_request_scorer(parameters: dict[str, float], counts: list[int], scores: list[float]) -> None:
    snapshot = pool([EndpointMetrics(running=50)] * len(counts), loads=[load(requests=c) for c in counts])
    assert build(ActiveRequestScorer, parameters).score(request(), snapshot.candidates()) == scores


def token_load(threshold: int) -> tuple[TokenLoadScorer, ApproxPrefixCacheProducer]:
    producer = build(ApproxPrefixCacheProducer)
    handle = FakeHandle(approx_prefix_cache_producer=producer)
    return build(TokenLoadScorer, {"queueThresholdTokens": threshold}, handle), producer


def test_token_load_scorer_with_nothing_cached() -> None:
    scorer, _ = token_load(1000)
    loads = [load(tokens=0), load(tokens=400), load(tokens=900), load(tokens=5000)]
    snapshot = pool([EndpointMetrics()] * 4, loads=loads)
    # 400 bytes are 100 tokens, all of them uncached.
    assert scorer.score(request(b"x" * 400), snapshot.candidates()) == pytest.approx([0.9, 0.5, 0.0, 0.0])
    assert scorer.score(request(b"x" * 400), only(snapshot, 1, 2)) == pytest.approx([0.5, 0.0])
    assert scorer.score(request(b"x" * 40_000), snapshot.candidates()) == [0.0] * 4


def test_token_load_scorer_counts_an_empty_prompt_and_its_images() -> None:
    scorer, _ = token_load(1000)
    snapshot = pool([EndpointMetrics()] * 2, loads=[load(tokens=0), load(tokens=250)])
    assert scorer.score(request(), snapshot.candidates()) == [1.0, 0.75]
    assert scorer.score(request(extra=250), snapshot.candidates()) == [0.75, 0.5]


def test_token_load_scorer_leaves_out_what_is_cached() -> None:
    scorer, producer = token_load(1000)
    snapshot = pool([EndpointMetrics()] * 3, loads=[load(tokens=0), load(tokens=100), load(tokens=0)])
    prompt = b"a" * 4 * 64 * 3  # three blocks of 64 tokens
    producer.pre_request(request(prompt), snapshot, 1)
    producer.pre_request(request(prompt[: 4 * 64]), snapshot, 2)
    # uncached: 192, 0, 128 tokens
    assert scorer.score(request(prompt), snapshot.candidates()) == pytest.approx([1 - 0.192, 1 - 0.1, 1 - 0.128])


def test_a_partial_last_block_is_not_worth_more_than_the_prompt() -> None:
    scorer, producer = token_load(1000)
    snapshot = pool([EndpointMetrics()])
    prompt = b"a" * 4 * 65  # one block and a token
    producer.pre_request(request(prompt), snapshot, 0)
    assert scorer.score(request(prompt), snapshot.candidates()) == [1.0]


@pytest.mark.parametrize("cls", [QueueScorer, RunningRequestsSizeScorer, KvCacheUtilizationScorer, ActiveRequestScorer, TokenLoadScorer])
def test_they_are_scorers_that_promise_numbers_in_bounds(cls: type) -> None:
    made = token_load(10)[0] if cls is TokenLoadScorer else build(cls)
    assert isinstance(made, Scorer)
    assert made.bounded
