"""Request bodies: the fields the simulator reads, typed; all other fields are let through unread."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from bench.sim.errors import ApiError

Parts = str | list[str | dict[str, Any]] | None


class Message(msgspec.Struct):
    """One chat message; `content` is text or a list of parts."""

    role: str
    content: Parts = None


class StreamOptions(msgspec.Struct):
    """OpenAI's stream_options, with vLLM's continuous_usage_stats."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class Sampling(msgspec.Struct, kw_only=True):
    """What all generating bodies share."""

    model: str | None = None
    stream: bool | None = False
    seed: int | None = None
    ignore_eos: bool | None = False
    min_tokens: int | None = None
    cache_salt: str | None = None


class ChatBody(Sampling, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = 1
    stop: str | list[str] | None = None
    stream_options: StreamOptions | None = None


class CompletionBody(Sampling, kw_only=True):
    """POST /v1/completions; `prompt` is a text, token ids, or a list of either."""

    prompt: str | list[str | int | list[int]]
    max_tokens: int | None = None
    n: int | None = 1
    stop: str | list[str] | None = None
    stream_options: StreamOptions | None = None


class MessagesBody(Sampling, kw_only=True):
    """POST /v1/messages (Anthropic)."""

    messages: list[Message]
    max_tokens: int
    system: Parts = None
    stop_sequences: list[str] | None = None


class CountTokensBody(msgspec.Struct):
    """POST /v1/messages/count_tokens (Anthropic)."""

    messages: list[Message]
    model: str | None = None
    system: Parts = None


class ResponsesBody(Sampling, kw_only=True):
    """POST /v1/responses; items of `input` without a role (tool calls, reasoning) are left out."""

    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None


class EmbeddingsBody(msgspec.Struct):
    """POST /v1/embeddings; `input` takes the forms of a completion's prompt."""

    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: str | None = "float"
    dimensions: int | None = None


class RerankBody(msgspec.Struct):
    """POST /v1/rerank."""

    query: str
    documents: list[str | dict[str, Any]]
    model: str | None = None
    top_n: int | None = None


class ScoreBody(msgspec.Struct):
    """POST /v1/score: one text against each of the others, or pairwise."""

    text_1: str | list[str]
    text_2: str | list[str]
    model: str | None = None


class TokenizeBody(msgspec.Struct):
    """POST /tokenize: a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    return_token_strs: bool | None = False


class LoadAdapterBody(msgspec.Struct):
    """POST /v1/load_lora_adapter."""

    lora_name: str
    lora_path: str


class UnloadAdapterBody(msgspec.Struct):
    """POST /v1/unload_lora_adapter."""

    lora_name: str


Body = TypeVar("Body", bound=msgspec.Struct)
_PATH = re.compile(r" - at `\$\.?(.*)`$")
_FIELD = re.compile(r"required field `(.*?)`")


def decode(raw: bytes, kind: type[Body]) -> Body:
    """The body as `kind`; ApiError 400 naming the field if it is not one."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as wrong:
        text = str(wrong)
        where, missing = _PATH.search(text), _FIELD.search(text)
        inside = where.group(1) if where else ""
        field = ".".join(part for part in (inside, missing.group(1) if missing else "") if part)
        raise ApiError(400, f"1 validation error: {text}", kind="Bad Request", param=field or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise ApiError(400, f"1 validation error: JSON decode error: {wrong}", kind="Bad Request", param="body") from None
