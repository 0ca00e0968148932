"""Bodies on their way through a conversation: long ones, model names put back, and usage read in passing."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence

import pytest

from picker.extproc.conversation import Conversation
from picker.extproc.events import (
    BodyMode,
    BodyReply,
    Headers,
    HeadersReply,
    Modes,
    Reply,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    StreamedBodyReply,
)
from picker.result import Usage
from tests.picker.extproc.transcript import ASKING, OK, PODS, SSE, completion
from tests.picker.world import PASSTHROUGH, World

LIMIT_BYTES = 62_000
LONG = random.Random(7).randbytes(200_000)
REWRITE = ("x-llm-d-model-name-rewrite", b"target-model")
EVENT = b'data: {"model":"target-model","usage":null}\n\n'
LAST_EVENTS = b'data: {"model": "target-model","usage":{"prompt_tokens":7,"completion_tokens":10,"total_tokens":17}}\n\ndata: [DONE]\n\n'


def joined(replies: Iterable[Reply]) -> bytes:
    """Streamed pieces put together. None is too long, and only the last may end the stream."""
    pieces = [reply for reply in replies if isinstance(reply, StreamedBodyReply)]
    assert all(len(piece.body) <= LIMIT_BYTES for piece in pieces)
    assert not any(piece.end_of_stream for piece in pieces[:-1])
    return b"".join([piece.body for piece in pieces])


def send(conversation: Conversation, body: bytes = b"", headers: Headers = ASKING, modes: Modes | None = None) -> Sequence[Reply]:
    """A whole request; returns the answers to its body."""
    conversation.receive(RequestHeaders(headers, modes=modes or Modes()))
    return conversation.receive(RequestBody(body or completion(), True))


def respond(conversation: Conversation, headers: Headers, *chunks: bytes) -> list[Reply]:
    """A whole response; returns the answers to its body."""
    conversation.receive(ResponseHeaders(headers))
    replies: list[Reply] = []
    for number, chunk in enumerate(chunks, 1):
        replies += conversation.receive(ResponseBody(chunk, number == len(chunks)))
    return replies


@pytest.mark.parametrize("size", [0, 1, LIMIT_BYTES - 1, LIMIT_BYTES, LIMIT_BYTES + 1, 2 * LIMIT_BYTES, 200_000])
def test_long_bodies_pass_in_both_directions_in_pieces_the_proxy_accepts(size: int) -> None:
    body = LONG[:size]
    world = World(*PODS, config=PASSTHROUGH)
    conversation = world.conversation()
    conversation.receive(RequestHeaders(ASKING))
    conversation.receive(RequestBody(body[: size // 2]))
    asked = conversation.receive(RequestBody(body[size // 2 :], True))
    assert joined(asked) == body and isinstance(asked[-1], StreamedBodyReply) and asked[-1].end_of_stream
    assert len(asked) == 1 + max(1, -(-size // LIMIT_BYTES))
    for headers in (OK, SSE, [(":status", b"200"), ("content-type", b"audio/mpeg")]):
        other = world.conversation()
        send(other, body)
        answered = respond(other, headers, body[:70_000], body[70_000:])
        assert joined(answered) == body and isinstance(answered[-1], StreamedBodyReply) and answered[-1].end_of_stream
        other.end()
    conversation.end()
    world.assert_idle()


def test_what_is_not_held_back_leaves_at_once() -> None:
    for headers in (SSE, [(":status", b"200"), ("content-type", b"audio/mpeg")]):
        conversation = World(*PODS).conversation()
        send(conversation)
        conversation.receive(ResponseHeaders(headers))
        assert joined(conversation.receive(ResponseBody(b"data: {}\n\n"))) == b"data: {}\n\n"


def test_a_json_response_without_end_is_not_kept_for_ever() -> None:
    conversation = World(*PODS).conversation()
    send(conversation)
    conversation.receive(ResponseHeaders(OK))
    sent = passed = 0
    for _ in range(160):
        sent += 62_000
        passed += len(joined(conversation.receive(ResponseBody(b"x" * 62_000))))
        assert sent - passed <= (8 << 20) + 62_000
    assert passed
    assert joined(conversation.receive(ResponseBody(b"end", True))) == b"end"


# ---- the model's name -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(len(EVENT) + 1))
@pytest.mark.parametrize("headers", [OK, SSE], ids=["JSON", "SSE"])
def test_the_name_the_client_asked_for_comes_back_wherever_the_response_is_cut(headers: Headers, cut: int) -> None:
    world = World(*PODS)
    conversation = world.conversation()
    send(conversation, headers=[*ASKING, REWRITE])
    replies = respond(conversation, headers, EVENT[:cut], EVENT[cut:] + LAST_EVENTS)
    assert joined(replies) == (EVENT + LAST_EVENTS).replace(b"target-model", b"direct-model")
    conversation.end()
    world.assert_idle()
    assert world.page().find("llm_d_epp_request_total")[0].labels["target_model_name"] == "target-model"


def test_what_is_held_back_comes_out_when_trailers_end_the_response() -> None:
    conversation = World(*PODS).conversation()
    send(conversation, headers=[*ASKING, REWRITE])
    conversation.receive(ResponseHeaders(SSE))
    replies = [*conversation.receive(ResponseBody(b'data: {"model":"targ')), *conversation.receive(ResponseTrailers())]
    assert joined(replies) == b'data: {"model":"targ'


@pytest.mark.parametrize("mode", [BodyMode.STREAMED, BodyMode.BUFFERED, BodyMode.BUFFERED_PARTIAL])
@pytest.mark.parametrize("end", [True, False])
def test_in_the_other_modes_the_answer_carries_the_body(mode: BodyMode, end: bool) -> None:
    conversation = World(*PODS).conversation()
    send(conversation, headers=[*ASKING, REWRITE], modes=Modes(response_body=mode))
    conversation.receive(ResponseHeaders(OK))
    body = b'{"model":"target-model"}'
    (reply,) = conversation.receive(ResponseBody(body, end))
    assert isinstance(reply, BodyReply) and reply.body == b'{"model":"direct-model"}'
    assert len(conversation.receive(ResponseTrailers())) == 1


def test_a_cut_off_buffered_response_loses_nothing_to_the_search_for_the_name() -> None:
    conversation = World(*PODS).conversation()
    send(conversation, headers=[*ASKING, REWRITE], modes=Modes(response_body=BodyMode.BUFFERED_PARTIAL))
    conversation.receive(ResponseHeaders(OK))
    (reply,) = conversation.receive(ResponseBody(b'{"id":1,"model":"targ'))
    assert isinstance(reply, BodyReply) and reply.body == b'{"id":1,"model":"targ'


@pytest.mark.parametrize(("rewritten", "removed"), [(True, ["content-length"]), (False, [])])
def test_a_length_that_will_not_hold_is_taken_away(rewritten: bool, removed: list[str]) -> None:
    conversation = World(*PODS).conversation()
    send(conversation, headers=[*ASKING, REWRITE] if rewritten else ASKING)
    (reply,) = conversation.receive(ResponseHeaders([*OK, ("content-length", b"12")]))
    assert isinstance(reply, HeadersReply)
    assert list(reply.change.remove) == removed
    assert "content-length" not in dict(reply.change.set_headers)


def test_a_request_without_a_model_is_left_alone_whatever_the_rewrite_header_says() -> None:
    world = World(*PODS)
    conversation = world.conversation()
    body = b'{"items":[]}'
    asked = send(conversation, body, [(":path", b"/v1/conversations"), REWRITE])
    assert joined(asked) == body
    answer = b'{"model":"target-model"}'
    assert joined(respond(conversation, OK, answer)) == answer
    assert world.page().find("llm_d_epp_request_total")[0].labels["target_model_name"] == ""


# ---- usage ----------------------------------------------------------------------------------------------------------------------

USAGE = {"prompt_tokens": 7, "completion_tokens": 10, "total_tokens": 17, "prompt_tokens_details": {"cached_tokens": 3}}
CHUNK_10_2 = b'data: {"usage":{"prompt_tokens":7,"total_tokens":17,"completion_tokens":10}}\ndata: [DONE]'


@pytest.mark.parametrize("after_a_request", [True, False])
@pytest.mark.parametrize(
    ("headers", "chunks"),
    [
        (OK, [json.dumps({"id": "x", "usage": USAGE}).encode()]),
        (SSE, [b"data: {}", CHUNK_10_2, b""]),
        (SSE, [b"data: {}\n\nda", CHUNK_10_2[2:9], CHUNK_10_2[9:], b""]),
    ],
)
def test_usage_is_counted_once(headers: Headers, chunks: list[bytes], after_a_request: bool) -> None:
    world = World(*PODS)
    conversation = world.conversation()
    if after_a_request:
        send(conversation)
    respond(conversation, headers, *chunks)
    conversation.end()
    page = world.page()
    labels = {"model_name": "direct-model", "fairness_id": "default-flow"} if after_a_request else {"model_name": "", "fairness_id": ""}
    for name in ("llm_d_epp_request_input_tokens", "inference_objective_input_tokens"):
        kept = {key: value for key, value in labels.items() if name.startswith("llm_d") or key == "model_name"}
        assert (page.value(f"{name}_sum", **kept), page.value(f"{name}_count", **kept)) == (7, 1)
        assert page.value(f"{name}_count") == 1
    assert page.value("llm_d_epp_request_output_tokens_sum") == 10
    assert page.value("llm_d_epp_request_total") == after_a_request


class FaultyReader:
    """A usage reader that cannot cope with a response."""

    def feed(self, chunk: bytes) -> None:
        raise ValueError(chunk)

    def finish(self) -> Usage | None:
        raise ValueError("finish")


@pytest.mark.parametrize("chunks", [(), (b"data: {}\n\n", b"")])
def test_a_fault_in_reading_usage_costs_neither_the_response_nor_the_settling(chunks: tuple[bytes, ...]) -> None:
    world = World(*PODS)
    conversation = world.conversation()
    send(conversation)
    conversation.receive(ResponseHeaders(SSE))
    exchange = conversation._exchange
    assert exchange is not None
    exchange.begin_response(200, FaultyReader(), streaming=True, served=None)
    replies = [reply for number, chunk in enumerate(chunks) for reply in conversation.receive(ResponseBody(chunk, number == 1))]
    assert joined(replies) == b"".join(chunks)
    conversation.end()
    world.assert_idle()
    assert world.outcomes() == ({"ok": 1} if chunks else {"Disconnected": 1})
