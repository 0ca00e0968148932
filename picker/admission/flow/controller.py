"""Flow control: who waits, whose turn it is, and who never will have one (contract section 5). No clock, no socket, no task.

Bands of priorities, highest first; in each band flows by fairness id; in each flow requests. One dispatch cycle lets in as many as the pool
has room for: what is let in counts in the pool's load at once, so that the next look at the saturation sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from picker.admission.flow.deadlines import Deadlines
from picker.admission.flow.displacement import victims
from picker.admission.flow.eviction import Evictor, UnderWay
from picker.admission.flow.limits import request_ttl_s
from picker.admission.flow.observing import Books, Outcome
from picker.admission.flow.queues import Band, Flow, QueuedRequest
from picker.admission.flow.room import Room
from picker.admission.flow.settings import FlowSettings
from picker.admission.flow.weights import share
from picker.errors import (
    EVICTED_PRIORITY,
    REJECTED_NO_ENDPOINTS,
    REJECTED_SATURATED,
    REJECTED_SHUTTING_DOWN,
    REJECTED_TTL,
    Refusal,
    Rejected,
    Unavailable,
)
from picker.request import InferenceRequest

TICK_S = 0.01
"""While something waits: metrics of model servers change without anybody telling us."""
REFERENCE_TICK_S = 0.001
SWEEP_S = 10.0
IDLE_FLOW_S = 300.0
IDLE_BAND_S = 600.0
MAX_FLOWS = 10_000
"""Of one band. Clients choose fairness ids: those beyond share one flow."""
SHARED_FLOW = "other"
_UNOPENED = 16
"""Requests let in and not yet on their way, because something has yet to be asked about them: that many and no more."""


class Timer(Protocol):
    """`asyncio.TimerHandle` is one."""

    def cancel(self) -> None: ...


CallLater = Callable[[float, Callable[[], None]], Timer]


class FlowController:
    """Implements `picker.director.FlowController`. Every request that is enqueued ends in exactly one outcome."""

    def __init__(self, settings: FlowSettings, room: Room, books: Books, now: Callable[[], float], call_later: CallLater) -> None:
        self.settings = settings
        self.room = room
        self._books = books
        self._now = now
        self._call_later = call_later
        self.bands: dict[int, Band] = {}
        self._descending: list[Band] = []
        self._priorities: list[int] = []
        """Of `_descending`."""
        self.requests = 0
        self.bytes = 0
        self._seq = 0
        self._deadlines = Deadlines()
        self._cycling = self._again = False
        self._unopened = 0
        self._closed = False
        self._tick: Timer | None = None
        self._swept_s = now()
        self.evictor = self._make_evictor(settings)
        for priority in settings.bands:
            self._band(priority, self._swept_s)

    def _make_evictor(self, settings: FlowSettings) -> Evictor | None:
        e = settings.eviction
        return None if e is None else Evictor(e.filter, e.ordering, e.grace_s, self._books.eviction, self._now)

    @property
    def _tick_s(self) -> float:
        return REFERENCE_TICK_S if self.settings.as_reference else TICK_S

    # ---- in ------------------------------------------------------------------------------------------------------------------

    def enqueue(self, request: InferenceRequest, decided: Callable[[Refusal | None], None]) -> QueuedRequest:
        """See `picker.director.FlowController`. Raises Rejected when the queues are full, Unavailable when nothing can be waited for."""
        now_s = self._now()
        band = self.bands.get(request.priority) or self._band(request.priority, now_s)
        settings = self.settings
        if self._closed:
            raise self._books.refused(request, Outcome.REJECTED_OTHER, _shutting_down(), now_s)
        saturation = self._look(now_s)
        refusal: Refusal
        if self._deadlines.empty_since_s is not None and settings.no_endpoint_ttl_s <= 0:
            refusal = Unavailable("no endpoints available: the pool is empty", drop_reason=REJECTED_NO_ENDPOINTS)
            raise self._books.refused(request, Outcome.REJECTED_NO_ENDPOINTS, refusal, now_s)
        full = self._full(band, request.size_bytes)
        if full and not self._displace(band, request.size_bytes, now_s):
            refusal = Rejected(f"queue at capacity: {full}", drop_reason=REJECTED_SATURATED)
            raise self._books.refused(request, Outcome.REJECTED_CAPACITY, refusal, now_s)
        ttl_s = settings.default_ttl_s
        if not settings.as_reference:
            ttl_s = request_ttl_s(request.headers, ttl_s)
        self._seq += 1
        flow = band.flows.get(request.fairness_id) or self._flow(band, request.fairness_id)
        item = QueuedRequest(request, flow, self._seq, now_s, ttl_s, decided)
        if not self.requests and not self._cycling and self._passes(band, saturation):
            self._let_through(item, now_s)
            return item
        item.key = band.settings.ordering.key(item)
        item.controller_leave = self._left
        band.add(item)
        self.requests += 1
        self.bytes += item.size_bytes
        self._deadlines.add(item, settings.no_endpoint_ttl_s)
        self._books.queued(item)
        self.cycle(saturation)
        self._books.enqueued(item, self._now() - now_s)
        self._wind()
        return item

    def _passes(self, band: Band, saturation: float) -> bool:
        """Whether a request of this band may go on although nobody has looked at the queues. Only while they are empty."""
        if self._deadlines.empty_since_s is not None or self._unopened >= _UNOPENED:
            return False
        ceilings = self.settings.usage_limit.ceilings(self._priorities, saturation)
        return saturation < ceilings[self._descending.index(band)]

    def _let_through(self, item: QueuedRequest, now_s: float) -> None:
        """Past the empty queues: they cost a third of what an uncontended request costs here."""
        item.gone = True
        item.flow.idle_since_s = item.flow.band.idle_since_s = now_s
        item.flow.band.count_turn(item, now_s)
        self._unopened += 1
        item.decided(None)
        self._books.passed(item, self._now() - now_s)

    def opened(self, exchange: UnderWay) -> None:
        """A request that was let in is on its way."""
        self._unopened = max(0, self._unopened - 1)
        if self.evictor is not None and exchange.request is not None:
            self.evictor.opened(exchange, self._now())
        exchange.on_close(self._closed_one)

    def abandoned(self, request: InferenceRequest) -> None:
        """A request that was let in will never be on its way."""
        self._unopened = max(0, self._unopened - 1)

    def _closed_one(self, exchange: UnderWay) -> None:
        if self.requests:
            self.cycle()
            self._wind()

    def _left(self, item: QueuedRequest) -> None:
        now_s = self._now()
        self._take(item, now_s)
        self._books.ended(item, Outcome.EVICTED_CONTEXT_CANCELLED, now_s)
        self._wind()

    # ---- whose turn ------------------------------------------------------------------------------------------------------------

    def cycle(self, saturation: float | None = None) -> None:
        """Let in what there is room for. What is let in may end at once, and call this again: that becomes another round.

        `saturation` is the pool's if that has just been looked at.
        """
        if self._cycling:
            self._again = True
            return
        self._cycling = True
        began_s = now_s = self._now()
        try:
            self._again = True
            while self._again:
                self._again = False
                if saturation is None:
                    saturation = self._look(now_s)
                self._expire(now_s)
                while self.requests and (item := self._next(saturation, now_s)) is not None:
                    self._let_in(item, now_s)
                    if self.settings.as_reference:
                        return
                    now_s = self._now()
                    saturation = self._look(now_s)
                saturation = None
        finally:
            self._cycling = False
            self._books.cycle(self._now() - began_s)

    def _let_in(self, item: QueuedRequest, now_s: float) -> None:
        self._take(item, now_s)
        item.flow.band.fair.served(item.flow)
        item.flow.band.count_turn(item, now_s)
        self._books.ended(item, Outcome.DISPATCHED, now_s)
        self._unopened += 1
        item.decided(None)

    def _next(self, saturation: float, now_s: float) -> QueuedRequest | None:
        if self._deadlines.empty_since_s is not None or self._unopened >= _UNOPENED:
            return None
        strict = self.settings.as_reference
        allowed: list[Band] = []
        ceilings = self.settings.usage_limit.ceilings(self._priorities, saturation)
        for band, ceiling in zip(self._descending, ceilings, strict=True):
            if not band.requests:
                continue
            if saturation >= ceiling:
                if not allowed and self.evictor is not None:
                    self.evictor.consider(blocked_priority=band.priority, saturation=saturation, ceiling=ceiling, now_s=now_s)
                break
            allowed.append(band)
            if strict or allowed[0].settings.weight is None:
                break
        if not allowed:
            return None
        flow = (allowed[0] if len(allowed) == 1 else share(allowed)).fair.next(now_s)
        head = None if flow is None else flow.head()
        return head if isinstance(head, QueuedRequest) else None

    # ---- room in the queues ----------------------------------------------------------------------------------------------------

    def _displace(self, band: Band, size_bytes: int, now_s: float) -> bool:
        """Whether requests of lower priority make a place. Nobody is displaced unless that makes it."""
        if self.settings.as_reference:
            return False
        displaced = self._victims(band, size_bytes)
        for victim in displaced:
            self._end(
                victim,
                Outcome.EVICTED_OTHER,
                Rejected("displaced by a request of higher priority: the queue is at capacity", drop_reason=EVICTED_PRIORITY),
                now_s,
            )
        return bool(displaced)

    def _victims(self, band: Band, size_bytes: int) -> list[QueuedRequest]:
        s = self.settings
        requests = self.requests - s.max_requests + 1 if s.max_requests else 1
        size = self.bytes + size_bytes - s.max_bytes if s.max_bytes else 0
        if band.full(size_bytes) and band.settings.max_bytes:
            size = max(size, size_bytes)  # places of lower bands in exchange for one of this: as many bytes as it takes
        return victims(self._descending, band.priority, requests=max(requests, 1), size_bytes=max(size, 0))

    def _full(self, band: Band, size_bytes: int) -> str:
        """What is at capacity; empty: nothing."""
        s = self.settings
        if s.max_requests and self.requests >= s.max_requests:
            return f"{s.max_requests} requests"
        if s.max_bytes and self.bytes + size_bytes > s.max_bytes:
            return f"{s.max_bytes} bytes"
        return band.full(size_bytes)

    # ---- time ------------------------------------------------------------------------------------------------------------------

    def _look(self, now_s: float) -> float:
        """The pool's saturation. Notes whether there are endpoints, too: without any other deadlines apply."""
        deadlines = self._deadlines
        saturation = self.room.level(now_s)
        if (saturation is None) != (deadlines.empty_since_s is not None):
            deadlines.empty_since_s = now_s if saturation is None else None
            deadlines.begin_anew(self._waiting(), self.settings.no_endpoint_ttl_s)
        return 1.0 if saturation is None else saturation

    def _waiting(self) -> list[QueuedRequest]:
        return [item for band in self._descending for flow in band.flows.values() for item in flow.waiting()]

    def _expire(self, now_s: float) -> None:
        while (item := self._deadlines.due(now_s)) is not None:
            waited = f"{now_s - item.enqueued_s:.3g}s"
            if self._deadlines.empty_since_s is None:
                text = f"request timed out in queue: waited {waited}"
                self._end(item, Outcome.EVICTED_TTL, Rejected(text, drop_reason=REJECTED_TTL), now_s)
            else:
                text = f"request timed out in queue and no endpoints are available: waited {waited}"
                self._end(item, Outcome.EVICTED_NO_ENDPOINTS, Unavailable(text, drop_reason=REJECTED_NO_ENDPOINTS), now_s)

    def _wind(self) -> None:
        """A tick while something waits; none otherwise."""
        if self.requests and self._tick is None and not self._closed:
            self._tick = self._call_later(self._tick_s, self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        self.cycle()
        self._deadlines.tidy(self.requests)
        now_s = self._now()
        if now_s - self._swept_s >= SWEEP_S:
            self.sweep(now_s)
        self._wind()

    def sweep(self, now_s: float) -> None:
        """Forget flows and bands that nobody uses. Also called when metrics are looked at: without requests nothing ticks."""
        self._swept_s = now_s
        for band in self._descending:
            idle = [f for f in band.flows.values() if not f.requests and now_s - f.idle_since_s >= IDLE_FLOW_S]
            for flow in idle:
                del band.flows[flow.fairness_id]
            if idle:
                self._books.forget_flows(band, idle)
        for band in [b for b in self._descending if not b.flows and b.priority not in self.settings.bands]:
            if now_s - band.idle_since_s >= IDLE_BAND_S:
                del self.bands[band.priority]
                self._descending.remove(band)
                self._priorities.remove(band.priority)
                self._books.forget_band(band)

    # ---- the end ---------------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """The picker stops: nobody waits any longer, nobody is let in."""
        self._closed = True
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        now_s = self._now()
        for item in self._waiting():
            if not item.gone:
                self._end(item, Outcome.EVICTED_OTHER, _shutting_down(), now_s)

    def reconfigure(self, settings: FlowSettings) -> None:
        """Go on with other settings; what waits stays, and is put in order anew."""
        waiting = sorted(self._waiting(), key=lambda item: item.seq)
        now_s = self._now()
        self.settings = settings
        self.room.detector = settings.detector
        if self.evictor is None or settings.eviction is None:
            self.evictor = self._make_evictor(settings)
        else:
            e = settings.eviction
            self.evictor.adopt(e.filter, e.ordering, e.grace_s)
        before, self.bands, self._descending, self._priorities = self._descending, {}, [], []
        for priority in settings.bands:
            self._band(priority, now_s)
        for old in before:
            # Those that are idle, too: they are forgotten in their time, and their series with them.
            band = self._band(old.priority, old.idle_since_s)
            for flow in old.flows.values():
                self._flow(band, flow.fairness_id).idle_since_s = flow.idle_since_s
        for item in waiting:
            band = self._band(item.request.priority, now_s)
            item.flow = self._flow(band, item.request.fairness_id)
            item.key = band.settings.ordering.key(item)
            band.add(item)
        self._deadlines.begin_anew(waiting, settings.no_endpoint_ttl_s)
        self.cycle()
        self._wind()

    def _end(self, item: QueuedRequest, outcome: Outcome, refusal: Refusal, now_s: float) -> None:
        self._take(item, now_s)
        self._books.ended(item, outcome, now_s)
        item.decided(refusal)

    def _take(self, item: QueuedRequest, now_s: float) -> None:
        item.flow.band.take(item, now_s)
        item.controller_leave = None
        self.requests -= 1
        self.bytes -= item.size_bytes

    # ---- bands and flows -------------------------------------------------------------------------------------------------------

    def _band(self, priority: int, now_s: float) -> Band:
        band = self.bands.get(priority)
        if band is None:
            band = self.bands[priority] = Band(priority, self.settings.band(priority), now_s)
            self._descending.append(band)
            self._descending.sort(key=lambda b: -b.priority)
            self._priorities = [b.priority for b in self._descending]
        return band

    def _flow(self, band: Band, fairness_id: str) -> Flow:
        flow = band.flows.get(fairness_id)
        if flow is None:
            if len(band.flows) >= MAX_FLOWS:
                fairness_id = SHARED_FLOW
            flow = band.flows.get(fairness_id) or band.flows.setdefault(fairness_id, Flow(fairness_id, band))
        return flow

    @property
    def saturation(self) -> float:
        """Of the pool, now."""
        return self.room.saturation(self._now())

    def ceilings(self) -> Sequence[float]:
        """By band, highest first."""
        return self.settings.usage_limit.ceilings(self._priorities, self.saturation)

    def descending(self) -> Sequence[Band]:
        """Bands, highest first."""
        return self._descending


def _shutting_down() -> Unavailable:
    return Unavailable("flow controller shutting down: try another replica", drop_reason=REJECTED_SHUTTING_DOWN)
