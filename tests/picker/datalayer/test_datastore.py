"""The datastore as a state machine, without a loop."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.datalayer.datastore import Datastore, EndpointState
from picker.endpoint import Endpoint, EndpointMetrics
from picker.snapshot import Candidates


def endpoint(number: int, *, name: str = "", **labels: str) -> Endpoint:
    return Endpoint(name or f"e{number}", f"10.0.0.{number}", 8000, labels=labels)


def names(datastore: Datastore) -> list[str]:
    return [e.name for e in datastore.snapshot().endpoints]


def state(datastore: Datastore, number: int) -> EndpointState:
    found = datastore.find(f"10.0.0.{number}:8000")
    assert found is not None
    return found


class Listener:
    def __init__(self) -> None:
        self.events: list[tuple[list[str], list[str]]] = []

    def __call__(self, added: Sequence[EndpointState], removed: Sequence[EndpointState]) -> None:
        self.events.append(([s.endpoint.name for s in added], [s.endpoint.name for s in removed]))


def test_sources_are_diffed_separately() -> None:
    datastore, listener = Datastore(), Listener()
    datastore.subscribe(listener)
    datastore.set_endpoints("a", [endpoint(1), endpoint(2)])
    datastore.set_endpoints("b", [endpoint(3)])
    datastore.set_endpoints("a", [endpoint(2), endpoint(4)])
    assert names(datastore) == ["e2", "e3", "e4"]
    assert listener.events == [(["e1", "e2"], []), (["e3"], []), ([], ["e1"]), (["e4"], [])]
    datastore.set_endpoints("a", [])
    assert names(datastore) == ["e3"]
    assert len(datastore) == 1


def test_a_late_subscriber_hears_of_those_already_here_and_can_leave() -> None:
    datastore, listener = Datastore(), Listener()
    datastore.set_endpoints("a", [endpoint(1)])
    leave = datastore.subscribe(listener)
    leave()
    leave()
    datastore.set_endpoints("a", [])
    assert listener.events == [(["e1"], [])]


def test_changed_labels_keep_load_metrics_and_bit() -> None:
    datastore, listener = Datastore(), Listener()
    datastore.set_endpoints("a", [endpoint(1), endpoint(2)])
    before = state(datastore, 2)
    before.load.open_request(10)
    datastore.report(before.endpoint, EndpointMetrics(waiting=5, updated_s=1.0))
    version = datastore.snapshot().version
    datastore.subscribe(listener)
    listener.events.clear()
    datastore.set_endpoints("a", [endpoint(1), endpoint(2, zone="north")])
    after = state(datastore, 2)
    assert after is before
    assert listener.events == []
    snapshot = datastore.snapshot()
    assert snapshot.version > version
    assert snapshot.endpoints[1].labels == {"zone": "north"}
    assert (snapshot.waiting[1], snapshot.loads[1].requests, snapshot.bits[1]) == (5, 1, 1)


def test_the_same_list_again_changes_nothing() -> None:
    datastore = Datastore()
    datastore.set_endpoints("a", [endpoint(1), endpoint(2)])
    snapshot = datastore.snapshot()
    datastore.set_endpoints("a", [endpoint(1), endpoint(2)])
    assert datastore.snapshot() is snapshot


def test_duplicates_are_dropped_logged_once_and_step_in_later(caplog: pytest.LogCaptureFixture) -> None:
    datastore = Datastore()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            datastore.set_endpoints("a", [endpoint(1), endpoint(1, name="twin")])
    assert names(datastore) == ["e1"]
    assert len(caplog.records) == 1
    datastore.set_endpoints("b", [endpoint(1, name="other")])
    assert names(datastore) == ["e1"]
    datastore.set_endpoints("a", [])
    assert names(datastore) == ["other"]
    datastore.set_endpoints("a", [endpoint(1)])
    assert names(datastore) == ["other"], "the one that is there stays"


def test_a_renamed_endpoint_is_another_one() -> None:
    datastore, listener = Datastore(), Listener()
    datastore.set_endpoints("a", [endpoint(1)])
    old = state(datastore, 1)
    datastore.subscribe(listener)
    datastore.set_endpoints("a", [endpoint(1, name="new")])
    assert listener.events[1:] == [([], ["e1"]), (["new"], [])]
    assert not datastore.report(old.endpoint, EndpointMetrics())
    assert not datastore.mark_alive(old.endpoint, False)
    assert state(datastore, 1) is not old


def test_bits_are_reused_lowest_first_after_subscribers_and_open_requests() -> None:
    datastore = Datastore()
    datastore.set_endpoints("a", [endpoint(n) for n in range(1, 5)])
    assert [s.bit for s in datastore.states()] == [0, 1, 2, 3]
    removed_while_listening: list[tuple[int, list[int]]] = []

    def listen(added: Sequence[EndpointState], removed: Sequence[EndpointState]) -> None:
        removed_while_listening.extend((s.bit, [o.bit for o in datastore.states()]) for s in removed)

    datastore.subscribe(listen)
    busy = state(datastore, 1)
    mark = busy.load.open_request(3)
    datastore.set_endpoints("a", [endpoint(n) for n in (3, 4, 5)])
    assert removed_while_listening == [(0, [2, 3]), (1, [2, 3])]
    assert state(datastore, 5).bit == 1, "bit 0 rests while a request of its endpoint is open"
    busy.load.release_tokens(3)
    busy.load.close_request(mark)
    assert (busy.load.requests, busy.load.tokens, busy.load.unseen) == (0, 0, 0)
    datastore.set_endpoints("a", [endpoint(n) for n in (3, 4, 5, 6)])
    assert state(datastore, 6).bit == 0


def test_a_failing_subscriber_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    datastore, listener = Datastore(), Listener()

    def fail(added: Sequence[EndpointState], removed: Sequence[EndpointState]) -> None:
        raise ValueError("no")

    datastore.subscribe(fail)
    datastore.subscribe(listener)
    datastore.set_endpoints("a", [endpoint(1)])
    assert listener.events == [(["e1"], [])]
    assert "subscriber failed" in caplog.text


def test_only_the_living_are_in_the_snapshot() -> None:
    datastore = Datastore()
    datastore.set_endpoints("a", [endpoint(1), endpoint(2), endpoint(3)])
    two = state(datastore, 2)
    datastore.mark_alive(two.endpoint, False)
    assert names(datastore) == ["e1", "e3"]
    snapshot = datastore.snapshot()
    datastore.mark_alive(two.endpoint, False)
    datastore.report(two.endpoint, EndpointMetrics(waiting=9, updated_s=1.0))
    assert datastore.snapshot() is snapshot
    datastore.report(state(datastore, 3).endpoint, EndpointMetrics(waiting=3, updated_s=1.0))
    datastore.mark_alive(two.endpoint, True)
    assert names(datastore) == ["e1", "e2", "e3"]
    assert datastore.snapshot().waiting == (0, 9, 3)
    assert len(datastore.states()) == 3


def test_confirming_reports_renew_ages_but_not_the_snapshot() -> None:
    datastore = Datastore()
    datastore.set_endpoints("a", [endpoint(1), endpoint(2)])
    first = datastore.snapshot()
    one = state(datastore, 1).endpoint
    datastore.report(one, EndpointMetrics(updated_s=1.0))
    second = datastore.snapshot()
    assert second is not first, "the first answer is news"
    datastore.report(one, EndpointMetrics(updated_s=2.0))
    third = datastore.snapshot()
    assert third is second
    assert third.metrics[0].age_s(2.5) == 0.5
    datastore.report(one, EndpointMetrics(updated_s=3.0))
    datastore.report(one, EndpointMetrics(running=1, updated_s=4.0))
    datastore.report(one, EndpointMetrics(running=1, updated_s=5.0))
    fourth = datastore.snapshot()
    assert fourth.version == third.version + 1
    assert fourth.endpoints is third.endpoints
    assert (fourth.running, fourth.metrics[0].updated_s) == ((1, 0), 5.0)
    assert (third.running, third.metrics[0].running) == ((0, 0), 0), "what was handed out stays as it was"


def hinted(datastore: Datastore, *hints: str) -> list[str]:
    chosen = datastore.match_subset(datastore.snapshot(), hints)
    assert isinstance(chosen, Candidates)
    assert [chosen.snapshot.endpoints[p] for p in chosen.positions] == list(chosen.endpoints)
    return [e.name for e in chosen.endpoints]


def test_subset_hints() -> None:
    datastore = Datastore()
    datastore.set_endpoints(
        "a",
        [
            Endpoint("a0", "10.0.0.1", 8000),
            Endpoint("a1", "10.0.0.1", 8001),
            Endpoint("b", "10.0.0.2", 8000),
            Endpoint("c", "::1", 8000),
            Endpoint("d", "2001:DB8:0::5", 8000),
        ],
    )
    assert hinted(datastore, "10.0.0.2:8000", " 10.0.0.1 ", "10.0.0.1:8001") == ["a0", "a1", "b"]
    assert hinted(datastore, "10.0.0.1:8001") == ["a1"]
    assert hinted(datastore, "[::1]:8000", "[2001:db8::5]:8000") == ["c", "d"]
    assert hinted(datastore, "::1", "[2001:db8:0:0::5]") == ["c", "d"]
    for nothing in ("", "10.0.0.9", "10.0.0.1:9", ":8000", "[::1", "[::1]8000", "[::1]:1", "[10.0.0.1]:8000", "x:y:z", "::g", "[]"):
        assert hinted(datastore, nothing) == []
    assert hinted(datastore) == []
    datastore.mark_alive(Endpoint("c", "::1", 8000), False)
    assert hinted(datastore, "::1", "10.0.0.2") == ["b"]
    assert datastore.match_subset(datastore.snapshot(), ["10.0.0.1", "10.0.0.2", "2001:db8::5"]).whole


actions = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(["a", "b"]), st.lists(st.integers(1, 6), max_size=6)),
        st.tuples(st.just("alive"), st.integers(1, 6), st.booleans()),
        st.tuples(st.just("report"), st.integers(1, 6), st.integers(0, 2)),
        st.tuples(st.just("snapshot"), st.none(), st.none()),
    ),
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(actions)
def test_the_snapshot_is_always_what_the_states_say(steps: list[tuple[str, object, object]]) -> None:
    datastore = Datastore()
    clock = 0.0
    bits: dict[str, int] = {}

    def listen(added: Sequence[EndpointState], removed: Sequence[EndpointState]) -> None:
        for gone in removed:
            assert bits.pop(gone.endpoint.name) == gone.bit
        for new in added:
            assert new.bit not in bits.values()
            bits[new.endpoint.name] = new.bit

    datastore.subscribe(listen)
    last = datastore.snapshot()
    for what, x, y in [*steps, ("snapshot", None, None)]:
        if what == "set" and isinstance(x, str) and isinstance(y, list):
            datastore.set_endpoints(x, [endpoint(n) for n in y])
        elif what == "alive" and isinstance(x, int):
            datastore.mark_alive(endpoint(x), bool(y))
        elif what == "report" and isinstance(x, int) and isinstance(y, int):
            clock += 1
            datastore.report(endpoint(x), EndpointMetrics(waiting=y, updated_s=clock))
        else:
            snapshot = datastore.snapshot()
            living = [s for s in datastore.states() if s.alive]
            assert list(snapshot.endpoints) == [s.endpoint for s in living]
            assert list(snapshot.metrics) == [s.metrics for s in living]
            assert list(snapshot.waiting) == [s.metrics.waiting for s in living]
            assert all(a is s.load for a, s in zip(snapshot.loads, living, strict=True))
            assert {e.name: b for e, b in zip(snapshot.endpoints, snapshot.bits, strict=True)}.items() <= bits.items()
            assert (snapshot is last) == (snapshot.version == last.version)
            assert snapshot.version >= last.version
            last = snapshot
