"""How each wait ends for the client: status, text and drop reason, through a whole picker without sockets (contract sections 1.8 and 5)."""

from __future__ import annotations

from dataclasses import replace

from picker.admission.flow.controller import FlowController
from picker.admission.flow.eviction import EvictionPriorityThenTimeOrdering, EvictionSheddableFilter
from picker.admission.flow.observing import Books
from picker.admission.flow.room import Room
from picker.admission.flow.settings import EvictionSettings
from picker.extproc.conversation import Conversation
from picker.extproc.events import HeadersReply, ImmediateReply, Reply, RequestBody, RequestHeaders, ResponseBody, ResponseHeaders
from picker.timing import REQUEST_HEADER, timed
from tests.picker.admission.flow.rig import Clock
from tests.picker.scheduling.pool import build
from tests.picker.world import P, World

BODY = b'{"model":"m","prompt":"x"}'
DROP_REASON = "x-llm-d-request-dropped-reason"
CONFIG = """\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {type: queue-scorer}
- {type: concurrency-detector, parameters: {maxConcurrency: 1}}
schedulingProfiles:
- {name: default, plugins: [{pluginRef: queue-scorer}]}
flowControl:
  saturationDetector: {pluginRef: concurrency-detector}
"""


class ByHeader:
    """Takes a request's priority from a header, in place of objectives."""

    type = name = "by-header"

    def request_header(self, request) -> None:  # type: ignore[no-untyped-def]
        request.priority = int(request.headers.get("x-test-priority", "0"))


class Stream:
    """One request from its headers to its end."""

    def __init__(self, queueing: Queueing, headers: dict[str, str]) -> None:
        self.replies: list[Reply] = []
        self.conversation: Conversation = queueing.world.conversation(self.replies.extend)
        asking = [(":path", b"/v1/completions"), *[(name, value.encode()) for name, value in headers.items()]]
        self.replies += [*self.conversation.receive(RequestHeaders(asking)), *self.conversation.receive(RequestBody(BODY, True))]

    @property
    def routed(self) -> bool:
        return bool(self.replies) and isinstance(self.replies[0], HeadersReply)

    @property
    def refused(self) -> tuple[int, str, str | None]:
        """Status, text and drop reason."""
        (reply,) = self.replies
        assert isinstance(reply, ImmediateReply)
        reason = dict(reply.set_headers).get(DROP_REASON)
        return reply.status, reply.body.decode(), None if reason is None else reason.decode()

    def finish(self) -> None:
        """The model server answers."""
        self.conversation.receive(ResponseHeaders([(":status", b"200")]))
        self.conversation.receive(ResponseBody(b"{}", True))
        self.conversation.end()


class Queueing:
    """A picker that lets one request in at a time."""

    def __init__(self, *more: str, pods: int = 1, evicts: bool = False) -> None:
        self.clock = Clock()
        self.world = World(*[P(i) for i in range(pods)], config=CONFIG + "".join(f"  {line}\n" for line in more))
        world = self.world
        settings = world.pipeline.flow
        assert settings is not None
        if evicts:  # not by the configuration: its default policies are experimental, and a picker has to allow those
            eviction = EvictionSettings(build(EvictionSheddableFilter), build(EvictionPriorityThenTimeOrdering), 0.01)
            settings = replace(settings, eviction=eviction)
        room = Room(settings.detector, world.datastore.snapshot)
        self.controller = FlowController(settings, room, Books(world.metrics, "pool"), lambda: self.clock.now, self.clock.call_later)
        world.director.stages.request_header = timed(world.metrics, REQUEST_HEADER, [ByHeader()])
        world.director.stages.queue_with(self.controller)

    def ask(self, **headers: str) -> Stream:
        return Stream(self, {name.replace("_", "-"): value for name, value in headers.items()})

    def assert_idle(self, **outcomes: int) -> None:
        """Nothing waits, nothing is in flight, and each request ended in its outcome."""
        self.world.assert_idle()
        assert (self.controller.requests, self.controller.bytes) == (0, 0)
        counted = self.world.page().find("llm_d_epp_flow_control_requests_total")
        found: dict[str, float] = {}
        for sample in counted:
            found[sample.labels["outcome"]] = found.get(sample.labels["outcome"], 0) + sample.value
        assert found == outcomes


