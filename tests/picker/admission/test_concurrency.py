"""How full the pool is by what we have in flight ourselves (contract section 4.7)."""

from __future__ import annotations

from typing import Any

import pytest

from picker.admission.saturation import ConcurrencyDetector
from picker.endpoint import NEVER_SCRAPED, EndpointLoad
from picker.keys import INFLIGHT_LOAD
from picker.snapshot import Candidates, Snapshot
from tests.picker.scheduling.pool import build, endpoint, request

TOKENS, HYBRID = {"concurrencyMode": "tokens"}, {"concurrencyMode": "hybrid"}


def loads(*each: tuple[int, int]) -> Candidates:
    """Endpoints with so many requests and tokens in flight."""
    made = []
    for requests, tokens in each:
        one = EndpointLoad()
        for number in range(requests):
            one.open_request(tokens if number == 0 else 0)
        made.append(one)
    count = len(made)
    return Snapshot(1, [endpoint(i + 1) for i in range(count)], [NEVER_SCRAPED] * count, made, range(count)).candidates()


@pytest.mark.parametrize(
    ("parameters", "in_flight", "saturation"),
    [
        ({}, [], 1.0),
        (TOKENS, [], 1.0),
        (HYBRID, [], 1.0),
        ({}, [(0, 0)], 0.0),
        ({"maxConcurrency": 4}, [(4, 0)], 1.0),
        ({"maxConcurrency": 4}, [(4, 0), (0, 0)], 0.5),
        ({"maxConcurrency": 4}, [(8, 0), (0, 0)], 1.0),
        ({"maxConcurrency": 0}, [(0, 0)], 1.0),
        ({"maxConcurrency": 0, **TOKENS}, [(0, 0)], 0.0),
        ({"maxTokenConcurrency": 100, **TOKENS}, [(1, 50), (1, 100)], 0.75),
        ({"maxTokenConcurrency": 0, **TOKENS}, [(1, 50)], 1.0),
        ({"maxConcurrency": 4, "maxTokenConcurrency": 100, **HYBRID}, [(1, 50), (3, 0)], 0.625),
        ({"maxConcurrency": 0, **HYBRID}, [(0, 0)], 1.0),
        ({"maxTokenConcurrency": 0, **HYBRID}, [(0, 0)], 1.0),
        ({"maxConcurrency": 4, "headroom": 1.0}, [(4, 0)], 1.0),  # headroom is the filter's
    ],
)
def test_saturation(parameters: dict[str, Any], in_flight: list[tuple[int, int]], saturation: float) -> None:
    assert build(ConcurrencyDetector, parameters).saturation(loads(*in_flight), 0.0) == pytest.approx(saturation)


@pytest.mark.parametrize(
    ("parameters", "in_flight", "left"),
    [
        ({"maxConcurrency": 2}, [(1, 0), (2, 0), (3, 0)], [0]),
        ({"maxConcurrency": 2, "headroom": 0.5}, [(1, 0), (2, 0), (3, 0)], [0, 1]),
        ({"maxConcurrency": 2}, [(2, 0), (3, 0)], [0, 1]),
        ({"maxConcurrency": 0}, [(0, 0), (1, 0)], [0, 1]),
        ({"maxConcurrency": 1, "maxTokenConcurrency": 10, **TOKENS}, [(5, 9), (1, 10)], [0]),
        ({"maxConcurrency": 2, "maxTokenConcurrency": 10, **HYBRID}, [(1, 10), (2, 9), (1, 9)], [2]),
    ],
)
def test_as_a_filter(parameters: dict[str, Any], in_flight: list[tuple[int, int]], left: list[int]) -> None:
    assert list(build(ConcurrencyDetector, parameters).filter(request(), loads(*in_flight)).positions) == left


def test_tokens_are_those_of_the_configured_producer() -> None:
    assert frozenset({INFLIGHT_LOAD}) == ConcurrencyDetector.consumes
