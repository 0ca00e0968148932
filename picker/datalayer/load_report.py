"""What a model server tells of its load in the header of an answer: ORCA's `endpoint-load-metrics`, as vLLM writes it.

    endpoint-load-metrics: JSON {"named_metrics": {"num_requests_waiting": 0.0, "kv_cache_usage_perc": 0.0}}

vLLM does so on answers of /v1/chat/completions and /v1/completions that are not streamed, for requests that carry
`endpoint-load-metrics-format: JSON`. The numbers are those of its metrics page at the end of that request.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from picker.endpoint import EndpointMetrics

log = logging.getLogger(__name__)

_FORMAT = "JSON "


@dataclass(frozen=True, slots=True)
class LoadReport:
    """One header. `waiting` are requests, `kv_usage` is a fraction 0..1, None = not told. `received_s` is monotonic seconds."""

    waiting: int | None
    kv_usage: float | None
    received_s: float

    def applied_to(self, metrics: EndpointMetrics) -> EndpointMetrics:
        """`metrics` with what is told here.

        The server has just worked, so no quiet time is promised. `EndpointLoad.unseen` is left to the scrapes: a header is written
        when its request ends, and requests that were opened meanwhile may have been in its numbers or still on their way. For the
        one interval until the next scrape knows, counting some of them twice is better than not seeing a burst.
        """
        return EndpointMetrics(
            metrics.waiting if self.waiting is None else self.waiting,
            metrics.running,
            metrics.kv_usage if self.kv_usage is None else self.kv_usage,
            metrics.block_size,
            metrics.num_blocks,
            metrics.active_adapters,
            metrics.waiting_adapters,
            metrics.max_adapters,
            self.received_s if metrics.updated_s is None else max(self.received_s, metrics.updated_s),
            0.0,
            metrics.reports_load,
        )


class _NamedMetrics(msgspec.Struct):
    num_requests_waiting: float | None = None
    kv_cache_usage_perc: float | None = None


class _Document(msgspec.Struct):
    named_metrics: _NamedMetrics


_decode = msgspec.json.Decoder(_Document).decode


def parse_load_report(value: str, received_s: float) -> LoadReport | None:
    """A header's value; None when it is not JSON format, malformed, or tells nothing. Negative and infinite numbers are not told."""
    if not value.startswith(_FORMAT):
        return None
    try:
        told = _decode(value[len(_FORMAT) :]).named_metrics
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    waiting, kv_usage = _usable(told.num_requests_waiting), _usable(told.kv_cache_usage_perc)
    if waiting is None and kv_usage is None:
        return None
    return LoadReport(None if waiting is None else int(waiting), kv_usage, received_s)


def _usable(value: float | None) -> float | None:
    return value if value is not None and 0.0 <= value < math.inf else None


class LoadReports:
    """Reads headers, and hands on what they tell."""

    def __init__(self, report: Callable[[str, LoadReport], bool], now: Callable[[], float]) -> None:
        """`report` is `Datastore.report_load`; `now` is monotonic seconds."""
        self._report = report
        self._now = now
        self.taken = 0
        """Reports that were of use."""

    def take(self, host_port: str, value: str) -> None:
        """The header of an answer from `host_port`. One that cannot be read is ignored: the next scrape is at hand."""
        report = parse_load_report(value, self._now())
        if report is None:
            log.debug("endpoint %s: its load report cannot be read: %.200r", host_port, value)
        else:
            self.taken += self._report(host_port, report)
