"""Calls over gRPC: how they are refused, how their answers pass, and how these end."""

from __future__ import annotations

import pytest

from picker.errors import BadRequest, Internal, PayloadTooLarge, PreconditionFailed, Refusal, Rejected, Unavailable
from picker.extproc.events import (
    Headers,
    HeadersReply,
    ImmediateReply,
    Phase,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    StreamedBodyReply,
    TrailersReply,
)
from picker.extproc.refusals import refused
from tests.picker.extproc.transcript import BEST, PODS
from tests.picker.world import World, config
from tests.support.vllm_grpc import GENERATE, chunk, complete, frame, generate

GRPC = config("vllmgrpc-parser")
ASKING: Headers = [(":path", GENERATE.encode()), ("content-type", b"application/grpc"), ("x-request-id", b"id")]
HEAD: Headers = [(":status", b"200"), ("content-type", b"application/grpc")]
OK = ResponseTrailers([("grpc-status", b"0")])


def routed(world: World, body: bytes):  # type: ignore[no-untyped-def]
    conversation = world.conversation()
    assert list(conversation.receive(RequestHeaders(ASKING))) == []
    assert list(conversation.receive(RequestBody(body[:7]))) == []
    head, passed = conversation.receive(RequestBody(body[7:], True))
    assert isinstance(head, HeadersReply)
    assert dict(head.change.set_headers)["x-gateway-destination-endpoint"] == BEST.encode()
    assert passed == StreamedBodyReply(Phase.REQUEST, body, True)
    return conversation


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_passes_as_it_comes_and_is_counted_when_trailers_end_it(stream: bool) -> None:
    world = World(*PODS, config=GRPC)
    conversation = routed(world, generate([1, 2, 3], stream=stream))
    conversation.receive(ResponseHeaders(HEAD))
    answer = (chunk([5], 3, 1) + chunk([6], 3, 1) if stream else b"") + complete([6] if stream else [5, 6], 3, 1 if stream else 2)
    for start in range(0, len(answer), 9):
        piece = answer[start : start + 9]
        assert list(conversation.receive(ResponseBody(piece))) == [StreamedBodyReply(Phase.RESPONSE, piece, False)]
    assert list(conversation.receive(OK)) == [TrailersReply(Phase.RESPONSE)]
    conversation.end()
    world.assert_idle()
    assert world.outcomes() == {"ok": 1}
    (decision,) = world.decisions.find()
    assert decision.outcome is not None
    assert (decision.outcome.prompt_tokens, decision.outcome.completion_tokens) == (3, 2)


@pytest.mark.parametrize("body", [b"no healthy upstream", frame(b"\xff\xff"), frame(b"x", 1), b"\0\0"])
def test_an_answer_that_is_no_grpc_passes_unchanged(body: bytes) -> None:
    world = World(*PODS, config=GRPC)
    conversation = routed(world, generate([1]))
    conversation.receive(ResponseHeaders(HEAD))
    assert list(conversation.receive(ResponseBody(body, True))) == [StreamedBodyReply(Phase.RESPONSE, body, True)]
    conversation.end()
    assert world.outcomes() == {"ok": 1}
    (decision,) = world.decisions.find()
    assert decision.outcome is not None and decision.outcome.prompt_tokens is None


def test_a_call_that_fails_in_its_trailers_is_a_failure_of_the_model_server() -> None:
    world = World(*PODS, config=GRPC)
    conversation = routed(world, generate([1]))
    conversation.receive(ResponseHeaders(HEAD))
    conversation.receive(ResponseBody(chunk([1], 3, 1)))
    conversation.receive(ResponseTrailers([("grpc-status", b"13"), ("grpc-message", b"out of memory")]))
    conversation.end()
    world.assert_idle()
    assert world.outcomes() == {"ModelServerError": 1}


@pytest.mark.parametrize(("status", "outcome"), [(b"14", "ModelServerError"), (b"0", "ok")])
def test_a_call_that_ends_in_its_headers(status: bytes, outcome: str) -> None:
    world = World(*PODS, config=GRPC)
    conversation = routed(world, generate([1]))
    conversation.receive(ResponseHeaders([*HEAD, ("grpc-status", status)], True))
    conversation.end()
    assert world.outcomes() == {outcome: 1}


def test_a_stream_that_breaks_off_is_not_a_success() -> None:
    world = World(*PODS, config=GRPC)
    conversation = routed(world, generate([1], stream=True))
    conversation.receive(ResponseHeaders(HEAD))
    conversation.receive(ResponseBody(chunk([1], 3, 1)))
    conversation.end()
    assert world.outcomes() == {"Disconnected": 1}


def test_a_compressed_call_is_refused_in_words_and_as_grpc() -> None:
    conversation = World(*PODS, config=GRPC).conversation()
    conversation.receive(RequestHeaders(ASKING))
    (reply,) = conversation.receive(RequestBody(frame(b"x", 1), True))
    assert isinstance(reply, ImmediateReply)
    assert (reply.status, reply.grpc_status) == (400, 3)
    assert reply.body == b"inference error: BadRequest - invalid generate request: compressed gRPC messages are not supported"


@pytest.mark.parametrize(
    ("refusal", "http", "grpc"),
    [
        (BadRequest("x"), 400, 3),
        (PreconditionFailed("x"), 412, 9),
        (PayloadTooLarge("x"), 413, 8),
        (Rejected("x"), 429, 8),
        (Internal("x"), 500, 13),
        (Unavailable("x"), 503, 14),
    ],
)
def test_statuses(refusal: Refusal, http: int, grpc: int) -> None:
    reply = refused(refusal, grpc=True)
    assert (reply.status, reply.grpc_status) == (http, grpc)
    assert refused(refusal).grpc_status is None
