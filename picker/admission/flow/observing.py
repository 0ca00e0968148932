"""What flow control counts (contract section 7): one place that knows the metrics, so that the controller need not."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import TYPE_CHECKING

from picker.admission.flow.fairness import ProgramAwareFairness
from picker.admission.flow.queues import Band, Flow, QueuedRequest
from picker.errors import Refusal
from picker.instruments import OTHER, Distribution, Number
from picker.metrics import Metrics
from picker.request import InferenceRequest

if TYPE_CHECKING:
    from picker.admission.flow.controller import FlowController


class Outcome(enum.Enum):
    """How a request's time in the queue ended; the value is the metrics' label."""

    DISPATCHED = "Dispatched"
    REJECTED_CAPACITY = "RejectedCapacity"
    REJECTED_NO_ENDPOINTS = "RejectedNoEndpoints"
    REJECTED_OTHER = "RejectedOther"
    EVICTED_TTL = "EvictedTTL"
    EVICTED_NO_ENDPOINTS = "EvictedNoEndpoints"
    EVICTED_CONTEXT_CANCELLED = "EvictedContextCancelled"
    EVICTED_OTHER = "EvictedOther"


class Account:
    """Where the requests of one flow for one model are counted: looked up once, and not for each of them."""

    __slots__ = ("_dispatched", "_m", "_queued", "bytes", "labels", "model", "requests", "target_model")

    def __init__(self, metrics: Metrics, pool: str, flow: Flow, request: InferenceRequest) -> None:
        self._m = m = metrics
        self.model, self.target_model = request.model, request.target_model
        fairness_id, priority = m.cap_fairness(flow.fairness_id), str(flow.band.priority)
        self.labels = fairness_id, priority, pool, m.cap_model(request.model), m.cap_model(request.target_model)
        self.requests = m.flow_queue_size.cell(*self.labels)
        self.bytes = m.flow_queue_bytes.cell(*self.labels)
        # A series is there from the first request on that it counts, and not before.
        self._queued: Distribution | None = None
        self._dispatched: tuple[Number, Distribution, Distribution] | None = None

    def enqueued(self, seconds: float) -> None:
        """A request was queued in that time, and waits."""
        cell = self._queued
        if cell is None:
            fairness_id, priority, *_ = self.labels
            cell = self._queued = self._m.flow_enqueue.cell(fairness_id, priority, "NotYetFinalized")
        cell.observe(seconds)

    def dispatched(self, waited_s: float) -> None:
        """A request was let in."""
        count, waited, _ = self._dispatched or self._dispatches()
        count.value += 1
        waited.observe(waited_s)

    def enqueued_and_dispatched(self, seconds: float) -> None:
        """A request was queued and let in, in that time."""
        (self._dispatched or self._dispatches())[2].observe(seconds)

    def _dispatches(self) -> tuple[Number, Distribution, Distribution]:
        m, outcome = self._m, Outcome.DISPATCHED.value
        fairness_id, priority, pool, model, target = self.labels
        self._dispatched = cells = (
            m.flow_requests.cell(outcome, priority, pool),
            m.flow_queue_time.cell(fairness_id, priority, outcome, pool, model, target),
            m.flow_enqueue.cell(fairness_id, priority, outcome),
        )
        return cells


class Books:
    """Of one pool."""

    def __init__(self, metrics: Metrics, pool: str) -> None:
        self._m = metrics
        self._pool = pool
        self._cycle = metrics.flow_cycle.cell()
        self.eviction = EvictionCounts(metrics, pool)

    def _account(self, item: QueuedRequest) -> Account:
        # One for each flow, that of the model asked for last: clients can name models without end.
        flow, request = item.flow, item.request
        account: Account | None = flow.account
        if account is None or account.model != request.model or account.target_model != request.target_model:
            account = flow.account = Account(self._m, self._pool, flow, request)
        return account

    def queued(self, item: QueuedRequest) -> None:
        """It waits."""
        item.account = account = self._account(item)
        account.requests.value += 1
        account.bytes.value += item.size_bytes

    def enqueued(self, item: QueuedRequest, seconds: float) -> None:
        """How long it took to queue it, and to let it in if that was at once."""
        if item.gone:
            item.account.enqueued_and_dispatched(seconds)
        else:
            item.account.enqueued(seconds)

    def passed(self, item: QueuedRequest, seconds: float) -> None:
        """It was let in without having been queued, in that time."""
        account = self._account(item)
        account.dispatched(0.0)
        account.enqueued_and_dispatched(seconds)
        self._cycle.observe(seconds)

    def ended(self, item: QueuedRequest, outcome: Outcome, now_s: float) -> None:
        """It waits no longer."""
        account: Account = item.account
        account.requests.value -= 1
        account.bytes.value -= item.size_bytes
        if outcome is Outcome.DISPATCHED:
            account.dispatched(now_s - item.enqueued_s)
        else:
            self._count(account.labels, outcome, now_s - item.enqueued_s)

    def refused(self, request: InferenceRequest, outcome: Outcome, refusal: Refusal, now_s: float) -> Refusal:
        """It never waited. Returns the refusal."""
        m = self._m
        model, target = m.cap_model(request.model), m.cap_model(request.target_model)
        self._count((m.cap_fairness(request.fairness_id), str(request.priority), self._pool, model, target), outcome, 0.0)
        return refusal

    def _count(self, labels: tuple[str, str, str, str, str], outcome: Outcome, waited_s: float) -> None:
        fairness, priority, pool, model, target = labels
        self._m.flow_requests.cell(outcome.value, priority, pool).value += 1
        self._m.flow_queue_time.cell(fairness, priority, outcome.value, pool, model, target).observe(waited_s)

    def cycle(self, seconds: float) -> None:
        """A dispatch cycle took so long."""
        self._cycle.observe(seconds)

    def refresh(self, controller: FlowController, now_s: float) -> None:
        """The gauges that are looked up when metrics are read."""
        m, pool = self._m, self._pool
        controller.sweep(now_s)
        stages = controller.room.stages(now_s)
        for stage in ("prefill", "decode"):
            if stage in stages:
                m.flow_saturation.cell(pool, stage).value = stages[stage]
            else:
                m.flow_saturation.remove(pool, stage)
        m.flow_saturation.cell(pool, "effective").value = max(stages.values(), default=1.0)
        stale = controller.room.stale(now_s)
        if stale is not None:
            m.flow_stale.cell(str(getattr(controller.settings.detector, "name", ""))).value = stale
        settings = controller.settings
        m.flow_global_requests.cell(pool).value = _part(controller.requests, settings.max_requests)
        m.flow_global_bytes.cell(pool).value = _part(controller.bytes, settings.max_bytes)
        for band in controller.descending():
            m.flow_capacity_requests.cell(str(band.priority), pool).value = _part(band.requests, band.settings.max_requests)
            m.flow_capacity_bytes.cell(str(band.priority), pool).value = _part(band.bytes, band.settings.max_bytes)
        for policy in {id(p): p for p in settings.plugins() if isinstance(p, ProgramAwareFairness)}.values():
            m.program_jain.cell().value = policy.jain()
            for family in (m.program_wait, m.program_service):
                family.cells.clear()
            for name, program in list(policy.programs().items()):
                label = m.cap_fairness(name)
                m.program_wait.cell(label).value = 1e3 * program.waited_s / program.served if program.served else 0.0
                m.program_service.cell(label).value += policy.service(name, now_s)

    def forget_flows(self, band: Band, flows: Sequence[Flow]) -> None:
        """Nobody has used them for a while: their series go. One pass over each family for all of them together."""
        m, priority = self._m, str(band.priority)
        # Series may be shared: beyond the cap on labels by flows, beyond the cap on flows by the ids that share one.
        gone = {(m.cap_fairness(flow.fairness_id), priority) for flow in flows} - {(OTHER, priority)}
        gone -= {labels[:2] for labels, cell in m.flow_queue_size.cells.items() if cell.value}
        for family in (m.flow_queue_size, m.flow_queue_bytes, m.flow_queue_time, m.flow_enqueue):
            for labels in [each for each in family.cells if each[:2] in gone]:
                family.remove(*labels)

    def forget_band(self, band: Band) -> None:
        """As for a flow."""
        for family in (self._m.flow_capacity_requests, self._m.flow_capacity_bytes, self._m.flow_requests):
            family.forget(priority=str(band.priority))


def _part(used: int, limit: int) -> float:
    """Without a limit nothing is taken."""
    return used / limit if limit else 0.0


class EvictionCounts:
    """Implements `picker.admission.flow.eviction.EvictionBooks`."""

    def __init__(self, metrics: Metrics, pool: str) -> None:
        self._m = metrics
        self._pool = pool

    def issued(self, priority: int) -> None:
        """One request was told to go."""
        self._m.revocations_issued.cell(str(priority), self._pool).value += 1

    def confirmed(self, seconds: float) -> None:
        """It has gone."""
        self._m.revocations.cell("confirmed", self._pool).value += 1
        self._m.revocation_confirmation.cell(self._pool).observe(seconds)

    def unconfirmed(self) -> None:
        """It was given up on."""
        self._m.revocations.cell("unconfirmed", self._pool).value += 1

    def target(self, wanted: int, pending: int) -> None:
        """How many requests would make the room that is wanted, and how many are on their way out."""
        self._m.reclaim_target.cell(self._pool).value = wanted
        self._m.pending_reclaim.cell(self._pool).value = pending
