"""Taking requests away from their model servers, for those that matter more (contract section 5, in-flight eviction).

Careful: each victim's work is lost. Two at most at a time, then wait until they have really ended and the detector has had time to see it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, Protocol

from picker.errors import EVICTED, Evicted
from picker.plugin import EvictionFilter, EvictionOrdering, Handle, NoParameters
from picker.request import InferenceRequest

MOST_AT_ONCE = 2
UNCONFIRMED_S = 10.0
TEXT = "request evicted by flow control"


class EvictionSheddableFilter:
    """Requests of negative priority may go."""

    type = "eviction-sheddable-filter"
    Parameters = NoParameters
    experimental = True

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name

    def evictable(self, request: InferenceRequest) -> bool:
        """Negative priority."""
        return request.priority < 0


class EvictionPriorityThenTimeOrdering:
    """The lowest priority goes first, and of those the one that came last: least of its work is lost."""

    type = "eviction-priority-then-time-ordering"
    Parameters = NoParameters
    experimental = True

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name

    def eviction_key(self, request: InferenceRequest, opened_s: float) -> tuple[int, float]:
        """Priority ascending, time descending."""
        return request.priority, -opened_s


class UnderWay(Protocol):
    """A request on its way: what is needed here of `picker.exchange.Exchange`."""

    request: InferenceRequest | None
    evictable: bool

    def on_close(self, closer: Callable[[Any], None]) -> None: ...

    def evict(self, refusal: Evicted) -> None: ...


class EvictionBooks(Protocol):
    """Where evictions are counted."""

    def issued(self, priority: int) -> None: ...

    def confirmed(self, seconds: float) -> None: ...

    def unconfirmed(self) -> None: ...

    def target(self, wanted: int, pending: int) -> None: ...


class _Victim:
    __slots__ = ("exchange", "key", "priority", "revoked_s")

    def __init__(self, exchange: UnderWay, key: Any, priority: int) -> None:
        self.exchange = exchange
        self.key = key
        self.priority = priority
        self.revoked_s = 0.0


class Evictor:
    """Knows the requests on their way that may be taken away, and decides when and how many. Times are monotonic seconds."""

    def __init__(
        self, filter_: EvictionFilter, ordering: EvictionOrdering, grace_s: float, books: EvictionBooks, now: Callable[[], float]
    ) -> None:
        self._filter = filter_
        self._ordering = ordering
        self._grace_s = grace_s
        self._books = books
        self._now = now
        self._victims: dict[int, _Victim] = {}
        self._under_way = 0
        """Requests on their way, evictable or not."""
        self._revoked: dict[int, _Victim] = {}
        """Told to go, and not gone yet. They are not told again."""
        self._overdue: dict[int, _Victim] = {}
        """Those of them that are not waited for any longer."""
        self._not_before_s = float("-inf")

    def adopt(self, filter_: EvictionFilter, ordering: EvictionOrdering, grace_s: float) -> None:
        """Other rules for requests to come; those on their way keep theirs."""
        self._filter, self._ordering, self._grace_s = filter_, ordering, grace_s

    def opened(self, exchange: UnderWay, now_s: float) -> None:
        """A request is on its way."""
        request = exchange.request
        assert request is not None
        self._under_way += 1
        if self._filter.evictable(request):
            exchange.evictable = True
            key = self._ordering.eviction_key(request, now_s)
            self._victims[id(exchange)] = _Victim(exchange, key, request.priority)
        exchange.on_close(self._closed)

    def _closed(self, exchange: UnderWay) -> None:
        self._under_way -= 1
        self._victims.pop(id(exchange), None)
        self._overdue.pop(id(exchange), None)
        victim = self._revoked.pop(id(exchange), None)
        if victim is not None:
            now_s = self._now()
            self._books.confirmed(max(0.0, now_s - victim.revoked_s))
            self._not_before_s = now_s + self._grace_s
            if not self._revoked:
                self._books.target(0, 0)

    def consider(self, *, blocked_priority: int, saturation: float, ceiling: float, now_s: float) -> int:
        """Requests of `blocked_priority` cannot be let in: how many of lower priority were taken away for them.

        max(1, ceil((saturation - ceiling - pending) / credit)), at most two; a request's credit is its part of the saturation, `pending`
        the credit of those that were told to go and still take up room.
        """
        self._give_up(now_s)
        if self._revoked or now_s < self._not_before_s or not self._under_way:
            return 0
        candidates = [v for v in self._victims.values() if v.priority < blocked_priority]
        if not candidates:
            return 0
        credit = saturation / self._under_way
        wanted = max(1, ceil((saturation - ceiling) / credit - len(self._overdue))) if credit > 0 else 1
        chosen = sorted(candidates, key=lambda v: v.key)[: min(wanted, MOST_AT_ONCE)]
        for victim in chosen:
            victim.revoked_s = now_s
            self._revoked[id(victim.exchange)] = victim
            del self._victims[id(victim.exchange)]
        self._books.target(wanted, len(chosen))
        for victim in chosen:
            self._books.issued(victim.priority)
            victim.exchange.evict(Evicted(TEXT, drop_reason=EVICTED))
        return len(chosen)

    def _give_up(self, now_s: float) -> None:
        """On revocations that nobody confirms: they must not stop all others for good."""
        late = [key for key, victim in self._revoked.items() if now_s - victim.revoked_s >= UNCONFIRMED_S]
        for key in late:
            self._overdue[key] = self._revoked.pop(key)
            self._books.unconfirmed()
        if late and not self._revoked:
            self._books.target(0, 0)

    @property
    def evictable(self) -> int:
        """Requests that could be taken away."""
        return len(self._victims)
