"""Bytes that are made once: request bodies, and the answers of the model servers."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

MODEL = "demo-model"
PATH = "/v1/chat/completions"

_WORDS = ("the", "model", "answers", "every", "question", "about", "tokens", "queues", "and", "caches", "with", "some", "patience", "today")
_TURNS = 8
_TURN_CHARS = 100
_HEAD = (
    '{"id":"chatcmpl-5f1c9d7e","object":"%s","created":1795409938,"model":"' + MODEL + '","choices":[{"index":0,%s,'
    '"logprobs":null,"finish_reason":%s}]%s}'
)
_USAGE = '"usage":{"prompt_tokens":200,"total_tokens":300,"completion_tokens":100,"prompt_tokens_details":null}'
_TOOL = {
    "type": "function",
    "function": {
        "name": "search",
        "description": "Look something up in the documents of the company and answer with the best passages, newest first.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "What to look for, in the words of the person who asks."},
                "limit": {"type": "integer", "description": "How many passages to answer with, at most.", "default": 5},
                "language": {"type": "string", "description": "Two letters.", "enum": ["en", "de", "fr", "es", "it", "ja"]},
            },
            "required": ["query"],
        },
    },
}


def _text(dice: random.Random, chars: int) -> str:
    return " ".join(dice.choices(_WORDS, k=chars // 4))[:chars]


def chat_bodies(size_bytes: int, count: int, *, stream: bool) -> list[bytes]:
    """`count` chat requests of about `size_bytes` each.

    Small ones are turns of 800 characters (200 tokens) in all and a tool; large ones are one prompt, whose first half they share.
    """
    dice = random.Random(1)
    if size_bytes <= 8_000:
        return [_body([_text(dice, _TURN_CHARS) for _ in range(_TURNS)], size_bytes, stream) for _ in range(count)]
    shared = _text(dice, size_bytes // 2)
    return [_body([shared + " " + _text(dice, size_bytes // 2)], size_bytes, stream) for _ in range(count)]


def _body(turns: Sequence[str], size_bytes: int, stream: bool) -> bytes:
    roles = ("user", "assistant")
    fields: dict[str, object] = {
        "model": MODEL,
        "messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)],
        "tools": [_TOOL],
        "temperature": 0.7,
        "max_tokens": 100,
    }
    if stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    fields["user"] = ""
    fields["user"] = "u" * max(0, min(400, size_bytes - len(json.dumps(fields))))
    return json.dumps(fields).encode()


def http_request(authority: str, body: bytes) -> bytes:
    """A whole HTTP/1.1 request."""
    return (
        f"POST {PATH} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: bench\r\naccept: */*\r\nauthorization: Bearer {'x' * 40}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def json_answer() -> bytes:
    """The HTTP response of about 100 tokens."""
    message = json.dumps({"role": "assistant", "content": _text(random.Random(2), 400), "tool_calls": []})
    body = (_HEAD % ("chat.completion", f'"message":{message}', '"stop"', "," + _USAGE)).encode()
    return b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


SSE_HEAD = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


def sse_chunks(events: int) -> list[bytes]:
    """The chunks of a stream of `events` events (at least 3), usage and `[DONE]` among them, the end of the body with the last one.

    No event has a line break but the two that end it, so that events can be counted by line breaks however they are cut.
    """
    delta = _HEAD % ("chat.completion.chunk", '"delta":{"content":" patience"}', "null", "")
    last = _HEAD % ("chat.completion.chunk", '"delta":{"content":""}', '"stop"', "")
    usage = f'{{"id":"chatcmpl-5f1c9d7e","object":"chat.completion.chunk","created":1795409938,"model":"{MODEL}","choices":[],{_USAGE}}}'
    texts = [*[delta] * (events - 3), last, usage, "[DONE]"]
    chunks = [b"%x\r\n%s\r\n" % (len(data), data) for data in (f"data: {text}\n\n".encode() for text in texts)]
    chunks[-1] += b"0\r\n\r\n"
    return chunks
