"""ext_proc messages as a proxy might send them: legal ones by the table of the conversation, with contents that are not."""

from __future__ import annotations

import json
from collections.abc import Callable

from bench.fuzz.dice import Dice, scramble
from bench.fuzz.world import ENDPOINTS
from picker.extproc.conversation import TRANSITIONS, State
from picker.extproc.events import (
    Event,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
)
from picker.extproc.pb import ext_proc_pb2 as pb

_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/embeddings", "/tokenize", "/v1/responses", "/nothing")
_REQUEST_HEADERS = (
    ("content-type", "application/json"), ("content-length", "70"), ("content-length", "99999999999"), ("x-request-id", "one"),
    ("x-llm-d-model-name-rewrite", "other"), ("x-llm-d-inference-fairness-id", "me"), ("x-llm-d-inference-objective", "fast"),
    ("x-gateway-destination-endpoint-subset", ENDPOINTS[0]), ("expect", "100-continue"), ("cookie", "a=b"), ("cookie", "c=d"),
)  # fmt: skip
_RESPONSE_HEADERS = (
    ("content-type", "application/json"), ("content-type", "text/event-stream"), ("content-type", "text/event-stream; charset=utf-8"),
    ("content-type", "audio/wav"), ("content-encoding", "gzip"), ("content-length", "12"), ("status", "500"),
    ("x-went-into-resp-headers", "forged"),
)  # fmt: skip
_ASKED: tuple[object, ...] = (
    {"model": "m", "messages": [{"role": "user", "content": "Hello " * 60}]},
    {"model": "m", "prompt": "x" * 500, "stream": True, "max_tokens": 5},
    {"model": "m", "prompt": ["a", "b"], "stream_options": {"include_usage": True}},
    {"model": "m", "prompt": [[1, 2, 3], [4]], "temperature": 1e400},
    {"model": "m", "input": ["text", 1, None, {"a": [[[[]]]]}], "max_tokens": 10, "messages": []},
    {"model": "", "messages": "none"},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "ü" * 50}, {"type": "image_url", "image_url": {"url": "x"}}]}]},
    {"model": 7, "prompt": None},
    [],
)
_BODIES = tuple([json.dumps(body).encode() for body in _ASKED])
_USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12, "prompt_tokens_details": {"cached_tokens": 3}}
_ANSWERS = (
    json.dumps({"id": "1", "model": "m", "choices": [{"text": "hi"}], "usage": _USAGE}).encode(),
    b'data: {"model":"m","choices":[{"delta":{"content":" word"}}]}\n\n' * 3,
    b'data: {"model":"m","choices":[],"usage":' + json.dumps(_USAGE).encode() + b"}\n\ndata: [DONE]\n\n",
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":15}}\n\n',
    b"",
)


def first_event(dice: Dice) -> type[Event]:
    """Streams begin with a request, now and then with a response."""
    return ResponseHeaders if dice.one_in(10) else RequestHeaders


def next_event(dice: Dice, state: State) -> type[Event] | None:
    """One that may come now, by the table; None when none may."""
    kinds = _LEGAL[state]
    return dice.pick(kinds) if kinds else None


_LEGAL: dict[State, list[type[Event]]] = {state: [kind for at, kind in TRANSITIONS if at is state] for state in State}


def message(dice: Dice, kind: type[Event]) -> bytes:
    """The bytes of one message of this kind."""
    made = pb.ProcessingRequest()
    _MAKERS[kind](dice, made)
    if dice.one_in(4):
        _hint(dice, made)
    return made.SerializeToString()


def _request_headers(dice: Dice, made: pb.ProcessingRequest) -> None:
    headers = made.request_headers.headers.headers
    headers.add(key=":method", raw_value=b"POST")
    headers.add(key=":path", raw_value=dice.pick(_PATHS).encode())
    _headers(dice, headers, _REQUEST_HEADERS)
    made.request_headers.end_of_stream = dice.one_in(8)
    _modes(dice, made)


