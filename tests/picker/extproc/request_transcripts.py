"""Transcripts of requests: every body mode, hints, trailers, repeated pieces, headers only, observing."""

from __future__ import annotations

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
)
from picker.keys import CONTROL, DESTINATION
from tests.picker.extproc.transcript import (
    ASKED_TRAILERS,
    ASKING,
    BEST,
    ID,
    MOM,
    OK,
    PATH,
    PODS,
    Step,
    Transcript,
    answered,
    asked,
    completion,
    decided,
    hears,
    passing,
    refused,
    routed,
    says,
)
from tests.picker.world import DEFAULT_PARSERS, PASSTHROUGH, at

BODY = completion()
JSON = b'{"id":"1","usage":{"prompt_tokens":7,"completion_tokens":10,"total_tokens":17}}'
REWRITE = ("x-llm-d-model-name-rewrite", b"target-model")
COUNT = [(":path", b"/v1/messages/count_tokens"), ID]


def modes(request: BodyMode = BodyMode.FULL_DUPLEX_STREAMED, response: BodyMode = BodyMode.FULL_DUPLEX_STREAMED) -> Modes:
    return Modes(request, response)


def request(
    body: bytes = BODY, mode: BodyMode = BodyMode.FULL_DUPLEX_STREAMED, response: BodyMode = BodyMode.FULL_DUPLEX_STREAMED
) -> list[Step]:
    """A request that is routed to the best pod."""
    if mode is BodyMode.FULL_DUPLEX_STREAMED:
        return [
            hears(RequestHeaders(ASKING, modes=modes(mode, response))),
            says(),
            hears(RequestBody(body, True)),
            says(routed(BEST, len(body)), asked(body)),
        ]
    return [
        hears(RequestHeaders(ASKING, modes=modes(mode, response))),
        says(HeadersReply(Phase.REQUEST)),
        hears(RequestBody(body, True)),
        says(BodyReply(Phase.REQUEST, None, decided(BEST, len(body)), True, {"envoy.lb": {DESTINATION: BEST}})),
    ]


