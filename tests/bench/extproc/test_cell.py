"""From what the client saw and what was spent to the numbers of a cell."""

from __future__ import annotations

import pytest

from bench.extproc.cell import from_outcome
from bench.extproc.client import Outcome

SPENT = {"picker_cpu_s": 0.4, "envoy_cpu_s": 0.8, "gc_collections": 3.0, "blocks_more": 500.0}


def test_costs_are_per_request() -> None:
    found = from_outcome(Outcome(4.0, requests=1000, latencies={"p50_ms": 2.0}), SPENT, per_event=False)
    assert found == pytest.approx({
        "seconds": 4.0, "requests": 1000, "events": 0, "requests_per_s": 250.0, "picker_us_per_request": 400.0,
        "envoy_us_per_request": 800.0, "picker_to_envoy": 0.5, "gc_per_1000_requests": 3.0, "blocks_more_per_request": 0.5, "p50_ms": 2.0,
    })  # fmt: skip


def test_costs_of_streams_are_per_event() -> None:
    found = from_outcome(Outcome(4.0, requests=2, events=2000, reads=1000), SPENT, per_event=True)
    assert found["picker_us_per_event"] == pytest.approx(200.0)
    assert (found["events_per_s"], found["events_per_read"]) == (500.0, 2.0)
    assert "picker_us_per_request" not in found


def test_streams_too_long_to_end_have_costs_all_the_same() -> None:
    found = from_outcome(Outcome(4.0, events=2000, reads=2000), SPENT, per_event=True)
    assert found["envoy_us_per_event"] == pytest.approx(400.0)
    assert "gc_per_1000_requests" not in found


def test_plain_envoy_has_no_picker() -> None:
    found = from_outcome(Outcome(4.0, requests=1000), {"envoy_cpu_s": 0.8}, per_event=False)
    assert not any("picker" in name or "gc" in name for name in found)


def test_without_requests_only_what_was_spent_counts() -> None:
    assert from_outcome(Outcome(4.0), {"picker_cpu_s": 0.4}, per_event=False) == {"seconds": 4.0, "requests": 0, "events": 0}