def _response_headers(dice: Dice, made: pb.ProcessingRequest) -> None:
    headers = made.response_headers.headers.headers
    headers.add(key=":status", raw_value=dice.pick((b"200", b"200", b"200", b"503", b"x", b"")))
    _headers(dice, headers, _RESPONSE_HEADERS)
    made.response_headers.end_of_stream = dice.one_in(8)
    if dice.one_in(6):
        _modes(dice, made)


def _headers(dice: Dice, headers: object, known: tuple[tuple[str, str], ...]) -> None:
    for _ in range(dice.number(5)):
        name, value = dice.pick(known)
        raw = scramble(dice, value.encode()) if dice.one_in(10) else value.encode()
        headers.add(key=name, raw_value=raw)  # type: ignore[attr-defined]
    if dice.one_in(10):
        headers.add(key="X-Plain", value="text")  # type: ignore[attr-defined]


def _modes(dice: Dice, made: pb.ProcessingRequest) -> None:
    if dice.one_in(3):
        made.protocol_config.request_body_mode = dice.pick((4, 4, 4, 2, 3, 1, 0, 5, 77))  # type: ignore[assignment]
        made.protocol_config.response_body_mode = dice.pick((4, 4, 4, 2, 3, 1, 0, 5, 77))  # type: ignore[assignment]
    made.observability_mode = dice.one_in(40)


def _request_body(dice: Dice, made: pb.ProcessingRequest) -> None:
    body = dice.pick(_BODIES)
    if dice.one_in(3):
        body = scramble(dice, body)
    if dice.one_in(30):
        body *= 100
    made.request_body.body = body
    made.request_body.end_of_stream = not dice.one_in(3)


def _response_body(dice: Dice, made: pb.ProcessingRequest) -> None:
    body = dice.pick(_ANSWERS)
    if dice.one_in(2):
        at = dice.number(len(body) + 1)
        body = body[at:] + body[:at]
    if dice.one_in(4):
        body = scramble(dice, body)
    if dice.one_in(40):
        body *= 500
    made.response_body.body = body
    made.response_body.end_of_stream = dice.one_in(4)


def _request_trailers(dice: Dice, made: pb.ProcessingRequest) -> None:
    made.request_trailers.SetInParent()


def _response_trailers(dice: Dice, made: pb.ProcessingRequest) -> None:
    made.response_trailers.SetInParent()


def _hint(dice: Dice, made: pb.ProcessingRequest) -> None:
    """Which endpoints may be picked, or which one has answered; in every shape a metadata value has."""
    space, key = dice.pick((
        ("envoy.lb.subset_hint", "x-gateway-destination-endpoint-subset"),
        ("envoy.lb", "x-gateway-destination-endpoint-served"),
    ))  # fmt: skip
    value = made.metadata_context.filter_metadata[space].fields[key]
    kind = dice.number(5)
    if kind == 0:
        value.string_value = dice.pick((*ENDPOINTS, f"{ENDPOINTS[0]}, {ENDPOINTS[1]}", ",,", "10.0.0.1", "nobody:1"))
    elif kind == 1:
        for _ in range(dice.number(4)):
            value.list_value.values.add(string_value=dice.pick((*ENDPOINTS, "", "10.0.0.2")))
        if dice.one_in(3):
            value.list_value.values.add(number_value=1.5)
    elif kind == 2:
        value.number_value = 3
    elif kind == 3:
        value.struct_value.fields["a"].bool_value = True
    else:
        value.null_value = 0  # type: ignore[assignment]


_MAKERS: dict[type[Event], Callable[[Dice, pb.ProcessingRequest], None]] = {
    RequestHeaders: _request_headers,
    RequestBody: _request_body,
    RequestTrailers: _request_trailers,
    ResponseHeaders: _response_headers,
    ResponseBody: _response_body,
    ResponseTrailers: _response_trailers,
}
KINDS = tuple(_MAKERS)
