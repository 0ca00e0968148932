"""What prometheus-client costs on the hot path and on a scraped page, beside what is used in its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import prometheus_client
from prometheus_client.parser import text_string_to_metric_families

from picker.metrics import Metrics

_LABELS = ("model", "target", "fairness", "0")
_PAGE = Path(__file__).parents[2] / "tests" / "data" / "vllm_metrics.txt"


def benches() -> list[tuple[str, Callable[[], object]]]:
    """The same observation in a histogram of 25 buckets; the same page read whole."""
    theirs = prometheus_client.Histogram(
        "bench", "bench", ["model", "target", "fairness", "priority"], buckets=[2**n for n in range(6, 31)], registry=None
    )
    ours = Metrics().series(*_LABELS).request_size
    text = _PAGE.read_text()
    return [
        ("metrics: prometheus-client labels().observe()", lambda: theirs.labels(*_LABELS).observe(300)),
        ("metrics: our cell's observe()", lambda: ours.observe(300)),
        ("metrics: prometheus-client parses a 57 KB page", lambda: list(text_string_to_metric_families(text))),
    ]
