"""Transcripts of answers after which the proxy is told what the request has cost, and of answers after which it is not."""

from __future__ import annotations

from picker.extproc.events import (
    BodyMode,
    BodyReply,
    HeadersReply,
    Phase,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    StreamedBodyReply,
    TrailersReply,
)
from tests.picker.extproc.request_transcripts import JSON, request
from tests.picker.extproc.transcript import OK, SSE, Transcript, answered, hears, passing, says
from tests.picker.world import config

COST = "x-gateway-inference-request-cost"
REPORTING = config(
    "openai-parser",
    parameters=f"""\
- name: total-tokens-cost-reporter
  type: request-attribute-reporter
  parameters:
    attributes:
    - key: {{namespace: envoy.lb, name: {COST}}}
      expression: |
        usage.completion_tokens
      condition: has(usage.completion_tokens)
""",
)
TOLD = {"envoy.lb": {COST: 10}}
EVENT = b'data: {"usage":{"prompt_tokens":7,"total_tokens":17,"completion_tokens":10}}\n\ndata: [DONE]\n\n'


def with_cost(body: bytes, end: bool = True) -> StreamedBodyReply:
    """The last piece of an answer."""
    return StreamedBodyReply(Phase.RESPONSE, body, end, TOLD)


REPORTS = [
    Transcript(
        "the cost goes out with a JSON answer",
        [*request(), hears(ResponseHeaders(OK)), says(passing(OK)), hears(ResponseBody(JSON, True)), says(with_cost(JSON))],
        config=REPORTING,
        outcomes={"ok": 1},
    ),
    Transcript(
        "the cost goes out with the last of a JSON answer in pieces",
        [
            *request(),
            hears(ResponseHeaders(OK)),
            hears(ResponseBody(JSON[:20])),
            says(passing(OK)),
            hears(ResponseBody(JSON[20:])),
            hears(ResponseBody(b"", True)),
            says(with_cost(JSON)),
        ],
        config=REPORTING,
        outcomes={"ok": 1},
    ),
    Transcript(
        "the cost goes out with the last event of a stream",
        [
            *request(),
            hears(ResponseHeaders(SSE)),
            says(passing(SSE)),
            hears(ResponseBody(b"data: {}\n\n")),
            says(answered(b"data: {}\n\n", False)),
            hears(ResponseBody(EVENT)),
            says(answered(EVENT, False)),
            hears(ResponseBody(b"", True)),
            says(with_cost(b"")),
        ],
        config=REPORTING,
        outcomes={"ok": 1},
    ),
    Transcript(
        "the cost goes out with trailers that end an answer",
        [
            *request(),
            hears(ResponseHeaders(SSE)),
            hears(ResponseBody(EVENT)),
            says(passing(SSE), answered(EVENT, False)),
            hears(ResponseTrailers()),
            says(TrailersReply(Phase.RESPONSE, TOLD)),
        ],
        config=REPORTING,
        outcomes={"ok": 1},
    ),
    Transcript(
        "the cost goes out with a buffered answer",
        [*request(response=BodyMode.BUFFERED), hears(ResponseHeaders(OK)), says(passing(OK)), hears(ResponseBody(JSON, True)),
         says(BodyReply(Phase.RESPONSE, metadata=TOLD))],
        config=REPORTING,
        outcomes={"ok": 1},
    ),
    Transcript(
        "a cost is told although nobody wants response metrics",
        [*request(), hears(ResponseHeaders(OK)), says(passing(OK)), hears(ResponseBody(JSON, True)), says(with_cost(JSON))],
        config=REPORTING,
        observe_responses=False,
        outcomes={"ok": 1},
    ),
    Transcript(
        "an answer without usage has no cost",
        [*request(), hears(ResponseHeaders(OK)), says(passing(OK)), hears(ResponseBody(b"{}", True)), says(answered(b"{}"))],
        config=REPORTING,
        outcomes={"ok": 1},
    ),
    Transcript(
        "an answer that is an error has no cost",
        [
            *request(),
            hears(ResponseHeaders([(":status", b"500"), OK[1]])),
            says(passing([(":status", b"500"), OK[1]])),
            hears(ResponseBody(JSON, True)),
            says(answered(JSON)),
        ],
        config=REPORTING,
        outcomes={"ModelServerError": 1},
    ),
    Transcript(
        "an answer without a body has no cost",
        [*request(), hears(ResponseHeaders(OK, True)), says(HeadersReply(Phase.RESPONSE, passing(OK).change))],
        config=REPORTING,
        outcomes={"ok": 1},
    ),
    Transcript(
        "an answer that breaks off has no cost",
        [*request(), hears(ResponseHeaders(SSE)), hears(ResponseBody(EVENT)), says(passing(SSE), answered(EVENT, False))],
        config=REPORTING,
        outcomes={"Disconnected": 1},
    ),
]  # fmt: skip
