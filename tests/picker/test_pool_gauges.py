"""The pool's gauges: which endpoints count, and when they are brought up to date."""

from __future__ import annotations

from math import sqrt

import pytest

from picker.endpoint import NEVER_SCRAPED, EndpointMetrics
from picker.instruments import Gauge
from picker.metrics import Metrics
from picker.pool_gauges import PoolGauges
from picker.snapshot import Snapshot
from tests.picker.scheduling.pool import pool


def gauges(metrics: Metrics, *, interval_s: float = 5.0) -> PoolGauges:
    return PoolGauges(metrics, "pool", interval_s=interval_s, stale_s=2.0)


def value(gauge: Gauge) -> float:
    return gauge.cell("pool").value


def queues(metrics: Metrics) -> dict[str, float]:
    assert all(labels[0] == "pool" for labels in metrics.endpoint_queue.cells)
    return {labels[1]: cell.value for labels, cell in metrics.endpoint_queue.cells.items()}


def reported(waiting: int, running: int = 0, kv_usage: float = 0.0, *, at_s: float = 10.0) -> EndpointMetrics:
    return EndpointMetrics(waiting=waiting, running=running, kv_usage=kv_usage, updated_s=at_s)


def renewed(snapshot: Snapshot, *metrics: EndpointMetrics) -> Snapshot:
    """The same members with other numbers."""
    return Snapshot(snapshot.version + 1, snapshot.endpoints, metrics, snapshot.loads, snapshot.bits)


def test_means_and_deviations() -> None:
    metrics = Metrics()
    gauges(metrics).refresh(pool([reported(2, 10, 0.25), reported(6, 10, 0.75)]), 10.0)
    assert [value(g) for g in (metrics.pool_queue, metrics.pool_running, metrics.pool_kv)] == [4.0, 10.0, 0.5]
    assert [value(g) for g in (metrics.pool_queue_dev, metrics.pool_running_dev, metrics.pool_kv_dev)] == [2.0, 0.0, 0.25]
    assert value(metrics.pool_ready) == 2
    assert queues(metrics) == {"e1": 2, "e2": 6}


def test_the_deviation_is_that_of_the_whole_pool() -> None:
    metrics = Metrics()
    gauges(metrics).refresh(pool([reported(0), reported(0), reported(3)]), 10.0)
    assert value(metrics.pool_queue_dev) == pytest.approx(sqrt(2))


def test_stale_endpoints_are_ready_but_do_not_count() -> None:
    metrics = Metrics()
    gauges(metrics).refresh(pool([reported(4, at_s=8.0), reported(100, at_s=7.9), NEVER_SCRAPED]), 10.0)
    assert value(metrics.pool_ready) == 3
    assert value(metrics.pool_queue) == 4
    assert queues(metrics) == {"e1": 4}


def test_an_idle_endpoint_that_is_left_alone_counts() -> None:
    metrics = Metrics()
    left_alone = EndpointMetrics(waiting=4, updated_s=7.5, quiet_s=1.0)
    gauges(metrics).refresh(pool([left_alone, EndpointMetrics(waiting=100, updated_s=6.9, quiet_s=1.0)]), 10.0)
    assert queues(metrics) == {"e1": 4}


@pytest.mark.parametrize("members", [[], [NEVER_SCRAPED]])
def test_without_fresh_metrics_everything_is_zero(members: list[EndpointMetrics]) -> None:
    metrics = Metrics()
    made = gauges(metrics, interval_s=0.0)
    made.refresh(pool([reported(9, 9, 0.9)]), 10.0)
    made.refresh(pool(members), 11.0)
    assert value(metrics.pool_ready) == len(members)
    for gauge in (metrics.pool_queue, metrics.pool_running, metrics.pool_kv, metrics.pool_queue_dev, metrics.pool_kv_dev):
        assert value(gauge) == 0.0
    assert queues(metrics) == {}


def test_an_endpoint_that_is_gone_or_silent_loses_its_queue() -> None:
    metrics = Metrics()
    made = gauges(metrics)
    snapshot = pool([reported(1), reported(2)])
    made.refresh(snapshot, 10.0)
    made.refresh(renewed(snapshot, reported(1, at_s=20.0), reported(2)), 20.0)
    assert queues(metrics) == {"e1": 1}
    made.refresh(pool([reported(5, at_s=20.0)]), 20.1)
    assert queues(metrics) == {"e1": 5}


def test_numbers_are_renewed_once_per_interval_and_members_at_once() -> None:
    metrics = Metrics()
    made = gauges(metrics)
    snapshot = pool([reported(1)])
    made.refresh(snapshot, 10.0)
    made.refresh(renewed(snapshot, reported(7)), 11.9)
    assert value(metrics.pool_queue) == 1
    made.refresh(renewed(snapshot, reported(7, at_s=15.0)), 15.0)
    assert value(metrics.pool_queue) == 7
    made.refresh(pool([reported(1, at_s=15.0), reported(3, at_s=15.0)]), 15.1)
    assert value(metrics.pool_queue) == 2
    assert value(metrics.pool_ready) == 2
