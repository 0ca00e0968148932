"""Whose turn it is, and how every wait ends (contract section 5)."""

from __future__ import annotations

from typing import Any

import pytest

from picker.admission.flow.controller import IDLE_BAND_S, IDLE_FLOW_S, MAX_FLOWS, SWEEP_S
from picker.admission.flow.eviction import EvictionPriorityThenTimeOrdering, EvictionSheddableFilter
from picker.admission.flow.ordering import EdfOrderingPolicy, SloDeadlineOrderingPolicy
from picker.admission.flow.settings import EvictionSettings
from picker.admission.flow.usage_limits import PriorityHoldbackPolicy
from picker.errors import Refusal, Rejected, Unavailable
from tests.picker.admission.flow.rig import ROUND_ROBIN, Job, Rig, band, settings
from tests.picker.scheduling.pool import build


def names(jobs: list[Job]) -> list[str]:
    return [j.request.fairness_id for j in jobs if j.request is not None]


def priorities(jobs: list[Job]) -> list[int]:
    return [j.request.priority for j in jobs if j.request is not None]


def test_with_room_a_request_does_not_wait() -> None:
    rig = Rig(capacity=2)
    job = rig.send()
    assert job.outcome is True
    job.finish()
    rig.assert_empty()
    assert rig.outcomes() == {"Dispatched": 1}


def test_without_room_it_waits_until_another_ends() -> None:
    rig = Rig(capacity=1)
    first, second = rig.send(), rig.send()
    assert second.outcome is None and rig.controller.requests == 1
    assert rig.page().value("llm_d_epp_flow_control_queue_size", fairness_id="f") == 1
    first.finish()
    assert second.outcome is True
    rig.assert_empty()


def test_one_cycle_lets_in_as_many_as_there_is_room_for_and_no_more() -> None:
    rig = Rig(servers=3, capacity=2)
    jobs = [rig.send() for _ in range(10)]
    assert [j.outcome for j in jobs] == [True] * 6 + [None] * 4
    for job in jobs[:6]:
        job.finish()
    assert [j.outcome for j in jobs[6:]] == [True] * 4


def test_like_the_reference_one_at_a_time() -> None:
    rig = Rig(servers=1, capacity=3, as_reference=True)
    rig.gone = True
    jobs = [rig.send() for _ in range(3)]
    rig.gone = False
    rig.controller.cycle()
    assert [j.outcome for j in jobs] == [True, None, None]
    rig.clock.advance(0.0025)
    assert [j.outcome for j in jobs] == [True, True, True]


def test_higher_priorities_first_and_within_one_in_order() -> None:
    rig = Rig(capacity=1)
    blocker = rig.send()
    for name, priority in [("a", 0), ("b", 5), ("c", -1), ("d", 5), ("e", 0)]:
        rig.send(name, priority)
    blocker.finish()
    while rig.under_way:
        rig.under_way[0].finish()
    assert names(rig.order)[1:] == ["b", "d", "a", "e", "c"]
    rig.assert_empty()


def test_flows_take_turns_with_round_robin() -> None:
    rig = Rig(capacity=1, default_band=band(fair=ROUND_ROBIN))
    blocker = rig.send("x")
    for name in "aaabbc":
        rig.send(name)
    blocker.finish()
    while rig.under_way:
        rig.under_way[0].finish()
    assert names(rig.order)[1:] == ["a", "b", "c", "a", "b", "a"]


def test_jains_index_of_round_robin_over_unequal_flows() -> None:
    rig = Rig(capacity=4, default_band=band(fair=ROUND_ROBIN, max_requests=0))
    for number in range(20):
        for _ in range(60 if number % 2 else 600):
            rig.send(f"flow-{number}")
    while len(rig.order) < 1_000:
        rig.under_way[0].finish()
    served = [names(rig.order).count(f"flow-{number}") for number in range(20)]
    assert sum(served) ** 2 / (len(served) * sum(n * n for n in served)) >= 0.98


def test_deadlines_order_a_flow() -> None:
    rig = Rig(capacity=1, default_band=band(order=EdfOrderingPolicy))
    blocker = rig.send("x")
    late = rig.send("a", headers={"x-request-timeout-ms": "30000"})
    soon = rig.send("a", headers={"x-request-timeout-ms": "10000"})
    blocker.finish()
    assert soon.outcome is True and late.outcome is None


def test_promises_order_all_flows() -> None:
    rig = Rig(capacity=1, default_band=band(order=SloDeadlineOrderingPolicy))
    blocker = rig.send("x")
    none, wrong = rig.send("a"), rig.send("b", headers={"x-slo-ttft-ms": "soon"})
    pushy = rig.send("e", headers={"x-slo-ttft-ms": "-5000"})
    late, soon = rig.send("c", headers={"x-llm-d-slo-ttft-ms": "900"}), rig.send("d", headers={"x-llm-d-slo-ttft-ms": "100"})
    blocker.finish()
    for _ in range(4):
        rig.under_way[0].finish()
    assert rig.order[1:] == [soon, late, none, wrong, pushy]


