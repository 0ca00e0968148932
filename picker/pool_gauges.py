"""The pool as gauges: means and deviations over the endpoints, and each endpoint's queue (contract section 7)."""

from __future__ import annotations

from statistics import fmean, pstdev

from picker.instruments import Gauge
from picker.metrics import Metrics
from picker.snapshot import Snapshot


class PoolGauges:
    """Brought up to date when scraped: at most once in `interval_s`, unless endpoints came or went."""

    def __init__(self, metrics: Metrics, pool: str, *, interval_s: float, stale_s: float) -> None:
        self._metrics = metrics
        self._pool = pool
        self._interval_s = interval_s
        self._stale_s = stale_s
        self._refreshed_s: float | None = None
        self._endpoints: tuple[object, ...] = ()
        self._queues: set[str] = set()

    def refresh(self, snapshot: Snapshot, now_s: float) -> None:
        """Metrics older than `stale_s` do not count."""
        if self._refreshed_s is not None and now_s - self._refreshed_s < self._interval_s and snapshot.endpoints is self._endpoints:
            return
        self._refreshed_s = now_s
        self._endpoints = snapshot.endpoints
        m = self._metrics
        fresh = [
            (endpoint, metrics)
            for endpoint, metrics in zip(snapshot.endpoints, snapshot.metrics, strict=True)
            if not metrics.is_stale(now_s, self._stale_s)
        ]
        m.pool_ready.cell(self._pool).value = len(snapshot)
        self._mean_and_deviation(m.pool_kv, m.pool_kv_dev, [x.kv_usage for _, x in fresh])
        self._mean_and_deviation(m.pool_queue, m.pool_queue_dev, [x.waiting for _, x in fresh])
        self._mean_and_deviation(m.pool_running, m.pool_running_dev, [x.running for _, x in fresh])
        names = {endpoint.name for endpoint, _ in fresh}
        for gone in self._queues - names:
            m.endpoint_queue.remove(self._pool, gone)
        for endpoint, metrics in fresh:
            m.endpoint_queue.cell(self._pool, endpoint.name).value = metrics.waiting
        self._queues = names

    def _mean_and_deviation(self, mean: Gauge, deviation: Gauge, values: list[float]) -> None:
        mean.cell(self._pool).value = fmean(values) if values else 0.0
        deviation.cell(self._pool).value = pstdev(values) if values else 0.0
