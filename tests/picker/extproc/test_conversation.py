"""The conversation as transcripts: what a proxy sends and what it hears, through every transition there is."""

from __future__ import annotations

import itertools
import typing
import uuid

import pytest

from picker.extproc.conversation import TRANSITIONS, State
from picker.extproc.events import (
    Event,
    HeaderChange,
    HeadersReply,
    ProtocolError,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from picker.keys import DESTINATION
from tests.picker.extproc.attribute_transcripts import REPORTS
from tests.picker.extproc.load_report_transcripts import LOAD_REPORTS
from tests.picker.extproc.request_transcripts import BODY, REQUESTS
from tests.picker.extproc.response_transcripts import RESPONSE_ONLY, RESPONSES
from tests.picker.extproc.transcript import (
    ASKING,
    MOM,
    OK,
    PATH,
    PODS,
    SSE,
    Pair,
    Transcript,
    play,
)
from tests.picker.extproc.unread_transcripts import UNREAD
from tests.picker.extproc.waiting_transcripts import WAITING
from tests.picker.world import Gate, P, World

TRANSCRIPTS = [*REQUESTS, *RESPONSES, *RESPONSE_ONLY, *UNREAD, *LOAD_REPORTS, *WAITING, *REPORTS]


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda t: t.name)
def test_transcript(transcript: Transcript) -> None:
    world = transcript.world()
    conversation, _ = play(transcript, world)
    conversation.end()
    conversation.end()
    world.assert_idle()
    assert world.outcomes() == transcript.outcomes
    unread = {s.labels["how"]: s.value for s in world.page().find("fairlead_response_bodies_unread_total")}
    assert unread == ({transcript.unread: 1} if transcript.unread else {})
    assert {address: world.told(address) for address in transcript.reports} == transcript.reports


# ---- the table as a whole --------------------------------------------------------------------------------------------------------


def _every_pair() -> set[Pair]:
    return set(itertools.product(State, typing.get_args(Event)))


def test_every_transition_is_in_some_transcript() -> None:
    went_through = {pair for t in TRANSCRIPTS for pair in play(t, t.world())[1]}
    assert went_through == TRANSITIONS.keys()


TO_STATE: dict[State, list[Event]] = {
    State.START: [],
    State.COLLECTING: [RequestHeaders(ASKING)],
    State.WAITING: [RequestHeaders(ASKING), RequestBody(BODY, True)],
    State.ROUTED: [RequestHeaders(ASKING), RequestBody(BODY, True)],
    State.RESPONDING: [RequestHeaders(ASKING), RequestBody(BODY, True), ResponseHeaders(SSE)],
    State.DONE: [RequestHeaders(ASKING), RequestBody(BODY, True), ResponseHeaders(SSE, True)],
}
EVENTS: list[Event] = [
    RequestHeaders(ASKING),
    RequestBody(b""),
    RequestTrailers(),
    ResponseHeaders(OK),
    ResponseBody(b""),
    ResponseTrailers(),
]


@pytest.mark.parametrize(("state", "kind"), sorted(_every_pair() - TRANSITIONS.keys(), key=str))
def test_everything_else_is_a_protocol_error(state: State, kind: type[Event]) -> None:
    world = World(*PODS, gate=Gate() if state is State.WAITING else None)
    conversation = world.conversation()
    for event in TO_STATE[state]:
        conversation.receive(event)
    assert conversation.state is state
    with pytest.raises(ProtocolError, match=f"{kind.__name__} cannot come while the stream is at: "):
        conversation.receive(next(event for event in EVENTS if type(event) is kind))
    conversation.end()
    world.assert_idle()


def test_a_request_without_an_id_gets_one_and_keeps_it() -> None:
    world = World(*PODS)
    conversation = world.conversation()
    conversation.receive(RequestHeaders([PATH, MOM]))
    reply = conversation.receive(RequestBody(BODY, True))[0]
    assert isinstance(reply, HeadersReply)
    made = dict(reply.change.set_headers)["x-request-id"].decode()
    assert uuid.UUID(made).version == 4
    assert reply.change.set_headers[2:] == [PATH, MOM, ("x-request-id", made.encode())]
    assert [record.request_id for record in world.decisions.find()] == [made]


def test_a_header_only_request_without_an_id_gets_one_too() -> None:
    (reply,) = World(P(0)).conversation().receive(RequestHeaders([PATH], True))
    assert isinstance(reply, HeadersReply) and isinstance(reply.change, HeaderChange)
    assert [name for name, _ in reply.change.set_headers] == [DESTINATION, "x-request-id"]
