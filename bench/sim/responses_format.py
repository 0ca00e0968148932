"""Answers of /v1/responses: OpenAI's numbered event sequence as vLLM 0.32 writes it."""

from __future__ import annotations

from typing import Any

import msgspec

from bench.sim.anthropic_format import named_event
from bench.sim.bodies import ResponsesBody
from bench.sim.generation import Choice, Generation, random_id

_encode = msgspec.json.encode


class ResponsesFormat:
    """One response with one message of one text part."""

    def __init__(self, generation: Generation, body: ResponsesBody, *, details: bool) -> None:
        self._generation = generation
        self._choice = generation.choices[0]
        self._body = body
        self._details = details
        self._id = f"resp_{random_id()}"
        self._item_id = f"msg_{random_id()}"
        self._number = 0

    def opening(self) -> bytes:
        """response.created, response.in_progress, and an empty message with an empty text part."""
        part = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
        return (
            self._event("response.created", response=self._response("in_progress"))
            + self._event("response.in_progress", response=self._response("in_progress"))
            + self._event("response.output_item.added", item=self._item("in_progress", []), output_index=0)
            + self._event("response.content_part.added", **self._place(), part=part)
        )

    def delta(self, choice: Choice, text: str) -> bytes:
        """response.output_text.delta."""
        return self._event("response.output_text.delta", **self._place(), delta=text, logprobs=[])

    def closing(self) -> bytes:
        """The whole text once more, part by part, and the whole response with its usage."""
        return (
            self._event("response.output_text.done", **self._place(), logprobs=[], text=self._choice.text)
            + self._event("response.content_part.done", **self._place(), part=self._part())
            + self._event("response.output_item.done", item=self._item("completed", [self._part()]), output_index=0)
            + self._event("response.completed", response=self.whole())
        )

    def whole(self) -> dict[str, Any]:
        """The response when it has ended; one that ran into max_output_tokens is incomplete."""
        cut = self._choice.finished == "length"
        response = self._response("incomplete" if cut else "completed")
        if cut:
            response["incomplete_details"] = {"reason": "max_output_tokens"}
        response["output"] = [self._item("completed", [self._part()])]
        prompt, output = self._generation.prompt_tokens, self._generation.output_tokens
        response["usage"] = {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": self._generation.cached_tokens if self._details else 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + output,
        }
        return response

    def _event(self, kind: str, **fields: Any) -> bytes:
        number = self._number
        self._number += 1
        return named_event({**fields, "sequence_number": number, "type": kind})

    def _place(self) -> dict[str, Any]:
        return {"content_index": 0, "item_id": self._item_id, "output_index": 0}

    def _part(self) -> dict[str, Any]:
        return {"annotations": [], "text": self._choice.text, "type": "output_text", "logprobs": None}

    def _item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self._item_id, "content": content, "role": "assistant", "status": status, "type": "message", "phase": None}

    def _response(self, status: str) -> dict[str, Any]:
        return {
            "id": self._id,
            "created_at": self._generation.created,
            "incomplete_details": None,
            "instructions": self._body.instructions,
            "metadata": None,
            "model": self._generation.model,
            "object": "response",
            "output": [],
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0,
            "background": False,
            "max_output_tokens": self._body.max_output_tokens,
            "previous_response_id": None,
            "reasoning": None,
            "service_tier": "auto",
            "status": status,
            "text": None,
            "truncation": "disabled",
            "usage": None,
            "user": None,
        }
