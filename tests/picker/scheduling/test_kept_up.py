"""What is kept from request to request, against the same computed afresh: columns of snapshots, memoised scores, unseen requests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker import snapshot as snapshot_module
from picker.datalayer.datastore import Datastore
from picker.endpoint import EndpointMetrics
from picker.plugin import Scorer
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.scheduling.scorers import load as load_module
from picker.scheduling.scorers.affinity import LoraAffinityScorer
from picker.scheduling.scorers.load import KvCacheUtilizationScorer, QueueScorer, RunningRequestsSizeScorer
from picker.snapshot import Changes, ColumnMemo, Snapshot
from tests.picker.scheduling.pool import build, endpoint, idle, pool, request

SCORERS = [KvCacheUtilizationScorer, LoraAffinityScorer, QueueScorer, RunningRequestsSizeScorer]
SIZE = 6

ADAPTERS = st.frozensets(st.sampled_from("xyz"), max_size=3)
NUMBER = st.integers(1, SIZE)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("numbers"), NUMBER, st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from([0.0, 0.5, 1.0]))),
        st.tuples(st.just("adapters"), NUMBER, st.tuples(ADAPTERS, ADAPTERS, st.integers(0, 4))),
        st.tuples(st.just("open"), NUMBER, st.none()),
        st.tuples(st.just("close"), NUMBER, st.none()),
        st.tuples(st.just("scrape"), NUMBER, st.none()),
        st.tuples(st.just("alive"), NUMBER, st.booleans()),
        st.tuples(st.just("endpoints"), NUMBER, st.lists(NUMBER, min_size=1, max_size=SIZE)),
        st.tuples(st.just("look"), NUMBER, st.none()),
    ),
    max_size=40,
)


def afresh(datastore: Datastore) -> Snapshot:
    living = [s for s in datastore.states() if s.alive]
    return Snapshot(9, [s.endpoint for s in living], [s.metrics for s in living], [s.load for s in living], [s.bit for s in living])


def compare(datastore: Datastore, kept: list[Scorer], history: list[tuple[Any, list[float]]]) -> None:
    now, fresh = datastore.snapshot(), afresh(datastore)
    for name in ("endpoints", "metrics", "loads", "bits", "waiting", "running", "kv_usage"):
        assert getattr(now, name) == getattr(fresh, name), name
    if not len(now):
        return
    for target in ("x", "z", "base"):
        asked = request(target=target)
        for scorer in kept:
            scores = scorer.score(asked, now.candidates())
            assert list(scores) == list(build(type(scorer)).score(asked, fresh.candidates()))
            history.append((scores, list(scores)))
            half = range(0, len(now), 2)
            assert list(scorer.score(asked, now.candidates().at(half))) == list(
                build(type(scorer)).score(asked, fresh.candidates().at(half))
            )
        waiting, unseen = now.waiting, [load.unseen for load in now.loads]
        assert now.candidates().with_unseen(waiting) == [q + u for q, u in zip(waiting, unseen, strict=True)]


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, short_history=st.booleans())
def test_it_is_always_what_would_be_computed_afresh(steps: list[tuple[str, int, Any]], short_history: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load_module, "_MANY", 0)
        if short_history:
            patch.setattr(snapshot_module, "_HISTORY", 2)
            patch.setattr(snapshot_module, "_HISTORY_PER_ENDPOINT", 0)
        datastore = Datastore()
        datastore.set_endpoints("a", [endpoint(n) for n in range(1, SIZE + 1)])
        kept = [build(cls) for cls in SCORERS]
        history: list[tuple[Any, list[float]]] = []
        marks: list[tuple[int, int]] = []
        for what, number, value in [*steps, ("look", 1, None)]:
            state = datastore.find(endpoint(number).host_port)
            if what == "endpoints":
                datastore.set_endpoints("a", [endpoint(n) for n in value])
            elif what == "look":
                compare(datastore, kept, history)
            elif state is None:
                continue
            elif what == "numbers":
                waiting, running, kv_usage = value
                datastore.report(state.endpoint, replace(state.metrics, waiting=waiting, running=running, kv_usage=kv_usage))
            elif what == "adapters":
                active, waiting_adapters, slots = value
                report = replace(state.metrics, active_adapters=active, waiting_adapters=waiting_adapters, max_adapters=slots)
                datastore.report(state.endpoint, report)
            elif what == "open":
                marks.append((number, state.load.open_request(1)))
            elif what == "close" and state.load.requests:
                index = next((i for i, (n, _) in enumerate(marks) if n == number), None)
                if index is not None and state.load.requests > 0:
                    state.load.close_request(marks.pop(index)[1])
            elif what == "scrape":
                state.load.scrape_started()
                state.load.scrape_succeeded()
            elif what == "alive":
                datastore.mark_alive(state.endpoint, value)
            if what == "endpoints":
                marks = [(n, m) for n, m in marks if (s := datastore.find(endpoint(n).host_port)) is not None and s.load.requests]
    assert all(list(scores) == as_they_were for scores, as_they_were in history), "what was handed out stays as it was"


def test_columns_that_did_not_change_are_the_same_objects() -> None:
    datastore = Datastore()
    datastore.set_endpoints("a", [endpoint(1), endpoint(2)])
    datastore.report(endpoint(1), EndpointMetrics(updated_s=1.0))
    first = datastore.snapshot()
    datastore.report(endpoint(1), EndpointMetrics(waiting=3, updated_s=1.0))
    second = datastore.snapshot()
    assert second is not first
    assert second.running is first.running
    assert second.kv_usage is first.kv_usage
    assert second.adapter_changes is first.adapter_changes
    assert (second.waiting, first.waiting) == ((3, 0), (0, 0))
    datastore.report(endpoint(2), EndpointMetrics(max_adapters=1, updated_s=1.0))
    third = datastore.snapshot()
    assert third.waiting is second.waiting
    assert third.adapter_changes.since(second.adapter_changes) == [1]
    assert third.changes.since(first.changes) == [0, 1]
    assert third.changes.since(third.changes) == []
    assert first.changes.since(third.changes) is None, "backwards"
    datastore.set_endpoints("a", [endpoint(1)])
    assert datastore.snapshot().changes.since(third.changes) is None, "other endpoints"
    assert Changes([]).since(None) is None


def test_a_memo_computes_only_what_has_changed() -> None:
    datastore = Datastore()
    datastore.set_endpoints("a", [endpoint(n) for n in range(1, 5)])
    asked: list[int] = []
    memo = ColumnMemo(lambda m: asked.append(m.waiting) or float(m.waiting))
    first = memo.of(datastore.snapshot())
    assert (list(first), len(asked)) == ([0.0] * 4, 4)
    assert memo.of(datastore.snapshot()) is first
    datastore.report(endpoint(3), EndpointMetrics(waiting=7))
    asked.clear()
    second = memo.of(datastore.snapshot())
    assert (list(second), list(first), asked) == ([0.0, 0.0, 7.0, 0.0], [0.0] * 4, [7])


def test_loads_without_unseen_requests_are_not_looked_at() -> None:
    datastore = Datastore()
    datastore.set_endpoints("a", [endpoint(n) for n in range(1, 9)])
    state = datastore.find(endpoint(3).host_port)
    assert state is not None
    assert not datastore._busy
    marks = [state.load.open_request(0) for _ in range(2)]
    assert datastore._busy == {state.load}
    assert datastore.snapshot().unseen_at() == [2]
    assert datastore.snapshot().candidates().with_unseen(datastore.snapshot().waiting) == [0, 0, 2, 0, 0, 0, 0, 0]
    state.load.scrape_started()
    state.load.scrape_succeeded()
    assert not datastore._busy
    state.load.close_request(marks[0])
    marks.append(state.load.open_request(0))
    datastore.set_endpoints("a", [endpoint(1)])
    assert datastore.snapshot().candidates().with_unseen(datastore.snapshot().waiting) == [0]
    for mark in marks[1:]:
        state.load.close_request(mark)
    assert not datastore._busy, "a removed endpoint stays until its requests are closed, and no longer"


MANY = 150


@settings(max_examples=60, deadline=None)
@given(
    taught=st.lists(st.tuples(st.integers(0, MANY - 1), st.integers(1, 6)), max_size=200),
    shuffled=st.booleans(),
    everybody=st.integers(0, 4),
)
def test_matches_are_the_same_one_by_one_and_all_at_once(taught: list[tuple[int, int]], shuffled: bool, everybody: int) -> None:
    bits = [(7 * n) % MANY for n in range(MANY)] if shuffled else list(range(MANY))
    snapshot = pool([EndpointMetrics()] * MANY, bits=bits)
    made = build(ApproxPrefixCacheProducer)
    longest = [0] * MANY
    for position, blocks in [*taught, *[(p, everybody) for p in range(MANY) if everybody]]:
        made.pre_request(request(bytes(256) * blocks), snapshot, position)
        longest[position] = max(longest[position], blocks)
    asked = request(bytes(256) * 8)
    match = made.match(asked, snapshot)
    assert match.blocks is not None
    assert list(match.blocks) == longest
    # Fewer endpoints, in another order; the others' blocks do not count.
    fewer = pool([EndpointMetrics()] * 70, bits=bits[::-1][:70], version=2)
    found = made.match(asked, fewer).blocks
    assert found is not None
    assert list(found) == longest[::-1][:70]
    alone = pool([EndpointMetrics()], bits=[bits[5]], version=3)
    only = made.match(asked, alone).blocks
    assert only is not None
    assert list(only) == [longest[5]]


def test_of_no_endpoints_nothing_matches() -> None:
    made = build(ApproxPrefixCacheProducer)
    for position in range(100):
        made.pre_request(request(bytes(256)), idle(100), position)
    match = made.match(request(bytes(256)), idle(0))
    assert match.blocks is not None
    assert list(match.blocks) == []
