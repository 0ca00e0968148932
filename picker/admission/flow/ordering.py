"""Ordering policies: which request of a flow comes first (contract section 4.8). The smallest key does; equal keys in order of arrival."""

from __future__ import annotations

from math import inf

from picker.keys import SLO_TTFT
from picker.plugin import Handle, NoParameters, QueuedItem


class _Ordering:
    Parameters = NoParameters

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name


class FcfsOrderingPolicy(_Ordering):
    """First come, first served."""

    type = "fcfs-ordering-policy"

    def key(self, item: QueuedItem) -> float:
        """All alike: arrival decides."""
        return 0.0


class EdfOrderingPolicy(_Ordering):
    """Earliest deadline first: the request whose time in the queue runs out first."""

    type = "edf-ordering-policy"

    def key(self, item: QueuedItem) -> float:
        """Enqueued + TTL."""
        return item.enqueued_s + item.ttl_s


class SloDeadlineOrderingPolicy(_Ordering):
    """The request whose promised time to first token comes first; those without a promise come last."""

    type = "slo-deadline-ordering-policy"

    def key(self, item: QueuedItem) -> float:
        """Received + the header `x-llm-d-slo-ttft-ms`; one that is no number or negative counts as none."""
        for name in SLO_TTFT:
            text = item.request.headers.get(name)
            if text:
                try:
                    ttft_ms = float(text)
                except ValueError:
                    return inf
                return item.request.received_s + ttft_ms / 1e3 if 0 <= ttft_ms < inf else inf
        return inf
