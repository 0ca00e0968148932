"""Transcripts of requests that have to wait for their turn."""

from __future__ import annotations

from picker.extproc.events import RequestBody, RequestHeaders, RequestTrailers, ResponseHeaders
from tests.picker.extproc.transcript import (
    ASKED_TRAILERS,
    ASKING,
    BEST,
    OK,
    Transcript,
    Turn,
    asked,
    completion,
    hears,
    passing,
    routed,
    says,
)

BODY = completion()

WAITING = [
    Transcript(
        "a request that waits is answered when it has its turn, and a body that is delivered twice is answered once",
        [
            hears(RequestHeaders(ASKING)),
            hears(RequestBody(BODY, True)),
            says(),
            hears(RequestBody(BODY, True)),
            says(),
            Turn(),
            says(routed(BEST, len(BODY)), asked(BODY)),
            hears(ResponseHeaders(OK, True)),
            says(passing(OK)),
        ],
        waits=True,
        outcomes={"ok": 1},
    ),
    Transcript(
        "trailers are answered after the body that waited with them",
        [
            hears(RequestHeaders(ASKING)),
            hears(RequestBody(BODY)),
            hears(RequestTrailers()),
            says(),
            Turn(),
            says(routed(BEST, len(BODY)), asked(BODY, False), ASKED_TRAILERS),
            hears(ResponseHeaders(OK, True)),
            says(passing(OK)),
        ],
        waits=True,
        outcomes={"ok": 1},
    ),
    Transcript(
        "the proxy answers a request that waits by itself",
        [
            hears(RequestHeaders(ASKING)),
            hears(RequestBody(BODY, True)),
            hears(ResponseHeaders(OK, True)),
            says(passing(OK)),
        ],
        waits=True,
        outcomes={"ServiceUnavailable": 1},
    ),
]
