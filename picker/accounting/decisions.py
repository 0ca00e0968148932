"""The last decisions, kept for whoever asks why a request went where it did."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from picker.result import Decision


class DecisionLog:
    """Bounded: the oldest record goes when a new one comes."""

    def __init__(self, capacity: int = 512) -> None:
        self._records: deque[Decision] = deque(maxlen=capacity)

    def add(self, decision: Decision) -> None:
        """Keep a record."""
        self._records.append(decision)

    def find(self, *, request_id: str | None = None, limit: int = 20) -> Iterator[Decision]:
        """Newest first; all of one request, or the last `limit`."""
        found = 0
        for record in reversed(self._records):
            if found >= limit:
                return
            if request_id is None or record.request_id == request_id:
                found += 1
                yield record
