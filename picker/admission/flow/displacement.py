"""Who gives up a place in the queues for a request that matters more."""

from __future__ import annotations

from collections.abc import Sequence

from picker.admission.flow.queues import Band, QueuedRequest


def victims(descending: Sequence[Band], priority: int, *, requests: int, size_bytes: int) -> list[QueuedRequest]:
    """The first of those below `priority` that together are `requests` (at least 1) and `size_bytes`, the lowest priority and there the
    newest first. None when even all of them are too few: then nobody is to be displaced. `descending` are all bands, highest first."""
    lower = [band for band in reversed(descending) if band.priority < priority and band.requests]
    if sum(band.requests for band in lower) < requests or sum(band.bytes for band in lower) < size_bytes:
        return []
    chosen: list[QueuedRequest] = []
    for band in lower:
        for victim in band.newest_first():
            chosen.append(victim)
            size_bytes -= victim.size_bytes
            if len(chosen) >= requests and size_bytes <= 0:
                return chosen
    return []
