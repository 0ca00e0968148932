"""latency-scorer, by hand-computed tables (contract section 4.1)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from picker.endpoint import NEVER_SCRAPED, EndpointLoad, EndpointMetrics
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.scheduling.scorers.latency import LatencyScorer
from picker.snapshot import Candidates
from tests.picker.scheduling.pool import FakeHandle, build, load, only, pool, request
from tests.picker.scheduling.predictions import NONE, predict

PROMPT = b"x" * 1024  # four blocks
Headrooms = list[tuple[float | None, float | None]]


def scorer(parameters: dict[str, Any], producer: ApproxPrefixCacheProducer | None = None) -> LatencyScorer:
    handle = FakeHandle(approx_prefix_cache_producer=producer or build(ApproxPrefixCacheProducer))
    made: LatencyScorer = build(LatencyScorer, parameters, handle)
    return made


def scores(parameters: dict[str, Any], headrooms: Headrooms, busy: list[int] | None = None, *positions: int) -> list[float]:
    """`busy` are requests in flight, one each by default."""
    loads = [load(n) for n in busy or [1] * len(headrooms)]
    snapshot = pool([EndpointMetrics(updated_s=0.0)] * len(headrooms), loads=loads)
    candidates = only(snapshot, *positions) if positions else snapshot.candidates()
    return scorer(parameters).score(predict(request(), snapshot, headrooms), candidates)


@pytest.mark.parametrize(
    ("parameters", "headrooms", "wanted"),
    [
        # nT = 0, .5, 1; nP = 0, 1, .5; c = .8 nT + .2 nP = 0, .6, .9; (1 - c) x 100 = 100, 39.99…, 9.99… in floats, cut off, + 1
        ({"ttftWeight": 3, "tpotWeight": 1}, [(10, 0), (20, 4), (30, 2)], [1.0, 0.38, 0.13]),  # c = 0, .625, .875
        ({}, [(10, 0), (20, 4), (30, 2)], [1.0, 0.4, 0.1]),
        ({"headroomSelectionStrategy": "most"}, [(10, 0), (20, 4), (30, 2)], [0.01, 0.61, 0.91]),
        # 1 : 1, c = 0, .75, .75
        ({"ttftWeight": 3, "tpotWeight": 3}, [(10, 0), (20, 4), (30, 2)], [1.0, 0.26, 0.26]),
        ({"ttftWeight": 0, "tpotWeight": 0}, [(10, 0), (20, 4), (30, 2)], [1.0, 0.51, 0.01]),  # by time to first token alone
        ({"ttftWeight": 0}, [(10, 0), (20, 4), (30, 2)], [1.0, 0.01, 0.51]),
        # One time is the same everywhere: the other one counts alone.
        ({}, [(10, 0), (10, 4), (10, 2)], [1.0, 0.01, 0.51]),
        ({}, [(10, 5), (20, 5), (30, 5)], [1.0, 0.51, 0.01]),
        # Both are: c = .5 for all.
        ({}, [(10, 5), (10, 5)], [0.51, 0.51]),
        ({"headroomSelectionStrategy": "most"}, [(10, 5)], [0.51]),
        # Headroom of 0 is headroom; who fails one time is 0.
        ({}, [(0, 0), (10, 10), (-1, 50), (50, -1)], [1.0, 0.01, 0.0, 0.0]),
        # No prediction: 0 as long as others have one, good or bad.
        ({}, [NONE, (10, 5)], [0.0, 0.51]),
        ({}, [NONE, (-10, -5)], [0.0, 0.51]),
        ({}, [(None, 5), (10, 5)], [0.0, 0.51]),
    ],
)
def test_headroom(parameters: dict[str, Any], headrooms: Headrooms, wanted: list[float]) -> None:
    assert scores(parameters, headrooms) == wanted


@pytest.mark.parametrize("parameters", [{}, {"headroomSelectionStrategy": "most"}])
@pytest.mark.parametrize(
    ("headrooms", "busy", "wanted"),
    [
        # Idle ones first: |TTFT| = 100, 300; the busy one is better and gets nothing.
        ([(-100, -2), (-300, -2), (-1, -1)], [0, 0, 1], [1.0, 0.01, 0.0]),
        # Too slow by time per token alone, before those too slow to the first token alone, before both.
        ([(5, -9), (-1, 5), (-1, -1)], [1, 1, 1], [0.51, 0.0, 0.0]),
        ([(-9, 5), (-1, 5), (-1, -1)], [1, 1, 1], [0.01, 1.0, 0.0]),
        ([(-20, -4), (-10, -2), (-40, -2)], [1, 1, 1], [0.53, 1.0, 0.2]),  # c = 8/30 + .2, 0, .8
    ],
)
def test_when_nobody_has_headroom_the_least_bad(
    parameters: dict[str, Any], headrooms: Headrooms, busy: list[int], wanted: list[float]
) -> None:
    assert scores(parameters, headrooms, busy) == pytest.approx(wanted, abs=0.011)  # steps of 0.01 with a float's rounding


def test_only_candidates_count() -> None:
    assert scores({}, [(10, 5), (20, 5), (30, 5)], None, 1, 2) == [1.0, 0.01]
    assert scores({}, [(10, 5), (-20, 5), NONE], None, 1) == [0.51]


def candidates(*metrics: EndpointMetrics, loads: list[EndpointLoad] | None = None) -> Candidates:
    return pool(metrics, loads=loads).candidates()


def m(waiting: int, kv_usage: float) -> EndpointMetrics:
    return EndpointMetrics(waiting=waiting, kv_usage=kv_usage, updated_s=0.0)


def test_without_predictions_by_cache_queue_and_prefix() -> None:
    # (1 - u + (max - q) / max + 0) / 3
    both = candidates(m(4, 0.4), m(1, 0.1))
    assert scorer({}).score(request(PROMPT), both) == [0.2, 0.55]  # .6 / 3; (.9 + .75) / 3
    assert scorer({"compositeKVWeight": 0, "compositePrefixWeight": 0}).score(request(), both) == [0.0, 0.75]
    assert scorer({"compositeQueueWeight": 0, "compositePrefixWeight": 0}).score(request(), both) == [0.6, 0.9]
    nothing = {"compositeKVWeight": 0, "compositeQueueWeight": 0, "compositePrefixWeight": 0}
    assert scorer(nothing).score(request(), both) == [0.6, 0.9]
    assert scorer({}).score(request(), candidates(m(0, 0.0))) == [0.67]
    assert scorer({}).score(request(), candidates(NEVER_SCRAPED, m(0, 1.0))) == [0.67, 0.33]
    # Two requests that the report does not know of: (1 + 0) / 3, (1 + 1) / 3
    assert scorer({}).score(request(), candidates(m(0, 0.0), m(0, 0.0), loads=[load(2, unseen=2), load()])) == [0.33, 0.67]


def test_without_predictions_a_prefix_counts() -> None:
    producer = build(ApproxPrefixCacheProducer)
    both = candidates(m(0, 0.5), m(0, 0.5))
    producer.pre_request(request(PROMPT[:512]), both.snapshot, 1)
    made = scorer({}, producer)
    assert made.score(request(PROMPT), both) == [0.5, 0.67]  # (.5 + 1 + 2/4) / 3 = .667
    assert made.score(predict(request(PROMPT), both.snapshot, [NONE, NONE]), both) == [0.5, 0.67]
    assert made.score(request(PROMPT), both.at([1])) == [0.67]


def test_parameters() -> None:
    for wrong in ({"ttftWeight": -1}, {"headroomSelectionStrategy": "composite-least"}):
        with pytest.raises(msgspec.ValidationError):
            scorer(wrong)
    assert scorer({"compositeKVWeight": 2}).consumes == {"latency-prediction", "prefix-cache-match-info"}
