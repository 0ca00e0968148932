"""Answers of /v1/messages, in Anthropic's event sequence as vLLM 0.32 writes it."""

from __future__ import annotations

from typing import Any

import msgspec

from bench.sim.generation import Choice, Generation

_encode = msgspec.json.encode


def named_event(value: dict[str, Any]) -> bytes:
    """One server-sent event, named by the `type` it carries."""
    kind: str = value["type"]
    return b"event: " + kind.encode() + b"\ndata: " + _encode(value) + b"\n\n"


class MessagesFormat:
    """One message with one text block."""

    def __init__(self, generation: Generation, answer_id: str) -> None:
        self._generation = generation
        self._choice = generation.choices[0]
        self._id = answer_id
        hole = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "\0"}, "index": 0}
        self._before, self._after = named_event(hole).split(_encode("\0"))

    def opening(self) -> bytes:
        """message_start and content_block_start."""
        start = {"type": "message_start", "message": self._message([], 0)}
        block = {"type": "content_block_start", "content_block": {"type": "text", "text": ""}, "index": 0}
        return named_event(start) + named_event(block)

    def delta(self, choice: Choice, text: str) -> bytes:
        """content_block_delta."""
        return self._before + _encode(text) + self._after

    def closing(self) -> bytes:
        """content_block_stop, message_delta with the usage, message_stop."""
        delta = {"type": "message_delta", "delta": self._stop(), "usage": self._usage(self._generation.output_tokens)}
        ends: tuple[dict[str, Any], ...] = ({"type": "content_block_stop", "index": 0}, delta, {"type": "message_stop"})
        return b"".join(map(named_event, ends))

    def whole(self) -> dict[str, Any]:
        """The answer when it is not streamed."""
        content = [{"type": "text", "text": self._choice.text}]
        return self._message(content, self._generation.output_tokens) | self._stop()

    def _message(self, content: list[dict[str, str]], output_tokens: int) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self._generation.model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage(output_tokens),
        }

    def _stop(self) -> dict[str, str | None]:
        if self._choice.finished == "length":
            return {"stop_reason": "max_tokens", "stop_sequence": None}
        stop = self._choice.stop_text
        return {"stop_reason": "stop_sequence" if stop else "end_turn", "stop_sequence": stop}

    def _usage(self, output_tokens: int) -> dict[str, int]:
        return {"input_tokens": self._generation.prompt_tokens, "output_tokens": output_tokens}
