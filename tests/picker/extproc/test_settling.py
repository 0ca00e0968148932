"""Whenever and however a stream ends, the request in it is settled exactly once; and any order of messages is survived."""

from __future__ import annotations

import typing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from picker.extproc.events import (
    BodyMode,
    Event,
    HeadersReply,
    Modes,
    Phase,
    ProtocolError,
    Reply,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    StreamedBodyReply,
)
from tests.picker.extproc.transcript import ASKING, BEST, OK, PODS, SSE, completion
from tests.picker.world import DEFAULT_PARSERS, P, World, at

BODY = completion(prompt="a prompt of some length " * 20)
SSE_CHUNK = b'data: {"model":"m","usage":{"prompt_tokens":7,"completion_tokens":10,"total_tokens":17}}\n\n'
LONG: list[Event] = [
    RequestHeaders(ASKING),
    RequestBody(BODY[:50]),
    RequestBody(BODY[50:]),
    RequestBody(b"", True),
    RequestBody(b"", True),
    RequestTrailers(),
    ResponseHeaders(SSE),
    ResponseBody(SSE_CHUNK),
    ResponseBody(SSE_CHUNK),
    ResponseBody(b"", True),
    ResponseTrailers(),
]
DECIDED_AT, OVER_AT = 4, 10  # number of events after which the endpoint is chosen, and the response is over


@pytest.mark.parametrize("events", range(len(LONG) + 1))
@pytest.mark.parametrize("served", [None, BEST, at(0), at(77)])
def test_a_stream_that_breaks_off_after_any_message_is_settled_once(events: int, served: str | None) -> None:
    world = World(*PODS)
    conversation = world.conversation()
    for event in LONG[:events]:
        conversation.receive(ResponseHeaders(SSE, served=served) if isinstance(event, ResponseHeaders) else event)
    open_ = DECIDED_AT <= events < OVER_AT
    assert sum(state.load.requests for state in world.datastore.states()) == open_
    assert world.page().value("llm_d_epp_request_running") == open_
    if open_:
        moved = events > 6 and served == at(0)
        assert world.load(at(0) if moved else BEST).requests == 1
        # The prompt weighs on the endpoint until the first bytes of the answer.
        assert (sum(state.load.tokens for state in world.datastore.states()) > 0) == (events < 8)
    for _ in range(3):
        conversation.end()
        world.assert_idle()
        assert world.outcomes() == ({} if events < DECIDED_AT else {"Disconnected": 1} if open_ else {"ok": 1})
    page = world.page()
    assert page.value("llm_d_epp_request_duration_seconds_count") == (events >= DECIDED_AT)
    assert len(page.find("llm_d_epp_inflight_requests")) == 0
    outcome = [record.outcome for record in world.decisions.find()]
    assert [o is not None and o.cause for o in outcome] == ([] if events < DECIDED_AT else ["disconnected" if open_ else "completed"])


def test_nothing_is_heard_after_the_end() -> None:
    world = World(*PODS)
    conversation = world.conversation()
    conversation.end()
    with pytest.raises(ProtocolError):
        conversation.receive(RequestHeaders(ASKING))
    world.assert_idle()
    assert world.outcomes() == {}


def test_an_endpoint_that_goes_away_with_requests_on_it_settles_as_well() -> None:
    world = World(*PODS)
    conversation = world.conversation()
    for event in LONG[:DECIDED_AT]:
        conversation.receive(event)
    load = world.load(BEST)
    assert load.requests == 1
    world.set(PODS[0])
    conversation.end()
    assert (load.requests, load.tokens, load.unseen) == (0, 0, 0)
    world.assert_idle()


def test_a_fault_while_the_response_passes_ends_the_request() -> None:
    world = World(*PODS)
    conversation = world.conversation()
    for event in LONG[:7]:
        conversation.receive(event)
    relay = conversation._relay
    assert relay is not None

    class Broken:
        def feed(self, chunk: bytes) -> bytes:
            raise ZeroDivisionError

    relay._restorer = Broken()  # type: ignore[assignment]
    (reply,) = conversation.receive(LONG[7])
    assert getattr(reply, "status", None) == 500 and conversation.finished
    conversation.end()
    world.assert_idle()
    assert world.outcomes() == {"Internal": 1}


# ---- any order -----------------------------------------------------------------------------------------------------------------

