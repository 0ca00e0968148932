"""Requests that have to wait for their turn, and those that are taken away again: the conversation's side of flow control."""

from __future__ import annotations

import pytest

from picker.errors import EVICTED, REJECTED_TTL, Evicted, Rejected
from picker.exchange import Cause
from picker.extproc.events import (
    HeadersReply,
    ImmediateReply,
    Reply,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    StreamedBodyReply,
    TrailersReply,
)
from tests.picker.world import Gate, P, World, at

ASKING = [(":path", b"/v1/completions"), ("x-request-id", b"r")]
BODY = b'{"model":"m","prompt":"x"}'


class Stream:
    """A conversation, and what it said unasked."""

    def __init__(self, gate: Gate, *pods: P) -> None:
        self.world = World(*pods, gate=gate)
        self.unasked: list[Reply] = []
        self.conversation = self.world.conversation(self.unasked.extend)

    def ask(self) -> list[Reply]:
        return [*self.conversation.receive(RequestHeaders(ASKING)), *self.conversation.receive(RequestBody(BODY, True))]


def test_a_request_that_has_its_turn_at_once_is_answered_at_once() -> None:
    stream = Stream(Gate(open=True), P(0))
    headers, body = stream.ask()
    assert isinstance(headers, HeadersReply) and isinstance(body, StreamedBodyReply)
    assert not stream.unasked and not stream.conversation.may_speak
    stream.conversation.end()
    stream.world.assert_idle()


def test_a_request_that_waits_is_answered_when_it_has_its_turn() -> None:
    gate = Gate()
    stream = Stream(gate, P(0))
    assert stream.ask() == [] and stream.conversation.waiting and stream.conversation.may_speak
    gate.queue[0](None)
    headers, body = stream.unasked
    assert isinstance(headers, HeadersReply) and headers.metadata == {"envoy.lb": {"x-gateway-destination-endpoint": at(0)}}
    assert body == StreamedBodyReply(headers.phase, BODY, True)
    assert not stream.conversation.waiting and stream.world.load(at(0)).requests == 1
    stream.conversation.receive(ResponseHeaders([(":status", b"200")]))
    stream.conversation.receive(ResponseBody(b"{}", True))
    stream.conversation.end()
    assert not gate.under_way and gate.left == 0
    stream.world.assert_idle()


def test_trailers_are_answered_after_the_body_that_waited_with_them() -> None:
    gate = Gate()
    stream = Stream(gate, P(0))
    stream.conversation.receive(RequestHeaders(ASKING))
    stream.conversation.receive(RequestBody(BODY))
    assert list(stream.conversation.receive(RequestTrailers())) == []
    gate.queue[0](None)
    assert [type(reply) for reply in stream.unasked] == [HeadersReply, StreamedBodyReply, TrailersReply]
    assert stream.unasked[1].end_of_stream is False  # type: ignore[union-attr]
    stream.conversation.end()


def test_a_refusal_after_waiting_is_told_and_counted() -> None:
    gate = Gate()
    stream = Stream(gate, P(0))
    stream.ask()
    gate.queue[0](Rejected("request timed out in queue: 1s", drop_reason=REJECTED_TTL))
    (reply,) = stream.unasked
    assert isinstance(reply, ImmediateReply) and reply.status == 429 and stream.conversation.finished
    assert reply.body == b"inference error: ResourceExhausted - request timed out in queue: 1s"
    assert reply.set_headers == [("x-llm-d-request-dropped-reason", b"rejected-ttl-expired")]
    stream.conversation.end()
    assert stream.world.outcomes() == {"ResourceExhausted": 1} and gate.left == 0


def test_no_endpoint_left_when_the_turn_comes() -> None:
    gate = Gate()
    stream = Stream(gate, P(0))
    stream.ask()
    stream.world.set()
    gate.queue[0](None)
    (reply,) = stream.unasked
    assert isinstance(reply, ImmediateReply) and reply.status == 503
    stream.conversation.end()
    assert stream.world.outcomes() == {"ServiceUnavailable": 1}


@pytest.mark.parametrize("first", ["end", "answer"])
def test_a_client_that_leaves_the_queue_is_taken_out_of_it(first: str) -> None:
    gate = Gate()
    stream = Stream(gate, P(0))
    stream.ask()
    if first == "answer":  # of the proxy itself, whose route timeout has passed
        stream.conversation.receive(ResponseHeaders([(":status", b"504")], True))
        assert not stream.conversation.waiting
    stream.conversation.end()
    assert gate.left == 1 and not stream.unasked
    assert stream.world.outcomes() == {"ServiceUnavailable": 1}
    stream.world.assert_idle()


@pytest.mark.parametrize("started", [False, True])
def test_an_eviction_is_told_in_place_of_an_answer(started: bool) -> None:
    gate = Gate(open=True, evictable=True)
    stream = Stream(gate, P(0))
    stream.ask()
    assert stream.conversation.may_speak
    if started:
        stream.conversation.receive(ResponseHeaders([(":status", b"200"), ("content-type", b"text/event-stream")]))
    gate.under_way[0].evict(Evicted("request evicted by flow control", drop_reason=EVICTED))
    (reply,) = stream.unasked
    assert isinstance(reply, ImmediateReply) and reply.status == 429 and reply.body == b"request evicted by flow control"
    assert reply.set_headers == [("x-llm-d-request-dropped-reason", b"evicted")]
    assert stream.conversation.finished and not gate.under_way
    stream.world.assert_idle()
    stream.conversation.end()
    assert stream.world.outcomes() == {"Evicted": 1}


def test_evicting_what_has_ended_does_nothing() -> None:
    gate = Gate(open=True, evictable=True)
    stream = Stream(gate, P(0))
    stream.ask()
    (exchange,) = gate.under_way
    stream.conversation.end()
    exchange.evict(Evicted("too late"))
    exchange.close(Cause.COMPLETED)
    assert not stream.unasked and stream.world.outcomes() == {"Disconnected": 1}
