"""Parsing of request bodies: chat at three sizes, a token-id prompt, and the explanation of an invalid body."""

from __future__ import annotations

import json
from collections.abc import Callable

from picker.config import default_source
from picker.errors import BadRequest
from picker.grpc_frames import framed
from picker.loader import load
from picker.metrics import Metrics
from picker.parsing.rewrite import rewrite_model
from picker.parsing.vllm_grpc import GENERATE, VllmGrpcParser
from picker.plugin import NoParameters

_TURN = "The quick brown fox jumps over the lazy dog and looks for something else to jump over. "
_HEADERS = {":path": "/v1/chat/completions", "content-type": "application/json"}


def chat_body(size: int, turn_chars: int = 400) -> bytes:
    """A chat request of about `size` bytes with many turns."""
    text = (_TURN * (turn_chars // len(_TURN) + 1))[:turn_chars]
    turn = {"role": "user", "content": text}
    count = max(size // (turn_chars + 40), 1)
    fields = {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "messages": [turn] * count,
        "temperature": 0.7,
        "max_tokens": 256,
        "stream": True,
    }
    return json.dumps(
        {**fields, "stream_options": {"include_usage": True}, "tools": [{"type": "function", "function": {"name": "f"}}]}
    ).encode()


def generate_call(count: int) -> bytes:
    """The body of a Generate call with that many token ids of two bytes each."""
    tokenized = _field(2, b"".join(bytes((0x80 | number & 0x7F, number >> 7)) for number in range(1000, 1000 + count)))
    return framed(_field(2, tokenized))


def _field(number: int, data: bytes) -> bytes:
    size = len(data)
    return bytes((number << 3 | 2, 0x80 | size & 0x7F, 0x80 | size >> 7 & 0x7F, size >> 14)) + data


def benches() -> list[tuple[str, Callable[[], object]]]:
    """Named callables to time."""
    parsers = load(default_source(), Metrics()).stages.parsers

    def parse(path: str, body: bytes) -> Callable[[], object]:
        def run() -> object:
            parser = parsers.find(path)
            assert parser is not None
            return parser.parse(path, _HEADERS, body)

        return run

    def refused() -> object:
        try:
            return parse("/v1/chat/completions", chat_body_2k[:-1])()
        except BadRequest as error:
            return error

    chat_body_2k = chat_body(2_000)
    ids = json.dumps({"model": "m", "prompt": list(range(1000, 5000))}).encode()
    generate_body = generate_call(4000)
    call = VllmGrpcParser("vllmgrpc-parser", NoParameters(), None)  # type: ignore[arg-type]
    return [
        ("parse gRPC 4000 token ids", lambda: call.parse(f"/{GENERATE}", _HEADERS, generate_body)),
        ("parse chat 2 KB", parse("/v1/chat/completions", chat_body_2k)),
        ("parse chat 20 KB", parse("/v1/chat/completions", chat_body(20_000))),
        ("parse chat 200 KB", parse("/v1/chat/completions", chat_body(200_000))),
        ("parse 4000 token ids", parse("/v1/completions", ids)),
        ("rewrite model 2 KB", lambda: rewrite_model(chat_body_2k, "another-model")),
        ("refuse truncated chat 2 KB", refused),
    ]