@pytest.mark.parametrize(
    ("more", "sizes", "text"),
    [
        ({"max_requests": 2}, [1, 1], "2 requests"),
        ({"max_bytes": 10}, [4, 6], "10 bytes"),
        ({"default_band": band(max_requests=2)}, [1, 1], "2 requests of priority 0"),
        ({"default_band": band(max_bytes=10)}, [5, 5], "10 bytes of priority 0"),
    ],
)
def test_a_full_queue_turns_away_what_comes(more: dict[str, Any], sizes: list[int], text: str) -> None:
    rig = Rig(capacity=1, **more)
    rig.send()
    for size in sizes:
        rig.send(size_bytes=size)
    with pytest.raises(Rejected) as error:
        rig.send()
    assert (error.value.message, error.value.drop_reason) == (f"queue at capacity: {text}", "rejected-saturated")
    assert rig.outcomes() == {"Dispatched": 1, "RejectedCapacity": 1}


@pytest.mark.parametrize("more", [{"max_requests": 2}, {"bands": {5: band(max_requests=1)}}])
def test_a_request_that_matters_more_takes_the_place_of_the_last_one_that_matters_least(more: dict[str, Any]) -> None:
    rig = Rig(capacity=1, **more)
    rig.send()
    old, new = rig.send(priority=-1), rig.send(priority=5) if "bands" in more else rig.send(priority=-1)
    urgent = rig.send(priority=5)
    displaced = old if "bands" in more else new
    assert isinstance(displaced.outcome, Rejected) and displaced.outcome.drop_reason == "evicted-priority"
    assert urgent.outcome is None and rig.controller.requests == 2
    with pytest.raises(Rejected):
        rig.send(priority=-1) if "max_requests" in more else rig.send(priority=5)
    assert rig.outcomes()["EvictedOther"] == 1


def test_like_the_reference_nobody_is_displaced() -> None:
    rig = Rig(capacity=1, max_requests=1, as_reference=True)
    rig.send()
    rig.send(priority=-1)
    with pytest.raises(Rejected):
        rig.send(priority=5)


def test_a_request_gives_up_after_its_time() -> None:
    rig = Rig(capacity=1, default_ttl_s=5.0)
    rig.send()
    waits, hurried = rig.send(), rig.send(headers={"grpc-timeout": "500m"})
    rig.clock.advance(0.6)
    assert isinstance(hurried.outcome, Rejected) and waits.outcome is None
    assert (hurried.outcome.message, hurried.outcome.drop_reason) == ("request timed out in queue: waited 0.5s", "rejected-ttl-expired")
    rig.clock.advance(5)
    assert isinstance(waits.outcome, Rejected)
    assert rig.outcomes() == {"Dispatched": 1, "EvictedTTL": 2}
    rig.assert_empty()


def test_a_request_cannot_lengthen_its_time() -> None:
    rig = Rig(capacity=1, default_ttl_s=1.0)
    rig.send()
    patient = rig.send(headers={"x-request-timeout-ms": "900000"})
    rig.clock.advance(1.1)
    assert isinstance(patient.outcome, Rejected)


def test_without_endpoints_it_waits_for_one_and_for_another_time() -> None:
    rig = Rig(capacity=5, default_ttl_s=2.0, no_endpoint_ttl_s=10.0)
    rig.gone = True
    waits = rig.send()
    rig.clock.advance(9.9)
    assert waits.outcome is None
    rig.clock.advance(0.2)
    assert isinstance(waits.outcome, Unavailable) and waits.outcome.drop_reason == "rejected-no-endpoints"
    again = rig.send()
    rig.gone = False
    rig.clock.advance(0.02)
    assert again.outcome is True
    assert rig.outcomes() == {"EvictedNoEndpoints": 1, "Dispatched": 1}


def test_the_times_of_both_regimes_do_not_add_up() -> None:
    rig = Rig(capacity=1, default_ttl_s=4.0, no_endpoint_ttl_s=3.0)
    rig.send()
    waits = rig.send()
    rig.clock.advance(3.5)
    rig.gone = True  # from now on 3 s, but no more than 4 in all
    rig.clock.advance(0.4)
    assert waits.outcome is None
    rig.clock.advance(0.2)
    assert isinstance(waits.outcome, Unavailable)


def test_nothing_to_wait_for() -> None:
    rig = Rig(no_endpoint_ttl_s=0.0)
    rig.gone = True
    with pytest.raises(Unavailable) as error:
        rig.send()
    assert error.value.message.startswith("no endpoints available: ")
    assert rig.outcomes() == {"RejectedNoEndpoints": 1}


def test_a_client_that_leaves_makes_room() -> None:
    rig = Rig(capacity=1, max_requests=1)
    rig.send()
    waits = rig.send()
    waits.leave()
    waits.place.leave()
    rig.send()
    assert rig.outcomes() == {"Dispatched": 1, "EvictedContextCancelled": 1}


def test_at_the_end_nobody_waits() -> None:
    rig = Rig(capacity=1)
    running, waits = rig.send(), rig.send()
    rig.controller.close()
    assert isinstance(waits.outcome, Unavailable) and waits.outcome.drop_reason == "rejected-shutting-down"
    with pytest.raises(Unavailable) as error:
        rig.send()
    assert error.value.message.startswith("flow controller shutting down: ")
    running.finish()
    rig.assert_empty()
    assert rig.outcomes() == {"Dispatched": 1, "EvictedOther": 1, "RejectedOther": 1}


