"""The last decisions, kept for whoever asks why a request went where it did."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from picker.result import Decision

_MAX_ROWS = 100_000
"""Endpoints over all records: a record of 1,000 weighs a hundred times one of ten, with three scorers 60 KB."""


class DecisionLog:
    """Bounded by records and by their size: the oldest go when a new one comes."""

    def __init__(self, capacity: int = 512) -> None:
        self._capacity = capacity
        self._records: deque[Decision] = deque()
        self._rows = 0

    def add(self, decision: Decision) -> None:
        """Keep a record."""
        self._records.append(decision)
        self._rows += decision.result.rows
        while len(self._records) > self._capacity or (self._rows > _MAX_ROWS and len(self._records) > 1):
            self._rows -= self._records.popleft().result.rows

    def find(self, *, request_id: str | None = None, limit: int = 20) -> Iterator[Decision]:
        """Newest first; all of one request, or the last `limit`."""
        found = 0
        for record in reversed(self._records):
            if found >= limit:
                return
            if request_id is None or record.request_id == request_id:
                found += 1
                yield record