def test_dispatched_at_once_and_after_a_wait() -> None:
    picker = Queueing()
    first, second = picker.ask(), picker.ask()
    assert first.routed and second.replies == [] and second.conversation.waiting
    first.finish()
    assert second.routed
    second.finish()
    picker.assert_idle(Dispatched=2)


def test_a_higher_priority_goes_first() -> None:
    picker = Queueing()
    first, low, high = picker.ask(), picker.ask(), picker.ask(x_test_priority="3")
    first.finish()
    assert high.routed and not low.routed
    high.finish()
    low.finish()
    picker.assert_idle(Dispatched=3)


def test_rejected_for_want_of_room_in_the_queue() -> None:
    picker = Queueing("maxRequests: 1")
    first, waits, late = picker.ask(), picker.ask(), picker.ask()
    assert late.refused == (429, "inference error: ResourceExhausted - queue at capacity: 1 requests", "rejected-saturated")
    first.finish()
    waits.finish()
    picker.assert_idle(Dispatched=2, RejectedCapacity=1)


def test_rejected_as_there_is_nothing_to_wait_for() -> None:
    picker = Queueing("noEndpointRequestTTL: 0s", pods=0)
    status, text, reason = picker.ask().refused
    assert (status, reason) == (503, "rejected-no-endpoints")
    assert text.startswith("inference error: ServiceUnavailable - no endpoints available: ")
    picker.assert_idle(RejectedNoEndpoints=1)


def test_timed_out_in_the_queue() -> None:
    picker = Queueing("defaultRequestTTL: 2s")
    first, waits, hurried = picker.ask(), picker.ask(), picker.ask(x_request_timeout_ms="500")
    picker.clock.advance(0.6)
    assert hurried.refused[0] == 429 and waits.replies == []
    picker.clock.advance(1.5)
    status, text, reason = waits.refused
    assert (status, reason) == (429, "rejected-ttl-expired")
    assert text.startswith("inference error: ResourceExhausted - request timed out in queue: ")
    first.finish()
    picker.assert_idle(Dispatched=1, EvictedTTL=2)


def test_timed_out_without_endpoints() -> None:
    picker = Queueing("noEndpointRequestTTL: 1s", pods=0)
    waits = picker.ask()
    picker.clock.advance(1.1)
    status, text, reason = waits.refused
    assert (status, reason) == (503, "rejected-no-endpoints")
    assert text.startswith("inference error: ServiceUnavailable - request timed out in queue and no endpoints are available: ")
    picker.assert_idle(EvictedNoEndpoints=1)


def test_a_client_that_leaves_the_queue_is_not_answered_and_takes_no_turn() -> None:
    picker = Queueing()
    first, leaves, stays = picker.ask(), picker.ask(), picker.ask()
    leaves.conversation.end()
    assert leaves.replies == []
    first.finish()
    assert stays.routed and leaves.replies == []
    stays.finish()
    picker.assert_idle(Dispatched=2, EvictedContextCancelled=1)


def test_displaced_by_a_request_that_matters_more() -> None:
    picker = Queueing("maxRequests: 1")
    first, low, high = picker.ask(), picker.ask(x_test_priority="-1"), picker.ask(x_test_priority="1")
    status, text, reason = low.refused
    assert (status, reason) == (429, "evicted-priority")
    assert text.startswith("inference error: ResourceExhausted - displaced by a request of higher priority: ")
    first.finish()
    high.finish()
    picker.assert_idle(Dispatched=2, EvictedOther=1)


def test_refused_when_the_picker_stops() -> None:
    picker = Queueing()
    first, waits = picker.ask(), picker.ask()
    picker.controller.close()
    late = picker.ask()
    for stream in (waits, late):
        status, text, reason = stream.refused
        assert (status, reason) == (503, "rejected-shutting-down")
        assert text.startswith("inference error: ServiceUnavailable - flow controller shutting down: ")
    first.finish()
    picker.assert_idle(Dispatched=1, EvictedOther=1, RejectedOther=1)


def test_taken_away_from_its_model_server() -> None:
    picker = Queueing(evicts=True)
    sheddable = picker.ask(x_test_priority="-1")
    assert sheddable.routed
    sheddable.replies.clear()
    urgent = picker.ask(x_test_priority="1")
    assert sheddable.refused == (429, "request evicted by flow control", "evicted")
    assert urgent.routed
    urgent.finish()
    picker.assert_idle(Dispatched=2)