def test_lower_priorities_stop_below_their_ceiling_and_hold_up_nobody_else() -> None:
    rig = Rig(capacity=10, usage=build(PriorityHoldbackPolicy, {"minCeiling": 0.5}))
    for _ in range(5):
        rig.send(priority=1)
    low = rig.send(priority=-1)
    assert low.outcome is None
    high = rig.send(priority=1)
    assert high.outcome is True
    high.finish()
    rig.under_way[0].finish()
    assert low.outcome is True


def test_weighted_bands_share_and_strict_ones_do_not() -> None:
    bands = {10: band(), 1: band(weight=3.0), 0: band(weight=1.0)}
    rig = Rig(capacity=1, bands=bands)
    blocker = rig.send(priority=10)
    for _ in range(40):
        rig.send(priority=0)
        rig.send(priority=1)
    for _ in range(5):
        rig.send(priority=10)
    blocker.finish()
    while len(rig.order) < 46:
        rig.under_way[0].finish()
    assert priorities(rig.order)[1:6] == [10] * 5
    shared = priorities(rig.order)[6:]
    assert (shared.count(1), shared.count(0)) == (30, 10)
    assert max(len(run) for run in "".join(map(str, shared)).split("0")) <= 4


def _evicting(**more: Any) -> Rig:
    eviction = EvictionSettings(build(EvictionSheddableFilter), build(EvictionPriorityThenTimeOrdering), 0.01)
    return Rig(eviction=eviction, **more)


def test_sheddable_requests_on_their_way_make_room_for_others() -> None:
    rig = _evicting(capacity=4)
    jobs: list[Job] = []
    for priority in (0, -1, -2, -1):
        jobs.append(rig.send(priority=priority))
        rig.clock.advance(0.001)
    urgent = rig.send(priority=0)
    assert [j.outcome for j in jobs] == [True, True, "evicted", True] and urgent.outcome is True
    # The next one has to wait until the detector has had time to see the relief.
    second = rig.send(priority=0)
    assert second.outcome is None
    rig.clock.advance(0.03)
    assert second.outcome is True and [j.outcome for j in jobs] == [True, True, "evicted", "evicted"]
    page = rig.page()
    assert page.value("llm_d_epp_flow_control_revocations_issued_total", priority="-1") == 1
    assert page.value("llm_d_epp_flow_control_revocations_total", outcome="confirmed") == 2


def test_equals_are_not_evicted_for_each_other() -> None:
    rig = _evicting(capacity=1)
    running = rig.send(priority=-1)
    assert rig.send(priority=-1).outcome is None and running.outcome is True
    other = rig.send(priority=0)
    assert running.outcome == "evicted" and other.outcome is True


def test_flows_and_bands_nobody_uses_are_forgotten_with_their_series() -> None:
    rig = Rig(capacity=1)
    job = rig.send("a", priority=3)
    job.finish()
    assert rig.page().find("llm_d_epp_flow_control_queue_size")
    rig.controller.sweep(rig.clock.now + IDLE_FLOW_S - 1)
    assert list(rig.controller.bands) == [3]
    rig.controller.sweep(rig.clock.now + IDLE_FLOW_S)
    assert not rig.page().find("llm_d_epp_flow_control_queue_size") and not rig.controller.bands[3].flows
    rig.controller.sweep(rig.clock.now + IDLE_BAND_S)
    assert not rig.controller.bands
    assert SWEEP_S < IDLE_FLOW_S


def test_clients_cannot_make_flows_without_end() -> None:
    rig = Rig(capacity=1)
    rig.send()
    band_ = rig.controller.bands[0]
    band_.flows.update({f"n{i}": band_.flows["f"] for i in range(MAX_FLOWS)})
    rig.send("new")
    rig.send("newer")
    assert band_.flows["other"].requests == 2


def test_other_settings_keep_what_waits() -> None:
    rig = Rig(capacity=1)
    blocker = rig.send()
    for name in "aab":
        rig.send(name)
    rig.controller.reconfigure(settings(capacity=1, default_band=band(fair=ROUND_ROBIN)))
    blocker.finish()
    while rig.under_way:
        rig.under_way[0].finish()
    assert names(rig.order)[1:] == ["a", "b", "a"]
    rig.assert_empty()


def test_what_is_let_in_and_refused_by_what_comes_after_leaves_no_trace() -> None:
    rig = Rig(capacity=1)
    refused: list[Refusal | None] = []

    def decided(refusal: Refusal | None) -> None:
        refused.append(refusal)
        rig.controller.abandoned(job.request)  # type: ignore[arg-type]

    job = Job(rig, rig.send().request)  # type: ignore[arg-type]
    rig.under_way[0].finish()
    for _ in range(100):
        rig.controller.enqueue(job.request, decided)  # type: ignore[arg-type]
    assert refused == [None] * 100
    rig.assert_empty()
