"""What waits, and where: requests in flows, flows in bands. No policy, no time of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any

from picker.admission.flow.settings import BandSettings
from picker.errors import Refusal
from picker.plugin import FairQueue
from picker.request import InferenceRequest

_SWEEP = 64
"""Entries of requests that have left stay in a queue until they come up, or are more than half of it and than this."""


class QueuedRequest:
    """One request that waits. `key` is the ordering policy's; times are monotonic seconds."""

    __slots__ = (
        "account",
        "controller_leave",
        "deadline_s",
        "decided",
        "enqueued_s",
        "flow",
        "gone",
        "key",
        "request",
        "seq",
        "size_bytes",
        "ttl_s",
    )

    def __init__(
        self, request: InferenceRequest, flow: Flow, seq: int, enqueued_s: float, ttl_s: float, decided: Callable[[Refusal | None], None]
    ) -> None:
        self.request = request
        self.flow = flow
        self.seq = seq
        """Requests in the order of their arrival."""
        self.enqueued_s = enqueued_s
        self.ttl_s = ttl_s
        self.deadline_s = enqueued_s + ttl_s
        self.size_bytes = request.size_bytes
        self.decided = decided
        self.key: Any = None
        self.account: Any = None
        """For whoever counts it."""
        self.gone = False
        self.controller_leave: Callable[[QueuedRequest], None] | None = None

    def leave(self) -> None:
        """The client is not interested any more."""
        if not self.gone and self.controller_leave is not None:
            self.controller_leave(self)


class Flow:
    """The requests of one fairness id in one band, in the order of the ordering policy."""

    __slots__ = ("_dead", "_heap", "account", "band", "bytes", "fairness_id", "idle_since_s", "requests", "turn")

    def __init__(self, fairness_id: str, band: Band) -> None:
        self.fairness_id = fairness_id
        self.band = band
        self.requests = 0
        self.bytes = 0
        self.idle_since_s = 0.0
        self.turn: Any = None
        """For the fairness policy."""
        self.account: Any = None
        """For whoever counts its requests."""
        self._heap: list[tuple[Any, int, QueuedRequest]] = []
        self._dead = 0

    def head(self) -> QueuedRequest | None:
        """The request whose turn it is within the flow."""
        heap = self._heap
        while heap and heap[0][2].gone:
            heappop(heap)
            self._dead -= 1
        return heap[0][2] if heap else None

    def push(self, item: QueuedRequest) -> bool:
        """Whether it is the new head."""
        heappush(self._heap, (item.key, item.seq, item))
        self.requests += 1
        self.bytes += item.size_bytes
        return self._heap[0][2] is item

    def drop(self, item: QueuedRequest) -> None:
        """It is not waiting any more."""
        item.gone = True
        self.requests -= 1
        self.bytes -= item.size_bytes
        self._dead += 1
        if self._dead > _SWEEP and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].gone]
            heapify(self._heap)
            self._dead = 0

    def waiting(self) -> list[QueuedRequest]:
        """All of them, in no order."""
        return [entry[2] for entry in self._heap if not entry[2].gone]

    @property
    def entries(self) -> int:
        """Places taken in memory: requests and what is left of others."""
        return len(self._heap)


class Band:
    """All flows of one priority."""

    __slots__ = ("bytes", "credit", "fair", "flows", "idle_since_s", "newest", "priority", "requests", "settings")

    def __init__(self, priority: int, settings: BandSettings, now_s: float) -> None:
        self.priority = priority
        self.settings = settings
        self.flows: dict[str, Flow] = {}
        self.fair: FairQueue = settings.fairness.queue()
        self.requests = 0
        self.bytes = 0
        self.credit = 0.0
        """Of a weighted band."""
        self.idle_since_s = now_s
        self.newest: list[QueuedRequest] = []
        """By arrival, those that have left among them."""

    def add(self, item: QueuedRequest) -> None:
        """Into its flow."""
        flow = item.flow
        first = flow.requests == 0
        is_head = flow.push(item)
        self.requests += 1
        self.bytes += item.size_bytes
        self.newest.append(item)
        if len(self.newest) > 2 * self.requests + _SWEEP:
            self.newest = [i for i in self.newest if not i.gone]
        if first:
            self.fair.add(flow)
        elif is_head:
            self.fair.moved(flow)

    def take(self, item: QueuedRequest, now_s: float) -> None:
        """Out of its flow, for whatever reason."""
        flow = item.flow
        was_head = flow.head() is item
        flow.drop(item)
        self.requests -= 1
        self.bytes -= item.size_bytes
        if not flow.requests:
            flow.idle_since_s = now_s
            self.fair.remove(flow)
        elif was_head:
            self.fair.moved(flow)
        if not self.requests:
            self.idle_since_s = now_s
            self.newest.clear()

    def count_turn(self, item: QueuedRequest, now_s: float) -> None:
        """This request has its turn: a fairness policy that counts turns over all bands hears of each."""
        dispatched = getattr(self.settings.fairness, "dispatched", None)
        if dispatched is not None:
            dispatched(item.flow.fairness_id, now_s - item.enqueued_s, now_s)

    def full(self, size_bytes: int) -> str:
        """What is at capacity for one more request of this size; empty: nothing."""
        s = self.settings
        if s.max_requests and self.requests >= s.max_requests:
            return f"{s.max_requests} requests of priority {self.priority}"
        if s.max_bytes and self.bytes + size_bytes > s.max_bytes:
            return f"{s.max_bytes} bytes of priority {self.priority}"
        return ""

    def newest_first(self) -> Iterator[QueuedRequest]:
        """Those that have waited least first. The band must not change meanwhile."""
        while self.newest and self.newest[-1].gone:
            self.newest.pop()
        return (item for item in reversed(self.newest) if not item.gone)
