"""What it costs to keep the data layer up to date: reading a page, and taking what it said into a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

from picker.datalayer.datastore import Datastore
from picker.datalayer.engines import Engines
from picker.datalayer.exposition import Series, parse_spec
from picker.datalayer.load_report import LoadReports
from picker.endpoint import NEVER_SCRAPED, Endpoint, EndpointMetrics

_DATA = Path(__file__).parents[2] / "tests" / "data"
_CORE = (
    "vllm:num_requests_waiting",
    "vllm:num_requests_running",
    "vllm:kv_cache_usage_perc",
    "vllm:lora_requests_info",
    "vllm:cache_config_info",
)


def benches() -> list[tuple[str, Callable[[], object]]]:
    """Named callables without arguments; each call is one unit of work."""
    loaded = (_DATA / "vllm_metrics.txt").read_bytes()
    idle = (_DATA / "vllm_metrics_idle.txt").read_bytes()
    found: list[tuple[str, Callable[[], object]]] = [
        ("exposition: core series of a 57 KB page", _read(loaded)),
        ("extract: 57 KB page, first of its server", _extract_first(loaded)),
        ("extract: 57 KB page, like the last one", _extract(loaded)),
        ("extract: 57 KB pages, loaded and idle in turn", _extract(loaded, idle)),
    ]
    for count in (10, 100, 1000):
        found.append((f"report + snapshot at {count} endpoints, other numbers", _report(count, changing=True)))
        found.append((f"report + snapshot at {count} endpoints, same numbers", _report(count, changing=False)))
        found.append((f"load report of an answer + snapshot at {count} endpoints", _load_report(count)))
    return found


def _read(page: bytes) -> Callable[[], object]:
    series = [Series(parse_spec(name)) for name in _CORE]
    return lambda: [one.read(page) for one in series]


def _extract_first(page: bytes) -> Callable[[], object]:
    engines = Engines()
    return lambda: engines.extractor({}).extract(page, NEVER_SCRAPED, 1.0)


def _extract(*pages: bytes) -> Callable[[], object]:
    extractor = Engines().extractor({})
    turn = cycle(pages)
    return lambda: extractor.extract(next(turn), NEVER_SCRAPED, 1.0)


def _report(count: int, *, changing: bool) -> Callable[[], object]:
    datastore = Datastore()
    endpoints = [Endpoint(f"e{n}", f"10.0.{n // 250}.{n % 250 + 1}", 8000) for n in range(count)]
    datastore.set_endpoints("bench", endpoints)
    reports = cycle([EndpointMetrics(waiting=n if changing else 0, updated_s=float(n)) for n in range(2)])
    for endpoint in endpoints:
        datastore.report(endpoint, EndpointMetrics(updated_s=0.0))

    def report() -> object:
        datastore.report(endpoints[0], next(reports))
        return datastore.snapshot()

    return report


def _load_report(count: int) -> Callable[[], object]:
    datastore = Datastore()
    datastore.set_endpoints("bench", [Endpoint(f"e{n}", f"10.0.{n // 250}.{n % 250 + 1}", 8000) for n in range(count)])
    values = cycle([f'JSON {{"named_metrics": {{"num_requests_waiting": {n}.0, "kv_cache_usage_perc": 0.{n}}}}}' for n in (1, 2)])
    reports = LoadReports(datastore.report_load, lambda: 1.0)

    def take() -> object:
        reports.take("10.0.0.1:8000", next(values))
        return datastore.snapshot()

    return take
