"""Refusals, in the two shapes clients know: OpenAI's as vLLM writes it, and Anthropic's."""

from __future__ import annotations

import msgspec

ANTHROPIC_TYPES = {404: "not_found_error", 400: "invalid_request_error", 413: "request_too_large"}


class ApiError(Exception):
    """A request that gets an error answer: HTTP status, text, vLLM's name for the kind of error, parameter at fault."""

    def __init__(self, status: int, message: str, *, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind
        self.param = param

    def openai_body(self) -> bytes:
        """`{"error": {"message", "type", "param", "code"}}`."""
        return msgspec.json.encode({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}})

    def anthropic_body(self) -> bytes:
        """`{"type": "error", "error": {"type", "message"}}`."""
        kind = ANTHROPIC_TYPES.get(self.status, "api_error")
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": self.message}})


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


def unknown_model(name: str, known: list[str]) -> ApiError:
    """404 for a model or adapter this server does not have."""
    return ApiError(404, f"The model `{name}` does not exist. Valid aliases: {', '.join(known)}.", kind="NotFoundError", param="model")


def prompt_too_long(length: int, limit: int) -> ApiError:
    """400 for a prompt that leaves no room in the context."""
    return ApiError(
        400,
        f"This model's maximum context length is {limit} tokens. However, your prompt contains {length} input tokens, which leaves no "
        f"room for output. Please reduce the length of the input prompt. (parameter=input_tokens, value={length})",
        param="input_tokens",
    )


def output_too_long(length: int, wanted: int, limit: int, param: str) -> ApiError:
    """400 for more output than the context has room for."""
    return ApiError(
        400,
        f"'{param}' is too large: {wanted}. This model's maximum context length is {limit} tokens and your request has {length} input "
        f"tokens ({wanted} > {limit} - {length}). (parameter={param}, value={wanted})",
        param=param,
    )
