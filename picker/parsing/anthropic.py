"""anthropic-parser: the Messages API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from picker.errors import BadRequest
from picker.parsing.content import Canvas, Content, Message
from picker.parsing.fields import ABSENT, Common, decode, token_limit
from picker.parsing.openai import named_model
from picker.parsing.paths import SuffixTable
from picker.plugin import Handle, NoParameters
from picker.request import ParsedBody, UsageFormat

MESSAGES, COUNT_TOKENS = "messages", "messages/count_tokens"
NO_MESSAGES = "invalid messages request: must have at least one message"


class _Messages(Common, gc=False):
    messages: list[Message] | None = None
    system: Content = None
    max_tokens: Any = None
    tools: msgspec.Raw = ABSENT


_MESSAGES = msgspec.json.Decoder(_Messages)


class AnthropicParser:
    """`messages` in full; `messages/count_tokens` is passed on, and its response is nobody's business here."""

    type = "anthropic-parser"
    Parameters = NoParameters
    protocols: Sequence[str] = ("http",)
    paths: Sequence[str] = (MESSAGES, COUNT_TOKENS)

    def __init__(self, name: str, parameters: NoParameters, handle: Handle) -> None:
        self.name = name
        self._paths = SuffixTable((path, path) for path in self.paths)

    def parse(self, path: str, headers: Mapping[str, str], body: bytes) -> ParsedBody:
        """What the body asks for. Raises `BadRequest`."""
        api = self._paths.find(path)
        if api == COUNT_TOKENS:
            model = named_model(body)
            return ParsedBody(model=model, model_required=False, model_rewritable=model is not None, skip_response=True)
        if api is None:
            raise BadRequest(f"unsupported path for {self.type}: {path[:200]}")
        return _read(headers, body)


def _read(headers: Mapping[str, str], body: bytes) -> ParsedBody:
    request = decode(_MESSAGES, body, "messages", "messages", NO_MESSAGES)
    if not request.messages:
        raise BadRequest(NO_MESSAGES)
    canvas = Canvas(headers)
    canvas.content(request.system)
    canvas.messages(request.messages)
    limit = token_limit(request.max_tokens, "messages", "max_tokens")
    return request.parsed(canvas.prompt(request.tools), UsageFormat.ANTHROPIC, limit)