REQUESTS = [
    Transcript("full duplex: one piece", request(), outcomes={"Disconnected": 1}),
    Transcript("buffered", request(mode=BodyMode.BUFFERED), outcomes={"Disconnected": 1}),
    Transcript("buffered partial that fits", request(mode=BodyMode.BUFFERED_PARTIAL), outcomes={"Disconnected": 1}),
    Transcript(
        "full duplex: many pieces, the hint in a later one",
        [
            hears(RequestHeaders(ASKING)),
            hears(RequestBody(BODY[:10])),
            hears(RequestBody(b"")),
            hears(RequestBody(BODY[10:-1], subset=[at(2)])),
            says(),
            hears(RequestBody(BODY[-1:], True)),
            says(routed(at(2), len(BODY)), asked(BODY)),
        ],
        outcomes={"Disconnected": 1},
    ),
    Transcript(
        "request trailers end the body",
        [
            hears(RequestHeaders(ASKING)),
            hears(RequestBody(BODY)),
            says(),
            hears(RequestTrailers()),
            says(routed(BEST, len(BODY)), asked(BODY, False), ASKED_TRAILERS),
        ],
        outcomes={"Disconnected": 1},
    ),
    Transcript(
        "request trailers after the end of the body",
        [*request(), hears(RequestTrailers()), says(ASKED_TRAILERS)],
        outcomes={"Disconnected": 1},
    ),
    Transcript(
        "request trailers after the end of a buffered body that did not say so",
        [
            hears(RequestHeaders(ASKING, modes=modes(BodyMode.BUFFERED))),
            hears(RequestBody(BODY, False)),
            says(
                HeadersReply(Phase.REQUEST),
                BodyReply(Phase.REQUEST, None, decided(BEST, len(BODY)), True, {"envoy.lb": {DESTINATION: BEST}}),
            ),
            hears(RequestTrailers()),
            says(ASKED_TRAILERS),
        ],
        outcomes={"Disconnected": 1},
    ),
    Transcript(
        "request trailers and no body where it is buffered",
        [
            hears(RequestHeaders(ASKING, modes=modes(BodyMode.BUFFERED))),
            says(HeadersReply(Phase.REQUEST)),
            hears(RequestTrailers()),
            says(refused(400, "BadRequest - a request that has trailers but no body cannot be routed")),
        ],
        config=PASSTHROUGH,
        finished=True,
        outcomes={"BadRequest": 1},
    ),
    Transcript(
        "the last piece again, twice, and other bytes",
        [*request(), *[hears(RequestBody(b, end)) for b, end in ((BODY, True), (BODY, True), (b"other", True), (b"", False))], says()],
        outcomes={"Disconnected": 1},
    ),
    Transcript(
        "an empty body",
        [hears(RequestHeaders(ASKING)), hears(RequestBody(b"", True)), says(routed(BEST, 0), asked(b""))],
        config=PASSTHROUGH,
        outcomes={"Disconnected": 1},
    ),
    Transcript(
        "a gateway without protocol_config and with control headers: they are taken away, repeated headers stay as they are",
        [
            hears(RequestHeaders([PATH, ("cookie", b"a"), MOM, ("cookie", b"b"), ID, *[(name, b"") for name in sorted(CONTROL)]])),
            hears(RequestBody(BODY, True)),
            says(routed(BEST, len(BODY), ASKING, sorted(CONTROL - {DESTINATION})), asked(BODY)),
        ],
        outcomes={"Disconnected": 1},
    ),
    Transcript(
        "a content-length is replaced",
        [
            hears(RequestHeaders([*ASKING, ("content-length", str(len(BODY)).encode())])),
            hears(RequestBody(BODY, True)),
            says(routed(BEST, len(BODY)), asked(BODY)),
        ],
        outcomes={"Disconnected": 1},
    ),
    Transcript(
        "the model is rewritten",
        [
            hears(RequestHeaders([*ASKING, REWRITE])),
            hears(RequestBody(b'{"prompt": "test", "model": "direct-model", "max_tokens":100,"temperature":0}', True)),
            says(
                routed(BEST, len(completion("target-model")), ASKING, ["x-llm-d-model-name-rewrite"]),
                asked(completion("target-model")),
            ),
        ],
        outcomes={"Disconnected": 1},
    ),
    Transcript(
        "the model is rewritten in a buffered body",
        [
            hears(RequestHeaders([*ASKING, REWRITE], modes=modes(BodyMode.BUFFERED))),
            says(HeadersReply(Phase.REQUEST)),
            hears(RequestBody(BODY, True)),
            says(
                BodyReply(
                    Phase.REQUEST,
                    completion("target-model"),
                    decided(BEST, len(completion("target-model")), ASKING, ["x-llm-d-model-name-rewrite"]),
                    True,
                    {"envoy.lb": {DESTINATION: BEST}},
                )
            ),
        ],
        outcomes={"Disconnected": 1},
    ),
    Transcript(
        "count_tokens: the stream stays, since the answer passes through it",
        [
            hears(RequestHeaders(COUNT)),
            hears(RequestBody(b'{"model":"m","messages":[]}', True)),
            says(routed(BEST, 27, COUNT), asked(b'{"model":"m","messages":[]}')),
        ],
        config=DEFAULT_PARSERS,
        outcomes={"Disconnected": 1},
    ),
    Transcript("headers only", [hears(RequestHeaders([*ASKING, REWRITE], True)), says(routed(BEST, 0, (), [REWRITE[0]]))], pods=PODS[1:2]),
    Transcript(
        "headers only, whatever the body mode",
        [hears(RequestHeaders(ASKING, True, modes=modes(BodyMode.NONE))), says(routed(BEST, 0, ()))],
        pods=PODS[1:2],
    ),
    Transcript("headers only, with a hint", [hears(RequestHeaders(ASKING, True, subset=[at(2)])), says(routed(at(2), 0, ()))]),
    Transcript(
        "headers only, body and trailers nevertheless",
        [
            hears(RequestHeaders(ASKING, True, subset=[at(2)])),
            hears(RequestBody(b"", True)),
            hears(RequestTrailers()),
            says(routed(at(2), 0, ()), ASKED_TRAILERS),
        ],
    ),
    Transcript(
        "headers only, through to the end of the response",
        [
            hears(RequestHeaders(ASKING, True, subset=[at(0)])),
            hears(ResponseHeaders(OK)),
            hears(ResponseBody(b'{"data":', False)),
            hears(ResponseBody(b"[]}", True)),
            says(routed(at(0), 0, ()), passing(OK), answered(b'{"data":', False), answered(b"[]}")),
        ],
    ),
    Transcript(
        "observing: nothing is said, whatever comes",
        [
            hears(RequestHeaders(ASKING, modes=Modes(observability=True))),
            *[
                hears(e)
                for e in (RequestBody(BODY, True), RequestTrailers(), ResponseHeaders(OK), ResponseBody(JSON, True), ResponseTrailers())
            ],
            says(),
        ],
    ),
    Transcript(
        "observing a response only", [hears(ResponseHeaders(OK, modes=Modes(observability=True))), hears(ResponseBody(b"")), says()]
    ),
]
