"""The log of decisions: what it keeps, and what it weighs."""

from __future__ import annotations

import gc

from picker.accounting import decisions
from picker.accounting.decisions import DecisionLog
from picker.endpoint import EndpointMetrics
from picker.metrics import Metrics
from picker.result import Decision
from picker.scheduling.filters import DecodeFilter, LabelSelectorFilter
from picker.scheduling.pickers import MaxScorePicker
from picker.scheduling.profile import Profile, WeightedScorer
from picker.scheduling.scorers.load import QueueScorer
from picker.snapshot import Snapshot
from tests.picker.scheduling.pool import build, pool, request


def decision(request_id: str, endpoints: int, kept: int | None = None) -> Decision:
    """Made by scheduling over a pool of its own, of which a filter leaves the first `kept`."""
    kept = endpoints if kept is None else kept
    labels = [{"zone": "a" if n < kept else "b"} for n in range(endpoints)]
    snapshot = pool([EndpointMetrics()] * endpoints, labels=labels)
    filters = [build(DecodeFilter), build(LabelSelectorFilter, {"matchLabels": {"zone": "a"}})]
    profile = Profile("default", filters, [WeightedScorer(build(QueueScorer), 1.0)], build(MaxScorePicker), Metrics())
    return Decision(request_id, "/", "m", "m", 0.0, 0.0, profile.run(request(), snapshot.candidates()))


def ids(log: DecisionLog) -> list[str]:
    return [d.request_id for d in log.find(limit=1000)]


def test_it_keeps_so_many_newest_first() -> None:
    log = DecisionLog(3)
    for n in range(5):
        log.add(decision(str(n), 2))
    assert ids(log) == ["4", "3", "2"]
    assert [d.request_id for d in log.find(limit=1)] == ["4"]
    assert [d.request_id for d in log.find(request_id="3")] == ["3"]


def test_of_large_pools_it_keeps_fewer_whatever_the_filters_left(monkeypatch) -> None:
    monkeypatch.setattr(decisions, "_MAX_ROWS", 100)
    log = DecisionLog()
    for n in range(5):
        log.add(decision(str(n), 40, kept=1))
    assert ids(log) == ["4", "3"]
    log.add(decision("large", 500))
    assert ids(log) == ["large"]
    log.add(decision("small", 3))
    assert ids(log) == ["small"]


def test_a_log_of_nothing_keeps_nothing() -> None:
    log = DecisionLog(0)
    log.add(decision("0", 2))
    assert ids(log) == []


def test_a_record_keeps_no_snapshot() -> None:
    record = decision("0", 3, kept=2)
    seen, todo = set(), [record]
    while todo:
        one = todo.pop()
        if id(one) not in seen and not isinstance(one, type):
            seen.add(id(one))
            assert not isinstance(one, Snapshot)
            todo += gc.get_referents(one)
    assert [e.host_port for e, _ in record.result.filtered] == ["10.0.0.3:8000"]
