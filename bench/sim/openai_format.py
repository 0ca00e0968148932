"""Answers of /v1/chat/completions and /v1/completions, as vLLM 0.32 writes them."""

from __future__ import annotations

from typing import Any

import msgspec

from bench.sim.bodies import StreamOptions
from bench.sim.generation import Choice, Generation

FINGERPRINT = "fairlead-sim"
DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.encode


def event(value: Any) -> bytes:
    """One server-sent event without a name."""
    return b"data: " + _encode(value) + b"\n\n"


def template(value: dict[str, Any], hole: str) -> tuple[bytes, bytes]:
    """An event split at the string `hole`, so that a chunk costs two joins and not an encoding."""
    before, after = event(value).split(_encode(hole))
    return before, after


def usage(generation: Generation, *, details: bool) -> dict[str, Any]:
    """Prompt, total and completion tokens; with `details`, the cached ones among the prompt's."""
    prompt, output = generation.prompt_tokens, generation.output_tokens
    counts: dict[str, Any] = {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}
    if details:
        counts["prompt_tokens_details"] = {"cached_tokens": generation.cached_tokens}
    return counts


class OpenAiFormat:
    """What chat and text completions share: usage in the last chunk or in all of them, and the end of the stream."""

    # Set by the two formats below: the name of the chunk object, and the field of a choice around the text.
    chunk_object: str

    def __init__(self, generation: Generation, answer_id: str, options: StreamOptions | None, *, details: bool) -> None:
        self._generation = generation
        self._details = details
        self._last_usage = bool(options and options.include_usage)
        self._every_usage = self._last_usage and bool(options and options.continuous_usage_stats)
        self._head = {"id": answer_id, "object": self.chunk_object, "created": generation.created, "model": generation.model}
        self._templates = [template(self._chunk([self.choice_of(index)]), "\0") for index in range(len(generation.choices))]
        self._fingerprinted = False

    def choice_of(self, index: int) -> dict[str, Any]:
        """The choice of a chunk, with the text left open as the string NUL."""
        raise NotImplementedError

    def last_choice_of(self, choice: Choice, text: str) -> dict[str, Any]:
        """The choice of the chunk that ends an answer."""
        raise NotImplementedError

    def delta(self, choice: Choice, text: str) -> bytes:
        """The chunk for new text of one choice."""
        if choice.finished is not None:
            last = self._chunk([self.last_choice_of(choice, text)])
            if not self._last_usage and self._generation.finished and not self._fingerprinted:
                self._fingerprinted = True
                last["system_fingerprint"] = FINGERPRINT
            return event(self._with_usage(last, choice))
        before, after = self._templates[choice.index]
        chunk = before + _encode(text) + after
        if not self._every_usage:
            return chunk
        return chunk[: -len(b"}\n\n")] + b',"usage":' + _encode(self._running_usage(choice)) + b"}\n\n"

    def closing(self) -> bytes:
        """The usage chunk if it was asked for, and the end mark."""
        if not self._last_usage:
            return DONE
        last = {**self._chunk([]), "usage": usage(self._generation, details=self._details), "system_fingerprint": FINGERPRINT}
        return event(last) + DONE

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "choices": choices}

    def _with_usage(self, chunk: dict[str, Any], choice: Choice) -> dict[str, Any]:
        return {**chunk, "usage": self._running_usage(choice)} if self._every_usage else chunk

    def _running_usage(self, choice: Choice) -> dict[str, Any]:
        prompt, output = choice.sequence.prompt_length, choice.sequence.produced
        return {
            "prompt_tokens": prompt,
            "total_tokens": prompt + output,
            "completion_tokens": output,
            "completion_tokens_details": None,
        }

    def _whole(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        counts = {**usage(self._generation, details=self._details), "completion_tokens_details": None}
        counts.setdefault("prompt_tokens_details", None)
        return {
            **self._head,
            "object": kind,
            "choices": choices,
            "service_tier": None,
            "system_fingerprint": FINGERPRINT,
            "usage": counts,
            "kv_transfer_params": None,
        }


class ChatFormat(OpenAiFormat):
    """/v1/chat/completions."""

    chunk_object = "chat.completion.chunk"

    def opening(self) -> bytes:
        """A chunk with the role for each choice, before any text."""
        chunks = []
        for choice in self._generation.choices:
            delta = {"role": "assistant", "content": ""}
            role = self._chunk([{"index": choice.index, "delta": delta, "logprobs": None, "finish_reason": None}])
            if self._every_usage:
                prompt = choice.sequence.prompt_length
                counts = {"prompt_tokens": prompt, "total_tokens": prompt, "completion_tokens": 0, "completion_tokens_details": None}
                role["usage"] = counts
            chunks.append(event({**role, "prompt_token_ids": None, "prompt_text": None}))
        return b"".join(chunks)

    def choice_of(self, index: int) -> dict[str, Any]:
        """See OpenAiFormat."""
        return {"index": index, "delta": {"content": "\0"}, "logprobs": None, "finish_reason": None, "token_ids": None}

    def last_choice_of(self, choice: Choice, text: str) -> dict[str, Any]:
        """See OpenAiFormat."""
        return {
            "index": choice.index,
            "delta": {"content": text},
            "logprobs": None,
            "finish_reason": choice.finished,
            "stop_reason": choice.stop_text,
            "token_ids": None,
        }

    def whole(self) -> dict[str, Any]:
        """The answer when it is not streamed."""
        choices = []
        for choice in self._generation.choices:
            message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None, "annotations": None, "audio": None}
            message |= {"function_call": None, "tool_calls": [], "reasoning": None}
            choices.append(
                {
                    "index": choice.index,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": choice.finished,
                    "stop_reason": choice.stop_text,
                    "token_ids": None,
                }
            )
        return self._whole("chat.completion", choices)


class CompletionFormat(OpenAiFormat):
    """/v1/completions."""

    chunk_object = "text_completion"

    def opening(self) -> bytes:
        """Nothing comes before the text."""
        return b""

    def choice_of(self, index: int) -> dict[str, Any]:
        """See OpenAiFormat."""
        choice = {"index": index, "text": "\0", "logprobs": None, "finish_reason": None, "stop_reason": None}
        return {**choice, "prompt_token_ids": None, "token_ids": None}

    def last_choice_of(self, choice: Choice, text: str) -> dict[str, Any]:
        """See OpenAiFormat."""
        return {**self.choice_of(choice.index), "text": text, "finish_reason": choice.finished, "stop_reason": choice.stop_text}

    def whole(self) -> dict[str, Any]:
        """The answer when it is not streamed."""
        choices = [self.last_choice_of(choice, choice.text) for choice in self._generation.choices]
        return self._whole("text_completion", choices)
