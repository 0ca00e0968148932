"""Who is taken away, how many, and when again (contract section 5, in-flight eviction)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.admission.flow.eviction import (
    MOST_AT_ONCE,
    UNCONFIRMED_S,
    EvictionPriorityThenTimeOrdering,
    EvictionSheddableFilter,
    Evictor,
)
from picker.admission.flow.observing import EvictionCounts
from picker.errors import Evicted
from picker.metrics import Metrics
from picker.request import InferenceRequest, ParsedBody
from tests.picker.scheduling.pool import build
from tests.support.prometheus import Page

GRACE_S = 1.0
FLOW = "llm_d_epp_flow_control_"


class Running:
    """A request on its way that goes when it is told to, or when `close` is called."""

    def __init__(self, priority: int, *, obeys: bool) -> None:
        self.request: InferenceRequest | None = InferenceRequest("r", "/", {}, ParsedBody(), "m", "m", priority=priority)
        self.evictable = False
        self.told = 0
        self._obeys = obeys
        self._closers: list[Callable[[Any], None]] = []

    def on_close(self, closer: Callable[[Any], None]) -> None:
        self._closers.append(closer)

    def evict(self, refusal: Evicted) -> None:
        assert (refusal.message, refusal.drop_reason) == ("request evicted by flow control", "evicted")
        self.told += 1
        if self._obeys:
            self.close()

    def close(self) -> None:
        for closer in self._closers:
            closer(self)


class Stage:
    """An evictor on a clock that is moved by hand."""

    def __init__(self, *, obey: bool = True) -> None:
        self.now_s = 0.0
        self.obey = obey
        self.metrics = Metrics()
        counts = EvictionCounts(self.metrics, "pool")
        rules = build(EvictionSheddableFilter), build(EvictionPriorityThenTimeOrdering)
        self.evictor = Evictor(*rules, GRACE_S, counts, lambda: self.now_s)
        self.running: list[Running] = []

    def open(self, *priorities: int) -> list[Running]:
        new = [Running(priority, obeys=self.obey) for priority in priorities]
        for each in new:
            self.now_s += 0.001
            self.evictor.opened(each, self.now_s)
        self.running += new
        return new

    def consider(self, *, blocked: int = 0, saturation: float = 1.0, ceiling: float = 1.0) -> int:
        return self.evictor.consider(blocked_priority=blocked, saturation=saturation, ceiling=ceiling, now_s=self.now_s)

    def gauges(self) -> tuple[float, float]:
        """The target and what is pending."""
        page = Page(self.metrics.registry)
        return page.value(FLOW + "reclaim_target"), page.value(FLOW + "pending_reclaim")

    def confirmed(self) -> float:
        return Page(self.metrics.registry).value(FLOW + "revocations_total", outcome="confirmed")


@pytest.mark.parametrize(
    ("priorities", "blocked", "saturation", "ceiling", "told"),
    [
        ([], 0, 1.0, 1.0, []),
        ([0, 1], 5, 1.0, 1.0, []),  # not sheddable
        ([-1, -2], -2, 1.0, 1.0, []),  # none below
        ([-1, -2], -1, 1.0, 1.0, [1]),
        ([-1, -1, -1, -1], 0, 1.0, 1.0, [3]),  # the newest
        ([-1, -3, -2, 0], 0, 1.0, 1.0, [1]),  # the lowest
        ([-1, -1, -1, -1], 0, 1.0, 0.75, [3]),  # credit 0.25: one
        ([-1, -1, -1, -1], 0, 1.0, 0.7, [2, 3]),  # 1.2: two
        ([-1, -1, -1, -1], 0, 2.0, 0.5, [2, 3]),  # three, and never more than two
        ([0, 0, 0, -1], 0, 2.0, 0.5, [3]),  # as many as there are
        ([-1, -1], 0, 0.0, 0.0, [1]),  # the detector sees none of it
    ],
)
def test_who_and_how_many(priorities: list[int], blocked: int, saturation: float, ceiling: float, told: list[int]) -> None:
    stage = Stage()
    stage.open(*priorities)
    assert stage.consider(blocked=blocked, saturation=saturation, ceiling=ceiling) == len(told)
    assert [i for i, each in enumerate(stage.running) if each.told] == told


def test_grace_counts_from_the_close_and_not_from_the_last_look() -> None:
    stage = Stage(obey=False)
    first, second = stage.open(-1, -2)
    assert stage.consider() == 1 and stage.gauges() == (1, 1)
    stage.now_s = 5.0
    assert stage.consider() == 0
    stage.now_s = 7.0
    second.close()
    assert stage.gauges() == (0, 0) and stage.confirmed() == 1
    stage.now_s = 7.9
    assert stage.consider() == 0
    stage.now_s = 8.0
    assert stage.consider() == 1 and (first.told, second.told) == (1, 1)
    seconds = Page(stage.metrics.registry).value(FLOW + "revocation_confirmation_seconds_sum")
    assert seconds == pytest.approx(7.0 - 0.002)


def test_one_that_does_not_go_is_given_up_on_and_never_told_again() -> None:
    stage = Stage(obey=False)
    first, second = stage.open(-1, -1)
    assert stage.consider() == 1 and second.told == 1
    stage.now_s += UNCONFIRMED_S - 0.1
    assert stage.consider() == 0
    stage.now_s += 0.1
    assert stage.consider() == 1 and (first.told, second.told) == (1, 1)
    stage.now_s += UNCONFIRMED_S
    assert stage.consider() == 0 and stage.gauges() == (0, 0) and stage.evictor.evictable == 0
    assert Page(stage.metrics.registry).value(FLOW + "revocations_total", outcome="unconfirmed") == 2
    second.close()
    outcomes = {s.labels["outcome"] for s in Page(stage.metrics.registry).find(FLOW + "revocations_total")}
    assert outcomes == {"unconfirmed"}


def test_what_still_takes_up_room_counts_as_on_its_way_out() -> None:
    stage = Stage(obey=False)
    stage.open(-1, -1, -1, -1)
    assert stage.consider(saturation=1.0, ceiling=0.5) == 2
    stage.now_s += UNCONFIRMED_S
    # Again two would have to go, and two have been told: one more, for it has helped nobody so far.
    assert stage.consider(saturation=1.0, ceiling=0.5) == 1
    assert [each.told for each in stage.running] == [0, 1, 1, 1]


STEP = st.one_of(
    st.tuples(st.just("open"), st.integers(-3, 1)),
    st.tuples(st.just("close"), st.integers(0, 20)),
    st.tuples(st.just("advance"), st.sampled_from([0.1, 1.0, 6.0])),
    st.tuples(st.just("consider"), st.integers(-2, 2)),
)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEP, max_size=50), obey=st.booleans(), saturation=st.floats(0, 4), ceiling=st.floats(0.1, 1))
def test_whatever_happens(steps: list[tuple[str, Any]], obey: bool, saturation: float, ceiling: float) -> None:
    stage = Stage(obey=obey)
    everyone: list[Running] = []
    for what, value in steps:
        if what == "open":
            everyone += stage.open(value)
        elif what == "close" and stage.running:
            one = stage.running.pop(value % len(stage.running))
            if not (obey and one.told):
                one.close()
        elif what == "advance":
            stage.now_s += value
        elif what == "consider":
            before = {id(each): each.told for each in everyone}
            count = stage.consider(blocked=value, saturation=saturation, ceiling=ceiling)
            told = [each for each in everyone if each.told != before[id(each)]]
            assert len(told) == count <= MOST_AT_ONCE
            assert all(each.request is not None and each.request.priority < min(value, 0) for each in told)
        assert all(each.told <= 1 for each in everyone)
    for each in stage.running:
        if not (obey and each.told):
            each.close()
    assert stage.evictor.evictable == 0 and stage.consider() == 0
    page = Page(stage.metrics.registry)
    assert all(s.value == 0 for name in ("reclaim_target", "pending_reclaim") for s in page.find(FLOW + name))
    issued = sum(s.value for s in page.find(FLOW + "revocations_issued_total"))
    assert issued == sum(s.value for s in page.find(FLOW + "revocations_total")) == sum(each.told for each in everyone)
