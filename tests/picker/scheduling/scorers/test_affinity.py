"""Scorers that look for what a server already holds, against tables computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from picker.endpoint import NEVER_SCRAPED, EndpointMetrics
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.scheduling.scorers.affinity import LoraAffinityScorer, PrefixCacheScorer
from picker.snapshot import Snapshot
from tests.picker.scheduling.pool import FakeHandle, build, only, pool, request

BLOCK = 4 * 64  # bytes


def adapters(active: str = "", waiting: str = "", slots: int = 0) -> EndpointMetrics:
    return EndpointMetrics(active_adapters=frozenset(active.split()), waiting_adapters=frozenset(waiting.split()), max_adapters=slots)


@pytest.mark.parametrize(
    ("metrics", "score"),
    [
        (adapters("x", slots=1), 1.0),
        (adapters("x y", "z", slots=2), 1.0),
        (adapters("x", "x", slots=1), 1.0),
        (adapters(slots=1), 0.8),
        (adapters("y", slots=2), 0.8),
        (adapters("y", "x", slots=3), 0.8),
        (adapters("y", "x", slots=2), 0.6),
        (adapters("y z", "x", slots=2), 0.6),
        (adapters("y", slots=1), 0.0),
        (adapters("y", "z", slots=1), 0.0),
        (adapters(), 0.0),
        (NEVER_SCRAPED, 0.0),
    ],
)
def test_lora_affinity(metrics: EndpointMetrics, score: float) -> None:
    scorer = build(LoraAffinityScorer)
    asked = request(model="alias", target="x")
    assert list(scorer.score(asked, pool([metrics]).candidates())) == [score]
    beside = pool([adapters("x", slots=9), metrics, adapters("q", "x", slots=1)])
    assert list(scorer.score(asked, beside.candidates())) == [1.0, score, 0.6]
    assert list(scorer.score(asked, only(beside, 1, 2))) == [score, 0.6]


def test_lora_affinity_of_a_model_that_nobody_has_heard_of() -> None:
    snapshot = pool([adapters("x", slots=1), adapters("x", slots=2), adapters()])
    scorer = build(LoraAffinityScorer)
    assert list(scorer.score(request(model="base"), snapshot.candidates())) == [0.0, 0.8, 0.0]
    assert list(scorer.score(request(model="base"), only(snapshot, 1))) == [0.8]


def test_lora_scores_follow_the_snapshot() -> None:
    scorer = build(LoraAffinityScorer)
    assert list(scorer.score(request(model="x"), pool([adapters("x", slots=1)]).candidates())) == [1.0]
    assert list(scorer.score(request(model="x"), pool([adapters("y", slots=1)]).candidates())) == [0.0]


def prefix_scorer(**parameters: Any) -> tuple[PrefixCacheScorer, ApproxPrefixCacheProducer]:
    producer = build(ApproxPrefixCacheProducer)
    return build(PrefixCacheScorer, parameters, FakeHandle(approx_prefix_cache_producer=producer)), producer


def warmed(producer: ApproxPrefixCacheProducer, prompt: bytes, blocks: list[int]) -> Snapshot:
    """A pool whose endpoints have seen so many blocks of the prompt."""
    snapshot = pool([EndpointMetrics()] * len(blocks))
    for position, count in enumerate(blocks):
        if count:
            producer.pre_request(request(prompt[: count * BLOCK]), snapshot, position)
    return snapshot


def blocks_of(count: int) -> bytes:
    """A prompt of so many blocks, all different."""
    return b"".join(bytes([n]) * BLOCK for n in range(count))


def test_prefix_cache_scorer_is_the_matched_part() -> None:
    scorer, producer = prefix_scorer()
    snapshot = warmed(producer, blocks_of(4), [0, 1, 4, 3])
    assert list(scorer.score(request(blocks_of(4)), snapshot.candidates())) == [0.0, 0.25, 1.0, 0.75]
    assert list(scorer.score(request(blocks_of(4)), only(snapshot, 1, 3))) == [0.25, 0.75]
    assert list(scorer.score(request(blocks_of(8)), snapshot.candidates())) == [0.0, 0.125, 0.5, 0.375]


def test_prefix_cache_scorer_of_nothing_known_and_of_an_empty_prompt() -> None:
    scorer, producer = prefix_scorer()
    snapshot = warmed(producer, blocks_of(2), [2, 0])
    assert list(scorer.score(request(b"other" * 100), snapshot.candidates())) == [0.0, 0.0]
    assert list(scorer.score(request(b""), snapshot.candidates())) == [0.0, 0.0]
    assert list(scorer.score(request(blocks_of(2), model="n"), snapshot.candidates())) == [0.0, 0.0]
    assert list(scorer.score(request(blocks_of(2), salt="s"), snapshot.candidates())) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("weight", "scale", "scores"),
    [
        # match 2 and 4 of 4 blocks: 128 and 256 tokens
        (0.5, 256, [0.5 * 0.5 + 0.5 * 0.25, 1.0]),
        (1.0, 256, [0.25, 1.0]),
        (1.0, 128, [1.0, 1.0]),
        (0.25, 512, [0.75 * 0.5 + 0.25 * 0.0625, 0.75 + 0.25 * 0.25]),
        (0.0, 1, [0.5, 1.0]),
    ],
)
def test_prefix_cache_scorer_can_weigh_the_length_of_the_match(weight: float, scale: int, scores: list[float]) -> None:
    scorer, producer = prefix_scorer(matchLengthWeight=weight, matchLengthScaleTokens=scale)
    snapshot = warmed(producer, blocks_of(4), [2, 4])
    assert list(scorer.score(request(blocks_of(4)), snapshot.candidates())) == pytest.approx(scores)


def test_prefix_cache_scorer_asks_the_producer_it_is_told() -> None:
    producer = build(ApproxPrefixCacheProducer, name="mine")
    scorer = build(PrefixCacheScorer, {"prefixMatchInfoProducerName": "mine"}, FakeHandle(mine=producer))
    snapshot = warmed(producer, blocks_of(1), [1])
    asked = request(blocks_of(1))
    assert list(scorer.score(asked, snapshot.candidates())) == [1.0]
    assert list(asked.working) == ["mine"]
