"""Reading of streamed responses, per chunk: the price of every token that passes."""

from __future__ import annotations

from collections.abc import Callable

from picker.accounting.grpc_usage import VllmUsageReader
from picker.accounting.restore import ModelRestorer
from picker.accounting.sse import SseUsageReader
from picker.grpc_frames import framed
from picker.request import UsageFormat

_HEAD = b'data: {"id":"chatcmpl-req-abc","object":"chat.completion.chunk","created":1795409938,"model":"sql-lora",'
TOKEN = _HEAD + b'"choices":[{"index":0,"delta":{"content":" arcname"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
USAGE = _HEAD + b'"choices":[],"usage":{"prompt_tokens":11,"total_tokens":15,"completion_tokens":4},"system_fingerprint":"vllm"}\n\n'
DELTA = (
    b'event: response.output_text.delta\ndata: {"content_index":0,"delta":"tries","item_id":"msg_83138aed3cbf0ddc","logprobs":[],'
    b'"output_index":0,"sequence_number":4,"type":"response.output_text.delta"}\n\n'
)

# GenerateResponse.chunk: one token id of three bytes, 11 prompt tokens, 1 new token.
_CALL_TOKEN = framed(b"\x0a\x09\x0a\x03\xf0\xa2\x04\x10\x0b\x18\x01")


def benches() -> list[tuple[str, Callable[[], object]]]:
    """Named callables to time; each feeds one chunk (the split one: two) to a reader that has been running for a while."""

    def feed(format: UsageFormat, *chunks: bytes) -> Callable[[], object]:
        reader = SseUsageReader(format)

        def run() -> None:
            for chunk in chunks:
                reader.feed(chunk)

        return run

    def feed_call(*chunks: bytes) -> Callable[[], object]:
        reader = VllmUsageReader(UsageFormat.VLLM_GENERATE)

        def run() -> None:
            for chunk in chunks:
                reader.feed(chunk)

        return run

    other, target = ModelRestorer("another-model", "mine"), ModelRestorer("sql-lora", "mine")
    return [
        ("sse one event", feed(UsageFormat.OPENAI, TOKEN)),
        ("sse one event of the Responses API", feed(UsageFormat.RESPONSES, DELTA)),
        ("sse usage event", feed(UsageFormat.OPENAI, USAGE)),
        ("sse one event in two chunks", feed(UsageFormat.OPENAI, TOKEN[:120], TOKEN[120:])),
        ("sse 100 events in one chunk", feed(UsageFormat.OPENAI, TOKEN * 100)),
        ("grpc one message", feed_call(_CALL_TOKEN)),
        ("grpc one message in two chunks", feed_call(_CALL_TOKEN[:9], _CALL_TOKEN[9:])),
        ("restore model, found", lambda: target.feed(TOKEN)),
        ("restore model, not found", lambda: other.feed(TOKEN)),
    ]
