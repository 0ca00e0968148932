"""A request as the decision core sees it: what the parser read from the body, and what the director added.

`ParsedBody` is written by a parser, `InferenceRequest` by the director; both are read-only from then on, except for the
`attributes` in which plugins leave data for each other. Both attributes and prompt are gone once the endpoint is chosen and the pre-request
hooks have run. They are structs because those are made in a fifth of a dataclass's time.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from picker.prompt import NO_PROMPT, Prompt


class UsageFormat(enum.Enum):
    """How token usage is written in the response."""

    NONE = "none"
    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"


class ParsedBody(msgspec.Struct, frozen=True):
    """What was decoded of a request body.

    `model` is None when the body has none (or one that is not a string); `max_output_tokens` is None when not limited by the
    client. `model_required` is False for pass-through APIs. `skip_response` asks that the response is not looked at.
    """

    model: str | None = None
    prompt: Prompt = NO_PROMPT
    stream: bool = False
    include_usage: bool = False
    max_output_tokens: int | None = None
    cache_salt: str = ""
    usage_format: UsageFormat = UsageFormat.NONE
    model_required: bool = True
    model_rewritable: bool = True
    skip_response: bool = False


class InferenceRequest(msgspec.Struct):
    """One request on its way through admission and scheduling.

    `headers` are lower-cased. `target_model` differs from `model` when a rewrite applies. `received_s` is monotonic seconds.
    """

    request_id: str
    path: str
    headers: Mapping[str, str]
    body: ParsedBody
    model: str
    target_model: str
    objective: str = ""
    priority: int = 0
    fairness_id: str = "default-flow"
    size_bytes: int = 0
    received_s: float = 0.0
    attributes: dict[str, object] = msgspec.field(default_factory=dict)

    @property
    def prompt_tokens(self) -> int:
        """Estimated prompt tokens (`picker.prompt`)."""
        return self.body.prompt.tokens
