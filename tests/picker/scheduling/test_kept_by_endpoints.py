"""What is kept for as long as a pool has the same endpoints, against the same computed endpoint by endpoint."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from picker.datalayer.datastore import Datastore
from picker.endpoint import NEVER_SCRAPED, Endpoint
from picker.scheduling.endpoint_index import EndpointIndex
from picker.scheduling.producers import ApproxPrefixCacheProducer
from picker.scheduling.scorers.cold import NoHitLruScorer
from picker.scheduling.scorers.context_length import ContextLengthAware
from picker.scheduling.scorers.load import LoadAwareScorer
from picker.snapshot import Candidates
from tests.picker.scheduling.pool import FakeHandle, build, endpoint, pool, request

SIZE = 6
NUMBER = st.integers(1, SIZE)


def subsets(candidates: Candidates) -> list[Candidates]:
    return [candidates, candidates.at(range(0, len(candidates), 2)), candidates.at(range(len(candidates) // 2, len(candidates)))]


@given(labels=st.lists(st.sampled_from(["", "a", "b", None]), min_size=1, max_size=8), wanted=st.sampled_from(["", "a", "b", "c"]))
def test_an_index_finds_what_asking_everybody_finds(labels: list[str | None], wanted: str) -> None:
    snapshot = pool([NEVER_SCRAPED] * len(labels), labels=[{} if v is None else {"zone": v} for v in labels])
    index = EndpointIndex(lambda e: e.labels.get("zone"))
    assert list(index.positions(snapshot, wanted)) == [p for p, v in enumerate(labels) if v == wanted]
    for candidates in subsets(snapshot.candidates()):
        assert index.marks(candidates, wanted) == [1.0 if e.labels.get("zone") == wanted else 0.0 for e in candidates.endpoints]
        assert list(index.indices(candidates, wanted)) == [i for i, e in enumerate(candidates.endpoints) if e.labels.get("zone") == wanted]


def test_an_index_follows_the_endpoints() -> None:
    index = EndpointIndex(str)
    assert list(index.positions(pool([NEVER_SCRAPED] * 3), "default/e3")) == [2]
    assert list(index.positions(pool([NEVER_SCRAPED] * 2), "default/e3")) == []


class Turns:
    """no-hit-lru by the book: sorted afresh each time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used: OrderedDict[str, int] = OrderedDict()
        self.turn = 0

    def scores(self, candidates: Candidates) -> list[float]:
        turns = [self.used.get(str(e), 0) for e in candidates.endpoints]
        ranks = {i: rank for rank, i in enumerate(sorted(range(len(turns)), key=turns.__getitem__))}
        return [1.0 - ranks[i] / max(len(turns) - 1, 1) for i in range(len(turns))]

    def use(self, picked: Endpoint) -> None:
        self.turn += 1
        self.used[str(picked)] = self.turn
        self.used.move_to_end(str(picked))
        if len(self.used) > self.size:
            self.used.popitem(last=False)


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(1, SIZE),
    steps=st.lists(st.one_of(NUMBER, st.lists(NUMBER, min_size=1, max_size=SIZE, unique=True)), max_size=30),
)
def test_the_order_of_turns(size: int, steps: list[int | list[int]]) -> None:
    handle = FakeHandle(approx_prefix_cache_producer=build(ApproxPrefixCacheProducer))
    scorer, book = build(NoHitLruScorer, {"lruSize": size}, handle), Turns(size)
    datastore = Datastore()
    datastore.set_endpoints("a", [endpoint(n) for n in range(1, SIZE + 1)])
    history: list[tuple[Any, list[float]]] = []
    for step in steps:
        snapshot = datastore.snapshot()
        if isinstance(step, list):
            gone = {str(e) for e in snapshot.endpoints} - {str(endpoint(n)) for n in step}
            for position, e in enumerate(snapshot.endpoints):
                if str(e) in gone:
                    scorer.endpoint_removed(e, snapshot.bits[position])
                    book.used.pop(str(e), None)
            datastore.set_endpoints("a", [endpoint(n) for n in step])
        else:
            position = (step - 1) % len(snapshot)
            asked = request()
            scorer.score(asked, snapshot.candidates())
            scorer.pre_request(asked, snapshot, position)
            book.use(snapshot.endpoints[position])
        for candidates in subsets(datastore.snapshot().candidates()):
            if len(candidates):
                scores = scorer.score(request(), candidates)
                assert list(scores) == book.scores(candidates)
                history.append((scores, list(scores)))
    assert all(list(scores) == as_they_were for scores, as_they_were in history), "what was handed out stays as it was"


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.tuples(NUMBER, st.integers(0, 9), st.sampled_from(["report", "open", "scrape"])), max_size=30))
def test_load_aware_follows_reports_and_what_is_sent_meanwhile(steps: list[tuple[int, int, str]]) -> None:
    scorer = build(LoadAwareScorer, {"threshold": 8})
    datastore = Datastore()
    datastore.set_endpoints("a", [endpoint(n) for n in range(1, SIZE + 1)])
    history: list[tuple[Any, list[float]]] = []
    for number, value, what in steps:
        state = datastore.find(endpoint(number).host_port)
        assert state is not None
        if what == "report":
            datastore.report(state.endpoint, replace(state.metrics, waiting=value))
        elif what == "open":
            state.load.open_request(1)
        else:
            state.load.scrape_started()
            state.load.scrape_succeeded()
        for candidates in subsets(datastore.snapshot().candidates()):
            scores = scorer.score(request(), candidates)
            queues = [m.waiting + x.unseen for m, x in zip(candidates.metrics, candidates.loads, strict=True)]
            assert list(scores) == [0.5 * (1 - min(q, 8) / 8) for q in queues]
            history.append((scores, list(scores)))
    assert all(list(scores) == as_they_were for scores, as_they_were in history)


def test_context_length_follows_the_endpoints() -> None:
    label = "llm-d.ai/context-length-range"
    scorer = build(ContextLengthAware, {"enableFiltering": True})
    asked = request(extra=50)
    first = pool([NEVER_SCRAPED] * 3, labels=[{label: "50-50"}, {}, {label: "0-10"}])
    for _ in range(2):
        assert scorer.score(asked, first.candidates()) == [1.0, 0.5, 0.3 / 1.04]
        assert list(scorer.filter(asked, first.candidates()).positions) == [0, 1]
        assert list(scorer.filter(asked, first.candidates().at([1, 2])).positions) == [1]
    second = pool([NEVER_SCRAPED] * 2, labels=[{}, {label: "50-50"}])
    assert scorer.score(asked, second.candidates()) == [0.5, 1.0]
    assert scorer.filter(asked, second.candidates()).whole
