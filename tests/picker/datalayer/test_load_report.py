"""What the header `endpoint-load-metrics` tells, and what becomes of it."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from picker.datalayer.load_report import LoadReport, LoadReports, parse_load_report
from picker.endpoint import NEVER_SCRAPED, EndpointMetrics

VLLM = 'JSON {"named_metrics": {"num_requests_waiting": 3.0, "kv_cache_usage_perc": 0.25}}'


@pytest.mark.parametrize(
    ("value", "waiting", "kv_usage"),
    [
        (VLLM, 3, 0.25),
        ('JSON {"named_metrics": {"num_requests_waiting": 0.0, "kv_cache_usage_perc": 0.0}}', 0, 0.0),
        ('JSON {"cpu_utilization": 0.3, "named_metrics": {"num_requests_waiting": 2, "other": "x"}}', 2, None),
        ('JSON {"named_metrics": {"kv_cache_usage_perc": 1}}', None, 1.0),
        ('JSON {"named_metrics": {"num_requests_waiting": -1, "kv_cache_usage_perc": 0.5}}', None, 0.5),
    ],
)
def test_what_is_told(value: str, waiting: int | None, kv_usage: float | None) -> None:
    assert parse_load_report(value, 5.0) == LoadReport(waiting, kv_usage, 5.0)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "JSON",
        "JSON ",
        "JSON nonsense",
        "JSON []",
        'JSON {"x": ' + "[" * 30_000,
        "JSON {}",
        'JSON {"named_metrics": {}}',
        'JSON {"named_metrics": []}',
        'JSON {"named_metrics": {"num_requests_waiting": "3"}}',
        'JSON {"named_metrics": {"num_requests_waiting": NaN}}',
        'JSON {"named_metrics": {"num_requests_waiting": 1e999}}',
        'JSON {"named_metrics": {"num_requests_waiting": -1}}',
        "TEXT named_metrics.num_requests_waiting=3.0, named_metrics.kv_cache_usage_perc=0.25",
        '{"named_metrics": {"num_requests_waiting": 3.0}}',
    ],
)
def test_what_tells_nothing(value: str) -> None:
    assert parse_load_report(value, 5.0) is None


@given(st.one_of(st.text(), st.text().map("JSON {}".format), st.text().map('JSON {{"named_metrics": {}}}'.format)))
def test_nothing_that_a_server_can_write_raises(value: str) -> None:
    parse_load_report(value, 5.0)


def test_a_report_replaces_what_it_tells() -> None:
    old = EndpointMetrics(1, 2, 0.3, 16, 100, frozenset("a"), frozenset("b"), 4, 5.0, 1.0, True)
    assert LoadReport(9, 0.5, 7.0).applied_to(old) == EndpointMetrics(9, 2, 0.5, 16, 100, frozenset("a"), frozenset("b"), 4, 7.0, 0.0, True)
    assert LoadReport(9, None, 4.0).applied_to(old).updated_s == 5.0, "its time is not newer than a page that came after it"
    assert LoadReport(0, 0.0, 7.0).applied_to(NEVER_SCRAPED) == EndpointMetrics(updated_s=7.0)


def test_reports_are_handed_on_and_counted_and_others_ignored(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[tuple[str, LoadReport]] = []

    def report(host_port: str, told: LoadReport) -> bool:
        seen.append((host_port, told))
        return host_port != "gone:1"

    reports = LoadReports(report, lambda: 8.0)
    with caplog.at_level(logging.INFO):
        reports.take("a:1", VLLM)
        reports.take("gone:1", VLLM)
        reports.take("a:1", "JSON nonsense")
    assert seen == [("a:1", LoadReport(3, 0.25, 8.0)), ("gone:1", LoadReport(3, 0.25, 8.0))]
    assert reports.taken == 1
    assert not caplog.records
