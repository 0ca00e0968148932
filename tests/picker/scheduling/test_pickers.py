"""Pickers. Random ones are seeded, and held to bounds far wider than their spread."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.scheduling.pickers import MaxScorePicker, RandomPicker, WeightedRandomPicker
from tests.picker.scheduling.pool import build, idle, request

PICKERS = [MaxScorePicker, RandomPicker, WeightedRandomPicker]
DRAWS = 4000


def picker(cls: type[Any], count: int = 1, seed: int = 7) -> Any:
    made = build(cls, {"maxNumOfEndpoints": count})
    made._random = random.Random(seed)
    return made


def picks(made: Any, totals: Sequence[float], draws: int = DRAWS) -> list[tuple[int, ...]]:
    candidates = idle(len(totals)).candidates()
    return [tuple(made.pick(request(), candidates, list(totals))) for _ in range(draws)]


def shares(found: list[tuple[int, ...]], place: int = 0) -> dict[int, float]:
    return {index: n / len(found) for index, n in Counter(p[place] for p in found).items()}


def test_max_score_takes_the_highest_total() -> None:
    assert set(picks(picker(MaxScorePicker), [0.5, 2.0, 1.0], 50)) == {(1,)}
    assert set(picks(picker(MaxScorePicker, 2), [0.5, 2.0, 1.0], 50)) == {(1, 2)}
    assert set(picks(picker(MaxScorePicker, 9), [0.5, 2.0, 1.0], 50)) == {(1, 2, 0)}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("tie", [2.0, 0.0])
def test_max_score_shares_ties_evenly(count: int, tie: float) -> None:
    share = shares(picks(picker(MaxScorePicker, count), [tie, -1.0, tie, tie]))
    assert set(share) == {0, 2, 3}
    assert all(0.28 < part < 0.39 for part in share.values())


@pytest.mark.parametrize("count", [1, 3])
def test_random_ignores_the_totals(count: int) -> None:
    share = shares(picks(picker(RandomPicker, count), [0.0, 5.0, 0.0, 1.0]))
    assert set(share) == {0, 1, 2, 3}
    assert all(0.2 < part < 0.3 for part in share.values())


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-3, 1e-6])
def test_weighted_random_follows_the_totals_whatever_their_scale(scale: float) -> None:
    share = shares(picks(picker(WeightedRandomPicker), [scale, 2 * scale, 0.0, scale]))
    assert 2 not in share
    assert 0.2 < share[0] < 0.3
    assert 0.45 < share[1] < 0.55
    assert 0.2 < share[3] < 0.3


def test_weighted_random_draws_the_second_from_what_is_left() -> None:
    found = picks(picker(WeightedRandomPicker, 2), [1.0, 3.0, 0.0])
    # Two have a chance; whoever is not first is second.
    assert {frozenset(p) for p in found} == {frozenset({0, 1})}
    assert 0.7 < shares(found)[1] < 0.8


@pytest.mark.parametrize("count", [1, 2, 4])
def test_weighted_random_of_all_zeros_is_random(count: int) -> None:
    share = shares(picks(picker(WeightedRandomPicker, count), [0.0, 0.0, 0.0, 0.0]))
    assert all(0.2 < share[i] < 0.3 for i in range(4))


def test_weighted_random_puts_zeros_last_in_random_order() -> None:
    found = picks(picker(WeightedRandomPicker, 9), [0.0, 1.0, 0.0, 0.0])
    assert {p[0] for p in found} == {1}
    assert all(sorted(p) == [0, 1, 2, 3] for p in found)
    assert all(0.28 < part < 0.39 for part in shares(found, 1).values())


@pytest.mark.parametrize("cls", PICKERS)
@pytest.mark.parametrize("total", [0.0, 1.0])
@pytest.mark.parametrize("count", [1, 3])
def test_one_endpoint_is_always_picked(cls: type[Any], total: float, count: int) -> None:
    assert picks(picker(cls, count), [total], 20) == [(0,)] * 20


@pytest.mark.parametrize("cls", PICKERS)
@given(totals=st.lists(st.floats(0, 100), min_size=1, max_size=8), count=st.integers(1, 10), seed=st.integers(0, 99))
def test_picks_are_distinct_and_as_many_as_asked(cls: type[Any], totals: list[float], count: int, seed: int) -> None:
    (picked,) = picks(picker(cls, count, seed), totals, 1)
    assert len(picked) == len(set(picked)) == min(count, len(totals))
    assert set(picked) <= set(range(len(totals)))
    if cls is MaxScorePicker:
        assert [totals[i] for i in picked] == sorted(totals, reverse=True)[:count]


@pytest.mark.parametrize("cls", PICKERS)
def test_one_endpoint_is_the_default(cls: type[Any]) -> None:
    assert build(cls).count == 1
