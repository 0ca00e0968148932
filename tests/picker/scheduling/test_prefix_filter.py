"""The filter that keeps a prompt where it is cached."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from picker.endpoint import EndpointMetrics
from picker.scheduling.prefix_filter import PrefixCacheAffinityFilter
from picker.scheduling.producers import ApproxPrefixCacheProducer
from tests.picker.scheduling.pool import FakeHandle, build, load, only, pool, request
from tests.picker.scheduling.predictions import NONE, predict

PROMPT = b"x" * 8192


def left(parameters: dict[str, Any], tokens: int = 0, prompt: bytes = PROMPT, *positions: int) -> list[int]:
    """Of three endpoints, of which the second has cached PROMPT and has `tokens` in flight."""
    producer = build(ApproxPrefixCacheProducer)
    snapshot = pool([EndpointMetrics(updated_s=0.0)] * 3, loads=[load(), load(tokens=tokens), load(tokens=500)])
    first = request(PROMPT)
    producer.match(first, snapshot)
    producer.pre_request(first, snapshot, 1)
    made = build(PrefixCacheAffinityFilter, parameters, FakeHandle(approx_prefix_cache_producer=producer))
    return list(made.filter(request(prompt), only(snapshot, *(positions or (0, 1, 2)))).positions)


def test_it_keeps_the_cached() -> None:
    assert left({}) == [1]
    assert left({}, 0, PROMPT, 1) == [1]
    assert left({}, 0, PROMPT, 0, 2) == [0, 2]
    assert left({}, 0, b"y" * 8192) == [0, 1, 2]
    assert left({}, 0, b"") == [0, 1, 2]
    assert left({}, 0, PROMPT + b"y" * 8192) == [0, 1, 2]  # half of it is cached
    assert left({"affinityThreshold": 0.5}, 0, PROMPT + b"y" * 8192) == [1]
    assert left({"explorationProbability": 1}) == [0, 1, 2]


def test_not_when_the_wait_is_too_long() -> None:
    limits = {"maxTTFTPenaltyMs": 100, "peakPrefillThroughput": 1000}
    assert left(limits, 100) == [1]  # 100 ms against 0
    assert left(limits, 101) == [0, 1, 2]
    assert left(limits, 600, PROMPT, 1, 2) == [1]  # 600 against 500


def predicted(penalty_ms: float, headrooms: list[tuple[float | None, float | None]] | None, tokens: int = 0) -> list[int]:
    """Of three endpoints, of which the second has cached PROMPT; headrooms are under 100 ms."""
    producer = build(ApproxPrefixCacheProducer)
    snapshot = pool([EndpointMetrics(updated_s=0.0)] * 3, loads=[load(), load(tokens=tokens), load()])
    producer.pre_request(request(PROMPT), snapshot, 1)
    parameters = {"ttftSource": "latencyPredictor", "maxTTFTPenaltyMs": penalty_ms, "peakPrefillThroughput": 1000}
    made = build(PrefixCacheAffinityFilter, parameters, FakeHandle(approx_prefix_cache_producer=producer))
    assert made.consumes == {"latency-prediction"}
    asked = request(PROMPT)
    if headrooms is not None:
        predict(asked, snapshot, headrooms)
    return list(made.filter(asked, snapshot.candidates()).positions)


def test_the_wait_may_be_predicted() -> None:
    # 60 ms there, 90 and 20 elsewhere: 40 ms more.
    assert predicted(40, [(10, 0), (40, 0), (80, 0)], 5000) == [1]
    assert predicted(39, [(10, 0), (40, 0), (80, 0)], 0) == [0, 1, 2]
    assert predicted(0, [(10, 0), (40, 0), NONE], 5000) == [1]  # 60 against 90


@pytest.mark.parametrize("headrooms", [None, [NONE] * 3, [(10, 0), NONE, (80, 0)], [NONE, (40, 0), NONE]])
def test_without_predictions_for_both_sides_tokens_count(headrooms: list[tuple[float | None, float | None]] | None) -> None:
    assert predicted(100, headrooms, 100) == [1]
    assert predicted(100, headrooms, 101) == [0, 1, 2]


def test_parameters() -> None:
    assert not build(PrefixCacheAffinityFilter, {}, FakeHandle(approx_prefix_cache_producer=None)).consumes
    with pytest.raises(msgspec.ValidationError, match="guesses"):
        build(PrefixCacheAffinityFilter, {"ttftSource": "guesses"})