_BODIES = st.sampled_from([b"", b"{", b'{"model":"m","prompt":"x"}', b'{"prompt":"x"}', BODY, SSE_CHUNK, b"\xff" * 70_000, b'"model":"'])
_NAMES = st.sampled_from(
    [
        ":path",
        ":status",
        "status",
        "content-type",
        "content-length",
        "content-encoding",
        "x-request-id",
        "x-llm-d-model-name-rewrite",
        "x-gateway-destination-endpoint",
        "x-llm-d-inference-fairness-id",
        "cookie",
    ]
)
_VALUES = st.sampled_from(
    [
        *(b"", b"200", b"500", b"\xff\xfe", b"application/json", b"text/event-stream", b"gzip", b"m2", b"999999999", b"\xc2\xb2"),
        *(b"9" * 5000, b"/v1/messages/count_tokens", b"/v1/chat/completions", b"/"),
    ]
)
_HEADERS = st.one_of(st.just(ASKING), st.just(OK), st.just(SSE), st.lists(st.tuples(_NAMES, _VALUES), max_size=6))
_MODES = st.one_of(st.just(Modes()), st.builds(Modes, st.sampled_from(BodyMode), st.sampled_from(BodyMode), st.booleans()))
_HINTS = st.one_of(st.none(), st.lists(st.sampled_from([at(0), at(2), "192.168.1.2", "", "[::1]:1", "%"]), max_size=3))
_END = st.booleans()
_EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(RequestHeaders, _HEADERS, _END, _HINTS, _MODES),
    st.builds(RequestBody, _BODIES, _END, _HINTS),
    st.builds(RequestTrailers, _HINTS),
    st.builds(ResponseHeaders, _HEADERS, _END, st.sampled_from([None, at(0), at(77), ""]), _MODES),
    st.builds(ResponseBody, _BODIES, _END),
    st.just(ResponseTrailers()),
)
_PODS = st.lists(st.sampled_from([P(0), P(1, 5, 0.5), P(2, 0, 0.9, "m2")]), unique=True)
# Half of all streams begin as streams do, so that the later states are reached, too.
_STREAMS = st.one_of(
    st.lists(_EVENTS, max_size=12),
    st.builds(
        lambda modes, rest: [RequestHeaders(ASKING, modes=modes), RequestBody(BODY, True), *rest], _MODES, st.lists(_EVENTS, max_size=10)
    ),
)


def _body(replies: list[Reply], phase: Phase) -> bytes:
    return b"".join([r.body for r in replies if isinstance(r, StreamedBodyReply) and r.phase is phase])


@settings(max_examples=400, deadline=None)
@given(streams=st.lists(_STREAMS, min_size=1, max_size=3), pods=_PODS, max_body_bytes=st.sampled_from([0, 100_000]))
def test_any_streams_side_by_side(streams: list[list[Event]], pods: list[P], max_body_bytes: int) -> None:
    world = World(*pods, config=DEFAULT_PARSERS, max_body_bytes=max_body_bytes)
    conversations = [world.conversation() for _ in streams]
    said: list[list[Reply]] = [[] for _ in streams]
    broken: set[int] = set()
    for turn in range(max(map(len, streams))):
        for number, events in enumerate(streams):
            if turn < len(events) and number not in broken and not conversations[number].finished:
                try:
                    replies = list(conversations[number].receive(events[turn]))
                except ProtocolError:
                    broken.add(number)
                    continue
                assert all(isinstance(reply, typing.get_args(Reply)) for reply in replies)
                said[number] += replies
    for conversation in conversations:
        conversation.end()
    world.assert_idle()
    world.outcomes()
    for events, replies in zip(streams, said, strict=True):
        _check_echo(events, replies)


def _check_echo(events: list[Event], replies: list[Reply]) -> None:
    """In full duplex the request body comes back as it was sent, whenever there is a destination and no other model."""
    first = events[0] if events else None
    if not isinstance(first, RequestHeaders) or first.end_of_stream or first.modes.request_body is not BodyMode.FULL_DUPLEX_STREAMED:
        return
    routed = any(isinstance(r, HeadersReply) and r.phase is Phase.REQUEST and r.metadata for r in replies)
    if not routed or any(name == "x-llm-d-model-name-rewrite" for name, _ in first.headers):
        return
    sent = b""
    for event in events[1:]:
        if isinstance(event, RequestBody):
            sent += event.body
        if isinstance(event, RequestTrailers) or (isinstance(event, RequestBody) and event.end_of_stream):
            break
    assert _body(replies, Phase.REQUEST) == sent
