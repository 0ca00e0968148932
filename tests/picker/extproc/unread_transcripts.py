"""Transcripts of response bodies that nobody needs: dropped where the proxy can be asked to, passed unread where it cannot."""

from __future__ import annotations

from picker.extproc.events import (
    BodyMode,
    BodyReply,
    Modes,
    Phase,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from tests.picker.extproc.request_transcripts import COUNT, JSON, modes, request
from tests.picker.extproc.transcript import (
    ANSWERED_TRAILERS,
    ASKING,
    BEST,
    OK,
    PODS,
    SSE,
    Step,
    Transcript,
    answered,
    asked,
    completion,
    hears,
    passing,
    routed,
    says,
)
from tests.picker.world import DEFAULT_PARSERS, at

FULL, BUFFERED, STREAMED, NONE = BodyMode.FULL_DUPLEX_STREAMED, BodyMode.BUFFERED, BodyMode.STREAMED, BodyMode.NONE
REWRITE = ("x-llm-d-model-name-rewrite", b"target-model")


def kept(request_mode: BodyMode, response_mode: BodyMode) -> list[Step]:
    """The proxy is asked to keep the body."""
    return [
        *request(mode=request_mode, response=response_mode),
        hears(ResponseHeaders(SSE)),
        says(passing(SSE, keep_body=Modes(request_mode, response_mode))),
    ]


def unread(name: str, steps: list[Step], how: str, outcome: str = "ok") -> Transcript:
    """Nobody wants to know about responses."""
    return Transcript(name, steps, observe_responses=False, outcomes={outcome: 1}, unread=how)


UNREAD = [
    *[
        unread(f"unread: dropped, {a.name} and {b.name}", kept(a, b), "dropped")
        for a in (BUFFERED, BodyMode.BUFFERED_PARTIAL)
        for b in (STREAMED, BUFFERED, BodyMode.BUFFERED_PARTIAL)
    ],
    unread(
        "unread: dropped, and trailers end the response",
        [*kept(BUFFERED, STREAMED), hears(ResponseTrailers()), says(ANSWERED_TRAILERS)],
        "dropped",
    ),
    unread(
        "unread: the proxy does not listen and sends the body all the same",
        [
            *kept(BUFFERED, STREAMED),
            hears(ResponseBody(b"data: 1\n\n")),
            says(BodyReply(Phase.RESPONSE)),
            hears(ResponseBody(b"", True)),
            says(BodyReply(Phase.RESPONSE)),
        ],
        "passed",
    ),
    unread(
        "unread: the proxy does not listen, and its client leaves in the middle",
        [*kept(BUFFERED, STREAMED), hears(ResponseBody(b"data: 1\n\n")), says(BodyReply(Phase.RESPONSE))],
        "passed",
        "Disconnected",
    ),
    unread(
        "unread: in full duplex JSON is not held",
        [
            *request(),
            hears(ResponseHeaders(OK)),
            hears(ResponseBody(JSON[:9])),
            says(passing(OK), answered(JSON[:9], False)),
            hears(ResponseBody(JSON[9:], True)),
            says(answered(JSON[9:])),
        ],
        "passed",
    ),
    unread(
        "unread: full duplex on the request side is enough for the proxy not to listen",
        [
            *request(response=STREAMED),
            hears(ResponseHeaders(SSE)),
            hears(ResponseBody(b"data: 1\n\n", True)),
            says(passing(SSE), BodyReply(Phase.RESPONSE)),
        ],
        "passed",
    ),
    unread("unread: not sent", [*request(response=NONE), hears(ResponseHeaders(OK)), says(passing(OK))], "not_sent"),
    unread(
        "unread: a response without a body is nobody's",
        [
            *request(mode=BUFFERED, response=STREAMED),
            hears(ResponseHeaders([(":status", b"204")], True)),
            says(passing([(":status", b"204")])),
        ],
        "",
        "ModelServerError",
    ),
    Transcript(
        "unread, but for the model name that has to be put back",
        [
            hears(RequestHeaders([*ASKING, REWRITE])),
            hears(RequestBody(completion(), True)),
            says(routed(at(1), len(completion("target-model")), ASKING, [REWRITE[0]]), asked(completion("target-model"))),
            hears(ResponseHeaders(OK)),
            hears(ResponseBody(b'{"model":"target-model","usage":{"prompt_tokens":7,"completion_tokens":1}}', True)),
            says(passing(OK), answered(b'{"model":"direct-model","usage":{"prompt_tokens":7,"completion_tokens":1}}')),
        ],
        observe_responses=False,
        outcomes={"ok": 1},
    ),
    Transcript(
        "count_tokens: its answer is read by nobody, whoever wants to know about responses",
        [
            hears(RequestHeaders(COUNT)),
            hears(RequestBody(b'{"model":"m","messages":[]}', True)),
            says(routed(BEST, 27, COUNT), asked(b'{"model":"m","messages":[]}')),
            hears(ResponseHeaders(OK)),
            hears(ResponseBody(b'{"input_tokens":1}', True)),
            says(passing(OK), answered(b'{"input_tokens":1}')),
        ],
        config=DEFAULT_PARSERS,
        outcomes={"ok": 1},
        unread="passed",
    ),
    Transcript(
        "a request without a body, whose answer the proxy may keep",
        [
            hears(RequestHeaders(ASKING, True, modes=modes(NONE, STREAMED))),
            says(routed(BEST, 0, ())),
            hears(ResponseHeaders(OK)),
            says(passing(OK, keep_body=modes(NONE, STREAMED))),
        ],
        pods=PODS[1:2],
    ),
]
