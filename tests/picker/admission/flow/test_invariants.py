"""What holds whatever comes, in whatever order: nobody is lost, nobody has two turns, and no queue holds more than it may."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.admission.flow.controller import IDLE_BAND_S, IDLE_FLOW_S, TICK_S
from picker.errors import Refusal
from picker.instruments import LabelCap
from tests.picker.admission.flow import rig as rigs
from tests.picker.admission.flow.rig import ROUND_ROBIN, Job, Rig, band

SERVERS, CAPACITY = 2, 2
MAX_REQUESTS, MAX_BYTES = 12, 60
TTL_S, NO_ENDPOINT_TTL_S = 5.0, 2.0
PRIORITIES = (-1, 0, 7)
FLOWS = "abc"

SEND = st.tuples(st.just("send"), st.sampled_from(PRIORITIES), st.sampled_from(FLOWS), st.integers(0, 20), st.sampled_from([0, 300, 9000]))
STEP = st.one_of(
    SEND,
    SEND,
    st.tuples(st.just("leave"), st.integers(0, 99)),
    st.tuples(st.just("finish"), st.integers(0, 99)),
    st.tuples(st.just("advance"), st.sampled_from([0.001, 0.02, 0.5, 3.0])),
    st.tuples(st.just("endpoints"), st.booleans()),
    st.tuples(st.just("reconfigure"), st.booleans()),
)


class History:
    """Plays steps and keeps its own books of what is waiting."""

    def __init__(self, *, as_reference: bool, round_robin: bool) -> None:
        self.limits: dict[str, Any] = {
            "max_requests": MAX_REQUESTS, "max_bytes": MAX_BYTES, "default_ttl_s": TTL_S, "no_endpoint_ttl_s": NO_ENDPOINT_TTL_S,
            "as_reference": as_reference,
        }  # fmt: skip
        self.as_reference = as_reference
        self.rig = Rig(servers=SERVERS, capacity=CAPACITY, default_band=self.band(round_robin), **self.limits)
        self.jobs: list[Job] = []
        self.arrived: dict[int, tuple[int, float]] = {}
        """Number and time of each job's arrival."""
        self.refused = 0
        self._seen = 0

    @staticmethod
    def band(round_robin: bool) -> Any:
        return band(fair=ROUND_ROBIN, max_requests=5) if round_robin else band(max_requests=5)

    @property
    def waiting(self) -> list[Job]:
        return [job for job in self.jobs if job.outcome is None]

    def play(self, step: tuple[Any, ...]) -> None:
        rig, (what, *values) = self.rig, step
        if what == "send":
            self._send(*values)
        elif what == "leave" and (waiting := self.waiting):
            waiting[values[0] % len(waiting)].leave()
        elif what == "finish":
            if not rig.under_way:
                return  # nothing happens, so nobody looks whether there is room by now
            rig.under_way[values[0] % len(rig.under_way)].finish()
        elif what == "advance":
            rig.clock.advance(values[0])
        elif what == "endpoints":
            rig.gone = values[0]
        elif what == "reconfigure":
            rig.controller.reconfigure(rigs.settings(servers=SERVERS, capacity=CAPACITY, default_band=self.band(values[0]), **self.limits))
        self.check(what, values)

    def _send(self, priority: int, fairness_id: str, size_bytes: int, timeout_ms: int) -> None:
        headers = {"x-request-timeout-ms": str(timeout_ms)} if timeout_ms else {}
        # A job may be let in before `send` returns; those are found in the order of turns.
        arrival = (len(self.arrived), self.rig.clock.now)
        before = len(self.rig.order)
        try:
            job = self.rig.send(fairness_id, priority, size_bytes, headers)
        except Refusal:
            self.refused += 1
            assert len(self.rig.order) == before, "a request that was turned away let another one in"
            return
        self.jobs.append(job)
        self.arrived[id(job)] = arrival

    def check(self, what: str, values: list[Any]) -> None:
        rig, waiting = self.rig, self.waiting
        now_s = rig.clock.now
        # Nobody is lost and nobody is counted twice.
        assert rig.controller.requests == len(waiting)
        assert rig.controller.bytes == sum(job.request.size_bytes for job in waiting)
        for each in rig.controller.descending():
            mine = [job for job in waiting if job.request.priority == each.priority]
            assert (each.requests, each.bytes) == (len(mine), sum(job.request.size_bytes for job in mine))
            assert not self.as_reference or each.requests <= 5
        # No more than there is room for, here and there.
        assert rig.controller.requests <= MAX_REQUESTS and rig.controller.bytes <= MAX_BYTES
        assert len(rig.under_way) <= SERVERS * CAPACITY
        assert len(set(map(id, rig.order))) == len(rig.order)
        self._check_turns()
        if what in ("send", "finish", "reconfigure") and not self.as_reference:
            self._check_no_room_wasted()
        if what == "advance" and values[0] >= 2 * TICK_S:
            self._check_no_room_wasted()
            longest_s = max(TTL_S, NO_ENDPOINT_TTL_S) + TICK_S
            assert all(now_s - self.arrived[id(job)][1] <= longest_s for job in waiting)

    def _check_turns(self) -> None:
        """Of those that waited at the same time, the higher priority first, and of one flow the earlier."""
        turns = self.rig.order[self._seen :]
        self._seen = len(self.rig.order)
        for number, job in enumerate(turns):
            for other in [*turns[number + 1 :], *self.waiting]:
                assert other.request.priority <= job.request.priority
                if (other.request.priority, other.request.fairness_id) == (job.request.priority, job.request.fairness_id):
                    assert self.arrived[id(other)] > self.arrived[id(job)]

    def _check_no_room_wasted(self) -> None:
        assert not self.waiting or self.rig.gone or len(self.rig.under_way) == SERVERS * CAPACITY

    def end(self) -> None:
        """Everybody comes to an end, each to one."""
        rig = self.rig
        rig.gone = False
        rig.clock.advance(2 * TICK_S)
        while rig.under_way:
            rig.under_way[0].finish()
            rig.clock.advance(TICK_S)
        assert not self.waiting
        rig.assert_empty()
        assert sum(rig.outcomes().values()) == len(self.jobs) + self.refused
        assert rig.outcomes().get("Dispatched", 0) == len(rig.order)
        left = sum(job.outcome == "left" for job in self.jobs)
        assert rig.outcomes().get("EvictedContextCancelled", 0) == left
        rig.controller.sweep(rig.clock.now + IDLE_FLOW_S)
        rig.controller.sweep(rig.clock.now + IDLE_BAND_S)
        assert not rig.controller.bands
        assert not rig.page().find("llm_d_epp_flow_control_queue_size")


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEP, max_size=60), as_reference=st.booleans(), round_robin=st.booleans())
def test_nobody_is_lost_whatever_happens(steps: list[tuple[Any, ...]], as_reference: bool, round_robin: bool) -> None:
    history = History(as_reference=as_reference, round_robin=round_robin)
    for step in steps:
        history.play(step)
    history.end()


