"""Transcripts of responses: every body mode, with and without headers, after a request and alone."""

from __future__ import annotations

import gzip

from picker.extproc.events import (
    BodyMode,
    BodyReply,
    Headers,
    Phase,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from picker.keys import CONTROL
from tests.picker.extproc.request_transcripts import BODY, JSON, request
from tests.picker.extproc.transcript import (
    ANSWERED_TRAILERS,
    ASKED_TRAILERS,
    ASKING,
    OK,
    SSE,
    Step,
    Transcript,
    answered,
    hears,
    passing,
    says,
)

COLLECTING: list[Step] = [hears(RequestHeaders(ASKING)), hears(RequestBody(BODY[:5])), says()]


def by_message(mode: BodyMode, *pieces: ResponseBody) -> Transcript:
    """Outside full duplex each message has one answer."""
    steps: list[Step] = [*request(response=mode), hears(ResponseHeaders(OK)), *[hears(piece) for piece in pieces]]
    return Transcript(
        f"a response in mode {mode.name} is answered message by message",
        [*steps, says(passing(OK), [BodyReply(Phase.RESPONSE) for _ in pieces])],
        outcomes={"ok": 1},
    )


BY_MESSAGE = [
    by_message(BodyMode.STREAMED, ResponseBody(JSON[:9]), ResponseBody(JSON[9:], True)),
    by_message(BodyMode.BUFFERED, ResponseBody(JSON, True)),
    by_message(BodyMode.BUFFERED_PARTIAL, ResponseBody(JSON, True)),
]
RESPONSES = [
    Transcript(
        "the response passes: JSON in pieces",
        [
            *request(),
            hears(ResponseHeaders(OK)),
            says(passing(OK)),
            hears(ResponseBody(JSON[:9])),
            says(),
            hears(ResponseBody(JSON[9:], True)),
            says(answered(JSON)),
        ],
        outcomes={"ok": 1},
    ),
    Transcript(
        "the response ends with its headers",
        [*request(), hears(ResponseHeaders([(":status", b"204")], True)), says(passing([(":status", b"204")]))],
        outcomes={"ModelServerError": 1},
    ),
    Transcript(
        "a proxy that still sends request pieces while the response passes",
        [
            *request(),
            hears(ResponseHeaders(SSE)),
            hears(RequestBody(b"", True)),
            hears(RequestTrailers()),
            says(passing(SSE), ASKED_TRAILERS),
        ],
        outcomes={"Disconnected": 1},
    ),
    Transcript(
        "response trailers end a held body",
        [
            *request(),
            hears(ResponseHeaders(OK)),
            hears(ResponseBody(JSON, False)),
            says(passing(OK)),
            hears(ResponseTrailers()),
            says(answered(JSON, False), ANSWERED_TRAILERS),
        ],
        outcomes={"ok": 1},
    ),
    Transcript(
        "response trailers after the end, and everything else",
        [
            *request(),
            hears(ResponseHeaders(OK)),
            hears(ResponseBody(JSON, True)),
            says(passing(OK), answered(JSON)),
            hears(ResponseTrailers()),
            says(ANSWERED_TRAILERS),
            *[hears(event) for event in (ResponseHeaders(OK), ResponseBody(JSON, True), RequestBody(BODY, True))],
            says(),
            hears(RequestTrailers()),
            says(ASKED_TRAILERS),
        ],
        outcomes={"ok": 1},
    ),
    Transcript(
        "no response headers are sent",
        [*request(), hears(ResponseBody(JSON[:5])), says(), hears(ResponseBody(JSON[5:], True)), says(answered(JSON))],
        outcomes={"ok": 1},
    ),
    Transcript(
        "neither response headers nor bodies are sent",
        [*request(), hears(ResponseTrailers()), says(ANSWERED_TRAILERS)],
        outcomes={"ok": 1},
    ),
    Transcript(
        "the proxy answers before the body is complete",
        [
            *COLLECTING,
            hears(ResponseHeaders([(":status", b"413")])),
            hears(ResponseBody(b"no", True)),
            says(passing([(":status", b"413")]), answered(b"no")),
        ],
    ),
    Transcript(
        "response bodies are not sent: the end of the stream is the end",
        [*request(response=BodyMode.NONE), hears(ResponseHeaders(OK)), says(passing(OK))],
        outcomes={"ok": 1},
        unread="not_sent",
    ),
    *BY_MESSAGE,
    Transcript(
        "a buffered response is complete, whether it says so or not",
        [
            *request(response=BodyMode.BUFFERED),
            hears(ResponseHeaders(OK)),
            hears(ResponseBody(JSON)),
            says(passing(OK), BodyReply(Phase.RESPONSE)),
        ],
        outcomes={"ok": 1},
    ),
    Transcript(
        "a compressed response passes untouched",
        [
            *request(),
            hears(ResponseHeaders([*OK, ("content-encoding", b"gzip")])),
            hears(ResponseBody(gzip.compress(JSON, mtime=0), True)),
            says(passing([*OK, ("content-encoding", b"gzip")]), answered(gzip.compress(JSON, mtime=0))),
        ],
        outcomes={"ok": 1},
    ),
    Transcript(
        "control headers do not reach the client, repeated headers all do",
        [
            *request(),
            hears(ResponseHeaders([*OK, ("set-cookie", b"a"), ("set-cookie", b"b"), *[(name, b"x") for name in sorted(CONTROL)]], True)),
            says(passing(OK, sorted(CONTROL))),
        ],
        outcomes={"ok": 1},
    ),
    *[
        Transcript(
            f"a status in {name} is read",
            [*request(), hears(ResponseHeaders([(name, b"500")], True)), says(passing([(name, b"500")]))],
            outcomes={"ModelServerError": 1},
        )
        for name in (":status", "status")
    ],
]
_ALONE: list[tuple[str, Headers, list[Step]]] = [
    ("JSON in two pieces", OK, [hears(ResponseBody(JSON[:9])), says(), hears(ResponseBody(JSON[9:], True)), says(answered(JSON))]),
    ("invalid JSON", OK, [hears(ResponseBody(b"no healthy upstream", True)), says(answered(b"no healthy upstream"))]),
    ("an empty last piece", OK, [hears(ResponseBody(JSON)), hears(ResponseBody(b"", True)), says(answered(JSON))]),
    ("events", SSE, [hears(ResponseBody(b"data: {}")), hears(ResponseBody(b"", True)), says(answered(b"data: {}", False), answered(b""))]),
    ("nothing at all", OK, [hears(ResponseTrailers()), says(ANSWERED_TRAILERS)]),
]
RESPONSE_ONLY = [
    Transcript(f"response only: {name}", [hears(ResponseHeaders(headers)), says(passing(headers)), *steps])
    for name, headers, steps in _ALONE
]
