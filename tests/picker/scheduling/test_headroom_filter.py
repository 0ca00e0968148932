"""slo-headroom-tier-filter."""

from __future__ import annotations

import msgspec
import pytest

from picker.scheduling.headroom_filter import SloHeadroomTierFilter
from tests.picker.scheduling.pool import FakeHandle, idle, only, request
from tests.picker.scheduling.predictions import NONE, predict


def left(headrooms: list[tuple[float | None, float | None]], draw: float = 0.5, epsilon: float = 0.01, *positions: int) -> list[int]:
    parameters = msgspec.convert({"epsilonExploreNeg": epsilon}, SloHeadroomTierFilter.Parameters)
    plugin = SloHeadroomTierFilter("f", parameters, FakeHandle(), draw=lambda: draw)
    snapshot = idle(len(headrooms))
    candidates = only(snapshot, *(positions or range(len(headrooms))))
    return list(plugin.filter(predict(request(), snapshot, headrooms), candidates).positions)


def test_those_with_headroom_for_both_times_stay() -> None:
    mixed: list[tuple[float | None, float | None]] = [(5, 5), (0, 0), (-1, 5), (5, -1), NONE, (5, None)]
    assert left(mixed) == [0, 1]
    assert left(mixed, 0.5, 0.01, 1, 2, 4) == [1]
    assert left(mixed, 0.01) == [0, 1]  # not below epsilon
    assert left(mixed, 0.0099) == [2, 3, 4, 5]
    assert left(mixed, 0.0, 0) == [0, 1]
    assert left(mixed, 0.999, 1) == [2, 3, 4, 5]


@pytest.mark.parametrize("draw", [0.0, 0.5])
def test_all_stay_when_there_is_only_one_kind(draw: float) -> None:
    assert left([(5, 5), (0, 0)], draw) == [0, 1]
    assert left([(-5, 5), NONE], draw) == [0, 1]
    assert left([(5, 5)], draw) == [0]


def test_without_predictions_all_stay() -> None:
    plugin = SloHeadroomTierFilter("f", SloHeadroomTierFilter.Parameters(), FakeHandle())
    everybody = idle(2).candidates()
    assert plugin.filter(request(), everybody) is everybody
    other = predict(request(), idle(2), [(5, 5), (-5, 5)])  # of another snapshot
    assert plugin.filter(other, everybody) is everybody