@settings(max_examples=100, deadline=None)
@given(sends=st.lists(SEND, max_size=30), finished=st.integers(0, 4))
def test_at_the_end_of_the_picker_everybody_is_told_once(sends: list[tuple[Any, ...]], finished: int) -> None:
    history = History(as_reference=False, round_robin=True)
    for step in sends:
        history.play(step)
    waited = len(history.waiting)
    history.rig.controller.close()
    assert not history.waiting
    told = [job.outcome for job in history.jobs if isinstance(job.outcome, Refusal)]
    assert sum(refusal.drop_reason == "rejected-shutting-down" for refusal in told) == waited
    for job in history.rig.under_way[:finished]:
        job.finish()
    history.rig.assert_empty()


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 12), min_size=2, max_size=6))
def test_no_flow_has_two_turns_while_another_waits_for_one(lengths: list[int]) -> None:
    """Round robin: as long as two flows both have requests, they have had as many turns as each other, or one more."""
    rig = Rig(capacity=1, default_band=band(fair=ROUND_ROBIN))
    blocker = rig.send("blocker")
    for number, length in enumerate(lengths):
        for _ in range(length):
            rig.send(str(number))
    blocker.finish()
    turns = [0] * len(lengths)
    for _ in range(sum(lengths)):
        turns[int(rig.order[-1].request.fairness_id)] += 1
        both = [turns[n] for n, length in enumerate(lengths) if turns[n] < length]
        assert not both or max(both) - min(both) <= 1
        rig.under_way[0].finish()
    assert turns == lengths


