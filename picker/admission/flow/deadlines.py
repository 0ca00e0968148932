"""When those that wait give up."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

from picker.admission.flow.queues import QueuedRequest


class Deadlines:
    """A heap. Those that have left stay in it until they come up, or are most of it."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, QueuedRequest]] = []
        self.empty_since_s: float | None = None
        """Since when there are no endpoints; None: there are some."""

    def add(self, item: QueuedRequest, no_endpoint_ttl_s: float) -> None:
        """Sets its deadline, too.

        Without endpoints another time to live applies, from the moment on that there are none; the sum never exceeds the longer one.
        """
        if self.empty_since_s is None:
            item.deadline_s = item.enqueued_s + item.ttl_s
        else:
            since_s = max(item.enqueued_s, self.empty_since_s)
            item.deadline_s = min(since_s + no_endpoint_ttl_s, item.enqueued_s + max(item.ttl_s, no_endpoint_ttl_s))
        heappush(self._heap, (item.deadline_s, item.seq, item))

    def begin_anew(self, waiting: Iterable[QueuedRequest], no_endpoint_ttl_s: float) -> None:
        """Other times apply from now on."""
        self._heap = []
        for item in waiting:
            self.add(item, no_endpoint_ttl_s)

    def due(self, now_s: float) -> QueuedRequest | None:
        """One whose time has run out."""
        heap = self._heap
        while heap and (heap[0][2].gone or heap[0][0] <= now_s):
            item = heappop(heap)[2]
            if not item.gone:
                return item
        return None

    def tidy(self, waiting: int) -> None:
        """There are so many that wait."""
        if len(self._heap) > 4 * waiting + 256:
            self._heap = [entry for entry in self._heap if not entry[2].gone]
            heapify(self._heap)
