"""The echo in every body mode."""

from __future__ import annotations

from itertools import cycle

from bench.echo import DESTINATION, Echo
from picker.extproc.events import (
    BodyMode,
    BodyReply,
    HeadersReply,
    Modes,
    Phase,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    StreamedBodyReply,
    TrailersReply,
)

TARGETS = (b"127.0.0.1:1", b"127.0.0.1:2")


def echo() -> Echo:
    return Echo(cycle(TARGETS))


def target(reply: object) -> bytes:
    assert isinstance(reply, HeadersReply) and reply.phase is Phase.REQUEST and reply.clear_route_cache
    return dict(reply.change.set_headers)[DESTINATION]


def test_full_duplex_answers_headers_with_the_first_of_the_body() -> None:
    talk = echo()
    assert talk.receive(RequestHeaders([])) == ()
    head, body = talk.receive(RequestBody(b"a"))
    assert target(head) == TARGETS[0]
    assert body == StreamedBodyReply(Phase.REQUEST, b"a", False)
    assert talk.receive(RequestBody(b"b", True)) == (StreamedBodyReply(Phase.REQUEST, b"b", True),)
    assert talk.receive(ResponseHeaders([])) == (HeadersReply(Phase.RESPONSE),)
    assert talk.receive(ResponseBody(b"c", True)) == (StreamedBodyReply(Phase.RESPONSE, b"c", True),)
    talk.end()


def test_other_modes_leave_bodies_as_they_are() -> None:
    talk = echo()
    (head,) = talk.receive(RequestHeaders([], modes=Modes(BodyMode.BUFFERED, BodyMode.STREAMED)))
    assert target(head) == TARGETS[0]
    assert talk.receive(RequestBody(b"a", True)) == (BodyReply(Phase.REQUEST),)
    assert talk.receive(ResponseBody(b"c", True)) == (BodyReply(Phase.RESPONSE),)


def test_without_a_body_headers_are_answered_at_once() -> None:
    (head,) = echo().receive(RequestHeaders([], end_of_stream=True))
    assert target(head) == TARGETS[0]


def test_trailers_are_answered_and_bring_the_headers_that_were_held() -> None:
    talk = echo()
    talk.receive(RequestHeaders([]))
    head, trailers = talk.receive(RequestTrailers())
    assert target(head) == TARGETS[0]
    assert trailers == TrailersReply(Phase.REQUEST)
    assert talk.receive(ResponseTrailers()) == (TrailersReply(Phase.RESPONSE),)


def test_endpoints_take_turns() -> None:
    targets = cycle(TARGETS)
    heads = [Echo(targets).receive(RequestHeaders([], end_of_stream=True))[0] for _ in range(3)]
    assert [target(head) for head in heads] == [TARGETS[0], TARGETS[1], TARGETS[0]]
