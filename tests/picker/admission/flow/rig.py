"""Flow control on a clock that is moved by hand: a controller over a pool of servers that take so many requests each."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from picker.admission.flow.controller import FlowController
from picker.admission.flow.fairness import GlobalStrictFairnessPolicy, RoundRobinFairnessPolicy
from picker.admission.flow.observing import Books
from picker.admission.flow.ordering import FcfsOrderingPolicy
from picker.admission.flow.room import Room
from picker.admission.flow.settings import BandSettings, FlowSettings
from picker.admission.flow.usage_limits import StaticUsageLimitPolicy
from picker.admission.saturation import ConcurrencyDetector
from picker.endpoint import NEVER_SCRAPED
from picker.errors import Evicted, Refusal
from picker.metrics import Metrics
from picker.request import InferenceRequest, ParsedBody
from picker.snapshot import Snapshot
from tests.picker.scheduling.pool import build, endpoint, load
from tests.support.prometheus import Page


class Clock:
    """Seconds, and what is to happen when."""

    def __init__(self) -> None:
        self.now = 100.0
        self._seq = 0
        self._timers: list[tuple[float, int, _Timer]] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> _Timer:
        self._seq += 1
        timer = _Timer(callback)
        heappush(self._timers, (self.now + delay_s, self._seq, timer))
        return timer

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            at, _, timer = heappop(self._timers)
            self.now = max(self.now, at)
            timer.fire()
        self.now = until


class _Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self._callback = None

    def fire(self) -> None:
        if self._callback is not None:
            self._callback()


class Job:
    """One request from its arrival to its end: plays the director and the exchange."""

    def __init__(self, rig: Rig, request: InferenceRequest) -> None:
        self.rig = rig
        self.request: InferenceRequest | None = request
        self.evictable = False
        self.outcome: object = None
        """None: waits; True: on its way; a Refusal; "left"; "done"; "evicted"."""
        self.place: Any = None
        self._closers: list[Callable[[Any], None]] = []

    def decided(self, refusal: Refusal | None) -> None:
        assert self.outcome is None, f"decided twice: {self.outcome}, {refusal}"
        if refusal is not None:
            self.outcome = refusal
            return
        self.outcome = True
        self.rig.order.append(self)
        self.server = min(self.rig.loads, key=lambda each: each.requests)
        self.mark = self.server.open_request(0)
        self.rig.under_way.append(self)
        self.rig.controller.opened(self)

    def leave(self) -> None:
        assert self.outcome is None
        self.outcome = "left"
        self.place.leave()

    def on_close(self, closer: Callable[[Any], None]) -> None:
        self._closers.append(closer)

    def finish(self, how: str = "done") -> None:
        assert self.outcome is True
        self.outcome = how
        self.server.close_request(self.mark)
        self.rig.under_way.remove(self)
        for closer in self._closers:
            closer(self)

    def evict(self, refusal: Evicted) -> None:
        self.finish("evicted")


def band(*, fair: Any = GlobalStrictFairnessPolicy, order: Any = FcfsOrderingPolicy, **limits: Any) -> BandSettings:
    """Settings with policies by class."""
    return BandSettings(build(fair), build(order), **limits)


def settings(*, servers: int = 1, capacity: int = 1, usage: Any = None, **more: Any) -> FlowSettings:
    """With a detector that counts requests in flight."""
    detector = build(ConcurrencyDetector, {"maxConcurrency": capacity})
    more.setdefault("default_band", band())
    more.setdefault("default_negative_band", more["default_band"])
    return FlowSettings(detector, usage or build(StaticUsageLimitPolicy), **more)


class Rig:
    """`servers` that take `capacity` requests each."""

    def __init__(self, *, servers: int = 1, capacity: int = 1, **more: Any) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        self.loads = [load() for _ in range(servers)]
        self.endpoints = [endpoint(i + 1) for i in range(servers)]
        self.gone = False
        self.settings = settings(servers=servers, capacity=capacity, **more)
        self.room = Room(self.settings.detector, self.snapshot)
        self.controller = FlowController(
            self.settings, self.room, Books(self.metrics, "pool"), lambda: self.clock.now, self.clock.call_later
        )
        self.order: list[Job] = []
        """In which they were let in."""
        self.under_way: list[Job] = []
        self._full = Snapshot(1, self.endpoints, [NEVER_SCRAPED] * servers, self.loads, range(servers))
        self._none = Snapshot(2, [], [], [], [])

    def snapshot(self) -> Snapshot:
        return self._none if self.gone else self._full

    def send(self, fairness_id: str = "f", priority: int = 0, size_bytes: int = 1, headers: dict[str, str] | None = None) -> Job:
        """One more request. Raises its Refusal when there is no place for it."""
        request = InferenceRequest(
            f"r{len(self.order)}", "/v1/completions", headers or {}, ParsedBody(), "m", "m",
            priority=priority, fairness_id=fairness_id, size_bytes=size_bytes, received_s=self.clock.now,
        )  # fmt: skip
        job = Job(self, request)
        job.place = self.controller.enqueue(request, job.decided)
        return job

    def page(self) -> Page:
        return Page(self.metrics.registry)

    def outcomes(self) -> dict[str, float]:
        """Requests by how their time in the queue ended."""
        found: dict[str, float] = {}
        for sample in self.page().find("llm_d_epp_flow_control_requests_total"):
            found[sample.labels["outcome"]] = found.get(sample.labels["outcome"], 0) + sample.value
        return found

    def assert_empty(self) -> None:
        """Nothing waits, by the controller and by the gauges."""
        assert self.controller.requests == self.controller.bytes == 0
        for name in ("queue_size", "queue_bytes"):
            assert all(s.value == 0 for s in self.page().find(f"llm_d_epp_flow_control_{name}"))
        for each in self.controller.descending():
            assert each.requests == each.bytes == 0 and each.fair.next(self.clock.now) is None
            assert not any(flow.requests for flow in each.flows.values())


ROUND_ROBIN = RoundRobinFairnessPolicy
