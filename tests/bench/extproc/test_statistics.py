"""Percentiles, comparisons within a round, medians over rounds."""

from __future__ import annotations

import pytest

from bench.extproc.statistics import Cell, compare, latencies, percentile, rows


@pytest.mark.parametrize(("percent", "wanted"), [(50, 50), (95, 95), (99, 99), (100, 100), (0.1, 1)])
def test_a_percentile_is_the_nearest_rank(percent: float, wanted: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], percent) == wanted


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@pytest.mark.parametrize(("count", "names"), [
    (0, set()), (1, {"p50_ms"}), (19, {"p50_ms"}), (20, {"p50_ms", "p95_ms"}), (99, {"p50_ms", "p95_ms"}),
    (100, {"p50_ms", "p95_ms", "p99_ms"}),
])  # fmt: skip
def test_few_latencies_have_no_high_percentiles(count: int, names: set[str]) -> None:
    found = latencies([0.002] * count)
    assert set(found) == names
    assert set(found.values()) <= {2.0}


def cell(arm: str, number: int = 0, workload: str = "small", failed: str | None = None, **values: float) -> Cell:
    return Cell(arm=arm, workload=workload, round=number, failed=failed, values=values)


def test_latency_is_compared_with_plain_envoy_of_the_same_round() -> None:
    cells = [cell("envoy", 0, p50_ms=1.0), cell("envoy", 1, p50_ms=5.0), cell("h2", 0, p50_ms=3.0), cell("h2", 1, p50_ms=6.0)]
    compare(cells)
    assert [c.values.get("added_p50_ms") for c in cells] == [None, None, 2.0, 1.0]


def test_nothing_is_added_to_an_envoy_that_failed_or_was_not_run() -> None:
    cells = [
        cell("envoy", 0, failed="it died"),
        cell("h2", 0, p50_ms=3.0),
        cell("envoy", 1, workload="long", p50_ms=1.0),
        cell("h2", 1, p50_ms=3.0),
    ]
    compare(cells)
    assert not any("added_p50_ms" in c.values for c in cells)


def test_envoys_cost_is_compared_with_that_under_our_default() -> None:
    cells = [cell("h2", envoy_us_per_event=60.0), cell("no-metrics", envoy_us_per_event=33.0)]
    compare(cells)
    assert cells[1].values["envoy_us_per_event_to_h2"] == pytest.approx(0.55)
    assert cells[0].values["envoy_us_per_event_to_h2"] == 1


def test_a_row_is_the_median_of_its_rounds() -> None:
    (row,) = rows([cell("h2", i, p50_ms=p50) for i, p50 in enumerate((9.0, 1.0, 2.0))])
    assert row.values == {"p50_ms": 2.0}
    assert (row.arm, row.workload, row.rounds, row.failed) == ("h2", "small", 3, None)


def test_only_what_every_round_has_has_a_median() -> None:
    (row,) = rows([cell("h2", 0, p50_ms=1.0, p99_ms=4.0), cell("h2", 1, p50_ms=3.0)])
    assert row.values == {"p50_ms": 2.0}


def test_a_failed_round_fails_the_row_and_leaves_no_number() -> None:
    (row,) = rows([cell("h2", 0, p50_ms=1.0), cell("h2", 1, failed="status 503 (2 times)"), cell("h2", 2, p50_ms=1.0)])
    assert row.failed == "1 of 3 rounds failed: status 503 (2 times)"
    assert row.values == {}


def test_loop_lag_is_taken_from_all_rounds_together() -> None:
    cells = [cell("h2", 0), cell("h2", 1)]
    cells[0].lags_ms, cells[1].lags_ms = [1.0] * 60, [1.0] * 38 + [7.0, 9.0]
    (row,) = rows(cells)
    assert (row.values["lag_p50_ms"], row.values["lag_p99_ms"]) == (1.0, 7.0)


def test_rows_come_in_the_order_of_the_cells() -> None:
    found = rows([cell("b", 0), cell("a", 0), cell("b", 1), cell("b", 0, workload="long")])
    assert [(row.workload, row.arm) for row in found] == [("small", "b"), ("small", "a"), ("long", "b")]
