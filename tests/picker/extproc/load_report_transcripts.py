"""Transcripts of requests whose model server is asked to report its load, and of answers that do so."""

from __future__ import annotations

from dataclasses import replace

from picker.extproc.events import (
    BodyMode,
    BodyReply,
    HeaderChange,
    Headers,
    HeadersReply,
    Phase,
    RequestBody,
    RequestHeaders,
    ResponseBody,
    ResponseHeaders,
)
from picker.keys import DESTINATION
from tests.picker.extproc.request_transcripts import BODY, JSON, modes
from tests.picker.extproc.transcript import (
    ASKING,
    BEST,
    OK,
    PODS,
    Step,
    Transcript,
    answered,
    asked,
    hears,
    passing,
    routed,
    says,
)
from tests.picker.world import P, at

FORMAT = "endpoint-load-metrics-format"
REPORT = ("endpoint-load-metrics", b'JSON {"named_metrics": {"num_requests_waiting": 5.0, "kv_cache_usage_perc": 0.75}}')
STREAMED = BODY.replace(b"{", b'{"stream":true,', 1)
REPORTING = tuple([P(i, int(m.waiting), m.kv_usage, reports_load=True) for i, m in enumerate([pod.metrics for pod in PODS])])


def asks(headers: Headers = ASKING) -> HeadersReply:
    """The decision, with the question for the load."""
    size = ("Content-Length", str(len(BODY)).encode())
    change = HeaderChange([(DESTINATION, BEST.encode()), size, (FORMAT, b"JSON"), *headers], ())
    return HeadersReply(Phase.REQUEST, change, True, {"envoy.lb": {DESTINATION: BEST}})


REQUEST: list[Step] = [hears(RequestHeaders(ASKING)), hears(RequestBody(BODY, True)), says(asks(), asked(BODY))]


def told(name: str, *steps: Step, reports: dict[str, tuple[int, float]], **more: object) -> Transcript:
    """`reports` is what is known of pods after the conversation: waiting and KV usage."""
    return replace(
        Transcript(f"load report: {name}", steps, pods=REPORTING, outcomes={"ok": 1}, reports=reports),
        **more,  # type: ignore[arg-type]
    )


def answer(headers: Headers, shown: Headers, *, removed: bool, served: str | None = None) -> list[Step]:
    return [
        hears(ResponseHeaders(headers, served=served)),
        says(passing(shown, ["endpoint-load-metrics"] if removed else ())),
        hears(ResponseBody(JSON, True)),
        says(answered(JSON)),
    ]


BEFORE = {BEST: (0, 0.1)}
AFTER = {BEST: (5, 0.75)}
LOAD_REPORTS = [
    told("asked for, taken, and kept from the client", *REQUEST, *answer([*OK, REPORT], OK, removed=True), reports=AFTER),
    told("the proxy says who served", *REQUEST, *answer([*OK, REPORT], OK, removed=True, served=BEST), reports=AFTER),
    told(
        "of the server that a request fell back to",
        *REQUEST,
        *answer([*OK, REPORT], OK, removed=True, served=at(2)),
        reports=BEFORE | {at(2): (5, 0.75)},
    ),
    told("of a server that is not known", *REQUEST, *answer([*OK, REPORT], OK, removed=True, served=at(77)), reports=BEFORE),
    told("the server does not report", *REQUEST, *answer(OK, OK, removed=False), reports=BEFORE),
    told(
        "malformed",
        *REQUEST,
        *answer([*OK, (REPORT[0], b"JSON \xff{")], OK, removed=True),
        reports=BEFORE,
    ),
    *[
        told(
            f"the client has asked for {format_.decode()}",
            hears(RequestHeaders([*ASKING, (FORMAT, format_)])),
            hears(RequestBody(BODY, True)),
            says(routed(BEST, len(BODY), [*ASKING, (FORMAT, format_)]), asked(BODY)),
            *answer([*OK, (REPORT[0], value)], [*OK, (REPORT[0], value)], removed=False),
            reports=known,
        )
        for format_, value, known in (
            (b"JSON", REPORT[1], AFTER),
            (b"TEXT", b"TEXT named_metrics.num_requests_waiting=5.0", BEFORE),
        )
    ],
    told(
        "not for streamed answers",
        hears(RequestHeaders(ASKING)),
        hears(RequestBody(STREAMED, True)),
        says(routed(BEST, len(STREAMED)), asked(STREAMED)),
        *answer([*OK, REPORT], [*OK, REPORT], removed=False),
        reports=BEFORE,
    ),
    told(
        "not from servers that cannot",
        hears(RequestHeaders(ASKING)),
        hears(RequestBody(BODY, True)),
        says(routed(BEST, len(BODY)), asked(BODY)),
        *answer([*OK, REPORT], [*OK, REPORT], removed=False),
        reports=BEFORE,
        pods=PODS,
    ),
    told(
        "in buffered mode the question goes with the body's answer",
        hears(RequestHeaders(ASKING, modes=modes(BodyMode.BUFFERED))),
        says(HeadersReply(Phase.REQUEST)),
        hears(RequestBody(BODY, True)),
        says(BodyReply(Phase.REQUEST, None, asks().change, True, asks().metadata)),
        *answer([*OK, REPORT], OK, removed=True),
        reports=AFTER,
    ),
]