def test_a_hundred_thousand_requests_leave_nothing_behind() -> None:
    rng = random.Random(4)
    rig = Rig(servers=4, capacity=8, default_band=band(fair=ROUND_ROBIN, max_requests=400), max_requests=900, default_ttl_s=3.0)
    waiting: list[Job] = []
    sent = refused = 0
    while sent < 100_000:
        sent += 1
        headers = {"x-request-timeout-ms": str(rng.randrange(1, 2000))} if rng.random() < 0.3 else {}
        try:
            waiting.append(rig.send(f"f{rng.randrange(200)}", rng.choice(PRIORITIES), rng.randrange(2000), headers))
        except Refusal:
            refused += 1
        if rng.random() < 0.6 and rig.under_way:
            rng.choice(rig.under_way).finish()
        if rng.random() < 0.15 and (job := waiting.pop(rng.randrange(len(waiting)))).outcome is None:
            job.leave()
        if rng.random() < 0.02:
            rig.clock.advance(rng.random() * 0.4)
        if rng.random() < 0.001:
            rig.gone = not rig.gone
        if len(waiting) > 2000:
            waiting = [job for job in waiting if job.outcome is None]
            assert len(waiting) == rig.controller.requests
            for each in rig.controller.descending():
                # What has left is not kept for long: at most as much as what waits, and a fixed amount for each queue.
                assert len(each.newest) <= 2 * each.requests + 65
                assert all(flow.entries <= 2 * flow.requests + 130 for flow in each.flows.values())
    rig.gone = False
    rig.clock.advance(0.1)
    while rig.under_way:
        rig.under_way[0].finish()
    rig.clock.advance(4.0)
    rig.assert_empty()
    assert all(each.requests == 0 for each in rig.loads)
    outcomes = rig.outcomes()
    assert sum(outcomes.values()) == sent
    assert outcomes["RejectedCapacity"] == refused
    kinds = {"Dispatched", "RejectedCapacity", "EvictedTTL", "EvictedContextCancelled", "EvictedOther"}
    assert kinds <= {outcome for outcome, count in outcomes.items() if count > 100}, outcomes
    rig.controller.sweep(rig.clock.now + IDLE_BAND_S)
    rig.controller.sweep(rig.clock.now + IDLE_BAND_S)
    assert not rig.controller.bands
    assert not rig.page().find("llm_d_epp_flow_control_queue_size")


def test_a_request_that_can_never_fit_displaces_nobody() -> None:
    rig = Rig(capacity=1, max_bytes=10)
    rig.send()
    low = [rig.send(priority=-1) for _ in range(5)]
    with pytest.raises(Refusal):
        rig.send(priority=5, size_bytes=11)
    assert [job.outcome for job in low] == [None] * 5


def test_an_idle_flow_does_not_take_the_series_of_others_with_it() -> None:
    """Beyond the cap on labels flows share the series `other`."""
    rig = Rig(capacity=1, default_ttl_s=10_000.0)
    rig.metrics.cap_fairness = LabelCap(0)
    blocker = rig.send("idle")
    waits = rig.send("waits")
    rig.controller.sweep(rig.clock.now + IDLE_FLOW_S)
    assert rig.page().value("llm_d_epp_flow_control_queue_size") == 1
    waits.leave()
    blocker.finish()
    rig.assert_empty()


def test_other_settings_leave_no_series_behind() -> None:
    rig = Rig(capacity=1)
    rig.send("gone").finish()
    rig.controller.reconfigure(rigs.settings(capacity=1))
    rig.controller.sweep(rig.clock.now + IDLE_FLOW_S)
    rig.controller.sweep(rig.clock.now + IDLE_BAND_S)
    assert not rig.page().find("llm_d_epp_flow_control_queue_size")


def test_as_few_as_it_takes_are_displaced_the_lowest_and_newest_first() -> None:
    rig = Rig(capacity=1, max_bytes=10)
    rig.send()
    jobs = [rig.send(priority=priority, size_bytes=size) for priority, size in [(-1, 3), (0, 2), (-1, 2), (0, 3)]]
    rig.send(priority=5, size_bytes=7)
    assert [job.outcome is None for job in jobs] == [False, True, False, False]
    with pytest.raises(Refusal):
        rig.send(priority=0, size_bytes=2)
    assert jobs[1].outcome is None
