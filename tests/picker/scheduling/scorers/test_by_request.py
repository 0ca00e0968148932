"""Scorers that compare the request with the endpoint, and the order of turns: hand-computed."""

from __future__ import annotations

import logging

import pytest

from picker.endpoint import NEVER_SCRAPED, EndpointMetrics
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.scheduling.scorers.cold import NoHitLruScorer
from picker.scheduling.scorers.context_length import ContextLengthAware
from picker.scheduling.scorers.labels import HeaderLabelAffinityScorer
from picker.scheduling.scorers.load import LoadAwareScorer
from tests.picker.scheduling.pool import FakeHandle, build, idle, load, only, pool, request

RANGE = "llm-d.ai/context-length-range"


@pytest.mark.parametrize(
    ("waiting", "parameters", "scores"),
    [
        ([0], {}, [0.5]),
        ([0, 64, 128, 500], {}, [0.5, 0.25, 0.0, 0.0]),
        ([3, 3], {"threshold": 4}, [0.125, 0.125]),
    ],
)
def test_load_aware(waiting: list[int], parameters: dict[str, int], scores: list[float]) -> None:
    snapshot = pool([EndpointMetrics(waiting=q, updated_s=0.0) for q in waiting])
    assert build(LoadAwareScorer, parameters).score(request(), snapshot.candidates()) == pytest.approx(scores)


def test_load_aware_counts_what_no_report_has_seen_also_of_a_server_that_never_answered() -> None:
    snapshot = pool([NEVER_SCRAPED, NEVER_SCRAPED], loads=[load(), load(2, unseen=2)])
    assert build(LoadAwareScorer, {"threshold": 4}).score(request(), snapshot.candidates()) == [0.5, 0.25]


def test_context_length() -> None:
    labels = [{RANGE: "0-10000"}, {RANGE: "4000-4000"}, {RANGE: "5000-9000"}, {RANGE: "0-3000"}, {}]
    snapshot = pool([NEVER_SCRAPED] * 5, labels=labels)
    asked = request(extra=4000)
    assert asked.prompt_tokens == 4000
    scorer = build(ContextLengthAware)
    # 0.3 + 0.7 x (0.7 / 2 + 0.3 x 0.6); width 0; both others are 1,000 tokens away; no label
    assert scorer.score(asked, snapshot.candidates()) == pytest.approx([0.671, 1.0, 0.15, 0.15, 0.5])
    assert scorer.score(asked, only(snapshot, 1)) == [1.0]
    assert len(scorer.filter(asked, snapshot.candidates())) == 5
    assert list(build(ContextLengthAware, {"enableFiltering": True}).filter(asked, snapshot.candidates()).positions) == [0, 1, 4]


@pytest.mark.parametrize("text", ["", "5", "9-5", "a-b", "-5", "5-", "1-2-3"])
def test_a_label_that_is_no_range_counts_as_missing_and_is_told(text: str, caplog: pytest.LogCaptureFixture) -> None:
    snapshot = pool([NEVER_SCRAPED], labels=[{RANGE: text}])
    with caplog.at_level(logging.WARNING):
        assert build(ContextLengthAware).score(request(), snapshot.candidates()) == [0.5]
    assert repr(text) in caplog.text


def test_header_label() -> None:
    scorer = build(HeaderLabelAffinityScorer, {"headerName": "X-Zone", "labelKey": "zone"})
    snapshot = pool([NEVER_SCRAPED] * 3, labels=[{"zone": "a"}, {"zone": ""}, {}])
    asked = request()
    assert scorer.score(asked, snapshot.candidates()) == [0.0, 0.0, 0.0]
    for value, scores in (("a", [1.0, 0.0, 0.0]), ("", [0.0, 0.0, 0.0]), ("b", [0.0, 0.0, 0.0])):
        asked.headers = {"x-zone": value}
        assert scorer.score(asked, snapshot.candidates()) == scores


def test_no_hit_lru_takes_turns() -> None:
    producer = build(ApproxPrefixCacheProducer)
    scorer = build(NoHitLruScorer, {"lruSize": 2}, FakeHandle(approx_prefix_cache_producer=producer))
    snapshot = idle(3)

    def turn(position: int | None) -> list[float]:
        asked = request()
        scores: list[float] = scorer.score(asked, snapshot.candidates())
        if position is not None:
            scorer.pre_request(asked, snapshot, position)
        return scores

    assert turn(0) == [1.0, 0.5, 0.0]  # nobody has had a turn
    assert turn(2) == [0.0, 1.0, 0.5]
    assert turn(0) == [0.5, 1.0, 0.0]
    assert turn(1) == [0.0, 1.0, 0.5]  # two are remembered: 2 is forgotten
    assert turn(None) == [0.5, 0.0, 1.0]
    scorer.endpoint_removed(snapshot.endpoints[1], 1)
    assert turn(None) == [0.0, 1.0, 0.5]
    assert scorer.score(request(), only(snapshot, 2)) == [1.0]


def test_no_hit_lru_leaves_a_cached_prompt_alone() -> None:
    producer = build(ApproxPrefixCacheProducer)
    scorer = build(NoHitLruScorer, {}, FakeHandle(approx_prefix_cache_producer=producer))
    snapshot = idle(2)
    prompt = b"x" * 8192
    first = request(prompt)
    scorer.score(first, snapshot.candidates())
    producer.pre_request(first, snapshot, 0)
    again = request(prompt)
    assert scorer.score(again, snapshot.candidates()) == [0.5, 0.5]
    scorer.pre_request(again, snapshot, 0)
    assert scorer.score(request(b"y" * 8192), snapshot.candidates()) == [1.0, 0.0]  # no turn was taken
