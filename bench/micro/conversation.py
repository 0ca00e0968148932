"""One whole ext_proc conversation without sockets: protobuf in, decision, protobuf out, response accounted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from picker.accounting.decisions import DecisionLog
from picker.config import default_source
from picker.datalayer.datastore import Datastore
from picker.director import Director, Pool
from picker.endpoint import Endpoint, EndpointMetrics
from picker.exchange import Ledger
from picker.extproc.codec import decode, encode
from picker.extproc.conversation import Conversation
from picker.extproc.pb import ext_proc_pb2 as pb
from picker.loader import load
from picker.metrics import Metrics

_REQUEST_HEADERS = {
    ":authority": "gateway.example.com", ":path": "/v1/chat/completions", ":method": "POST", ":scheme": "https",
    "accept": "application/json", "content-type": "application/json", "user-agent": "OpenAI/Python 3.54.0",
    "authorization": "Bearer " + "x" * 40,
    "x-stainless-lang": "python", "x-stainless-package-version": "3.54.0", "accept-encoding": "gzip, deflate",
    "x-forwarded-proto": "https", "x-request-id": "0d7a3a3e-6a2a-4a57-9a0e-5f6b7a0f1c11",
}  # fmt: skip
_RESPONSE_HEADERS = {":status": "200", "content-type": "application/json", "server": "uvicorn", "content-length": "300"}
_SSE_HEADERS = {":status": "200", "content-type": "text/event-stream; charset=utf-8", "server": "uvicorn"}


def benches() -> list[tuple[str, Callable[[], object]]]:
    """Ten endpoints, default configuration, accounting on."""
    answer = json.dumps(
        {"model": "m", "choices": [], "usage": {"prompt_tokens": 500, "completion_tokens": 20, "total_tokens": 520}}
    ).encode()
    choice = {"index": 0, "delta": {"content": " word"}, "logprobs": None, "finish_reason": None, "token_ids": None}
    event = _event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})
    usage = {"prompt_tokens": 500, "completion_tokens": 100, "total_tokens": 600}
    last = _event({"id": "chatcmpl-1", "choices": [], "usage": usage}) + b"data: [DONE]\n\n"
    found: list[tuple[str, Callable[[], object]]] = []
    for name, size in (("2 KB", 2_000), ("20 KB", 20_000), ("200 KB", 200_000)):
        request = _request(size)
        plain = [*request, _headers("response_headers", _RESPONSE_HEADERS), _body("response_body", answer, True)]
        found.append((f"conversation: {name} request, JSON answer", _converse(plain)))
    stream = [*_request(2_000), _headers("response_headers", _SSE_HEADERS), *[_body("response_body", event, False)] * 100]
    stream += [_body("response_body", last, False), _body("response_body", b"", True)]
    found.append(("conversation: 2 KB request, 100 SSE events", _converse(stream)))
    return found


def _event(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _converse(messages: list[bytes]) -> Callable[[], object]:
    metrics = Metrics()
    datastore = Datastore()
    pipeline = load(default_source(), metrics)
    endpoints = [Endpoint(f"pod-{i}", f"10.0.0.{i + 1}", 8000) for i in range(10)]
    datastore.set_endpoints("bench", endpoints)
    for i, endpoint in enumerate(endpoints):
        datastore.report(endpoint, EndpointMetrics(i % 3, i, i / 10, 16, 20_000, updated_s=0.0))

    def place(host_port: str) -> None:
        return None

    director = Director(
        pipeline.stages,
        Pool(datastore.snapshot, datastore.match_subset),
        Ledger(metrics, place, time.monotonic),
        DecisionLog(),
    )

    def run() -> None:
        conversation = Conversation(director, max_body_bytes=64 << 20, use_subset=True, now_s=0.0)
        for message in messages:
            for reply in conversation.receive(decode(message)):
                encode(reply)
        conversation.end()

    return run


def _request(size: int) -> list[bytes]:
    turn = "Explain what an inference gateway does, in words that a new colleague understands. "
    turns = [{"role": "user" if i % 2 == 0 else "assistant", "content": turn * 6} for i in range(max(1, size // 560))]
    body = json.dumps({"model": "m", "stream": False, "max_tokens": 100, "temperature": 0.7, "messages": turns}).encode()
    pieces = [body[i : i + 65_536] for i in range(0, len(body), 65_536)]
    return [
        _headers("request_headers", _REQUEST_HEADERS),
        *[_body("request_body", piece, i == len(pieces) - 1) for i, piece in enumerate(pieces)],
    ]


def _headers(kind: str, headers: dict[str, str]) -> bytes:
    message = pb.ProcessingRequest()
    for name, value in headers.items():
        getattr(message, kind).headers.headers.add(key=name, raw_value=value.encode())
    return message.SerializeToString()


def _body(kind: str, body: bytes, end: bool) -> bytes:
    message = pb.ProcessingRequest()
    getattr(message, kind).body = body
    getattr(message, kind).end_of_stream = end
    return message.SerializeToString()
