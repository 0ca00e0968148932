"""How full the pool is (contract section 4.7), and who is turned away (1.8)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from picker.admission.saturation import Shedding, UtilizationDetector
from picker.config import DEFAULT_TEXT
from picker.endpoint import NEVER_SCRAPED, EndpointMetrics
from picker.errors import Rejected
from picker.loader import load
from picker.metrics import Metrics
from picker.plugin import Filter, SaturationDetector
from picker.snapshot import Candidates
from picker.yaml_source import YamlSource
from tests.picker.scheduling.pool import build, pool, request

NOW_S = 100.0


def fresh(waiting: int = 0, kv_usage: float = 0.0, *, age_s: float = 0.0, quiet_s: float = 0.0) -> EndpointMetrics:
    return EndpointMetrics(waiting=waiting, kv_usage=kv_usage, updated_s=NOW_S - age_s, quiet_s=quiet_s)


@pytest.mark.parametrize(
    ("parameters", "metrics", "saturation"),
    [
        ({}, [], 1.0),
        ({}, [fresh()], 0.0),
        ({}, [fresh(waiting=5)], 1.0),
        ({}, [fresh(waiting=10)], 2.0),
        ({}, [fresh(kv_usage=0.8)], 1.0),
        ({}, [fresh(kv_usage=0.4)], 0.5),
        ({}, [fresh(waiting=1, kv_usage=0.4)], 0.5),
        ({}, [fresh(waiting=4, kv_usage=0.4)], 0.8),
        ({}, [fresh(waiting=20), fresh()], 2.0),
        ({}, [fresh(), fresh(waiting=5)], 0.5),
        ({}, [NEVER_SCRAPED, fresh()], 0.5),
        ({}, [NEVER_SCRAPED], 1.0),
        ({}, [fresh(age_s=0.19), fresh()], 0.0),
        ({}, [fresh(age_s=0.25), fresh()], 0.5),
        ({}, [fresh(waiting=50, age_s=0.25)], 1.0),
        ({}, [fresh(age_s=1.1, quiet_s=1.0), fresh()], 0.0),
        ({}, [fresh(age_s=1.25, quiet_s=1.0), fresh()], 0.5),
        ({}, [fresh(age_s=-1.0)], 0.0),
        ({"metricsStalenessThreshold": "1s"}, [fresh(age_s=0.75)], 0.0),
        ({"queueDepthThreshold": 10}, [fresh(waiting=5)], 0.5),
        ({"kvCacheUtilThreshold": 0.5}, [fresh(kv_usage=0.25)], 0.5),
        ({"headroom": 1.0}, [fresh(waiting=5)], 1.0),
    ],
)
def test_saturation(parameters: dict[str, Any], metrics: list[EndpointMetrics], saturation: float) -> None:
    assert build(UtilizationDetector, parameters).saturation(pool(metrics).candidates(), NOW_S) == pytest.approx(saturation)


def test_what_was_sent_since_the_report_counts_as_queued_and_not_as_the_reference_counts() -> None:
    detector = build(UtilizationDetector)
    snapshot = pool([fresh(waiting=1), fresh()])
    for _ in range(4):
        snapshot.loads[0].open_request(0)
    assert detector.saturation(snapshot.candidates(), NOW_S) == pytest.approx(0.5)  # (1 + 4) / 5 and 0
    detector.reported_only = True
    assert detector.saturation(snapshot.candidates(), NOW_S) == pytest.approx(0.1)


@pytest.mark.parametrize("compat", ["", "compat: reference\n"])
def test_the_configuration_says_whose_way(compat: str) -> None:
    detector = load(YamlSource(DEFAULT_TEXT + compat, "test"), Metrics()).detector
    assert isinstance(detector, UtilizationDetector) and detector.reported_only == bool(compat)


@pytest.mark.parametrize(
    ("parameters", "metrics", "left"),
    [
        ({}, [fresh(), fresh(waiting=4, kv_usage=0.79), fresh(waiting=5), fresh(kv_usage=0.8)], [0, 1]),
        ({}, [fresh(waiting=5), fresh(kv_usage=0.9)], [0, 1]),
        ({}, [fresh(waiting=9), fresh()], [1]),
        ({"headroom": 0.25}, [fresh(waiting=6), fresh(waiting=7), fresh(kv_usage=0.9), fresh(kv_usage=1.0)], [0, 2]),
        ({"queueDepthThreshold": 1}, [fresh(), fresh(waiting=1)], [0]),
    ],
)
def test_as_a_filter(parameters: dict[str, Any], metrics: list[EndpointMetrics], left: list[int]) -> None:
    kept = build(UtilizationDetector, parameters).filter(request(), pool(metrics).candidates())
    assert list(kept.positions) == left


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"metricsStalenessThreshold": "soon"}, "metricsStalenessThreshold: 'soon' is not a duration"),
        ({"metricsStalenessThreshold": 1}, "Expected `str`, got `int`"),
        ({"queueDepthThreshold": 0}, "Expected `int` >= 1"),
        ({"kvCacheUtilThreshold": 0}, "Expected `float` > 0"),
        ({"kvCacheUtilThreshold": 1.5}, "Expected `float` <= 1"),
        ({"headroom": -0.1}, "Expected `float` >= 0"),
        ({"queueDepth": 1}, "unknown field `queueDepth`"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=text):
        build(UtilizationDetector, parameters)


class Level:
    """A pool that is always so full."""

    def __init__(self, level: float) -> None:
        self.level = level

    def saturation(self, candidates: Candidates, now_s: float) -> float:
        return self.level


@pytest.mark.parametrize(
    ("priority", "level", "refused"),
    [(-1, 1.0, True), (-1, 3.0, True), (-1, 0.999, False), (-100, 1.0, True), (0, 9.0, False), (5, 9.0, False)],
)
def test_only_sheddable_requests_are_turned_away(priority: int, level: float, refused: bool) -> None:
    shedding = Shedding(Level(level))
    if not refused:
        shedding.shed(request(priority=priority), pool([fresh()]), NOW_S)
        return
    with pytest.raises(Rejected) as error:
        shedding.shed(request(priority=priority), pool([fresh()]), NOW_S)
    assert error.value.message == "system saturated, sheddable request dropped"
    assert error.value.drop_reason == "rejected-saturated"


def test_their_stages() -> None:
    detector = build(UtilizationDetector)
    assert isinstance(detector, SaturationDetector)
    assert isinstance(detector, Filter)
