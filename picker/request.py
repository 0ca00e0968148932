"""A request as the decision core sees it: what the parser read from the body, and what the director added.

`ParsedBody` is written by a parser, `InferenceRequest` by the director; both are read-only from then on, except for what plugins leave
there for each other; a tokenizer's plugin replaces the prompt. They are structs because those are made in a fifth of a dataclass's time.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from picker.keys import CONTROL
from picker.prompt import NO_PROMPT, Prompt


class UsageFormat(enum.Enum):
    """How token usage is written in the response."""

    NONE = "none"
    OPENAI = "openai"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"
    SGLANG = "sglang"
    VLLM_GENERATE = "vllm.grpc.engine.GenerateResponse"
    VLLM_EMBED = "vllm.grpc.engine.EmbedResponse"


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


class Charge(NamedTuple):
    """What a request weighs on the picked endpoint, by one inflight-load-producer. `cached_tokens` of the prompt are not in `tokens`; on
    another endpoint they would be."""

    producer_name: str
    tokens: int
    cached_tokens: int


class InferenceRequest(msgspec.Struct):
    """One request on its way through admission and scheduling.

    `headers` are lower-cased. `target_model` differs from `model` when a rewrite applies. `received_s` is monotonic seconds.

    Plugins leave data for each other in `attributes`, which live as long as the request, and in `working`, which is gone (like the
    prompt) once the endpoint is chosen and the pre-request hooks have run: what is larger than a few words belongs there.
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
    working: dict[str, object] = msgspec.field(default_factory=dict)
    charges: list[Charge] | None = None
    """Of the inflight-load-producers, in their order: scorers see the first. None: all of the prompt is counted."""
    payload: bytes = b""
    """The body as it came, for producers that ask somebody else about it; gone once they have."""
    more_headers: dict[str, str] | None = None
    """For the model server, set by plugins (`set_header`)."""
    destination: str = ""
    """The one `host:port` that the proxy is told in place of the picked endpoints' own, set by plugins until pre-request hooks have run,
    where another server stands before them. The request still counts on the picked endpoint."""
    metadata: dict[str, dict[str, object]] | None = None
    """Dynamic metadata for the proxy by namespace, set by plugins (`set_metadata`)."""

    def set_header(self, name: str, value: str) -> None:
        """Send this header (lower-case name) to the model server, in place of the client's. Heard until pre-request hooks have run.
        Raises ValueError when it is not fit for a header line."""
        check_header(name, value)
        if self.more_headers is None:
            self.more_headers = {}
        self.more_headers[name] = value

    def set_metadata(self, namespace: str, key: str, value: object) -> None:
        """Tell the proxy, as dynamic metadata: text, a number, or a mapping of them. Heard until pre-request hooks have run.
        Raises ValueError for anything else."""
        check_metadata(value)
        if self.metadata is None:
            self.metadata = {}
        self.metadata.setdefault(namespace, {})[key] = value

    @property
    def prompt_tokens(self) -> int:
        """Estimated prompt tokens (`picker.prompt`)."""
        return self.body.prompt.tokens


def check_header(name: object, value: object) -> None:
    """Raises ValueError unless these can go into a header line as they are, and the header is not the picker's own: a second
    `x-gateway-destination-endpoint` would decide where the request goes."""
    if not (isinstance(name, str) and name and name == name.lower() and name.isascii() and name.isprintable() and " " not in name):
        raise ValueError(f"header name {name!r:.80}: expected lower-case ASCII")
    if name in CONTROL or name == "content-length":
        raise ValueError(f"header {name}: it is the picker's own")
    if not isinstance(value, str) or any(c in value for c in "\r\n\0"):
        raise ValueError(f"header {name}: {value!r:.80}: expected a text of one line")
    value.encode()  # a lone surrogate: UnicodeEncodeError is a ValueError


def check_metadata(value: object, depth: int = 0) -> None:
    """Raises ValueError for what a protobuf Struct cannot hold: all but None, text, numbers, lists, and mappings by text."""
    if depth > _DEEPEST:
        raise ValueError("metadata that is nested too deep")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"metadata key {key!r:.80}: expected a text")
            check_metadata(inner, depth + 1)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_metadata(inner, depth + 1)
    elif isinstance(value, str):
        value.encode()
    elif value is not None and not isinstance(value, int | float):
        raise ValueError(f"metadata {value!r:.80}: expected text, a number, or a mapping or list of them")


_DEEPEST = 16
