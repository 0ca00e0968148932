"""Ceilings by priority (contract section 4.8), computed by hand."""

from __future__ import annotations

from math import inf
from typing import Any

import msgspec
import pytest

from picker.admission.flow.usage_limits import PriorityHoldbackPolicy, SoftReflectiveCeilingPolicy, StaticUsageLimitPolicy
from tests.picker.scheduling.pool import build


@pytest.mark.parametrize(
    ("parameters", "priorities", "ceilings"),
    [({}, [], []), ({}, [5, 0, -1], [1.0, 1.0, 1.0]), ({"threshold": 0.8}, [3], [0.8])],
)
def test_one_for_all(parameters: dict[str, Any], priorities: list[int], ceilings: list[float]) -> None:
    assert build(StaticUsageLimitPolicy, parameters).ceilings(priorities, 0.5) == ceilings


@pytest.mark.parametrize(
    ("parameters", "priorities", "ceilings"),
    [
        ({"minCeiling": 0.5}, [], []),
        ({"minCeiling": 0.5}, [-7], [1.0]),
        ({"minCeiling": 0.5}, [1, 0], [1.0, 0.5]),
        ({"minCeiling": 0.6}, [100, 1, 0], [1.0, 0.8, 0.6]),
        ({"minCeiling": 0.3, "maxCeiling": 0.9}, [9, 3, 2, 1], [0.9, 0.7, 0.5, 0.3]),
        ({"minCeiling": 0.5, "domain": "value"}, [10, 9, 0], [1.0, 0.95, 0.5]),
        ({"minCeiling": 0.5, "domain": "value"}, [4, 4], [1.0, 1.0]),
        ({"minCeiling": 0.7, "maxCeiling": 0.7}, [2, 1], [0.7, 0.7]),
    ],
)
def test_lower_priorities_hold_back(parameters: dict[str, Any], priorities: list[int], ceilings: list[float]) -> None:
    assert build(PriorityHoldbackPolicy, parameters).ceilings(priorities, 0.5) == pytest.approx(ceilings)


@pytest.mark.parametrize(
    ("policy", "parameters", "text"),
    [
        (StaticUsageLimitPolicy, {"threshold": 0}, "> 0"),
        (PriorityHoldbackPolicy, {}, "minCeiling"),
        (PriorityHoldbackPolicy, {"minCeiling": 0.9, "maxCeiling": 0.5}, "minCeiling 0.9 is above maxCeiling 0.5"),
        (PriorityHoldbackPolicy, {"minCeiling": 0.9, "shape": "cubic"}, "cubic"),
        (SoftReflectiveCeilingPolicy, {"threshold": 1}, "unknown field"),
    ],
)
def test_wrong_parameters_are_refused(policy: Any, parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=text):
        build(policy, parameters)


@pytest.mark.parametrize(
    ("priorities", "saturation", "ceilings"),
    [
        ([], 0.5, []),
        ([0], 0.9, [1.0]),
        ([1, 0], 0.4, [1.0, 0.6]),
        ([2, 1, 0], 0.4, [1.0, 0.8, 0.6]),
        ([2, 1, 0], 1.0, [1.0, 0.5, 0.0]),  # full: shut for all, and never open
        ([1, 0], 1.5, [1.0, -0.5]),
    ],
)
def test_ceilings_fall_as_the_pool_fills(priorities: list[int], saturation: float, ceilings: list[float]) -> None:
    assert build(SoftReflectiveCeilingPolicy).ceilings(priorities, saturation) == pytest.approx(ceilings)


@pytest.mark.parametrize(("saturation", "shut"), [(0.5, 1), (0.75, 3), (0.9, 9)])
def test_beyond_its_ceiling_a_priority_is_open_now_and_then(saturation: float, shut: int) -> None:
    """round(s / (1 - s)) looks shut, and one open."""
    policy = build(SoftReflectiveCeilingPolicy)
    looks = [policy.ceilings([1, 0], saturation)[1] == inf for _ in range(3 * (shut + 1))]
    assert looks == 3 * [*[False] * shut, True]


def test_priorities_that_are_gone_are_forgotten() -> None:
    policy = build(SoftReflectiveCeilingPolicy)
    for priority in range(1000):
        policy.ceilings([2000, priority], 0.9)
    assert len(policy._looks) <= 2 * 2 + 64 + 1
